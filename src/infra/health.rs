//! Health of the process: actors write it, the health endpoints only read it.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// The state of one dependency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    pub ok: bool,
    /// The process is not ready without it.
    pub essential: bool,
    /// Why not `ok`, for an operator; contains no secrets.
    pub details: Option<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// By dependency: `users-db`, `wallet-db`, `rabbitmq`.
    pub checks: BTreeMap<&'static str, Check>,
    /// An actor that exceeded its restart budget; the process is about to exit.
    pub given_up: Option<&'static str>,
    /// The database has not been reached since the start of the process.
    pub starting: bool,
    /// A shutdown has begun.
    pub stopping: bool,
    /// Restarts by actor.
    pub restarts: BTreeMap<&'static str, u64>,
}

impl Health {
    /// Liveness: false means that the process should be replaced.
    pub const fn is_live(&self) -> bool {
        self.given_up.is_none()
    }

    /// Readiness: whether to route requests to this process.
    pub fn is_ready(&self) -> bool {
        self.is_live()
            && !self.starting
            && !self.stopping
            && self.checks.values().all(|check| check.ok || !check.essential)
    }

    /// Ready, and every dependency is available.
    pub fn is_whole(&self) -> bool {
        self.is_ready() && self.checks.values().all(|check| check.ok)
    }
}

/// A shared [`Health`].
#[derive(Clone, Debug)]
pub struct HealthBoard(Arc<watch::Sender<Health>>);

impl Default for HealthBoard {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Health::default())))
    }
}

impl HealthBoard {
    /// Adds a check, which fails until its first success.
    pub fn add_check(&self, name: &'static str, essential: bool) {
        let details = Some("not checked yet".to_owned());
        self.change(|health| drop(health.checks.insert(name, Check { ok: false, essential, details })));
    }

    /// Updates a check that was added before. Returns whether `ok` changed.
    pub fn set(&self, name: &'static str, state: Result<(), String>) -> bool {
        self.0.send_if_modified(|health| {
            let Some(check) = health.checks.get_mut(name) else { return false };
            let before = check.ok;
            check.ok = state.is_ok();
            check.details = state.err();
            before != check.ok
        })
    }

    pub fn change(&self, change: impl FnOnce(&mut Health)) {
        self.0.send_modify(change);
    }

    pub fn read(&self) -> Health {
        self.0.borrow().clone()
    }

    pub fn is_starting(&self) -> bool {
        self.0.borrow().starting
    }

    pub fn watch(&self) -> watch::Receiver<Health> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_outage_degrades_and_a_database_outage_makes_the_process_unready() {
        let board = HealthBoard::default();
        board.add_check("users-db", true);
        board.add_check("rabbitmq", false);
        assert!(!board.read().is_ready(), "no check has succeeded yet");
        board.set("users-db", Ok(()));
        assert!(board.read().is_ready() && !board.read().is_whole());
        board.set("rabbitmq", Ok(()));
        assert!(board.read().is_whole());
        board.set("users-db", Err("unreachable".into()));
        assert!(!board.read().is_ready() && board.read().is_live());
    }

    #[test]
    fn a_stopping_process_is_live_and_not_ready() {
        let board = HealthBoard::default();
        board.change(|health| health.stopping = true);
        assert!(board.read().is_live() && !board.read().is_ready());
    }
}
