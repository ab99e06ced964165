//! What a process shows of itself: its build, whether it is ready, and how often its actors were built again.

use crate::infra::health::HealthBoard;
use crate::infra::metrics::{MetricName, Metrics};
use crate::kernel::Role;
use crate::runtime::ChildSpec;

const BUILD: MetricName =
    MetricName { name: "purse_build_info", help: "1, with the version and the role of the process." };
const READY: MetricName = MetricName { name: "purse_ready", help: "1 while /health/ready answers 200." };
const DEPENDENCY: MetricName =
    MetricName { name: "purse_dependency_up", help: "1 while the dependency answers, as /health/ready tells it." };
const RESTARTS: MetricName = MetricName {
    name: "purse_actor_restarts_total",
    help: "How often an actor was built again, also because a dependency was away.",
};

/// Shows it in `metrics`, read off the board when asked.
pub(super) fn show(metrics: &Metrics, role: Role, actors: &[ChildSpec], health: &HealthBoard) {
    metrics.gauge(BUILD, &[("version", env!("CARGO_PKG_VERSION")), ("role", role.as_str())]).set(1);
    let ready = metrics.gauge(READY, &[]);
    let dependency = |name: &'static str| (name, metrics.gauge(DEPENDENCY, &[("dependency", name)]));
    let dependencies: Vec<_> = health.read().checks.into_keys().map(dependency).collect();
    let restarted = |actor: &ChildSpec| (actor.name, metrics.counter(RESTARTS, &[("actor", actor.name)]));
    let restarts: Vec<_> = actors.iter().map(restarted).collect();
    let health = health.clone();
    metrics.when_asked(move || {
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
