//! Transfers of many clients through two processes, for a minute.

use std::time::{Duration, Instant};

use crate::transfers::back_and_forth;

#[tokio::test]
async fn a_minute_of_transfers_back_and_forth_neither_deadlocks_nor_changes_the_sum() {
    let end = Instant::now() + Duration::from_mins(1);
    let sent = back_and_forth(|_| Instant::now() < end).await;
    println!("measured: {sent} transfers back and forth in a minute");
    assert!(sent > 64, "{sent} transfers in a minute");
}
