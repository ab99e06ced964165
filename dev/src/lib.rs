//! A private PostgreSQL and a private RabbitMQ as child processes: for `purse-dev`, the tests and the benchmarks.
//!
//! A fresh machine needs the two packages and nothing else: no container engine, no system service, no account. All
//! state is in one folder, everything listens on 127.0.0.1, and everything ends with the process that started it, even
//! when that process is killed.
//!
//! This crate does not depend on purse: it runs the binary like any other program. It speaks neither PostgreSQL's
//! protocol nor AMQP beyond a greeting, and it installs nothing.

mod account;
mod banner;
mod child;
mod cli;
mod cluster;
mod console;
mod control;
mod databases;
mod error;
mod folder;
mod hints;
mod keys;
mod locate;
mod ports;
mod postgres;
mod probe;
mod processes;
mod rabbitmq;
mod role;
mod roles;
mod servers;
mod test_servers;
mod up;

pub use cli::main;
pub use cluster::BrokerCluster;
pub use databases::{RoleDatabase, RoleDatabases};
pub use error::DevError;
pub use servers::{Action, Durability, Server, ServerAddresses};
pub use test_servers::TestServers;
