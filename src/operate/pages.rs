//! Text generated from the tables of the binary: a configuration template, shell completions, manual pages.

use std::fmt::Write as _;

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use crate::infra::config::setting::{ALL, Fallback, Setting};
use crate::kernel::{ExitError, ExitStatus, Role};
use crate::operate::help::help_end;
use crate::operate::output::print;

/// The commands that read no settings.
pub fn commands() -> [Command; 3] {
    let shell = Arg::new("shell").value_name("SHELL").required(true).value_parser(value_parser!(Shell));
    let page =
        Arg::new("command").value_name("COMMAND").num_args(0..).help("Command to describe, such as `dlq redrive`");
    [
        Command::new("config")
            .about("Show the effective configuration, or print a template")
            .subcommand_required(true)
            .arg_required_else_help(true)
            .after_help(help_end(None, &["purse config show --role users", "purse config template > config/base.toml"]))
            .subcommand(
                Command::new("template")
                    .about("Print every setting with its default, to save as config/base.toml")
                    .after_help(help_end(None, &["purse config template > config/base.toml"])),
            ),
        Command::new("completions")
            .about("Print a completion script for a shell")
            .arg(shell)
            .after_help(help_end(None, &["purse completions bash > /etc/bash_completion.d/purse"])),
        Command::new("man")
            .about("Print a manual page, for `man -l -`")
            .arg(page)
            .after_help(help_end(None, &["purse man dlq redrive | man -l -"])),
    ]
}

/// `purse config template`.
pub fn config_template() -> Result<ExitStatus, ExitError> {
    print(&template())
}

/// `purse completions SHELL`; `whole` is the command line to complete.
pub fn completions(arguments: &ArgMatches, mut whole: Command) -> Result<ExitStatus, ExitError> {
    let mut script = Vec::new();
    if let Some(shell) = arguments.get_one::<Shell>("shell") {
        // Into memory first: the generator panics on a closed pipe.
        clap_complete::generate(*shell, &mut whole, "purse", &mut script);
    }
    print(&String::from_utf8_lossy(&script))
}

/// `purse man [COMMAND…]`; `whole` is the command line to describe.
pub fn man(arguments: &ArgMatches, mut whole: Command) -> Result<ExitStatus, ExitError> {
    whole.build();
    let mut page = &whole;
    for word in arguments.get_many::<String>("command").into_iter().flatten() {
        match page.find_subcommand(word) {
            Some(found) => page = found,
            None => return Err(ExitError::usage(format!("{} has no command {word}", page.get_name()))),
        }
    }
    // Other pages refer to the page of `purse dlq redrive` as purse-dlq-redrive(1).
    let name = page.get_display_name().unwrap_or_else(|| page.get_name()).to_owned();
    let mut rendered = Vec::new();
    let end = page.get_after_long_help().or_else(|| page.get_after_help()).map(ToString::to_string);
    // Without its end, which the generator would fill into one paragraph.
    let page = page.clone().name(name).after_help("").after_long_help("");
    clap_mangen::Man::new(page).render(&mut rendered).map_err(ExitError::internal)?;
    let page = String::from_utf8_lossy(&rendered);
    print(&format!("{}{}", page.replace(".SH EXTRA\n", ""), end.map(|end| notes(&end)).unwrap_or_default()))
}

/// Text as a section of a manual page, line by line as it is.
fn notes(text: &str) -> String {
    let mut section = String::from(".SH NOTES\n.nf\n");
    for line in text.lines() {
        let escaped = line.replace('\\', "\\e").replace('-', "\\-");
        // A dot or a quote at the start of a line would be a request.
        let _ = writeln!(section, "\\&{escaped}");
    }
    section.push_str(".fi\n");
    section
}

/// A TOML file of comments only; uncommented, each line sets the default.
fn template() -> String {
    let mut page = String::from(
        "# Settings of purse. Save this as config/base.toml and uncomment a line to change it; each line shows the default.\n\
         # config/users.toml and config/wallet.toml override this file, the environment overrides them, and flags override \
         the environment.\n",
    );
    for (title, role) in
        [("both roles", None), ("the users role", Some(Role::Users)), ("the wallet role", Some(Role::Wallet))]
    {
        section(
            &mut page,
            &format!("Settings of {title}"),
            ALL.iter().filter(|s| s.role == role && !s.is_secret()),
            |s| (format!("{}, --{}", s.env, s.flag()), file_line(s)),
        );
    }
    section(
        &mut page,
        "Secrets: only from the environment, or from a file whose path is in <NAME>_FILE; a secret in this file is an error",
        ALL.iter().filter(|s| s.is_secret()),
        |s| {
            let role = s.role.map_or_else(|| "both roles".to_owned(), |role| format!("the {role} role"));
            let needed = if s.default == Fallback::RequiredSecret { "required" } else { "optional" };
            (format!("{role}, {needed}"), format!("{}=<{}>", s.env, s.placeholder))
        },
    );
    page
}

fn section<'a>(
    page: &mut String,
    title: &str,
    settings: impl Iterator<Item = &'a Setting>,
    line: impl Fn(&Setting) -> (String, String),
) {
    // Writing to a string cannot fail.
    let _ = write!(page, "\n# ---- {title} ----\n");
    for setting in settings {
        let (about, line) = line(setting);
        let _ = write!(page, "\n# {} ({about}).\n# Values: {}.\n# {line}\n", setting.help, setting.accepts);
    }
}

/// `key = value` as TOML; without a default the value is a placeholder.
fn file_line(setting: &Setting) -> String {
    let key = setting.key();
    match setting.default {
        Fallback::Text(text) if text.parse::<i64>().is_ok() || text.parse::<bool>().is_ok() => {
            format!("{key} = {text}")
        }
        // JSON and TOML quote a plain string alike.
        Fallback::Text(text) => format!("{key} = {}", serde_json::Value::from(text)),
        Fallback::Absent | Fallback::RequiredSecret | Fallback::OptionalSecret => {
            format!("{key} = <{}; unset by default>", setting.placeholder)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The lines with a value, uncommented.
    fn values() -> Vec<String> {
        let page = template();
        let shown = page.lines().filter_map(|line| line.strip_prefix("# "));
        shown
            .filter(|line| line.split(" = ").next().is_some_and(|key| ALL.iter().any(|s| s.key() == key)))
            .map(str::to_owned)
            .collect()
    }

    #[test]
    fn the_template_is_valid_toml_that_sets_nothing() {
        assert!(template().parse::<toml::Table>().is_ok_and(|table| table.is_empty()));
    }

    #[test]
    fn every_setting_is_in_the_template_once_with_its_default() {
        let (values, page) = (values(), template());
        for setting in ALL {
            let lines = values.iter().filter(|line| line.starts_with(&format!("{} = ", setting.key())));
            assert_eq!(lines.count(), usize::from(!setting.is_secret()), "{}", setting.env);
            assert_eq!(page.matches(&format!("\n# {}=<", setting.env)).count(), usize::from(setting.is_secret()));
            assert!(page.contains(setting.help), "{}", setting.env);
        }
    }

    fn shown(value: &toml::Value) -> String {
        match value {
            toml::Value::String(text) => text.clone(),
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(yes) => yes.to_string(),
            other => panic!("{other:?} is not a setting value"),
        }
    }

    #[test]
    fn an_uncommented_line_sets_the_default() {
        let with_default: Vec<String> = values().into_iter().filter(|line| !line.contains('<')).collect();
        let table: toml::Table = with_default.join("\n").parse().expect("TOML");
        for setting in ALL {
            if let Fallback::Text(default) = setting.default {
                let shown = table.get(&setting.key()).map(shown);
                assert_eq!(shown.as_deref(), Some(default), "{}", setting.env);
            }
        }
    }
}
