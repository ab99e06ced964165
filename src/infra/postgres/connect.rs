//! Connection parameters: session limits, planner settings, TLS, detection of dead peers.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::infra::config::{DatabaseConfig, DatabaseUrl};

/// Longest wait for a TCP connection and its handshakes.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection is closed when sent data stays unacknowledged for this long.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);
/// Idle time before the first keepalive probe.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);

/// Whether `url` is a PostgreSQL URL with a user and a host. The parser's error is dropped because it may contain the
/// password.
pub fn is_database_url(url: &str) -> bool {
    let scheme = url.starts_with("postgres://") || url.starts_with("postgresql://");
    let parsed = url.parse::<tokio_postgres::Config>();
    scheme && parsed.is_ok_and(|config| !config.get_hosts().is_empty() && config.get_user().is_some())
}

/// Every statement of a pool finds few rows by an index, so it is planned once, for any values, and without table scans. The
/// planner's statistics are always outdated on a table that grows by thousands of rows per second: a plan that is cheapest
/// for 1,000 rows scans all of them when there are 100,000.
const PLANNER: &str = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_bitmapscan=off \
                       -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off";

/// The isolation level that the order of our statements relies on (decision D022), whatever the database's default is.
const ISOLATION: &str = r"-c default_transaction_isolation=read\ committed";

/// Limits that the server enforces.
#[derive(Clone, Copy, Debug)]
pub(super) struct SessionLimits {
    pub(super) statement_timeout: Duration,
    pub(super) lock_timeout: Duration,
}

/// Without `limits`, the session keeps the server's defaults.
pub(super) fn driver_config(
    url: &DatabaseUrl,
    application_name: &str,
    limits: Option<SessionLimits>,
) -> Result<tokio_postgres::Config, tokio_postgres::Error> {
    let mut config: tokio_postgres::Config = url.expose().parse()?;
    config
        .application_name(application_name)
        .connect_timeout(CONNECT_TIMEOUT)
        .keepalives(true)
        .keepalives_idle(KEEPALIVE_IDLE)
        .tcp_user_timeout(UNACKNOWLEDGED_MAX);
    if let Some(limits) = limits {
        let own = config.get_options().unwrap_or_default().to_owned();
        config.options(format!(
            "{own} {ISOLATION} {PLANNER} -c statement_timeout={} -c lock_timeout={} -c idle_in_transaction_session_timeout={} -c client_connection_check_interval=1000",
            limits.statement_timeout.as_millis(),
            limits.lock_timeout.as_millis(),
            // Our transactions are never idle for longer than their own statements take.
            limits.statement_timeout.as_millis(),
        ));
    }
    Ok(config)
}

/// Opens the connections of a process.
#[derive(Clone)]
pub struct Connector {
    pub(super) config: DatabaseConfig,
    pub(super) tls: MakeRustlsConnect,
    pub(super) io: Handle,
}

impl Connector {
    /// Loads the system's root certificates once for all pools, unless TLS is disabled in every URL. Connects to nothing yet.
    ///
    /// # Errors
    /// When the cryptography provider does not support TLS.
    pub fn new(config: &DatabaseConfig, io: Handle) -> Result<Self, rustls::Error> {
        let plain = [&config.url, &config.migration_url].into_iter().all(disables_tls);
        let mut roots = rustls::RootCertStore::empty();
        if !plain {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // Certificates are always verified where TLS is used, also with `sslmode=require`.
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { config: config.clone(), tls: MakeRustlsConnect::new(tls), io })
    }
}

fn disables_tls(url: &DatabaseUrl) -> bool {
    url.expose().parse::<tokio_postgres::Config>().is_ok_and(|config| config.get_ssl_mode() == SslMode::Disable)
}

#[cfg(test)]
mod tests {
    use super::is_database_url;

    #[test]
    fn only_a_postgres_url_with_a_user_and_a_host_is_accepted() {
        assert!(is_database_url("postgres://u:p@localhost:5432/db"));
        assert!(is_database_url("postgresql://u@localhost/db?sslmode=disable"));
        for refused in ["", "mysql://u@h/db", "postgres://", "postgres://u:p@h:port/db", "host=localhost user=u"] {
            assert!(!is_database_url(refused), "{refused}");
        }
    }
}
