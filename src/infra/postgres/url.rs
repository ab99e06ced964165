//! Database URLs: their parameters, read as libpq reads them.

use std::fmt::{self, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio_postgres::config::Host;

/// Longest limit that a URL may set for one server.
const CONNECT_TIMEOUT_MAX: Duration = Duration::from_mins(1);
/// Longest name of an unknown parameter that an error message repeats.
const NAME_CHARS_MAX: usize = 40;

/// `sslmode`, with the meaning that libpq gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SslMode {
    Disable,
    /// Without TLS, and with it if the server rejects that.
    Allow,
    /// With TLS, and without it if the server has none. Nothing is verified.
    Prefer,
    /// With TLS. Nothing is verified, unless `sslrootcert` is set.
    Require,
    /// The certificate was issued by a trusted CA.
    VerifyCa,
    /// The same, and it is valid for the host name.
    VerifyFull,
}

/// The CAs that are trusted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RootCertificates {
    /// Those of the operating system.
    System,
    File(Vec<CertificateDer<'static>>),
}

/// A parsed URL. `driver` has everything that the driver understands.
#[derive(Clone)]
pub(super) struct Target {
    pub(super) driver: tokio_postgres::Config,
    pub(super) ssl_mode: SslMode,
    pub(super) roots: RootCertificates,
    /// For one server; `None` for the default.
    pub(super) connect_timeout: Option<Duration>,
    /// Whether `target_session_attrs` is set.
    names_session: bool,
}

/// Why a URL is rejected. Contains neither its values nor the error of the driver, which may show the password.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum UrlProblem {
    /// It is no URL of a PostgreSQL database with a user and a host.
    Form,
    /// The end of a sentence that begins with the name of the setting.
    Parameter(String),
}

impl fmt::Display for UrlProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Form => f.write_str("the URL is not valid"),
            Self::Parameter(problem) => write!(f, "the URL {problem}"),
        }
    }
}

/// Whether `url` is a PostgreSQL URL with a user and a host, and each of its parameters is known and valid.
pub fn is_database_url(url: &str) -> bool {
    Target::parse(url).is_ok()
}

/// What is wrong with the parameters of a URL, as the end of a sentence that begins with the name of the setting. `None`
/// if there is nothing more precise to say than what a URL looks like.
pub fn database_url_problem(url: &str) -> Option<String> {
    match Target::parse(url).err()? {
        UrlProblem::Form => None,
        UrlProblem::Parameter(problem) => Some(problem),
    }
}

/// Why a valid URL probably means something else than it says, as the end of a sentence that begins with the name of the
/// setting.
pub fn database_url_doubt(url: &str) -> Option<&'static str> {
    let target = Target::parse(url).ok()?;
    let servers = target.driver.get_hosts().len().max(target.driver.get_hostaddrs().len());
    (servers > 1 && !target.names_session).then_some(
        "names several servers but not target_session_attrs=read-write: the roles use the one that accepts writes, and \
         commands the first one that responds, which may be a standby",
    )
}

/// A valid URL with `mask` in the place of its password.
pub fn url_without_password(url: &str, mask: &str) -> Option<String> {
    let driver = Target::parse(url).ok()?.driver;
    let ports = driver.get_ports();
    let host = |(place, host): (usize, &Host)| {
        let port = ports.get(place).or_else(|| ports.first()).copied().unwrap_or(5432);
        match host {
            Host::Tcp(name) => format!("{name}:{port}"),
            Host::Unix(path) => format!("{}:{port}", path.display()),
        }
    };
    let hosts: Vec<String> = driver.get_hosts().iter().enumerate().map(host).collect();
    let password = driver.get_password().map(|_| format!(":{mask}")).unwrap_or_default();
    let shown_above = ["user", "password", "host", "port", "dbname"];
    let others = split_query(url)
        .1
        .split('&')
        .filter(|parameter| parameter.split_once('=').is_some_and(|(name, _)| !shown_above.contains(&name)));
    let others: Vec<&str> = others.collect();
    let query = if others.is_empty() { String::new() } else { format!("?{}", others.join("&")) };
    let (user, database) = (driver.get_user().unwrap_or_default(), driver.get_dbname().unwrap_or_default());
    Some(format!("postgres://{user}{password}@{}/{database}{query}", hosts.join(",")))
}

/// What a parameter sets.
type Apply = fn(&mut Target, &str) -> Result<(), String>;

/// The parameters that are read here, because the driver does not know all of their values or reads them differently.
const OWN: &[(&str, Apply)] = &[
    ("sslmode", |target, value| {
        target.ssl_mode = match value {
            "disable" => SslMode::Disable,
            "allow" => SslMode::Allow,
            "prefer" => SslMode::Prefer,
            "require" => SslMode::Require,
            "verify-ca" => SslMode::VerifyCa,
            "verify-full" => SslMode::VerifyFull,
            _ => return Err("disable, allow, prefer, require, verify-ca or verify-full".to_owned()),
        };
        Ok(())
    }),
    // As libpq does, for URLs that were written for JDBC.
    ("ssl", |target, value| {
        if value != "true" {
            return Err("true; use sslmode instead".to_owned());
        }
        target.ssl_mode = SslMode::Require;
        Ok(())
    }),
    ("sslrootcert", |target, value| {
        target.roots = match value {
            "system" => RootCertificates::System,
            path => RootCertificates::File(certificates(Path::new(path))?),
        };
        Ok(())
    }),
    ("connect_timeout", |target, value| {
        let limit = format!("a number of seconds up to {}", CONNECT_TIMEOUT_MAX.as_secs());
        let seconds: i64 = value.parse().map_err(|_| limit.clone())?;
        // Zero and below mean no limit to libpq. A limit there always is, so they mean the default.
        let timeout = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
        if timeout > Some(CONNECT_TIMEOUT_MAX) {
            return Err(limit);
        }
        target.connect_timeout = timeout;
        Ok(())
    }),
    // The roles open only sessions that accept writes, whatever this says; `any` lets a command read from a standby.
    ("target_session_attrs", |target, value| {
        match value {
            "any" => {}
            "read-write" | "primary" => {
                target.driver.target_session_attrs(tokio_postgres::config::TargetSessionAttrs::ReadWrite);
            }
            _ => return Err("read-write, primary or any, because purse writes".to_owned()),
        }
        target.names_session = true;
        Ok(())
    }),
    ("keepalives", |target, value| {
        let on: u64 = value.parse().map_err(|_| "0 or 1".to_owned())?;
        target.driver.keepalives(on != 0);
        Ok(())
    }),
    ("keepalives_idle", |target, value| {
        target.driver.keepalives_idle(seconds(value)?);
        Ok(())
    }),
    ("keepalives_interval", |target, value| {
        target.driver.keepalives_interval(seconds(value)?);
        Ok(())
    }),
    ("keepalives_count", |target, value| {
        target.driver.keepalives_retries(value.parse().map_err(|_| "a whole number".to_owned())?);
        Ok(())
    }),
    // Milliseconds, as in libpq. The driver would read seconds.
    ("tcp_user_timeout", |target, value| {
        let ms: u64 = value.parse().map_err(|_| "a number of milliseconds".to_owned())?;
        if ms > 0 {
            target.driver.tcp_user_timeout(Duration::from_millis(ms));
        }
        Ok(())
    }),
];

/// The parameters that the driver reads as libpq does, with what their values are.
const OF_THE_DRIVER: &[(&str, &str)] = &[
    ("application_name", "any text"),
    ("options", "any text"),
    ("user", "any text"),
    ("password", "any text"),
    ("dbname", "any text"),
    ("host", "names or addresses"),
    ("hostaddr", "IP addresses separated by commas"),
    ("port", "ports separated by commas"),
    ("channel_binding", "disable, prefer or require"),
    ("load_balance_hosts", "disable or random"),
    ("sslnegotiation", "postgres or direct"),
];

/// What the driver reads differently from libpq, or not at all.
fn servers_problem(before: &str, query: &str, driver: &tokio_postgres::Config) -> Option<&'static str> {
    let authority = before.split_once("://").and_then(|(_, rest)| rest.split('/').next()).unwrap_or_default();
    let servers = authority.rsplit_once('@').map_or(authority, |(_, servers)| servers);
    let is_server = |parameter: &str| parameter.starts_with("host=") || parameter.starts_with("port=");
    if !servers.is_empty() && query.split('&').any(is_server) {
        Some("has `host` or `port` as a parameter too. Write all servers before the database, as in h1:5432,h2:5432")
    } else if driver.get_hosts().iter().any(|host| matches!(host, Host::Tcp(name) if name.contains(','))) {
        Some("has several servers in `host`. Write them before the database, as in h1:5432,h2:5432")
    } else if driver.get_ports().contains(&0) {
        Some("has port 0")
    } else {
        None
    }
}

fn seconds(value: &str) -> Result<Duration, String> {
    match value.parse() {
        Ok(seconds @ 1..) => Ok(Duration::from_secs(seconds)),
        Ok(_) | Err(_) => Err("a number of seconds above 0".to_owned()),
    }
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let shown = PathBuf::from(path).display().to_string();
    let found: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
    match found {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(format!("a PEM file with certificates; {shown} has none")),
        Err(rustls::pki_types::pem::Error::Io(e)) => Err(format!("a PEM file with certificates; {shown}: {e}")),
        Err(_) => Err(format!("a PEM file with certificates; {shown} is not valid")),
    }
}

impl Target {
    pub(super) fn parse(url: &str) -> Result<Self, UrlProblem> {
        if !(url.starts_with("postgres://") || url.starts_with("postgresql://")) {
            return Err(UrlProblem::Form);
        }
        let (before, query) = split_query(url);
        let (mut own, mut of_the_driver, mut unknown) = (Vec::new(), String::new(), Vec::new());
        for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
            let Some((name, value)) = parameter.split_once('=') else { return Err(UrlProblem::Form) };
            if let Some((name, apply)) = OWN.iter().find(|(own, _)| *own == name) {
                own.push((*name, *apply, decode(value).ok_or(UrlProblem::Form)?));
            } else if let Some((name, values)) = OF_THE_DRIVER.iter().find(|(known, _)| *known == name) {
                // Each on its own, so that the error names it. The value may be a secret.
                if format!("postgres://?{parameter}").parse::<tokio_postgres::Config>().is_err() {
                    return Err(UrlProblem::Parameter(format!("has an invalid `{name}`: must be {values}")));
                }
                let separator = if of_the_driver.is_empty() { '?' } else { '&' };
                let _ = write!(of_the_driver, "{separator}{parameter}");
            } else {
                unknown.push(name);
            }
        }
        let driver: tokio_postgres::Config =
            format!("{before}{of_the_driver}").parse().map_err(|_| UrlProblem::Form)?;
        if driver.get_user().is_none() || driver.get_hosts().is_empty() && driver.get_hostaddrs().is_empty() {
            return Err(UrlProblem::Form);
        }
        if let Some(problem) = servers_problem(before, query, &driver) {
            return Err(UrlProblem::Parameter(problem.to_owned()));
        }
        if !unknown.is_empty() {
            return Err(UrlProblem::Parameter(unknown_parameters(&unknown)));
        }
        let mut target = Self {
            driver,
            ssl_mode: SslMode::Prefer,
            roots: RootCertificates::System,
            connect_timeout: None,
            names_session: false,
        };
        for (name, apply, value) in own {
            apply(&mut target, &value)
                .map_err(|expected| UrlProblem::Parameter(format!("has an invalid `{name}`: must be {expected}")))?;
        }
        if target.ssl_mode == SslMode::Require && target.roots != RootCertificates::System {
            target.ssl_mode = SslMode::VerifyCa;
        }
        Ok(target)
    }
}

fn unknown_parameters(names: &[&str]) -> String {
    let plain =
        |name: &&&str| name.len() <= NAME_CHARS_MAX && name.bytes().all(|b| b.is_ascii_alphabetic() || b == b'_');
    // A name of another form may be a part of a password.
    let named: Vec<String> = names.iter().filter(plain).map(|name| format!("`{name}`")).collect();
    let named = if named.is_empty() { "a parameter".to_owned() } else { named.join(", ") };
    let known: Vec<&str> =
        OWN.iter().map(|(name, _)| *name).chain(OF_THE_DRIVER.iter().map(|(name, _)| *name)).collect();
    format!("has {named}, which purse does not know; it knows {}", known.join(", "))
}

/// Where the driver begins to read parameters: at the first question mark after the password.
fn split_query(url: &str) -> (&str, &str) {
    let after_password = url.find('@').map_or(0, |at| at + 1);
    match url.get(after_password..).and_then(|rest| rest.find('?')) {
        Some(at) => {
            let at = after_password + at;
            (url.get(..at).unwrap_or(url), url.get(at + 1..).unwrap_or_default())
        }
        None => (url, ""),
    }
}

/// Percent-decodes a value.
fn decode(text: &str) -> Option<String> {
    let mut bytes = text.bytes();
    let mut decoded = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => {
                let digit = |byte: u8| char::from(byte).to_digit(16);
                u8::try_from(digit(bytes.next()?)? * 16 + digit(bytes.next()?)?).ok()?
            }
            other => other,
        });
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn problem(url: &str) -> String {
        database_url_problem(url).unwrap_or_default()
    }

    #[test]
    fn only_a_postgres_url_with_a_user_and_a_host_is_accepted() {
        assert!(is_database_url("postgres://u:p@localhost:5432/db"));
        assert!(is_database_url("postgresql://u@localhost/db?sslmode=disable"));
        assert!(is_database_url("postgresql://u@h1:5432,h2:5433/db?target_session_attrs=read-write"));
        assert!(is_database_url("postgresql:///db?user=u&host=h"));
        for refused in ["", "mysql://u@h/db", "postgres://", "postgres://u:p@h:port/db", "host=localhost user=u"] {
            assert!(!is_database_url(refused), "{refused}");
            assert_eq!(database_url_problem(refused), None, "{refused}");
        }
    }

    #[test]
    fn several_servers_are_doubtful_unless_the_url_says_which_session_is_wanted() {
        for (url, is_doubtful) in [
            ("postgres://u@h/db", false),
            ("postgres://u@h1,h2/db", true),
            ("postgres://u@h1:1,h2:2/db?connect_timeout=2", true),
            ("postgres:///db?user=u&host=h&hostaddr=192.0.2.1,192.0.2.2", true),
            ("postgres://u@h1,h2/db?target_session_attrs=read-write", false),
            ("postgres://u@h1,h2/db?target_session_attrs=any", false),
        ] {
            assert_eq!(database_url_doubt(url).is_some(), is_doubtful, "{url}");
        }
    }

    #[test]
    fn a_url_is_shown_without_its_password_wherever_that_is() {
        for (url, shown) in [
            ("postgres://u:hunter22@h/db", "postgres://u:*@h:5432/db"),
            ("postgresql://u:hunter%4022@h:1,i:2/db?sslmode=require", "postgres://u:*@h:1,i:2/db?sslmode=require"),
            ("postgres://u@h/db?password=hunter22&connect_timeout=3", "postgres://u:*@h:5432/db?connect_timeout=3"),
            ("postgres:///db?user=u&host=h", "postgres://u@h:5432/db"),
        ] {
            assert_eq!(url_without_password(url, "*").as_deref(), Some(shown), "{url}");
        }
        assert_eq!(url_without_password("postgres://u:hunter22@h/db?pass=hunter22", "*"), None);
    }

    #[test]
    fn sslmode_has_the_six_values_of_libpq_and_prefer_is_the_default() {
        let mode = |query: &str| Target::parse(&format!("postgres://u@h/d{query}")).expect("valid").ssl_mode;
        assert_eq!(mode(""), SslMode::Prefer);
        for (name, expected) in [
            ("disable", SslMode::Disable),
            ("allow", SslMode::Allow),
            ("prefer", SslMode::Prefer),
            ("require", SslMode::Require),
            ("verify-ca", SslMode::VerifyCa),
            ("verify-full", SslMode::VerifyFull),
        ] {
            assert_eq!(mode(&format!("?sslmode={name}")), expected);
        }
        assert_eq!(mode("?sslmode=disable&sslmode=require"), SslMode::Require, "the last one counts");
        assert_eq!(mode("?ssl=true"), SslMode::Require);
        assert!(problem("postgres://u@h/d?sslmode=on").contains("`sslmode`: must be disable, allow"));
    }

    #[test]
    fn an_unknown_or_invalid_parameter_is_named_and_no_value_is_shown() {
        let two = problem("postgres://u:hunter22@h/d?pgbouncer=true&sslmode=require&connection_limit=hunter22");
        assert!(two.starts_with("has `pgbouncer`, `connection_limit`, which purse does not know"), "{two}");
        for name in [
            "sslmode",
            "ssl",
            "connect_timeout",
            "target_session_attrs",
            "keepalives",
            "keepalives_idle",
            "keepalives_interval",
            "keepalives_count",
            "tcp_user_timeout",
            "hostaddr",
            "port",
            "channel_binding",
            "load_balance_hosts",
            "sslnegotiation",
        ] {
            let reported = problem(&format!("postgres://u:p@h/d?{name}=hunter22"));
            assert!(reported.starts_with(&format!("has an invalid `{name}`: must be ")), "{reported}");
            assert!(!reported.contains("hunter22"), "{reported}");
        }
        // Where a password has an @, what follows looks like parameters.
        assert!(!problem("postgres://u:p@x?hunter22=y@h/d").contains("hunter22"));
    }

    #[test]
    fn servers_are_in_one_place_and_have_ports() {
        for (rejected, why) in [
            ("postgres://u:hunter22@127.0.0.1/d?port=46432", "has `host` or `port` as a parameter too"),
            ("postgres://u:hunter22@h1,h2/d?sslmode=disable&port=1,2", "has `host` or `port` as a parameter too"),
            ("postgres://u:hunter22@h1:1/d?host=h1", "has `host` or `port` as a parameter too"),
            ("postgres://u:hunter22@/d?host=h1,h2&port=1,2", "has several servers in `host`"),
            ("postgres://u:hunter22@h:0/d", "has port 0"),
        ] {
            let problem = problem(rejected);
            assert!(problem.starts_with(why) && !problem.contains("hunter22"), "{rejected}: {problem}");
        }
        for accepted in ["postgres://u@/d?host=/run/postgresql&port=5433", "postgres://u@h1:1,h2:2/d?hostaddr=::1,::2"]
        {
            assert!(is_database_url(accepted), "{accepted}");
        }
    }

    #[test]
    fn a_root_certificate_is_read_and_makes_require_verify_it() {
        let missing = problem("postgres://u@h/d?sslmode=verify-full&sslrootcert=/nonexistent/ca%2Epem");
        assert!(
            missing.starts_with("has an invalid `sslrootcert`") && missing.contains("/nonexistent/ca.pem"),
            "{missing}"
        );
        assert!(problem("postgres://u@h/d?sslrootcert=Cargo.toml").contains("Cargo.toml has none"));
        let system = Target::parse("postgres://u@h/d?sslmode=require&sslrootcert=system").expect("valid");
        assert_eq!((system.ssl_mode, system.roots), (SslMode::Require, RootCertificates::System));
    }

    #[test]
    fn a_limit_for_connecting_is_in_seconds_and_never_absent() {
        let limit = |value: &str| {
            Target::parse(&format!("postgres://u@h/d?connect_timeout={value}")).expect("valid").connect_timeout
        };
        assert_eq!(limit("7"), Some(Duration::from_secs(7)));
        assert_eq!((limit("0"), limit("-1")), (None, None));
        assert!(!is_database_url("postgres://u@h/d?connect_timeout=61"));
    }

    #[test]
    fn values_are_percent_decoded() {
        assert_eq!(decode("a%2Fb%20c+d"), Some("a/b c+d".to_owned()));
        assert_eq!((decode("%"), decode("%2"), decode("%zz"), decode("%ff")), (None, None, None, None));
        let target =
            Target::parse("postgres://u@h/d?application_name=my%20app&options=-c%20geqo%3Doff").expect("valid");
        assert_eq!(target.driver.get_application_name(), Some("my app"));
        assert_eq!(target.driver.get_options(), Some("-c geqo=off"));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in any::<String>()) {
            let _ = (is_database_url(&text), is_database_url(&format!("postgres://{text}")));
            let _ = is_database_url(&format!("postgres://u@h/d?{text}"));
        }
    }
}
