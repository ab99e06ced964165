//! Which record of which module is written.

use slog::{Drain, Level, OwnedKVList, Record};

/// Ceilings that no `LOG_LEVEL` lifts, by prefix of the module: these dependencies print what must not be printed, or
/// far too much.
const CEILINGS: &[(&str, Level)] = &[
    // At debug it prints every bind parameter: password hashes, addresses.
    ("tokio_postgres", Level::Info),
    // "relation already exists, skipping" at every boot.
    ("tokio_postgres::connection", Level::Warning),
    ("refinery", Level::Info),
    // At warn it prints a returned message whole, headers and body.
    ("lapin::returned_messages", Level::Critical),
    // It tells of each frame at debug and trace, bodies included.
    ("lapin", Level::Info),
    // The life of spans, not events.
    ("tracing::span", Level::Critical),
    ("rustls", Level::Warning),
    ("mio", Level::Warning),
    ("polling", Level::Warning),
    ("async_io", Level::Warning),
    // At trace these print requests, headers included.
    ("actix_http", Level::Info),
    ("actix_web", Level::Info),
    ("actix_server", Level::Info),
];

/// Writes a record if its level is at most the configured one and at most the ceiling of its module.
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

/// The lower of the configured level and the longest matching ceiling.
fn most_verbose(target: &str, configured: Level) -> Level {
    let within =
        |prefix: &str| target.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    let ceiling =
        CEILINGS.iter().filter(|(prefix, _)| within(prefix)).max_by_key(|(prefix, _)| prefix.len()).map(|(_, c)| *c);
    ceiling.map_or(configured, |ceiling| if ceiling.is_at_least(configured) { ceiling } else { configured })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_level_makes_the_database_driver_print_parameters() {
        assert_eq!(most_verbose("tokio_postgres::query", Level::Trace), Level::Info);
        assert_eq!(most_verbose("tokio_postgres::connection", Level::Trace), Level::Warning);
    }

    #[test]
    fn a_ceiling_does_not_lift_the_configured_level() {
        assert_eq!(most_verbose("tokio_postgres::query", Level::Error), Level::Error);
    }

    #[test]
    fn our_own_modules_follow_the_configured_level() {
        assert_eq!(most_verbose("purse::users::http", Level::Trace), Level::Trace);
        assert_eq!(most_verbose("lapinish", Level::Trace), Level::Trace, "a prefix ends at a module's border");
    }
}
