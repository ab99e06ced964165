//! `purse` is an accounts-and-wallets service. One binary has two roles, `users` and `wallet`. Each is a supervised tree of
//! actors over its own PostgreSQL database; RabbitMQ connects them.
//!
//! `docs/architecture.md` has the table of layers, which the test `layers` enforces, and follows a registration, the
//! provisioning of a wallet and a credit through the modules.
//!
//! # Terms
//!
//! A **post** requests an **entry** in the **ledger**. The API calls an entry a transaction; in the code `tx` is a
//! database transaction. An **event** is stored in the **outbox** until the **relay** has published it and the broker has
//! **confirmed** it. A **delivery** ends with an **ack**; one that fails climbs the **retry ladder** and ends as a **dead
//! letter**. The **gate** responds for a user whose wallet has not been **provisioned** yet.

pub mod contracts;
pub mod infra;
pub mod kernel;
pub mod operate;
pub mod roles;
pub(crate) mod runtime;
pub mod users;
pub mod wallet;
