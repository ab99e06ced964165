//! Which records are logged, by level and module.

use slog::{Drain, Level, OwnedKVList, Record};

/// The most verbose level of these dependencies, whatever `LOG_LEVEL` is, by prefix of the module: they log what must not
/// be logged, or far too much.
const CEILINGS: &[(&str, Level)] = &[
    // At debug it logs every bind parameter: password hashes, email addresses.
    ("tokio_postgres", Level::Info),
    // "relation already exists, skipping" at every start.
    ("tokio_postgres::connection", Level::Warning),
    ("refinery", Level::Info),
    // At warn it logs a returned message with headers and body.
    ("lapin::returned_messages", Level::Critical),
    // At debug and trace it logs every frame, bodies included.
    ("lapin", Level::Info),
    // The life of spans, not events.
    ("tracing::span", Level::Critical),
    ("rustls", Level::Warning),
    ("mio", Level::Warning),
    ("polling", Level::Warning),
    ("async_io", Level::Warning),
    // At trace these log requests, headers included.
    ("actix_http", Level::Info),
    ("actix_web", Level::Info),
    ("actix_server", Level::Info),
];

/// Passes a record on if its level is within the configured one and the ceiling of its module.
pub(super) struct LevelFilter<D> {
    pub(super) inner: D,
    pub(super) level: Level,
}

impl<D: Drain> Drain for LevelFilter<D> {
    type Ok = Option<D::Ok>;
    type Err = D::Err;

    fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<Self::Ok, Self::Err> {
        if record.level().is_at_least(most_verbose(target(record), self.level)) {
            self.inner.log(record, values).map(Some)
        } else {
            Ok(None)
        }
    }
}

/// The module a record comes from. Records of `log` users carry it as the tag.
pub(super) fn target<'r>(record: &'r Record<'_>) -> &'r str {
    if record.tag().is_empty() { record.module() } else { record.tag() }
}

/// Whether `prefix` is `target` or a module around it.
fn is_within(target: &str, prefix: &str) -> bool {
    target.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Whether a record with this target comes from our code and not from a library.
pub(super) fn is_ours(target: &str) -> bool {
    is_within(target, "purse")
}

/// The crate that a target belongs to.
pub(super) fn library(target: &str) -> &str {
    target.split_once("::").map_or(target, |(library, _)| library)
}

/// The configured level, limited by the longest matching ceiling. What dependencies report at info ("starting 4
/// workers") is detail to an operator, so it is logged with `LOG_LEVEL=debug` only.
fn most_verbose(target: &str, configured: Level) -> Level {
    let configured = if configured == Level::Info && !is_ours(target) { Level::Warning } else { configured };
    let ceilings = CEILINGS.iter().filter(|(prefix, _)| is_within(target, prefix));
    let ceiling = ceilings.max_by_key(|(prefix, _)| prefix.len()).map(|(_, ceiling)| *ceiling);
    ceiling.map_or(configured, |ceiling| if ceiling.is_at_least(configured) { ceiling } else { configured })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_level_makes_the_database_driver_log_parameters() {
        assert_eq!(most_verbose("tokio_postgres::query", Level::Trace), Level::Info);
        assert_eq!(most_verbose("tokio_postgres::connection", Level::Trace), Level::Warning);
    }

    #[test]
    fn a_ceiling_does_not_raise_the_configured_level() {
        assert_eq!(most_verbose("tokio_postgres::query", Level::Error), Level::Error);
    }

    #[test]
    fn info_messages_of_dependencies_are_logged_at_level_debug_only() {
        assert_eq!(most_verbose("actix_server::builder", Level::Info), Level::Warning);
        assert_eq!(most_verbose("actix_server::builder", Level::Debug), Level::Info);
        assert_eq!(most_verbose("purse::roles", Level::Info), Level::Info);
        assert_eq!(most_verbose("purse", Level::Info), Level::Info);
    }

    #[test]
    fn our_own_modules_follow_the_configured_level() {
        assert_eq!(most_verbose("purse::users::http", Level::Trace), Level::Trace);
        assert_eq!(most_verbose("lapinish", Level::Trace), Level::Trace, "a prefix ends at a module boundary");
    }
}
