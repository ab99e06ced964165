//! Health of the process: actors write it, the health endpoints only read it.

use std::collections::{BTreeMap, BTreeSet};
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
    /// Of a check with several reporters: why each of them is not `ok`. All of them have to be.
    parts: BTreeMap<&'static str, Option<String>>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// By dependency: `users-db`, `wallet-db`, `rabbitmq`.
    pub checks: BTreeMap<&'static str, Check>,
    /// An actor that exceeded its restart budget; the process is about to exit.
    pub given_up: Option<&'static str>,
    /// The database has not been reached since the start of the process.
    pub starting: bool,
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
        self.add_check_of(name, essential, &[]);
    }

    /// Adds a check with several reporters, which fails until each has reported a success.
    pub fn add_check_of(&self, name: &'static str, essential: bool, parts: &[&'static str]) {
        let details = Some("not checked yet".to_owned());
        let parts = parts.iter().map(|part| (*part, details.clone())).collect();
        self.change(|health| drop(health.checks.insert(name, Check { ok: false, essential, details, parts })));
    }

    /// Updates what one reporter contributes to a check. Returns whether its part was `ok` before and is not now, or the
    /// other way round.
    pub fn set_part(&self, name: &'static str, part: &'static str, state: Result<(), String>) -> bool {
        let mut changed = false;
        self.0.send_if_modified(|health| {
            let Some(check) = health.checks.get_mut(name) else { return false };
            let details = state.err();
            let before = check.parts.insert(part, details.clone());
            changed = before.as_ref().is_none_or(Option::is_none) != details.is_none();
            let reasons: BTreeSet<&str> = check.parts.values().flatten().map(String::as_str).collect();
            let ok = check.ok;
            check.details = (!reasons.is_empty()).then(|| reasons.into_iter().collect::<Vec<_>>().join("; "));
            check.ok = check.details.is_none();
            ok != check.ok
        });
        changed
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
    fn a_check_with_several_reporters_fails_until_all_of_them_succeed_and_gives_each_reason_once() {
        let board = HealthBoard::default();
        board.add_check_of("rabbitmq", false, &["one", "two"]);
        let check = || board.read().checks["rabbitmq"].clone();
        assert!(board.set_part("rabbitmq", "one", Ok(())));
        assert!(!check().ok, "the other has reported nothing");
        assert!(board.set_part("rabbitmq", "two", Ok(())) && check().ok);
        assert!(!board.set_part("rabbitmq", "two", Ok(())), "nothing changed");
        for part in ["one", "two"] {
            assert!(board.set_part("rabbitmq", part, Err("away".into())));
        }
        assert_eq!((check().ok, check().details.as_deref()), (false, Some("away")));
        board.set_part("rabbitmq", "two", Err("blocked".into()));
        assert_eq!(check().details.as_deref(), Some("away; blocked"));
        board.set_part("rabbitmq", "one", Ok(()));
        assert_eq!((check().ok, check().details.as_deref()), (false, Some("blocked")));
        board.set_part("rabbitmq", "two", Ok(()));
        assert_eq!((check().ok, check().details), (true, None));
    }

    #[test]
    fn a_stopping_process_is_live_and_not_ready() {
        let board = HealthBoard::default();
        board.change(|health| health.stopping = true);
        assert!(board.read().is_live() && !board.read().is_ready());
    }
}
