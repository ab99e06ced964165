//! The life of a serving process: log, listen, answer probes, migrate, supervise, stop.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use actix::{Actor as _, Addr};
use slog::{Logger, crit, error, info, warn};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use crate::infra::config::{DatabaseConfig, LogConfig, MigrationConfig, ProcessConfig};
use crate::infra::health::HealthBoard;
use crate::infra::metrics::Metrics;
use crate::infra::postgres::{
    Connector, MigrateError, Migrated, Migrations, Unreachable, check_runtime_user, migrate, with_reminders,
};
use crate::infra::system::random_fraction;
use crate::infra::telemetry::{LogCounts, Spans};
use crate::infra::{security, telemetry};
use crate::kernel::{Backoff, Classified as _, ExitError, ExitStatus, FailureClass, Role, chain};
use crate::roles::parts::{RoleContext, metrics_http};
use crate::roles::process_metrics;
use crate::runtime::{ChildSpec, Escalation, Release, Signals, Stop, SupervisorActor, bind};

/// Threads that drive database and broker connections.
const IO_THREADS: usize = 2;
/// How long `migrate` waits at its end for its log to be written.
const LOG_GRACE: Duration = Duration::from_secs(5);
/// Delays between attempts to reach the database at start-up.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));

/// How long a migration that is not part of a start waits for locks.
const LOCKED_MAX: Duration = Duration::from_mins(2);

/// Installs the cryptography that TLS uses, and checks that of the tokens.
///
/// # Errors
/// The self-test fails, which is a bug.
pub fn init_crypto() -> Result<(), ExitError> {
    // An error means that a provider is already installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    security::self_test().map_err(ExitError::internal)
}

/// Applies the migrations. Waits for sessions that are in the way, and not for a database that is unavailable.
pub(super) fn migrate_once(config: &MigrationConfig, migrations: Migrations) -> Result<(), ExitError> {
    with_logger(&config.log, config.role, LOG_GRACE, |logger, io, _, _| {
        let connector = connector(&config.database, io.handle(), logger)?;
        io.block_on(migrate_when_unlocked(&connector, migrations, logger))
    })
}

async fn migrate_when_unlocked(
    connector: &Connector,
    migrations: Migrations,
    logger: &Logger,
) -> Result<(), ExitError> {
    let (began, mut attempt) = (Instant::now(), 0);
    let migrated = loop {
        match with_reminders(migrate(connector, migrations), || warn_slow(logger)).await {
            Err(e) if e.class() == FailureClass::Transient && began.elapsed() < LOCKED_MAX => {
                pause(logger, &e, attempt).await;
                attempt = attempt.saturating_add(1);
            }
            migrated => break migrated.map_err(|e| migration_failed(&e))?,
        }
    };
    log_migrations(logger, &migrated);
    match check_runtime_user(connector, migrations, &migrated).await {
        // The machine of the migrations need not be one from which the runtime user may log in.
        Err(e) if e.class() != FailureClass::Permanent => Ok(()),
        checked => checked.map_err(|e| migration_failed(&e)),
    }
}

/// Serves the children that `assemble` returns until a signal stops the process.
pub(super) fn serve(
    config: &ProcessConfig,
    migrations: Migrations,
    assemble: impl FnOnce(RoleContext) -> anyhow::Result<Vec<ChildSpec>>,
) -> Result<(), ExitError> {
    with_logger(&config.log, config.role, config.shutdown_grace, |logger, io, log, signals| {
        let listening = Signals::listen(io.handle());
        let signals =
            signals.insert(listening.map_err(|e| ExitError::internal(format!("cannot handle signals: {e}")))?);
        actix::System::new().block_on(live(config, migrations, assemble, logger, io.handle(), signals, log))
    })
}

/// Runs `body` with a logger and the IO threads, and logs how it ended. All log lines are written when this returns,
/// unless standard output does not take them within the grace period, or until a second signal.
fn with_logger(
    log: &LogConfig,
    role: Role,
    grace: Duration,
    body: impl FnOnce(&Logger, &Runtime, LogCounts, &mut Option<Signals>) -> Result<(), ExitError>,
) -> Result<(), ExitError> {
    init_crypto()?;
    let io = io_runtime()?;
    let (logger, mut log) = telemetry::init(log, role).map_err(ExitError::internal)?;
    let mut signals = None;
    let outcome = body(&logger, &io, log.counts(), &mut signals);
    match &outcome {
        Ok(()) => info!(logger, "stopped"),
        Err(e) if e.status == ExitStatus::InternalError => {
            crit!(logger, "stopped: internal error"; "error" => %e);
        }
        Err(e) => error!(logger, "stopped: manual intervention required"; "error" => %e),
    }
    io.block_on(async {
        tokio::select! {
            () = log.finish() => {}
            () = time_is_up(signals, grace) => {}
        }
    });
    // Tasks that are still running have used up their grace period.
    io.shutdown_background();
    outcome
}

async fn time_is_up(signals: Option<Signals>, grace: Duration) {
    match signals {
        Some(mut signals) => signals.time_is_up(grace).await,
        None => tokio::time::sleep(grace).await,
    }
}

fn io_runtime() -> Result<Runtime, ExitError> {
    let runtime = Builder::new_multi_thread().worker_threads(IO_THREADS).thread_name("io").enable_all().build();
    runtime.map_err(|e| ExitError::internal(format!("cannot start the IO threads: {e}")))
}

/// The life of the process: it starts, serves and stops.
async fn live(
    config: &ProcessConfig,
    migrations: Migrations,
    assemble: impl FnOnce(RoleContext) -> anyhow::Result<Vec<ChildSpec>>,
    logger: &Logger,
    io: &Handle,
    signals: &mut Signals,
    log: LogCounts,
) -> Result<(), ExitError> {
    info!(logger, "starting"; "version" => env!("CARGO_PKG_VERSION"));
    for warning in &config.warnings {
        warn!(logger, "unsafe setting"; "error" => warning);
    }
    let mut process = Process::start(config, assemble, logger, io, log)?;
    let outcome = process.serve(migrations, signals).await;
    // The children log what matters of it.
    telemetry::mute_libraries();
    process.stop(signals).await;
    outcome
}

/// A process whose ports are open and whose children run.
struct Process {
    logger: Logger,
    health: HealthBoard,
    connector: Connector,
    spans: Spans,
    /// Where the API listens.
    address: String,
    /// Where `/metrics` has its own port.
    metrics_address: Option<String>,
    supervisor: Addr<SupervisorActor>,
    /// A failure that the supervisor cannot handle.
    escalated: oneshot::Receiver<Escalation>,
    grace: Duration,
}

impl Process {
    /// Opens the ports and starts the children that answer probes. The others start when the database is up to date.
    fn start(
        config: &ProcessConfig,
        assemble: impl FnOnce(RoleContext) -> anyhow::Result<Vec<ChildSpec>>,
        logger: &Logger,
        io: &Handle,
        log: LogCounts,
    ) -> Result<Self, ExitError> {
        let context = context(config, logger, io)?;
        let (health, metrics, spans) = (context.health.clone(), context.metrics.clone(), context.spans.clone());
        let connector = context.connector.clone();
        let address = address_of(&context.listener);
        let metrics_address = context.metrics_listener.as_ref().map(address_of);
        let children = children(assemble, context).map_err(|e| ExitError::internal(format!("{e:#}")))?;
        process_metrics::register(&metrics, config.role, &children, &health, log);
        let (supervisor, escalated) = SupervisorActor::new(children, health.clone(), logger.clone());
        health.change(|health| health.starting = true);
        Ok(Self {
            logger: logger.clone(),
            health,
            connector,
            spans,
            address,
            metrics_address,
            supervisor: supervisor.holding_back().start(),
            escalated,
            grace: config.shutdown_grace,
        })
    }

    /// Brings the database up to date and serves, until a stop signal or a failure that the supervisor cannot handle.
    async fn serve(&mut self, migrations: Migrations, signals: &mut Signals) -> Result<(), ExitError> {
        tokio::select! {
            migrated = migrate_when_reachable(&self.connector, migrations, &self.health, &self.logger) => migrated?,
            signal = signals.stop_requested() => {
                info!(self.logger, "stopping before the database was reached"; "signal" => signal);
                return Ok(());
            }
            escalation = &mut self.escalated => return Err(failure(escalation)),
        }
        self.release().await;
        tokio::select! {
            signal = signals.stop_requested() => {
                let grace_ms = u64::try_from(self.grace.as_millis()).unwrap_or(u64::MAX);
                info!(self.logger, "stopping"; "signal" => signal, "grace_ms" => grace_ms);
                Ok(())
            }
            escalation = &mut self.escalated => Err(failure(escalation)),
        }
    }

    /// Starts the children that need the database.
    async fn release(&self) {
        // An error means that the supervisor is gone, which its escalation reports.
        let _ = self.supervisor.send(Release).await;
        self.health.change(|health| health.starting = false);
        if let Some(address) = &self.metrics_address {
            info!(self.logger, "listening for metrics"; "address" => address);
        }
        info!(self.logger, "listening"; "address" => &self.address);
    }

    /// Stops the children, within the grace period and unless a second signal ends the wait.
    async fn stop(self, signals: &mut Signals) {
        self.health.change(|health| health.stopping = true);
        let deadline = Instant::now() + self.grace;
        tokio::select! {
            stopped = timeout_at(deadline, self.supervisor.send(Stop { grace: self.grace })) => if stopped.is_err() {
                warn!(self.logger, "the grace period is over; unfinished work is rolled back or redelivered");
            },
            signal = signals.stop_requested() => warn!(self.logger, "stopping immediately"; "signal" => signal),
        }
        self.spans.close();
    }
}

/// Opens the ports, so that a taken one is reported before the database is touched.
fn context(config: &ProcessConfig, logger: &Logger, io: &Handle) -> Result<RoleContext, ExitError> {
    let listener = listen(config.http.listen, "--port")?;
    let metrics_listener = config.http.metrics.map(|address| listen(address, "--metrics-port")).transpose()?;
    Ok(RoleContext {
        logger: logger.clone(),
        health: HealthBoard::default(),
        io: io.clone(),
        connector: connector(&config.database, io, logger)?,
        listener,
        metrics_listener,
        metrics: Metrics::try_new().map_err(|e| ExitError::internal(format!("cannot set up metrics: {e}")))?,
        spans: Spans::try_new(config.otlp_url.as_deref(), config.role).map_err(ExitError::internal)?,
    })
}

/// Binds an address; `flag` selects another one.
fn listen(address: SocketAddr, flag: &str) -> Result<TcpListener, ExitError> {
    bind(address).map_err(|e| {
        ExitError::unavailable(format!(
            "cannot listen on {address}: {e}. Stop the process that uses this port, or choose another port with {flag}"
        ))
    })
}

fn address_of(listener: &TcpListener) -> String {
    listener.local_addr().map_or_else(|e| e.to_string(), |address| address.to_string())
}

fn children(
    assemble: impl FnOnce(RoleContext) -> anyhow::Result<Vec<ChildSpec>>,
    context: RoleContext,
) -> anyhow::Result<Vec<ChildSpec>> {
    // Started first and stopped last, so that the whole shutdown can be scraped.
    let metrics = metrics_http(&context)?;
    Ok(metrics.into_iter().chain(assemble(context)?).collect())
}

fn failure(escalation: Result<Escalation, oneshot::error::RecvError>) -> ExitError {
    match escalation {
        Ok(Escalation::GivenUp { child }) => ExitError::internal(format!("actor {child} exceeded its restart budget")),
        Ok(Escalation::Refused { message }) => ExitError::unavailable(message),
        Err(_) => ExitError::internal("the supervisor ended"),
    }
}

fn connector(config: &DatabaseConfig, io: &Handle, logger: &Logger) -> Result<Connector, ExitError> {
    let connector = Connector::logging(config, io.clone(), logger);
    connector.map_err(|e| ExitError::unavailable(format!("cannot set up TLS: {e}")))
}

/// Retries while the database is unavailable or a lock is held. Any other failure is final.
async fn migrate_when_reachable(
    connector: &Connector,
    migrations: Migrations,
    health: &HealthBoard,
    logger: &Logger,
) -> Result<(), ExitError> {
    let mut attempt = 0;
    loop {
        match with_reminders(migrate_and_check(connector, migrations), || warn_slow(logger)).await {
            Ok(migrated) => {
                log_migrations(logger, &migrated);
                return Ok(());
            }
            Err(e) if matches!(e.class(), FailureClass::Unavailable | FailureClass::Transient) => {
                health.change(|health| {
                    for check in health.checks.values_mut().filter(|check| check.essential) {
                        check.details = Some("not reached since startup".to_owned());
                    }
                });
                pause(logger, &e, attempt).await;
                attempt = attempt.saturating_add(1);
            }
            Err(e) => return Err(migration_failed(&e)),
        }
    }
}

fn warn_slow(logger: &Logger) {
    warn!(logger, "still waiting for the migration of the database");
}

async fn migrate_and_check(connector: &Connector, migrations: Migrations) -> Result<Migrated, MigrateError> {
    let migrated = migrate(connector, migrations).await?;
    check_runtime_user(connector, migrations, &migrated).await?;
    Ok(migrated)
}

async fn pause(logger: &Logger, e: &MigrateError, attempt: u32) {
    let delay = BACKOFF.delay(attempt, random_fraction());
    let again_in_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
    warn!(logger, "the database cannot be used yet; retrying"; "error" => chain(e), "again_in_ms" => again_in_ms);
    tokio::time::sleep(delay).await;
}

fn migration_failed(e: &MigrateError) -> ExitError {
    if let MigrateError::Shards(differ) = e {
        return ExitError::usage(differ);
    }
    match e.class() {
        FailureClass::Bug => ExitError::internal(chain(e)),
        FailureClass::Refused | FailureClass::Unavailable | FailureClass::Transient | FailureClass::Permanent => {
            ExitError::unavailable(format!("the database is not up to date: {}", chain(e)))
        }
    }
}

fn log_migrations(logger: &Logger, migrated: &Migrated) {
    for setting in &migrated.not_durable {
        warn!(logger, "unsafe setting of PostgreSQL: acknowledged commits may be lost in a crash"; "error" => format!("{setting} is off"));
    }
    if let Some(newest) = &migrated.newer {
        info!(logger, "the database is newer than this version; privileges are left as they are"; "migration" => newest.to_string());
    }
    for migration in &migrated.applied {
        info!(logger, "migration applied"; "migration" => migration.to_string());
    }
    for schema in &migrated.distributed {
        info!(logger, "shard distributed over the workers of Citus"; "schema" => schema);
    }
    for Unreachable { schema, error } in &migrated.unreachable {
        warn!(logger, "shard is unreachable and was not checked"; "schema" => schema, "error" => error);
    }
    if migrated.applied.is_empty() {
        info!(logger, "database is up to date");
    }
}
