//! `purse config show`: the effective value of each setting, and which layer it comes from.

use clap::{ArgMatches, Command};
use serde_json::json;

use crate::infra::config::{Effective, Layers, Section, Source, effective};
use crate::kernel::{ExitError, ExitStatus, Role};
use crate::operate::failure::Failure;
use crate::operate::help::help_end;
use crate::operate::humanize::harmless;
use crate::operate::output::{Format, List};

pub(super) fn command() -> Command {
    Command::new("show")
        .about("Show the effective value of each setting of a role, and where it comes from")
        .long_about(
            "Shows the value that the role would use for each setting, and the layer that it comes from: a flag, the \
             environment, a file, or the default. Keys are masked, and URLs are shown without their passwords. Connects to \
             nothing. If the configuration has problems, they are listed on standard error and the exit code is 64.",
        )
        .after_help(help_end(
            Some((Section::Role, &Role::ALL)),
            &[
                "purse config show --role users",
                "purse config show --role wallet --config-dir /etc/purse --json",
            ],
        ))
}

pub(super) fn show(arguments: &ArgMatches, layers: Layers) -> Result<ExitStatus, ExitError> {
    let (values, problems) = effective(layers);
    print(Format::of(arguments), &values)?;
    match problems {
        Some(problems) => Err(ExitError::usage(problems)),
        None => Ok(ExitStatus::Success),
    }
}

fn print(format: Format, values: &[Effective]) -> Result<(), Failure> {
    let mut list = List::begin(format, "settings", &["SETTING", "VALUE", "SOURCE"])?;
    for Effective { setting, value, source, place } in values {
        let json = json!({
            "name": setting.env, "value": value, "secret": setting.is_secret(), "source": name(*source), "place": place,
        });
        let shown = value.as_deref().map_or_else(|| "(unset)".to_owned(), harmless);
        let source = place.as_deref().map_or_else(|| name(*source).to_owned(), |place| described(*source, place));
        list.item(&json, [vec![setting.env.to_owned(), shown, source]]);
    }
    Ok(list.end(
        json!({}),
        "Settings that are unset are off, or have the default that `purse config template` describes.",
    )?)
}

const fn name(source: Source) -> &'static str {
    match source {
        Source::Default => "default",
        Source::File => "file",
        Source::Environment => "environment",
        Source::SecretFile => "secretFile",
        Source::Flag => "flag",
    }
}

fn described(source: Source, place: &str) -> String {
    let place = harmless(place);
    match source {
        Source::Default => place,
        Source::File => place.split_once(" in ").map_or(place.clone(), |(_, file)| file.to_owned()),
        Source::Environment => "environment".to_owned(),
        Source::SecretFile => format!("file named by {place}"),
        Source::Flag => format!("flag {place}"),
    }
}
