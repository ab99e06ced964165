//! All integration tests, in one crate: against real servers that the crate starts itself, with a database and a
//! virtual host a test.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "in a test a panic is how it fails"
)]

mod support;

mod clients;
mod concurrency;
mod deployment;
mod docs;
mod docs_page;
#[cfg(feature = "failpoints")]
mod faults;
mod floors;
mod http_bodies;
mod http_contract;
mod http_headers;
mod http_posts;
mod http_queries;
mod http_raw;
mod http_refusals;
mod http_shutdown;
mod lifecycle;
mod main_job;
mod openapi;
mod openapi_answers;
mod operate_dlq;
mod operate_handbook;
mod operate_ledger;
mod operate_outbox;
mod operate_pages;
mod operate_redrive;
mod outages;
mod provisioning;
mod rate_limits;
mod rate_limits_shared;
mod releases;
mod tokens_http;
mod use_cases;
