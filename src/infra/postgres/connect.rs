//! Opens connections: session limits, TLS, half-open detection.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::infra::config::{DatabaseConfig, DatabaseUrl};

/// Longest wait for a TCP connection and its handshake.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// A peer that leaves what we sent unacknowledged for this long is gone.
const UNACKNOWLEDGED_MAX: Duration = Duration::from_secs(10);
/// An idle connection is probed after this long.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);

/// Whether `url` can be a connection URL of ours. Why not is not told on purpose: the parser's message may quote the
/// password.
pub fn is_database_url(url: &str) -> bool {
    let scheme = url.starts_with("postgres://") || url.starts_with("postgresql://");
    let parsed = url.parse::<tokio_postgres::Config>();
    scheme && parsed.is_ok_and(|config| !config.get_hosts().is_empty() && config.get_user().is_some())
}

/// Every statement of a pool finds its few rows by an index, so it is planned once, for any values, and the planner is not
/// left to guess: a table that grows by thousands of rows a second is never as the statistics say, and a plan that was the
/// cheapest for 1,000 rows reads all of them when there are 100,000.
const PLANNER: &str = "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off -c enable_bitmapscan=off \
                       -c enable_hashjoin=off -c enable_mergejoin=off -c jit=off";

/// What the order of our statements rests on (decision D022), whatever the database's own default is.
const ISOLATION: &str = r"-c default_transaction_isolation=read\ committed";

/// Limits of a session, kept by the server.
#[derive(Clone, Copy, Debug)]
pub(super) struct SessionLimits {
    pub(super) statement_timeout: Duration,
    pub(super) lock_timeout: Duration,
}

/// The driver's configuration for a role's connection.
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
            // A transaction of ours never waits for anything but its own statements.
            limits.statement_timeout.as_millis(),
        ));
    }
    Ok(config)
}

/// How the connections of a process are opened.
#[derive(Clone)]
pub struct Connector {
    pub(super) config: DatabaseConfig,
    pub(super) tls: MakeRustlsConnect,
    pub(super) io: Handle,
}

impl Connector {
    /// Reads the system's certificates, once for all pools, unless no URL speaks TLS. Nothing is opened yet.
    ///
    /// # Errors
    /// When the cryptography provider cannot do TLS at all.
    pub fn new(config: &DatabaseConfig, io: Handle) -> Result<Self, rustls::Error> {
        let plain = [&config.url, &config.migration_url].into_iter().all(speaks_no_tls);
        let mut roots = rustls::RootCertStore::empty();
        if !plain {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        }
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        // Certificates are always verified where TLS is spoken, also under `sslmode=require`.
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Ok(Self { config: config.clone(), tls: MakeRustlsConnect::new(tls), io })
    }
}

fn speaks_no_tls(url: &DatabaseUrl) -> bool {
    url.expose().parse::<tokio_postgres::Config>().is_ok_and(|config| config.get_ssl_mode() == SslMode::Disable)
}

#[cfg(test)]
mod tests {
    use super::is_database_url;

    #[test]
    fn only_a_postgres_url_with_a_user_and_a_host_is_taken() {
        assert!(is_database_url("postgres://u:p@localhost:5432/db"));
        assert!(is_database_url("postgresql://u@localhost/db?sslmode=disable"));
        for refused in ["", "mysql://u@h/db", "postgres://", "postgres://u:p@h:port/db", "host=localhost user=u"] {
            assert!(!is_database_url(refused), "{refused}");
        }
    }
}
