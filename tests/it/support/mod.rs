//! Test support: shared servers, isolated databases and virtual hosts, roles as processes, clients.
#![cfg_attr(
    not(feature = "failpoints"),
    allow(dead_code, unused_imports, reason = "only the fault tests use all of it")
)]

pub mod amqp_proxy;
mod assertions;
mod broker;
mod browser;
mod citus;
mod client;
mod command;
mod document;
mod hand_ledger;
pub mod leaks;
mod lossy_proxy;
pub mod machine;
mod panels;
mod private_postgres;
mod process;
mod raw;
pub mod repository;
mod scrape;
pub mod shards;
pub mod source;
mod token;
mod uncommitted_wallet;
mod walk;
mod wallet_lock;
pub mod world;

use std::future::Future;
use std::time::{Duration, Instant};

pub use amqp_proxy::AmqpProxy;
pub use assertions::{assert_common_headers, assert_error, assert_invalid, assert_json_response};
pub use broker::{Broker, Message};
pub use browser::Browser;
pub use citus::Citus;
pub use client::{Client, PASSWORD, Response, User};
pub use command::{CommandOutput, answer_on_terminal, command, purse, run_on_terminal};
pub use document::Document;
pub use hand_ledger::{HandLedger, HandRow};
pub use lossy_proxy::LossyProxy;
pub use panels::{Line, Panel, render as render_panels};
pub use private_postgres::PrivatePostgres;
pub use process::RoleProcess;
pub use raw::Raw;
pub use scrape::{Family, Scrape};
pub use token::{
    ACCESS_KEY, INTERNAL_KEY, mint, part, path_and_token, seconds_from_now, service_token, token_of, unknown_user_id,
};
pub use uncommitted_wallet::UncommittedWallet;
pub use walk::{ELLIPSIS, WalkStep, blocks, walk_steps};
pub use wallet_lock::WalletLock;
pub use world::{Outages, World, free_port};

/// Repeats `probe` until it returns a value; panics with `what` after `deadline`.
pub async fn eventually<T, F: Future<Output = Option<T>>>(
    deadline: Duration,
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    let until = Instant::now() + deadline;
    loop {
        if let Some(value) = probe().await {
            return value;
        }
        assert!(Instant::now() < until, "not within {deadline:?}: {what}");
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
}

/// Enough for a loaded machine; a passing test never waits this long.
pub const PATIENCE: Duration = Duration::from_mins(1);
