//! `purse token`: issues a token with which a back end acts on behalf of users.

use std::collections::BTreeSet;
use std::ffi::OsStr;

use clap::builder::{PossibleValue, StringValueParser, TypedValueParser};
use clap::error::{Error, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};

use crate::infra::config::setting::ACCESS_TOKEN_TTL;
use crate::infra::config::{Layers, Section, ServiceTokenConfig};
use crate::infra::security::service_token::{Scope, Service, sign};
use crate::infra::system::System;
use crate::kernel::{Clock as _, ExitError, ExitStatus, Role, ServiceName};
use crate::operate::help::help_end;
use crate::operate::output::{print, print_error};

pub(super) fn command() -> Command {
    Command::new("token")
        .about("Issue a token with which a back end reads and posts to wallets on behalf of users")
        .long_about(
            "Prints a service token: the back end sends it as `Authorization: Bearer <token>` to the routes of the wallet role \
             under /v1/wallets/{userId}. Every transaction that it posts shows the name of the service. Connects to nothing. \
             A token cannot be revoked; it ends after --ttl, or when INTERNAL_JWT_PRIVATE_KEY is replaced.",
        )
        .args([
            Arg::new("service")
                .long("service")
                .value_name("NAME")
                .required(true)
                .value_parser(|text: &str| ServiceName::parse(text))
                .help("Name of the service: 1 to 32 characters of a-z, 0-9 and -"),
            Arg::new("scope")
                .long("scope")
                .value_name("SCOPE")
                .required(true)
                .action(ArgAction::Append)
                .value_parser(ScopesParser)
                .help("What the service may do: one scope or several, separated by spaces or commas; can be repeated"),
            Arg::new("ttl")
                .long("ttl")
                .value_name("DURATION")
                .default_value("1h")
                // The same kind of value: whole seconds, at most a day.
                .value_parser(|text: &str| ACCESS_TOKEN_TTL.read(text))
                .help("Lifetime of the token, at most 24h"),
        ])
        .after_help(help_end(
            Some((Section::ServiceToken, &[Role::Wallet])),
            &[
                "purse token --service payments --scope wallet:post --ttl 15m",
                "purse token --service reports --scope wallet:read",
                "purse token --service shop --scope wallet:read,wallet:post --ttl 24h > token",
            ],
        ))
}

/// Reads scopes that are separated by spaces, as in the claim `scope`, or by commas.
#[derive(Clone)]
struct ScopesParser;

impl TypedValueParser for ScopesParser {
    type Value = BTreeSet<Scope>;

    fn parse_ref(&self, command: &Command, argument: Option<&Arg>, value: &OsStr) -> Result<Self::Value, Error> {
        let text = StringValueParser::new().parse_ref(command, argument, value)?;
        let scopes = text.split([' ', ',']).filter(|scope| !scope.is_empty()).map(str::parse::<Scope>);
        let refused = |message: &str| {
            let names = Scope::ALL.map(Scope::as_str).join(" or ");
            let message =
                format!("{message} for '--scope': a scope is {names}; separate several by spaces or commas\n");
            Error::raw(ErrorKind::InvalidValue, message).with_cmd(command)
        };
        let scopes: BTreeSet<Scope> =
            scopes.collect::<Result<_, _>>().map_err(|_| refused(&format!("invalid value '{text}'")))?;
        if scopes.is_empty() { Err(refused("no scope")) } else { Ok(scopes) }
    }

    /// For the help and for completions.
    fn possible_values(&self) -> Option<Box<dyn Iterator<Item = PossibleValue> + '_>> {
        Some(Box::new(Scope::ALL.into_iter().map(|scope| PossibleValue::new(scope.as_str()))))
    }
}

/// Prints the token.
pub(super) fn run(arguments: &ArgMatches, layers: Layers) -> Result<ExitStatus, ExitError> {
    let config = ServiceTokenConfig::build(layers).map_err(ExitError::usage)?;
    for warning in &config.warnings {
        print_error(&format!("warning: {warning}"));
    }
    let (Some(name), Some(ttl)) = (arguments.get_one("service").cloned(), arguments.get_one("ttl").copied()) else {
        return Err(ExitError::internal("an argument has no value"));
    };
    let scopes = arguments.get_many::<BTreeSet<Scope>>("scope").into_iter().flatten().flatten().copied().collect();
    let token =
        sign(&config.internal_key, &Service { name, scopes }, ttl, System.now()).map_err(ExitError::internal)?;
    print(&format!("{}\n", token.expose()))
}
