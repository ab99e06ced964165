//! Flags and subcommands. The flags of settings are generated from the table of settings.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::error::{ContextKind, ContextValue};
use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};

use purse::infra::config::{Flag, Layers, Section, Setting, setting};
use purse::kernel::{ExitError, ExitStatus, Role};
use purse::operate::help_end;

/// Folder of the configuration files, if it exists.
const CONFIG_FOLDER: &str = "config";
/// Names another folder.
const CONFIG_FOLDER_VARIABLE: &str = "PURSE_CONFIG_DIR";

/// The value of `--role` that stands for both.
const BOTH_ROLES: &str = "all";

/// Sets all of [`RETRY_TTLS`].
const RETRY_TTL_FLAG: &str = "--retry-ttl-ms";
const RETRY_TTLS: [setting::Typed<Duration>; 3] =
    [setting::RETRY_TTL_1_MS, setting::RETRY_TTL_2_MS, setting::RETRY_TTL_3_MS];

pub fn command() -> Command {
    let about = "Accounts and wallets as a service: registration, login, provisioning through RabbitMQ, and an append-only ledger";
    let role = |text: &'static str, examples: &[&str]| (text, help_end(Some((Section::Role, &Role::ALL)), examples));
    let (check_about, check_end) = role(
        "Validate the configuration of a role and exit",
        &["purse check-config --role users", "purse check-config --role wallet --config-dir /etc/purse"],
    );
    let (_, end) = role(
        about,
        &[
            "purse --role users",
            "purse --role wallet --port 8081 --log-level debug",
            "purse check-config --role users",
            "purse dlq list",
        ],
    );
    with_settings(Command::new("purse"), Section::Role, "Role to run")
        .version(env!("CARGO_PKG_VERSION"))
        .about(about)
        .after_long_help(format!("{end}\n\n{}", exit_codes()))
        .after_help(format!("{end}\n\n`purse --help` also lists the settings, which have flags, and the exit codes."))
        .subcommand_negates_reqs(true)
        .args_conflicts_with_subcommands(true)
        .arg(
            Arg::new("check-config")
                .long("check-config")
                .action(ArgAction::SetTrue)
                .help("Validate the configuration and exit"),
        )
        .arg(
            Arg::new("migrate-only")
                .long("migrate-only")
                .action(ArgAction::SetTrue)
                .conflicts_with("check-config")
                .help("Apply the migrations and exit"),
        )
        .subcommand(
            with_settings(Command::new("check-config").about(check_about), Section::Role, "Role to check")
                .after_help(check_end),
        )
        .subcommand(
            with_settings(
                Command::new("migrate").about("Apply the migrations of a role and exit").long_about(
                    "Applies the migrations of a role and exits. Runs them as the owner of the database if \
                         USERS_MIGRATION_DATABASE_URL or WALLET_MIGRATION_DATABASE_URL names one, and then grants the \
                         runtime user its privileges.",
                ),
                Section::Migration,
                "Role whose database is migrated",
            )
            .after_help(help_end(Some((Section::Migration, &Role::ALL)), &["purse migrate --role users"])),
        )
        .subcommand(
            with_settings(
                Command::new("healthcheck").about(
                    "Exit with 0 if the role on this machine is ready, else with 1; for containers without curl",
                ),
                Section::Http,
                "Role to probe",
            )
            .after_help(help_end(
                None,
                &["purse healthcheck --role users", "purse healthcheck --role wallet --port 8081"],
            )),
        )
        .subcommand(with_settings(purse::operate::doctor_command(), Section::Role, "Role to check"))
        .subcommand(
            Command::new("openapi")
                .about("Print the OpenAPI 3.1 document of a role, or of both in one; requires no settings")
                .arg(role_flag("Role to document, or both in one document").value_parser(PossibleValuesParser::new(
                    Role::ALL.map(Role::as_str).into_iter().chain([BOTH_ROLES]),
                )))
                .after_help(help_end(
                    None,
                    &["purse openapi --role users > users.json", "purse openapi --role all > purse.json"],
                )),
        )
        .subcommands(purse::operate::commands().into_iter().map(with_config_folder))
        .subcommand(with_config_folder(purse::operate::token_command()))
        .subcommands(purse::operate::page_commands())
        .mut_subcommand("config", |config| {
            config.subcommand(with_settings(
                purse::operate::config_show_command(),
                Section::Role,
                "Role whose settings are shown",
            ))
        })
}

/// Parses the arguments of this process.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<ArgMatches, clap::Error> {
    command().try_get_matches_from(arguments).map_err(|mut error| {
        if error.get(ContextKind::InvalidSubcommand) == Some(&ContextValue::String("dev".to_owned())) {
            let tip =
                "the development stack is a separate program: run `./justw up` in the source tree, or `purse-dev up`";
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
        }
        error
    })
}

/// For a command that implies its role. It reads the same files, but its settings have no flags.
fn with_config_folder(command: Command) -> Command {
    command.arg(config_dir().global(true))
}

fn exit_codes() -> String {
    let codes = ExitStatus::ALL.map(|status| format!("{:>4}  {}\n", status.code(), status.meaning()));
    format!(
        "Settings come from config/base.toml, config/<role>.toml, the environment and flags; each overrides the one before. \
         Secrets come only from the environment. `purse config show` shows which value comes from where.\n\nExit codes:\n{}",
        codes.concat()
    )
}

fn config_dir() -> Arg {
    Arg::new("config-dir")
        .long("config-dir")
        .value_name("FOLDER")
        .value_parser(value_parser!(PathBuf))
        .help(format!("Folder of base.toml and <role>.toml [env: {CONFIG_FOLDER_VARIABLE}] [default: {CONFIG_FOLDER}]"))
}

fn role_flag(help: &'static str) -> Arg {
    Arg::new("role")
        .long("role")
        .value_name("ROLE")
        .required(true)
        .value_parser(PossibleValuesParser::new(Role::ALL.map(Role::as_str)))
        .help(help)
}

/// Adds the flag of the role and those of all settings, so that every command takes the flags of a role. Its help lists
/// those that the command reads.
fn with_settings(command: Command, reads: Section, role_help: &'static str) -> Command {
    let read: Vec<&Setting> = Role::ALL.into_iter().flat_map(|role| reads.settings(role)).collect();
    let is_read = |setting: &Setting| read.contains(&setting);
    let port = Arg::new("port")
        .long("port")
        .value_name("PORT")
        .help_heading("Settings of both roles")
        .value_parser(value_parser!(OsString))
        .allow_negative_numbers(true)
        .conflicts_with_all([setting::USERS_PORT.env, setting::WALLET_PORT.env])
        .hide(!is_read(&setting::USERS_PORT))
        .hide_short_help(true)
        .help("Port of the selected role (USERS_PORT or WALLET_PORT)");
    let retry_ttls = Arg::new("retry-ttl-ms")
        .long("retry-ttl-ms")
        .value_name("A,B,C")
        .help_heading(heading(Some(Role::Wallet)))
        .value_parser(value_parser!(OsString))
        .allow_negative_numbers(true)
        .conflicts_with_all(RETRY_TTLS.map(|setting| setting.env))
        .hide(!is_read(&setting::RETRY_TTL_1_MS))
        .hide_short_help(true)
        .help("All three delays of the retry ladder (RETRY_TTL_1_MS,RETRY_TTL_2_MS,RETRY_TTL_3_MS)");
    let settings = setting::ALL.iter().filter(|s| !s.is_secret()).map(|s| {
        let default = match s.default {
            setting::Fallback::Text(text) => format!(" [default: {text}]"),
            _ => String::new(),
        };
        Arg::new(s.env)
            .long(s.flag())
            .value_name(s.placeholder)
            // The configuration reports what is not UTF-8 or out of range, with the name of the flag.
            .value_parser(value_parser!(OsString))
            .allow_negative_numbers(true)
            .help_heading(heading(s.role))
            .hide(!is_read(s))
            .hide_short_help(true)
            .help(format!("{} [values: {}] [env: {}]{default}", s.help, s.accepts, s.env))
    });
    command.args([role_flag(role_help), config_dir(), port]).args(settings).arg(retry_ttls)
}

fn heading(role: Option<Role>) -> &'static str {
    match role {
        None => "Settings of both roles",
        Some(Role::Users) => "Settings of the users role",
        Some(Role::Wallet) => "Settings of the wallet role",
    }
}

pub fn role(matches: &ArgMatches) -> Result<Role, ExitError> {
    matches.get_one::<String>("role").map_or("", String::as_str).parse().map_err(ExitError::usage)
}

/// The value of `--role` of a command that takes both; `None` is both.
pub fn role_or_both(matches: &ArgMatches) -> Result<Option<Role>, ExitError> {
    let both = matches.get_one::<String>("role").is_some_and(|role| role == BOTH_ROLES);
    if both { Ok(None) } else { role(matches).map(Some) }
}

/// All layers of the configuration of the role in `--role`. A flag that cannot be used is reported when a section is built.
pub fn layers(matches: &ArgMatches) -> Result<Layers, ExitError> {
    let given = |id: &str| matches.get_one::<OsString>(id).cloned();
    let role = role(matches)?;
    let (mut flags, mut problems): (BTreeMap<String, Flag>, _) = (BTreeMap::new(), Vec::new());
    for setting in setting::ALL.iter().filter(|s| !s.is_secret()) {
        let Some(value) = given(setting.env) else { continue };
        let name = format!("--{}", setting.flag());
        match misplaced(setting, role) {
            Some(problem) => problems.push((name, problem)),
            None => drop(flags.insert(setting.env.to_owned(), Flag { name, value })),
        }
    }
    if let Some(value) = given("port") {
        let setting = match role {
            Role::Users => setting::USERS_PORT,
            Role::Wallet => setting::WALLET_PORT,
        };
        flags.insert(setting.env.to_owned(), Flag { name: "--port".to_owned(), value });
    }
    if let Some(ttls) = given("retry-ttl-ms") {
        match misplaced(&setting::RETRY_TTL_1_MS, role).map_or_else(|| retry_ttls(&ttls), Err) {
            Err(problem) => problems.push((RETRY_TTL_FLAG.to_owned(), problem)),
            Ok(values) => flags.extend(RETRY_TTLS.iter().zip(values).map(|(setting, value)| {
                (setting.env.to_owned(), Flag { name: RETRY_TTL_FLAG.to_owned(), value: value.into() })
            })),
        }
    }
    let mut layers = layers_of(role, matches, flags)?;
    for (flag, problem) in problems {
        layers.problem_with_flag(&flag, &problem);
    }
    Ok(layers)
}

/// The three values of [`RETRY_TTL_FLAG`], or why it has not three.
fn retry_ttls(value: &OsStr) -> Result<[String; 3], String> {
    let text = value.to_str().ok_or("is not valid UTF-8")?;
    let parts: Vec<String> = text.split(',').map(|part| part.trim_matches(' ').to_owned()).collect();
    parts.try_into().map_err(|_| format!("takes three numbers separated by commas, not `{}`", text.escape_debug()))
}

/// All layers of the configuration of `role`; `flags` are settings by environment name.
pub fn layers_of(role: Role, matches: &ArgMatches, flags: BTreeMap<String, Flag>) -> Result<Layers, ExitError> {
    // An empty variable counts as unset, as for all settings.
    let variable = || std::env::var_os(CONFIG_FOLDER_VARIABLE).filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let from_flag = matches.get_one::<PathBuf>("config-dir").cloned().map(|folder| ("--config-dir", folder));
    let given = from_flag.or_else(|| variable().map(|folder| (CONFIG_FOLDER_VARIABLE, folder)));
    if let Some((name, folder)) = given.as_ref().filter(|(_, folder)| !folder.is_dir()) {
        return Err(ExitError::usage(format!("{name}: folder {} does not exist", folder.display())));
    }
    let folder = given.map_or_else(|| PathBuf::from(CONFIG_FOLDER), |(_, folder)| folder);
    Ok(Layers::new(setting::ALL, role, &folder, std::env::vars_os(), flags))
}

/// The arguments that are not UTF-8, each with the flag that it belongs to.
pub fn not_utf8(arguments: impl IntoIterator<Item = OsString>) -> Vec<String> {
    let mut found = Vec::new();
    let mut before = String::new();
    for argument in arguments {
        let text = argument.to_string_lossy().escape_debug().to_string();
        if argument.to_str().is_none() {
            let flag = Some(&before).filter(|before| before.starts_with("--") && !text.starts_with("--"));
            found.push(flag.map_or_else(|| text.clone(), |flag| format!("{flag} {text}")));
        }
        before = text;
    }
    found
}

/// Why `role` does not have this setting, if it belongs to the other role.
fn misplaced(setting: &Setting, role: Role) -> Option<String> {
    let own = setting.role.filter(|own| *own != role)?;
    Some(format!("is a setting of --role {own}, not of --role {role}"))
}

#[cfg(test)]
mod tests {
    use purse::infra::config::MigrationConfig;

    use super::*;

    /// The problems that are about `flag`.
    fn problems(flag: &str, arguments: &[&str]) -> Vec<String> {
        let matches = command().try_get_matches_from(arguments).expect("parsed");
        let built = MigrationConfig::build(layers(&matches).expect("a folder that exists"));
        let page = built.err().map(|e| e.to_string()).unwrap_or_default();
        let about = format!("{flag}: ");
        page.lines().filter_map(|line| line.trim_start().strip_prefix(&about)).map(str::to_owned).collect()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        command().debug_assert();
    }

    #[test]
    fn the_command_that_became_a_program_of_its_own_is_an_error_that_names_it() {
        for arguments in [&["purse", "dev"][..], &["purse", "dev", "up"]] {
            let error = parse(arguments.iter().map(OsString::from)).expect_err("no command").to_string();
            assert!(error.contains("purse-dev up") && error.contains("./justw up"), "{error}");
        }
    }

    #[test]
    fn a_flag_of_the_other_role_is_an_error_that_names_it() {
        for (role, other, flag, value) in [
            ("users", "wallet", "--prefetch", "5"),
            ("wallet", "users", "--outbox-batch-max", "5"),
            ("users", "wallet", "--retry-ttl-ms", "1,2,3"),
        ] {
            let expected = format!("is a setting of --role {other}, not of --role {role}");
            assert_eq!(problems(flag, &["purse", "--role", role, flag, value]), [expected]);
        }
    }

    #[test]
    fn the_ladder_takes_three_numbers() {
        let problems = |value: &str| problems(RETRY_TTL_FLAG, &["purse", "--role", "wallet", RETRY_TTL_FLAG, value]);
        assert_eq!(problems("1,2"), ["takes three numbers separated by commas, not `1,2`"]);
        assert_eq!(problems("1,2,3"), [] as [&str; 0]);
    }

    /// The command and all below it, each with the words that select it.
    fn commands(command: &Command, words: &[String]) -> Vec<(Vec<String>, Command)> {
        let words = [words, &[command.get_name().to_owned()]].concat();
        let below = command.get_subcommands().filter(|below| below.get_name() != "help");
        let below: Vec<_> = below.flat_map(|below| commands(below, &words)).collect();
        std::iter::once((words, command.clone())).chain(below).collect()
    }

    #[test]
    fn the_help_of_every_command_has_an_example_of_it_that_can_be_parsed() {
        let all = commands(&command(), &[]);
        assert!(all.len() > 15, "{}", all.len());
        for (words, command_itself) in all {
            let end = command_itself.get_after_help().map(ToString::to_string).unwrap_or_default();
            let examples: Vec<&str> = end.lines().filter_map(|line| line.strip_prefix("  purse ")).collect();
            assert!(!examples.is_empty(), "{words:?}");
            for example in examples {
                // What the shell reads of the line.
                let arguments = example.split(['|', '>']).next().unwrap_or_default().split_whitespace();
                let line: Vec<String> = std::iter::once("purse").chain(arguments).map(str::to_owned).collect();
                assert!(words.len() == 1 || line.starts_with(&words), "{example} is no example of {words:?}");
                if let Err(e) = command().try_get_matches_from(&line) {
                    panic!("{example}: {e}");
                }
            }
        }
    }

    #[test]
    fn a_command_lists_the_settings_that_it_reads_and_takes_the_others_too() {
        let page = |words: &[&str]| {
            let help = command().try_get_matches_from([&["purse"], words, &["--help"]].concat()).expect_err("help");
            help.to_string()
        };
        let (migrate, health) = (page(&["migrate"]), page(&["healthcheck"]));
        assert!(migrate.contains("--db-lock-timeout-ms") && !migrate.contains("--users-port"), "{migrate}");
        assert!(health.contains("--users-port") && !health.contains("--db-lock-timeout-ms"), "{health}");
        for words in [&["migrate"][..], &["healthcheck"]] {
            let all = [&["purse"], words, &["--role", "users", "--db-pool-max", "3", "--port", "1"]].concat();
            assert!(command().try_get_matches_from(all).is_ok(), "{words:?}");
        }
        assert!(!page(&["dlq", "list"]).contains("--log-level"));
    }

    #[test]
    fn the_short_help_has_no_setting_and_the_required_environment() {
        let short = command().try_get_matches_from(["purse", "-h"]).expect_err("help").to_string();
        let long = command().try_get_matches_from(["purse", "--help"]).expect_err("help").to_string();
        for setting in setting::ALL {
            let flag = format!("\n      --{} ", setting.flag());
            assert!(!short.contains(&flag), "{short}");
            assert_eq!(long.contains(&flag), !setting.is_secret(), "{}", setting.env);
            let required = setting.default == setting::Fallback::RequiredSecret;
            assert_eq!(short.contains(&format!("\n  {} ", setting.env)), required, "{}", setting.env);
        }
    }

    #[test]
    fn no_secret_has_a_flag() {
        let secrets = setting::ALL.iter().filter(|s| s.is_secret());
        for secret in secrets {
            assert!(command().get_arguments().all(|a| a.get_long() != Some(&secret.flag())), "{}", secret.env);
        }
    }
}
