//! All integration tests, in one crate. They use real servers, which the crate starts; each test has its own databases
//! and virtual host.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test fails by panicking"
)]

mod support;

mod accounts_model;
mod api_rules;
mod backups;
mod broker_confirms;
mod broker_faults;
mod broker_rights;
mod broker_urls;
mod bulk;
mod clients;
mod clients_routes;
mod command_line;
mod concurrency;
mod configuration;
mod contributing;
mod cursors;
mod database_rights;
mod database_sessions;
mod database_urls;
mod dead_letter_queue;
mod deployment;
mod docs;
mod docs_markdown;
mod docs_page;
mod doctor;
mod end_to_end;
#[cfg(feature = "failpoints")]
mod faults;
mod forwarded_addresses;
mod fuzz_corpus;
mod fuzz_requests;
mod holds;
mod http_bodies;
mod http_check_order;
mod http_contract;
mod http_edge;
mod http_fuzz;
mod http_headers;
mod http_manners;
mod http_posts;
mod http_queries;
mod http_raw;
mod http_shutdown;
mod key_rotation;
mod layers;
mod ledger_chain;
mod ledger_chain_random;
mod ledger_posters;
mod ledger_shards;
mod ledger_statements;
mod ledger_texts;
mod ledger_upgrade;
mod lifecycle;
mod lint_openapi;
mod log_backpressure;
mod log_format;
mod log_secrets;
mod login_limits;
mod maintenance;
mod metrics;
mod observability;
mod openapi;
mod openapi_clients;
mod openapi_responses;
mod operate_dlq;
mod operate_handbook;
mod operate_ledger;
mod operate_outbox;
mod operate_pages;
mod operate_redrive;
#[cfg(feature = "otlp")]
mod otlp;
mod outages;
mod outbox_retention;
#[cfg(target_os = "linux")]
mod packages;
mod passwords;
mod plain_english;
mod posting_codes;
mod process_metrics;
mod provisioning;
mod query_plans;
mod query_plans_of_holds;
mod rate_limits;
mod rate_limits_shared;
mod receipt_files;
mod receipts;
mod recipes;
mod registration_keys;
mod releases;
mod request_files;
mod restore;
mod reversals;
mod runbooks;
mod schemathesis;
mod servers;
mod service_tokens;
mod settings;
mod signed_events;
mod sockets;
mod threat_model;
mod tls_proxy;
mod tokens_http;
mod tokens_rfc8725;
mod traces;
mod transfers;
mod transfers_equal_work;
mod use_cases;
mod versions;
