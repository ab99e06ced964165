//! Metrics of the process as a whole: use of the machine, build, readiness, dependencies, actor restarts.

use crate::infra::health::HealthBoard;
use crate::infra::metrics::{MetricName, Metrics};
use crate::infra::process_usage;
use crate::infra::telemetry::LogCounts;
use crate::kernel::Role;
use crate::runtime::ChildSpec;

const BUILD: MetricName =
    MetricName { name: "purse_build_info", help: "Always 1; the labels are the version and the role of the process." };
const READY: MetricName = MetricName { name: "purse_ready", help: "1 if /health/ready returns 200, else 0." };
const DEPENDENCY: MetricName = MetricName {
    name: "purse_dependency_up",
    help: "1 if the dependency is available, as reported by /health/ready, else 0.",
};
const RESTARTS: MetricName = MetricName {
    name: "purse_actor_restarts_total",
    help: "Actor restarts, including those caused by unavailable dependencies.",
};

const LOG_DROPPED: MetricName = MetricName {
    name: "purse_log_records_dropped_total",
    help: "Log records dropped because standard output was blocked: its reader is stuck, or the disk is full.",
};

const LOG_SUPPRESSED: MetricName = MetricName {
    name: "purse_log_records_suppressed_total",
    help: "Repeated warnings and errors of libraries that were not logged.",
};

/// Registers them; they follow `health` and `log` at each scrape.
pub(super) fn register(metrics: &Metrics, role: Role, actors: &[ChildSpec], health: &HealthBoard, log: LogCounts) {
    process_usage::register(metrics);
    metrics.gauge(BUILD, &[("version", env!("CARGO_PKG_VERSION")), ("role", role.as_str())]).set(1);
    let ready = metrics.gauge(READY, &[]);
    let dependency = |name: &'static str| (name, metrics.gauge(DEPENDENCY, &[("dependency", name)]));
    let dependencies: Vec<_> = health.read().checks.into_keys().map(dependency).collect();
    let restarts = |actor: &ChildSpec| (actor.name, metrics.counter(RESTARTS, &[("actor", actor.name)]));
    let restarts: Vec<_> = actors.iter().map(restarts).collect();
    let log_dropped = metrics.counter(LOG_DROPPED, &[]);
    let log_suppressed = metrics.counter(LOG_SUPPRESSED, &[]);
    let health = health.clone();
    metrics.on_scrape(move || {
        log_dropped.absolute(log.dropped());
        log_suppressed.absolute(log.suppressed());
        let health = health.read();
        ready.set(u8::from(health.is_ready()));
        for (name, up) in &dependencies {
            up.set(u8::from(health.checks.get(name).is_some_and(|check| check.ok)));
        }
        for (actor, count) in &restarts {
            count.absolute(health.restarts.get(actor).copied().unwrap_or_default());
        }
    });
}
