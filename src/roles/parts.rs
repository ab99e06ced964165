//! What both roles are assembled from.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use actix::Actor as _;
use anyhow::Context as _;
use slog::{Logger, o};
use tokio::runtime::Handle;

use crate::infra::config::{ProcessConfig, RateLimit, RateLimitStore, setting};
use crate::infra::health::HealthBoard;
use crate::infra::http::openapi::OpenApi;
use crate::infra::http::{
    Application, CountBy, DocsPage, LimitPolicy, Limiter, OtherRole, PublicUrl, ServerDeps, SharedLimit, SharedSweep,
    Sweep, TextLimiter, metrics_routes,
};
use crate::infra::metrics::Metrics;
use crate::infra::postgres::{Connector, Database, DbError, PoolOptions, Probing, SharedCounts};
use crate::infra::security::event_signature::EventSignatures;
use crate::infra::telemetry::Spans;
use crate::kernel::Role;
use crate::runtime::{
    ChildSpec, DatabaseProbeActor, DatabaseProbeDeps, HousekeeperActor, HttpActor, HttpDeps, PROBE_INTERVAL,
};

/// Connections to the API at a time. An idle one costs 10 to 20 KiB.
const CONNECTIONS_MAX: usize = 4096;
/// Connections to the port of the metrics at a time.
const METRICS_CONNECTIONS_MAX: usize = 64;
/// Time limit for a scrape in progress when a shutdown begins.
const METRICS_DRAIN: Duration = Duration::from_secs(1);
/// The connection of the probe does not become old, so that the probe notices what is true of new sessions only.
const PROBING: Probing = Probing { lifetime_max: Duration::from_secs(5), deadline: PROBE_INTERVAL };
/// Connections for the shared rate limit counters. A request uses one for a single-row statement.
pub(super) const COUNTING_CONNECTIONS: usize = 2;

/// What a process provides to the role that it runs.
pub(super) struct RoleContext {
    pub(super) logger: Logger,
    pub(super) health: HealthBoard,
    /// The runtime that drives database and broker connections.
    pub(super) io: Handle,
    pub(super) connector: Connector,
    pub(super) listener: TcpListener,
    /// Absent: `/metrics` is served on `listener`.
    pub(super) metrics_listener: Option<TcpListener>,
    pub(super) metrics: Metrics,
    pub(super) spans: Spans,
}

impl RoleContext {
    pub(super) fn actor_logger(&self, actor: &'static str) -> Logger {
        self.logger.new(o!("actor" => actor))
    }

    /// A pool of database connections, in the metrics as `requests` or as what follows `: ` in its name.
    pub(super) fn pool(&self, application_name: &'static str, connections_max: usize) -> Result<Database, DbError> {
        self.open_pool(PoolOptions { application_name, connections_max, probing: None })
    }

    /// One connection that is often a fresh one.
    pub(super) fn probe_pool(&self, application_name: &'static str) -> Result<Database, DbError> {
        self.open_pool(PoolOptions { application_name, connections_max: 1, probing: Some(PROBING) })
    }

    fn open_pool(&self, options: PoolOptions) -> Result<Database, DbError> {
        let pool = Database::new(&self.connector, options)?;
        pool.show(options.application_name.split_once(": ").map_or("requests", |(_, purpose)| purpose), &self.metrics);
        Ok(pool)
    }
}

/// Builds the rate limits of a role, counted in this process or in its database.
pub(super) struct Limits {
    enabled: bool,
    shared: Option<Arc<SharedCounts>>,
    logger: Logger,
}

impl Limits {
    pub(super) fn new(
        context: &RoleContext,
        process: &ProcessConfig,
        application_name: &'static str,
    ) -> Result<Self, DbError> {
        let enabled = process.rate_limit_enabled;
        let shared = if enabled && process.rate_limit_store != RateLimitStore::Local {
            let options = PoolOptions { application_name, connections_max: COUNTING_CONNECTIONS, probing: None };
            let database = Database::new(&context.connector, options)?;
            Some(Arc::new(SharedCounts::new(database, context.logger.clone())))
        } else {
            None
        };
        Ok(Self { enabled, shared, logger: context.actor_logger("housekeeper") })
    }

    /// A limit on requests to a route; `name` identifies it in responses and in the shared counters.
    pub(super) fn of_requests<T: CountBy>(
        &self,
        throttle: T,
        name: &'static str,
        limit: RateLimit,
    ) -> anyhow::Result<Limiter<T>> {
        let policy = LimitPolicy { name, limit };
        let limiter =
            Limiter::new(throttle, policy, self.enabled).with_context(|| format!("rate limit {name} is zero"))?;
        Ok(limiter.sharing(self.shared_limit(policy)))
    }

    /// A limit by a text in the request, such as the account.
    pub(super) fn of_texts(&self, name: &'static str, limit: RateLimit) -> anyhow::Result<TextLimiter> {
        let policy = LimitPolicy { name, limit };
        let limiter = TextLimiter::new(policy, self.enabled).with_context(|| format!("rate limit {name} is zero"))?;
        Ok(limiter.sharing(self.shared_limit(policy)))
    }

    fn shared_limit(&self, policy: LimitPolicy) -> Option<SharedLimit> {
        self.shared.clone().map(|counts| SharedLimit::new(counts, policy))
    }

    /// The removal of expired shared counters, if there are any.
    pub(super) fn shared_sweep(self) -> Option<Arc<dyn Sweep>> {
        self.shared.map(|counts| Arc::new(SharedSweep { counts, logger: self.logger }) as Arc<dyn Sweep>)
    }
}

pub(super) fn database_probe(
    context: &RoleContext,
    database: Database,
    statements: String,
    check: &'static str,
) -> ChildSpec {
    let (health, logger) = (context.health.clone(), context.actor_logger("database_probe"));
    let deps = Arc::new(DatabaseProbeDeps { database, statements, check, health, logger });
    ChildSpec::new("database_probe", move |lifeline| DatabaseProbeActor::new(Arc::clone(&deps), lifeline).start())
}

pub(super) fn housekeeper(context: &RoleContext, sweeps: Vec<Arc<dyn Sweep>>) -> ChildSpec {
    let metrics = context.metrics.clone();
    ChildSpec::new("housekeeper", move |lifeline| {
        HousekeeperActor::new(sweeps.clone(), metrics.clone(), lifeline).start()
    })
}

/// The signatures of events: the users role signs, the wallet role verifies.
pub(super) fn event_signatures(process: &ProcessConfig) -> EventSignatures {
    EventSignatures::new(&process.tokens.internal_key, process.tokens.previous_internal_key.as_ref())
}

/// The port of a role whose setting is absent.
pub(super) fn default_port(role: Role) -> anyhow::Result<&'static str> {
    let port = match role {
        Role::Users => setting::USERS_PORT.default,
        Role::Wallet => setting::WALLET_PORT.default,
    };
    let setting::Fallback::Text(port) = port else { anyhow::bail!("the port of the {role} role has no default") };
    Ok(port)
}

/// The page `/docs` of a role, which links to that of the other role.
pub(super) fn docs_page(document: &OpenApi, other: Role, process: &ProcessConfig) -> anyhow::Result<DocsPage> {
    let other = OtherRole { role: other, url: process.http.other_role_url.as_deref(), port: default_port(other)? };
    Ok(DocsPage::try_new(document, &other)?)
}

/// The API server. Stopped first: the actors that serve its requests outlive it.
pub(super) fn http(context: RoleContext, process: &ProcessConfig, application: Application) -> ChildSpec {
    let (logger, metrics) = (context.actor_logger("http"), context.metrics);
    let application: Application = if context.metrics_listener.is_some() {
        application
    } else {
        let metrics = metrics.clone();
        Arc::new(move |app| {
            application(app);
            metrics_routes(&metrics, app);
        })
    };
    http_server(
        "http",
        HttpDeps::new(
            context.listener,
            ServerDeps {
                worker_threads: process.http.workers,
                connections_max: CONNECTIONS_MAX,
                drain_timeout: process.shutdown_grace / 2,
                application,
                logger,
                cors_origins: process.http.cors_origins.clone(),
                public_url: PublicUrl::new(process.http.own_url.as_deref()),
                metrics,
                spans: context.spans,
            },
        ),
    )
}

/// The server of `/metrics`, if it has its own port.
pub(super) fn metrics_http(context: &RoleContext) -> anyhow::Result<Option<ChildSpec>> {
    let Some(listener) = &context.metrics_listener else { return Ok(None) };
    let metrics = context.metrics.clone();
    let deps = HttpDeps::new(
        listener.try_clone()?,
        ServerDeps {
            worker_threads: 1,
            connections_max: METRICS_CONNECTIONS_MAX,
            drain_timeout: METRICS_DRAIN,
            application: Arc::new(move |app| metrics_routes(&metrics, app)),
            logger: context.actor_logger("metrics_http"),
            cors_origins: Vec::new(),
            public_url: PublicUrl::new(None),
            metrics: context.metrics.clone(),
            spans: Spans::default(),
        },
    );
    Ok(Some(http_server("metrics_http", deps)))
}

fn http_server(name: &'static str, deps: HttpDeps) -> ChildSpec {
    let deps = Arc::new(deps);
    // Probes are answered while the process waits for its database.
    ChildSpec::new(name, move |lifeline| HttpActor::new(Arc::clone(&deps), lifeline).start()).early()
}
