//! What tests stand on: the servers, a world of their own, the roles as processes, a client.
#![cfg_attr(
    not(feature = "failpoints"),
    allow(dead_code, unused_imports, reason = "the tests of faults use all of it, the others do not")
)]

mod broker;
mod browser;
mod client;
mod command;
mod document;
mod holder;
pub mod leaks;
mod lossy;
mod obstacle;
mod panels;
mod process;
mod raw;
mod refusal;
mod scrape;
pub mod source;
mod token;
pub mod world;

use std::future::Future;
use std::time::{Duration, Instant};

pub use broker::{Broker, Message};
pub use browser::Browser;
pub use client::{Answer, Client, PASSWORD, User};
pub use command::{Ran, command, on_a_terminal, purse};
pub use document::Document;
pub use holder::Holder;
pub use lossy::LossyLine;
pub use obstacle::Obstacle;
pub use panels::{Panel, draw as draw_panels};
pub use process::RoleProcess;
pub use raw::Raw;
pub use refusal::{assert_dressed, assert_dressed_without_body, assert_invalid, assert_refused};
pub use scrape::{Family, Scrape};
pub use token::{ACCESS_KEY, INTERNAL_KEY, mint, part, seconds_from_now, stranger, token_of};
pub use world::{Outages, World, free_port};

/// Waits until `probe` has something to show, and fails with `what` after `deadline`.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    deadline: Duration,
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    let until = Instant::now() + deadline;
    loop {
        if let Some(shown) = probe().await {
            return shown;
        }
        assert!(Instant::now() < until, "not within {deadline:?}: {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Long enough for a loaded machine; a test that passes never waits this long.
pub const PATIENCE: Duration = Duration::from_mins(1);
