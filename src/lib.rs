//! `purse`: accounts and wallets as a service. One binary, two roles, each a supervised tree of actors that talk by
//! messages, over a PostgreSQL of its own, with RabbitMQ between them.
//!
//! # The floors
//!
//! Imports only go down. The test `floors` reads `src/` and holds this table.
//!
//! | floor | room | may import |
//! |---|---|---|
//! | 0 | [`kernel`], [`contracts`] | `kernel` |
//! | 1 | `{users,wallet}::domain` | kernel |
//! | 2 | `{users,wallet}::application` | kernel, contracts, own domain |
//! | 3 | [`infra`] | kernel, contracts |
//! | 4 | `{users,wallet}::{http,postgres,amqp}` | floors 0–3, of their own context |
//! | 5 | [`runtime`] | kernel, infra |
//! | 5 | `{users,wallet}::actors` | own domain, application and amqp, infra, runtime, kernel, contracts |
//! | 6 | [`roles`], [`operate`], [`dev_stack`] | everything below |
//! | 7 | `main`, `cli` | roles, operate, `dev_stack`, infra, kernel |
//!
//! `users` and `wallet` never name each other; `infra` and `runtime` name neither.
//!
//! # The words
//!
//! A **post** asks for an **entry** in the **ledger** (the API calls an entry a transaction; `tx` is a database
//! transaction). An **event** waits in the **outbox** until the **relay** has it **confirmed** by the broker. A
//! **delivery** is **settled** by an **ack**; one that fails climbs the **retry ladder** and ends as a **dead letter**.
//! The **gate** answers for a user whose wallet is still being **provisioned**.
//!
//! # Three walks
//!
//! * **Register**: [`users::http`] → [`users::application::register_user`] (hash; person and event in one database
//!   transaction; wake the poller) → [`users::domain`] → [`users::postgres`].
//! * **Provision**: outbox row → [`users::actors`] → [`users::application::relay_outbox`] → [`users::amqp`] ⇒ broker ⇒
//!   [`wallet::actors`] → [`wallet::amqp`] → [`wallet::application::provision_wallets`] → [`wallet::postgres`] → ack.
//! * **Credit**: [`wallet::http`] (token, limit, gate, body) → the port `Ledger`, a message to the ledger writer →
//!   batch → [`wallet::application::post_batch`] → [`wallet::postgres`], where [`wallet::domain`] decides each post in
//!   order → each answer to its sender.

pub mod contracts;
pub mod dev_stack;
pub mod infra;
pub mod kernel;
pub mod operate;
pub mod roles;
pub mod runtime;
pub mod users;
pub mod wallet;
