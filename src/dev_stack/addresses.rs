//! Where the private servers answer and who may log in: plain values, and one JSON line to hand them to another process.
//!
//! Everything listens on 127.0.0.1 alone, and the passwords are constants of a developer's machine. No secret of a real
//! installation ever passes through here.

use std::path::PathBuf;

use serde_json::{Value, json};

use super::error::DevStackError;

/// The password of every PostgreSQL account of a private server.
pub(super) const DEV_PASSWORD: &str = "purse";

/// The addresses and logins of one pair of servers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerAddresses {
    /// The host of both servers: the loopback address.
    pub host: String,
    /// The port of PostgreSQL.
    pub postgres_port: u16,
    /// PostgreSQL's superuser.
    pub postgres_superuser: String,
    /// The password of that superuser.
    pub postgres_password: String,
    /// The folder of `psql`, `pg_dump` and the rest.
    pub postgres_bin_dir: PathBuf,
    /// What PostgreSQL writes its log to.
    pub postgres_log: PathBuf,
    /// The AMQP port of RabbitMQ.
    pub amqp_port: u16,
    /// An administrator of RabbitMQ, for AMQP and for management.
    pub amqp_user: String,
    /// The password of that administrator.
    pub amqp_password: String,
    /// The port of RabbitMQ's management UI and HTTP API.
    pub management_port: u16,
}

impl ServerAddresses {
    pub(super) fn new(
        postgres_bin_dir: PathBuf,
        postgres_log: PathBuf,
        postgres_port: u16,
        amqp_port: u16,
        management_port: u16,
    ) -> Self {
        Self {
            host: "127.0.0.1".into(),
            postgres_port,
            postgres_superuser: "postgres".into(),
            postgres_password: DEV_PASSWORD.into(),
            postgres_bin_dir,
            postgres_log,
            amqp_port,
            amqp_user: "guest".into(),
            amqp_password: "guest".into(),
            management_port,
        }
    }

    /// The URL of a database for the superuser.
    pub fn superuser_url(&self, database: &str) -> String {
        self.database_url(&self.postgres_superuser, &self.postgres_password, database)
    }

    /// The AMQP URL of a virtual host; `/` is the default one.
    pub fn amqp_url(&self, vhost: &str) -> String {
        let vhost = vhost.replace('%', "%25").replace('/', "%2f");
        format!("amqp://{}:{}@{}:{}/{vhost}", self.amqp_user, self.amqp_password, self.host, self.amqp_port)
    }

    /// The root of RabbitMQ's management UI; its HTTP API is under `/api`.
    pub fn management_url(&self) -> String {
        format!("http://{}:{}", self.host, self.management_port)
    }

    pub(super) fn database_url(&self, user: &str, password: &str, database: &str) -> String {
        format!("postgres://{user}:{password}@{}:{}/{database}", self.host, self.postgres_port)
    }

    /// The addresses as one line of JSON, without a line end.
    pub fn to_json_line(&self) -> String {
        json!({
            "host": self.host,
            "postgresPort": self.postgres_port,
            "postgresSuperuser": self.postgres_superuser,
            "postgresPassword": self.postgres_password,
            "postgresBinDir": self.postgres_bin_dir.to_string_lossy(),
            "postgresLog": self.postgres_log.to_string_lossy(),
            "amqpPort": self.amqp_port,
            "amqpUser": self.amqp_user,
            "amqpPassword": self.amqp_password,
            "managementPort": self.management_port,
        })
        .to_string()
    }

    /// Reads what [`Self::to_json_line`] wrote.
    ///
    /// # Errors
    /// `Addresses`, with the first field that is missing or of another type.
    pub fn from_json_line(line: &str) -> Result<Self, DevStackError> {
        let value: Value = serde_json::from_str(line).map_err(|_| DevStackError::Addresses { missing: "JSON" })?;
        let text = |name: &'static str| {
            value.get(name).and_then(Value::as_str).map(str::to_owned).ok_or(DevStackError::Addresses { missing: name })
        };
        let port = |name: &'static str| {
            let number = value.get(name).and_then(Value::as_u64).and_then(|number| u16::try_from(number).ok());
            number.ok_or(DevStackError::Addresses { missing: name })
        };
        Ok(Self {
            host: text("host")?,
            postgres_port: port("postgresPort")?,
            postgres_superuser: text("postgresSuperuser")?,
            postgres_password: text("postgresPassword")?,
            postgres_bin_dir: text("postgresBinDir")?.into(),
            postgres_log: text("postgresLog")?.into(),
            amqp_port: port("amqpPort")?,
            amqp_user: text("amqpUser")?,
            amqp_password: text("amqpPassword")?,
            management_port: port("managementPort")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some() -> ServerAddresses {
        ServerAddresses::new(
            "/usr/lib/postgresql/15/bin".into(),
            "/var/tmp/purse-0/postgres.log".into(),
            55432,
            55672,
            55673,
        )
    }

    #[test]
    fn addresses_survive_their_json_line() {
        let line = some().to_json_line();
        assert!(!line.contains('\n'));
        assert_eq!(ServerAddresses::from_json_line(&line).unwrap(), some());
    }

    #[test]
    fn a_port_past_65535_is_refused_by_its_name() {
        let line = some().to_json_line().replace("55672", "70000");
        let error = ServerAddresses::from_json_line(&line).unwrap_err();
        assert!(matches!(error, DevStackError::Addresses { missing: "amqpPort" }), "{error}");
    }

    #[test]
    fn the_default_virtual_host_is_written_with_its_slash_encoded() {
        assert_eq!(some().amqp_url("/"), "amqp://guest:guest@127.0.0.1:55672/%2f");
        assert_eq!(some().amqp_url("test-1"), "amqp://guest:guest@127.0.0.1:55672/test-1");
    }
}
