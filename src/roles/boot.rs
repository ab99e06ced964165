//! The life of a serving process: log, check, migrate, supervise, stop.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;

use actix::Actor as _;
use slog::{Logger, crit, error, info, o, warn};
use tokio::runtime::{Builder, Runtime};
use tokio::time::{Instant, timeout_at};

use crate::infra::config::{ProcessConfig, RateLimitStore, setting};
use crate::infra::health::HealthBoard;
use crate::infra::http::openapi::OpenApi;
use crate::infra::http::{DocsPage, OtherRole, Sweep, metrics_routes};
use crate::infra::metrics::Metrics;
use crate::infra::postgres::{
    Connector, Database, DbError, MigrateError, Migrated, Migrations, PoolOptions, SharedCounts, migrate,
};
use crate::infra::system::roll;
use crate::infra::telemetry::Spans;
use crate::infra::{security, telemetry};
use crate::kernel::{Backoff, Classified as _, FailureClass, Role, chain};
use crate::roles::{RoleConfig, users, vitals, wallet};
use crate::runtime::{
    Application, Child, ChildSpec, DatabaseProbeActor, Escalation, HousekeeperActor, HttpActor, HttpDeps, Signals,
    Stop, SupervisorActor, bind,
};

/// Threads that drive database and broker connections.
const IO_THREADS: usize = 2;
/// How long a scrape in hand may take once a shutdown has begun.
const METRICS_DRAIN: Duration = Duration::from_secs(1);
/// Connections over which the shared rate limits are counted; each request holds one for a statement of one row.
const COUNTING_CONNECTIONS: usize = 2;
/// Waits between tries to reach the database at boot.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// How a process ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ExitReason {
    /// It was asked to, or had nothing more to do.
    Requested,
    /// A dependency refuses for good, or the address is taken: a person has to do something.
    Refused(String),
    /// Our own fault.
    InternalError(String),
}

/// What the parts of a role are built with.
pub(super) struct RoleContext {
    pub(super) logger: Logger,
    pub(super) health: HealthBoard,
    pub(super) io: tokio::runtime::Handle,
    pub(super) connector: Connector,
    pub(super) listener: TcpListener,
    /// Where `/metrics` is, if not there.
    pub(super) metrics_listener: Option<TcpListener>,
    pub(super) metrics: Metrics,
    pub(super) spans: Spans,
}

impl RoleContext {
    /// The logger of one actor.
    pub(super) fn logger_of(&self, actor: &'static str) -> Logger {
        self.logger.new(o!("actor" => actor))
    }

    /// A pool of database connections; `purpose` names it where there is more than the one for requests.
    pub(super) fn pool(&self, application_name: &'static str, connections_max: usize) -> Result<Database, DbError> {
        let pool = Database::new(&self.connector, PoolOptions { application_name, connections_max })?;
        pool.show(application_name.split_once(": ").map_or("requests", |(_, purpose)| purpose), &self.metrics);
        Ok(pool)
    }
}

/// The child that watches the role's database.
pub(super) fn database_probe(on: &RoleContext, database: Database, check: &'static str) -> ChildSpec {
    let (health, logger) = (on.health.clone(), on.logger_of("database_probe"));
    let start = move |lifeline| {
        let (database, health, logger) = (database.clone(), health.clone(), logger.clone());
        Box::new(DatabaseProbeActor { database, check, health, logger, failures: 0, lifeline }.start())
            as Box<dyn Child>
    };
    ChildSpec { name: "database_probe", start: Box::new(start) }
}

/// The counts that the processes of the role share, if the limits are kept so.
pub(super) fn shared_counts(
    on: &RoleContext,
    process: &ProcessConfig,
    application_name: &'static str,
) -> anyhow::Result<Option<Arc<SharedCounts>>> {
    if !process.rate_limit_enabled || process.rate_limit_store == RateLimitStore::Local {
        return Ok(None);
    }
    let options = PoolOptions { application_name, connections_max: COUNTING_CONNECTIONS };
    Ok(Some(Arc::new(SharedCounts::new(Database::new(&on.connector, options)?, on.logger.clone()))))
}

/// The child that sweeps what would grow for ever.
pub(super) fn housekeeper(on: &RoleContext, chores: Vec<Arc<dyn Sweep>>) -> ChildSpec {
    let metrics = on.metrics.clone();
    let start = move |lifeline| {
        Box::new(HousekeeperActor { chores: chores.clone(), metrics: metrics.clone(), lifeline }.start())
            as Box<dyn Child>
    };
    ChildSpec { name: "housekeeper", start: Box::new(start) }
}

/// The page of a role's document, with the way to the other role's.
pub(super) fn docs_page(document: &OpenApi, other: Role, process: &ProcessConfig) -> anyhow::Result<DocsPage> {
    let port = match other {
        Role::Users => setting::USERS_PORT.default,
        Role::Wallet => setting::WALLET_PORT.default,
    };
    let setting::Fallback::Text(port) = port else { anyhow::bail!("the port of the {other} role has no default") };
    let other = OtherRole { role: other, url: process.http.other_role_url.as_deref(), port };
    Ok(DocsPage::try_new(document, &other)?)
}

/// The child that listens. Made last and stopped first: what answers its requests is there before and after it.
pub(super) fn http(on: RoleContext, process: &ProcessConfig, application: Application) -> ChildSpec {
    let (logger, metrics, spans) = (on.logger_of("http"), on.metrics, on.spans);
    let application: Application = if on.metrics_listener.is_some() {
        application
    } else {
        let metrics = metrics.clone();
        Arc::new(move |app| {
            application(app);
            metrics_routes(&metrics, app);
        })
    };
    let (workers, drain) = (process.http.workers, process.shutdown_grace / 2);
    let cors_origins = process.http.cors_origins.clone();
    listener(
        "http",
        HttpDeps { workers, drain, application, cors_origins, logger, metrics, spans, listener: on.listener },
    )
}

/// The child that answers `/metrics` where that has a port of its own. Made first and stopped last.
fn metrics_http(on: &RoleContext) -> anyhow::Result<Option<ChildSpec>> {
    let Some(own) = &on.metrics_listener else { return Ok(None) };
    let metrics = on.metrics.clone();
    let plan = HttpDeps {
        workers: 1,
        drain: METRICS_DRAIN,
        application: Arc::new(move |app| metrics_routes(&metrics, app)),
        cors_origins: Vec::new(),
        logger: on.logger_of("metrics_http"),
        metrics: on.metrics.clone(),
        spans: Spans::default(),
        listener: own.try_clone()?,
    };
    Ok(Some(listener("metrics_http", plan)))
}

fn listener(name: &'static str, plan: HttpDeps) -> ChildSpec {
    let plan = Arc::new(plan);
    let start = move |lifeline| Box::new(HttpActor::new(Arc::clone(&plan), lifeline).start()) as Box<dyn Child>;
    ChildSpec { name, start: Box::new(start) }
}

/// Checks what must hold before anything is opened.
///
/// # Errors
/// A sentence.
pub fn self_test() -> Result<(), &'static str> {
    // An error says that a provider is installed already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    security::self_test()
}

fn io_runtime() -> std::io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(IO_THREADS).thread_name("io").enable_all().build()
}

/// Begins to log, to the end of `body`; whatever was logged by then is written.
fn logged(config: &RoleConfig, body: impl FnOnce(&Logger, &Runtime) -> ExitReason) -> ExitReason {
    if let Err(e) = self_test() {
        return ExitReason::InternalError(e.to_owned());
    }
    let process = config.process();
    let (logger, guard) = match telemetry::init(&process.log, process.role) {
        Ok(log) => log,
        Err(e) => return ExitReason::InternalError(e.to_string()),
    };
    let ending = match io_runtime() {
        Ok(io) => {
            let ending = body(&logger, &io);
            // What still runs there has been given its time.
            io.shutdown_background();
            ending
        }
        Err(e) => ExitReason::InternalError(format!("the IO threads could not be started: {e}")),
    };
    match &ending {
        ExitReason::Requested => info!(logger, "stopped"),
        ExitReason::Refused(why) => error!(logger, "stopped: a person has to do something"; "error" => why),
        ExitReason::InternalError(why) => crit!(logger, "stopped by our own fault"; "error" => why),
    }
    drop(logger);
    drop(guard);
    ending
}

/// Migrates, and ends.
pub(super) fn migrate_only(config: &RoleConfig) -> ExitReason {
    logged(config, |logger, io| {
        let connector = match Connector::new(&config.process().database, io.handle().clone()) {
            Ok(connector) => connector,
            Err(e) => return no_tls(&e),
        };
        match io.block_on(migrate(&connector, config.migrations())) {
            Ok(migrated) => {
                log_migrations(logger, &migrated);
                ExitReason::Requested
            }
            Err(e) => refused_migration(&e),
        }
    })
}

/// Serves until asked to stop.
pub(super) fn run(config: RoleConfig) -> ExitReason {
    let again = config.clone();
    logged(&again, |logger, io| {
        let (logger, io) = (logger.clone(), io.handle().clone());
        actix::System::new().block_on(async move { live(config, logger, io).await })
    })
}

async fn live(config: RoleConfig, logger: Logger, io: tokio::runtime::Handle) -> ExitReason {
    let mut signals = match Signals::listen() {
        Ok(signals) => signals,
        Err(e) => return ExitReason::InternalError(format!("signals cannot be listened to: {e}")),
    };
    let process = config.process();
    let (grace, listen) = (process.shutdown_grace, process.http.listen);
    info!(logger, "starting"; "version" => env!("CARGO_PKG_VERSION"));
    for warning in &process.warnings {
        warn!(logger, "unsafe setting"; "error" => warning);
    }
    let (listener, address) = match open(listen, "--port") {
        Ok(opened) => opened,
        Err(ending) => return ending,
    };
    let metrics = match process.http.metrics.map(|address| open(address, "--metrics-port")).transpose() {
        Ok(opened) => opened,
        Err(ending) => return ending,
    };
    let (metrics_listener, metrics_address) = metrics.unzip();
    let metrics = match Metrics::try_new() {
        Ok(metrics) => metrics,
        Err(e) => return ExitReason::InternalError(format!("the metrics cannot be set up: {e}")),
    };
    let spans = match Spans::try_new(process.otlp_url.as_deref(), process.role) {
        Ok(spans) => spans,
        Err(e) => return ExitReason::InternalError(e.to_string()),
    };
    let connector = match Connector::new(&process.database, io.clone()) {
        Ok(connector) => connector,
        Err(e) => return no_tls(&e),
    };
    tokio::select! {
        ended = migrate_patiently(&connector, config.migrations(), &logger) => if let Err(ending) = ended { return ending },
        signal = signals.stop_requested() => {
            info!(logger, "asked to stop before the database was reached"; "signal" => signal);
            return ExitReason::Requested;
        }
    }
    let health = HealthBoard::default();
    let foundation = RoleContext {
        logger: logger.clone(),
        health: health.clone(),
        io,
        connector,
        listener,
        metrics_listener,
        metrics: metrics.clone(),
        spans: spans.clone(),
    };
    let specs = match assemble(&config, foundation) {
        Ok(specs) => specs,
        Err(e) => return ExitReason::InternalError(format!("{e:#}")),
    };
    vitals::show(&metrics, process.role, &specs, &health);
    let (supervisor, mut escalation) = SupervisorActor::new(specs, health.clone(), logger.clone());
    let supervisor = supervisor.start();
    if let Some(address) = metrics_address {
        info!(logger, "listening for metrics"; "address" => address.to_string());
    }
    info!(logger, "listening"; "address" => address.to_string());

    let ending = tokio::select! {
        signal = signals.stop_requested() => {
            info!(logger, "stopping"; "signal" => signal, "grace_ms" => u64::try_from(grace.as_millis()).unwrap_or(u64::MAX));
            ExitReason::Requested
        }
        escalation = &mut escalation => match escalation {
            Ok(Escalation::GivenUp { child }) => ExitReason::InternalError(format!("actor {child} ended too often")),
            Ok(Escalation::Refused { message }) => ExitReason::Refused(message),
            Err(_) => ExitReason::InternalError("the supervisor ended".to_owned()),
        },
    };
    health.change(|health| health.stopping = true);
    let deadline = Instant::now() + grace;
    tokio::select! {
        stopped = timeout_at(deadline, supervisor.send(Stop { grace })) => if stopped.is_err() {
            warn!(logger, "the shutdown took longer than its grace; what was not finished is redelivered or rolled back");
        },
        signal = signals.stop_requested() => warn!(logger, "stopping at once"; "signal" => signal),
    }
    spans.close();
    ending
}

fn assemble(config: &RoleConfig, foundation: RoleContext) -> anyhow::Result<Vec<ChildSpec>> {
    let first = metrics_http(&foundation)?;
    let others = match config {
        RoleConfig::Users(config) => users::assemble(config, foundation),
        RoleConfig::Wallet(config) => wallet::assemble(config, foundation),
    };
    Ok(first.into_iter().chain(others?).collect())
}

/// Binds an address; `flag` is what chooses another one.
fn open(address: SocketAddr, flag: &str) -> Result<(TcpListener, SocketAddr), ExitReason> {
    let refused = |e| {
        ExitReason::Refused(format!(
            "cannot listen on {address}: {e}. Stop whatever uses that port, or choose another one with {flag}"
        ))
    };
    let listener = bind(address).map_err(refused)?;
    let address = listener.local_addr().unwrap_or(address);
    Ok((listener, address))
}

/// Migrates as soon as the database can be reached, however long that takes.
async fn migrate_patiently(connector: &Connector, migrations: Migrations, logger: &Logger) -> Result<(), ExitReason> {
    let mut tries = 0;
    loop {
        match migrate(connector, migrations).await {
            Ok(migrated) => {
                log_migrations(logger, &migrated);
                return Ok(());
            }
            Err(e) if e.class() == FailureClass::Unavailable || e.class() == FailureClass::Transient => {
                let delay = BACKOFF.delay(tries, roll());
                tries = tries.saturating_add(1);
                let again_in_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
                warn!(logger, "the database cannot be used yet; trying again until it can"; "error" => chain(&e), "again_in_ms" => again_in_ms);
                tokio::time::sleep(delay).await;
            }
            Err(e) => return Err(refused_migration(&e)),
        }
    }
}

fn no_tls(e: &rustls::Error) -> ExitReason {
    ExitReason::InternalError(format!("TLS cannot be set up: {e}"))
}

fn refused_migration(e: &MigrateError) -> ExitReason {
    match e.class() {
        FailureClass::Bug => ExitReason::InternalError(chain(e)),
        FailureClass::Refused | FailureClass::Unavailable | FailureClass::Transient | FailureClass::Permanent => {
            ExitReason::Refused(format!("the database is not up to date: {}", chain(e)))
        }
    }
}

fn log_migrations(logger: &Logger, migrated: &Migrated) {
    for setting in &migrated.not_durable {
        warn!(logger, "unsafe setting of PostgreSQL: a commit that was answered may be lost in a crash"; "error" => format!("{setting} is off"));
    }
    for migration in &migrated.applied {
        info!(logger, "migration applied"; "migration" => format!("{} {}", migration.version, migration.name));
    }
    if migrated.applied.is_empty() {
        info!(logger, "database is up to date");
    }
}
