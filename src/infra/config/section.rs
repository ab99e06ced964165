//! Which settings a command reads, and their effective values, for `--help` and `purse config show`.

use std::ffi::OsStr;

use crate::infra::config::kind::{Fallback, Setting};
use crate::infra::config::layers::{ConfigError, Layers, Source};
use crate::infra::config::raw::{self, MASK};
use crate::infra::config::setting::{
    ALL, AmqpConfig, DatabaseConfig, HttpConfig, MigrationConfig, OutboxConfig, ServiceTokenConfig, UsersConfig,
    WalletConfig,
};
use crate::infra::{amqp, postgres};
use crate::kernel::Role;

/// The part of the configuration that a command reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the variants are the sections")]
pub enum Section {
    Role,
    Migration,
    Http,
    Database,
    Amqp,
    Outbox,
    ServiceToken,
}

impl Section {
    /// The settings of the section, in the order of the table. Found by reading it, so that no list has to be kept.
    pub fn settings(self, role: Role) -> Vec<&'static Setting> {
        let mut layers = Layers::empty(ALL, role);
        let l = &mut layers;
        match (self, role) {
            (Self::Role, _) => read_role(l),
            (Self::Migration, _) => drop(MigrationConfig::read(l)),
            (Self::Http, _) => drop(HttpConfig::read(l)),
            (Self::Database, _) => drop(DatabaseConfig::read(l)),
            (Self::Amqp, _) => drop(AmqpConfig::read(l)),
            (Self::Outbox, _) => drop(OutboxConfig::read(l)),
            (Self::ServiceToken, _) => drop(ServiceTokenConfig::read(l)),
        }
        layers.settings_read().collect()
    }

    /// Those without which the section cannot be built.
    pub fn required(self, role: Role) -> Vec<&'static Setting> {
        self.settings(role).into_iter().filter(|setting| setting.default == Fallback::RequiredSecret).collect()
    }
}

fn read_role(l: &mut Layers) {
    match l.role() {
        Role::Users => drop(UsersConfig::read(l)),
        Role::Wallet => drop(WalletConfig::read(l)),
    }
}

/// The value that a role uses for a setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effective {
    /// The row of the table.
    pub setting: &'static Setting,
    /// As text; `None` if the setting is off. Of a secret only what may be shown.
    pub value: Option<String>,
    /// The layer that has it.
    pub source: Source,
    /// Where in that layer; `None` for a default.
    pub place: Option<String>,
}

/// The effective value of every setting of the role, and every problem of its configuration.
pub fn effective(mut layers: Layers) -> (Vec<Effective>, Option<ConfigError>) {
    read_role(&mut layers);
    let values = layers.settings_read().map(|setting| value_of(&layers, setting)).collect();
    (values, layers.into_problems())
}

fn value_of(layers: &Layers, setting: &'static Setting) -> Effective {
    let Some((found, place)) = layers.look_up(setting) else {
        let value = match setting.default {
            Fallback::Text(text) => Some(text),
            Fallback::Absent | Fallback::RequiredSecret | Fallback::OptionalSecret => layers.derived(setting),
        };
        return Effective { setting, value: value.map(str::to_owned), source: Source::Default, place: None };
    };
    // One that cannot be read is among the problems.
    let value = found.ok().map(|value| if setting.is_secret() { masked(setting, &value) } else { raw::shown(&value) });
    Effective { setting, value, source: place.source, place: Some(place.text) }
}

/// A URL without its password, or nothing of the text.
fn masked(setting: &Setting, value: &OsStr) -> String {
    let url = raw::clean(value).ok().filter(|_| setting.placeholder == "URL");
    let shown = url
        .and_then(|url| postgres::url_without_password(url, MASK).or_else(|| amqp::urls_without_passwords(url, MASK)));
    shown.map_or_else(|| MASK.to_owned(), |url| raw::shown(OsStr::new(&url)))
}
