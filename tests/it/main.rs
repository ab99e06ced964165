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

mod accounts_model;
mod broker_rights;
mod clients;
mod concurrency;
mod contributing;
mod database_rights;
mod deployment;
mod docs;
mod docs_page;
#[cfg(feature = "failpoints")]
mod faults;
mod fuzz_corpus;
mod fuzz_requests;
mod http_bodies;
mod http_contract;
mod http_edge;
mod http_fuzz;
mod http_headers;
mod http_posts;
mod http_queries;
mod http_raw;
mod http_refusals;
mod http_shutdown;
mod layers;
mod lifecycle;
mod log_secrets;
mod login_limits;
mod main_job;
mod metrics;
mod observability;
mod openapi;
mod openapi_answers;
mod operate_dlq;
mod operate_handbook;
mod operate_ledger;
mod operate_outbox;
mod operate_pages;
mod operate_redrive;
#[cfg(feature = "otlp")]
mod otlp;
mod outages;
mod passwords;
mod plain_english;
mod provisioning;
mod query_plans;
mod rate_limits;
mod rate_limits_shared;
mod releases;
mod schemathesis;
mod settings;
mod signed_events;
mod sockets;
mod threat_model;
mod tokens_http;
mod tokens_rfc8725;
mod traces;
mod use_cases;
