//! How the process is: a snapshot that its parts write and that a request only reads.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;

/// How one thing that the process depends on is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Whether it works.
    pub ok: bool,
    /// Whether the process can serve requests without it.
    pub essential: bool,
    /// Why not, in words for an operator; no secrets.
    pub details: Option<String>,
}

/// The state of the whole process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// By name: `users-db`, `wallet-db`, `rabbitmq`.
    pub checks: BTreeMap<&'static str, Check>,
    /// An actor that was given up: it ended too often. The process is about to end.
    pub given_up: Option<&'static str>,
    /// A shutdown has begun: no new work, please.
    pub stopping: bool,
    /// How often each actor was built again.
    pub restarts: BTreeMap<&'static str, u64>,
}

impl Health {
    /// Whether the process is worth keeping.
    pub const fn is_live(&self) -> bool {
        self.given_up.is_none()
    }

    /// Whether requests should be sent here.
    pub fn is_ready(&self) -> bool {
        self.is_live() && !self.stopping && self.checks.values().all(|check| check.ok || !check.essential)
    }

    /// Whether everything works.
    pub fn is_whole(&self) -> bool {
        self.is_ready() && self.checks.values().all(|check| check.ok)
    }
}

/// Where the parts write and requests read.
#[derive(Clone, Debug)]
pub struct HealthBoard(Arc<watch::Sender<Health>>);

impl Default for HealthBoard {
    fn default() -> Self {
        Self(Arc::new(watch::Sender::new(Health::default())))
    }
}

impl HealthBoard {
    /// Enters a check that has not succeeded yet.
    pub fn expect(&self, name: &'static str, essential: bool) {
        let details = Some("not checked yet".to_owned());
        self.change(|health| drop(health.checks.insert(name, Check { ok: false, essential, details })));
    }

    /// Sets a check that was entered before; tells whether that changed anything.
    pub fn set(&self, name: &'static str, state: Result<(), String>) -> bool {
        self.0.send_if_modified(|health| {
            let Some(check) = health.checks.get_mut(name) else { return false };
            let before = check.ok;
            check.ok = state.is_ok();
            check.details = state.err();
            before != check.ok
        })
    }

    /// Changes anything else.
    pub fn change(&self, change: impl FnOnce(&mut Health)) {
        self.0.send_modify(change);
    }

    /// A copy of the state.
    pub fn read(&self) -> Health {
        self.0.borrow().clone()
    }

    /// For one who waits for a change.
    pub fn watch(&self) -> watch::Receiver<Health> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_broker_outage_degrades_and_a_database_outage_makes_unready() {
        let board = HealthBoard::default();
        board.expect("users-db", true);
        board.expect("rabbitmq", false);
        assert!(!board.read().is_ready(), "nothing has been checked yet");
        board.set("users-db", Ok(()));
        assert!(board.read().is_ready() && !board.read().is_whole());
        board.set("rabbitmq", Ok(()));
        assert!(board.read().is_whole());
        board.set("users-db", Err("gone".into()));
        assert!(!board.read().is_ready() && board.read().is_live());
    }

    #[test]
    fn a_stopping_process_is_live_and_not_ready() {
        let board = HealthBoard::default();
        board.change(|health| health.stopping = true);
        assert!(board.read().is_live() && !board.read().is_ready());
    }
}
