//! The command line as an operator meets it: help, effective settings, suggestions, and output that cannot be written.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use purse::infra::config::setting::{ALL, Fallback};
use purse::kernel::Role;
use purse::operate::Check;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use serde_json::{Value, json};

use crate::operate_dlq::{publish_dead_letter, world_with_queues};
use crate::support::repository::{between, text};
use crate::support::{CommandOutput, PATIENCE, command, purse};

const USERS: [(&str, &str); 4] = [
    ("USERS_DATABASE_URL", "postgres://app:hunter22@127.0.0.1:1/users?sslmode=require"),
    ("RABBITMQ_URL", "amqp://broker:hunter22@127.0.0.1:1/%2f"),
    ("JWT_PRIVATE_KEY", "the-access-key-hunter22-of-32-bytes"),
    ("INTERNAL_JWT_PRIVATE_KEY", "the-event-key-hunter22-of-32-bytes"),
];

fn settings(changed: &[(&str, &str)]) -> BTreeMap<String, String> {
    USERS.iter().chain(changed).map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
}

/// A folder with configuration files, removed when dropped.
struct Files(PathBuf);

impl Files {
    fn new(files: &[(&str, &str)]) -> Self {
        static COUNTER: AtomicUsize = AtomicUsize::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("purse-command-line-{}-{number}", std::process::id()));
        fs::create_dir_all(&folder).expect("folder");
        for (name, content) in files {
            fs::write(folder.join(name), content).expect("written");
        }
        Self(folder)
    }

    fn path(&self) -> &str {
        self.0.to_str().expect("text")
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("removed");
    }
}

fn row<'a>(shown: &'a Value, name: &str) -> &'a Value {
    let rows = shown["settings"].as_array().expect("a list");
    rows.iter().find(|row| row["name"] == name).unwrap_or_else(|| panic!("no {name} in {shown}"))
}

#[tokio::test]
async fn each_effective_value_is_shown_with_the_layer_that_it_comes_from() {
    let files = Files::new(&[
        ("base.toml", "log_level = \"debug\"\ndb_pool_max = 7\n"),
        ("users.toml", "db_pool_max = 8\n# comment\n  hash_queue_max = 9\n"),
        ("key", "a-previous-key-hunter22-of-32-bytes\n"),
    ]);
    let key_file = format!("{}/key", files.path());
    let environment =
        settings(&[("LOG_LEVEL", "warn"), ("OUTBOX_BATCH_MAX", ""), ("JWT_PRIVATE_KEY_PREVIOUS_FILE", &key_file)]);
    let arguments = ["config", "show", "--role", "users", "--config-dir", files.path(), "--port", "4000", "--json"];
    let output = purse(&arguments, &environment).await;
    let shown = output.done();
    let path = files.path();
    for (name, value, source, place) in [
        ("USERS_PORT", json!("4000"), "flag", json!("--port")),
        ("LOG_LEVEL", json!("warn"), "environment", json!("LOG_LEVEL")),
        ("DB_POOL_MAX", json!("8"), "file", json!(format!("db_pool_max in {path}/users.toml:1:15"))),
        ("HASH_QUEUE_MAX", json!("9"), "file", json!(format!("hash_queue_max in {path}/users.toml:3:20"))),
        ("OUTBOX_BATCH_MAX", json!("500"), "default", Value::Null),
        ("METRICS_PORT", Value::Null, "default", Value::Null),
        ("JWT_PRIVATE_KEY", json!("********"), "environment", json!("JWT_PRIVATE_KEY")),
        ("JWT_PRIVATE_KEY_PREVIOUS", json!("********"), "secretFile", json!("JWT_PRIVATE_KEY_PREVIOUS_FILE")),
        ("INTERNAL_JWT_PRIVATE_KEY_PREVIOUS", Value::Null, "default", Value::Null),
    ] {
        let row = row(&shown, name);
        assert_eq!((&row["value"], &row["source"], &row["place"]), (&value, &json!(source), &place), "{row}");
    }
    let url = "postgres://app:********@127.0.0.1:1/users?sslmode=require";
    assert_eq!(row(&shown, "USERS_DATABASE_URL")["value"], url);
    assert_eq!(row(&shown, "RABBITMQ_URL")["value"], "amqp://broker:********@127.0.0.1:1/%2f");
    // Each setting of the role, and none of the other.
    let names: Vec<&str> =
        shown["settings"].as_array().expect("a list").iter().filter_map(|row| row["name"].as_str()).collect();
    let own: Vec<&str> = ALL.iter().filter(|s| s.role.is_none_or(|role| role == Role::Users)).map(|s| s.env).collect();
    assert_eq!(names, own);
    let table = purse(&arguments[..8], &environment).await;
    assert_eq!((table.code, table.err.as_str()), (Some(0), ""), "{table:?}");
    for line in ["USERS_PORT", "flag --port", "JWT_PRIVATE_KEY_PREVIOUS_FILE", "/users.toml:3:20", "(unset)"] {
        assert!(table.out.contains(line), "{line}: {}", table.out);
    }
    assert!(!format!("{output:?}{table:?}").contains("hunter22"), "a secret is shown");
}

#[tokio::test]
async fn a_value_that_depends_on_another_setting_is_shown_as_it_is_used() {
    let environment: BTreeMap<String, String> =
        settings(&[("WALLET_DATABASE_URL", "postgres://app:hunter22@127.0.0.1:1/w")]);
    let signed = async |app_env: &str| {
        let arguments = ["config", "show", "--role", "wallet", "--json", "--self-post", "none", "--app-env", app_env];
        row(&purse(&arguments, &environment).await.done(), "REQUIRE_SIGNED_EVENTS")["value"].clone()
    };
    assert_eq!((signed("development").await, signed("production").await), (json!("false"), json!("true")));
}

#[tokio::test]
async fn an_invalid_configuration_is_shown_and_its_problems_are_listed() {
    let environment = settings(&[("RABBITMQ_URL", "http://broker:hunter22@x"), ("LOG_LEVEL", "loud")]);
    let output = purse(&["config", "show", "--role", "users", "--json"], &environment).await;
    assert_eq!(output.code, Some(64), "{output:?}");
    let shown: Value = serde_json::from_str(&output.out).expect("JSON");
    assert_eq!(row(&shown, "LOG_LEVEL")["value"], "loud");
    assert_eq!(row(&shown, "RABBITMQ_URL")["value"], "********");
    assert!(output.err.contains("the configuration has 2 problems:"), "{output:?}");
    assert!(!format!("{output:?}").contains("hunter22"), "{output:?}");
}

async fn problems(files: &[(&str, &str)], changed: &[(&str, &str)]) -> CommandOutput {
    let files = Files::new(files);
    let output = purse(&["check-config", "--role", "users", "--config-dir", files.path()], &settings(changed)).await;
    CommandOutput { err: output.err.replace(files.path(), "F"), ..output }
}

#[tokio::test]
async fn a_mistake_in_a_file_is_reported_with_line_and_column() {
    for (name, content, problem) in [
        ("base.toml", "log_level = \"info\"\n\nhost = \n", "F/base.toml:3:8: is not valid TOML: "),
        ("users.toml", "log_level: debug\n", "F/users.toml:1:12: is not valid TOML: "),
        (
            "users.toml",
            "host = \"0.0.0.0\"\r\nhost = \"::1\"\r\n",
            "F/users.toml:2:1: is not valid TOML: duplicate key",
        ),
        ("base.toml", "# ü\nusers_port = 99999\n", "users_port in F/base.toml:2:14: `99999` must be a whole number"),
        ("base.toml", "\n\tusers_port = [1]\n", "users_port in F/base.toml:2:15: must be a string"),
        ("base.toml", "\njwt_private_key = \"x\"\n", "jwt_private_key in F/base.toml:2:1: is a secret"),
    ] {
        let output = problems(&[(name, content)], &[]).await;
        assert_eq!(output.code, Some(64), "{content:?}: {output:?}");
        assert!(output.err.contains(&format!("\n  {problem}")), "{problem}: {}", output.err);
    }
}

#[tokio::test]
async fn a_misspelled_key_word_or_variable_is_reported_with_what_is_meant() {
    for (toml, problem) in [
        ("users_prot = 1\n", "unknown key `users_prot`; did you mean `users_port`?"),
        ("Rl-Login-Max = 1\n", "unknown key `Rl-Login-Max`; did you mean `rl_login_max`?"),
        ("quite_another = 1\n", "unknown key `quite_another`; `purse --help` lists the settings"),
        ("log_level = \"wran\"\n", "`wran` must be error, warn, info, debug or trace; did you mean warn?"),
        ("app_env = \"prod\"\n", "`prod` must be development or production; did you mean production?"),
        ("rate_limit_enabled = \"yes\"\n", "`yes` must be true or false\n"),
    ] {
        let output = problems(&[("base.toml", toml)], &[]).await;
        assert_eq!(output.code, Some(64), "{toml}: {output:?}");
        assert!(output.err.contains(problem), "{toml}: {}", output.err);
    }
    let warned = problems(
        &[],
        &[("RL_LOGIN_MXA", "1"), ("PURSE_LOG_LEVEL", "debug"), ("PURSE_USERS_PORT", "tcp://10.0.0.1:3002")],
    )
    .await;
    assert_eq!(warned.code, Some(0), "{warned:?}");
    let expected = "purse: warning: PURSE_LOG_LEVEL is set and is not a setting; did you mean LOG_LEVEL?\n\
                    purse: warning: RL_LOGIN_MXA is set and is not a setting; did you mean RL_LOGIN_MAX?\n";
    assert_eq!(warned.err, expected);
    let missing = problems(&[], &[("RABBITMQ_URL", ""), ("RABBITMQ_URI", "amqp://h")]).await;
    assert!(missing.code == Some(64) && missing.err.contains("RABBITMQ_URI is set; is it misspelled?"), "{missing:?}");
    for (arguments, meant) in [
        (&["outbx", "status"][..], "'outbox'"),
        (&["dlq", "lst"], "'list'"),
        (&["--role", "user"], "'users'"),
        (&["--role", "users", "--log-levl", "info"], "'--log-level'"),
    ] {
        let output = purse(arguments, &settings(&[])).await;
        assert!(output.code == Some(64) && output.err.contains(meant), "{output:?}");
    }
}

#[tokio::test]
async fn the_help_names_the_required_environment_and_the_short_one_is_short() {
    let nothing = BTreeMap::new();
    let (short, long) = (purse(&["-h"], &nothing).await, purse(&["--help"], &nothing).await);
    let required = ALL.iter().filter(|setting| setting.default == Fallback::RequiredSecret);
    for setting in required {
        for page in [&short, &long] {
            assert!(page.out.contains(&format!("\n  {}", setting.env)), "{}: {}", setting.env, page.out);
        }
    }
    assert!(short.out.lines().count() < 60 && long.out.lines().count() > 100, "{}", short.out);
    let list = purse(&["dlq", "list", "-h"], &nothing).await.out;
    assert!(list.contains("RABBITMQ_URL  ") && list.contains("\n  purse dlq list --first 20"), "{list}");
    assert!(!list.contains("DATABASE_URL") && list.contains("--config-dir") && list.contains("--json"), "{list}");
    let page = purse(&["man", "dlq", "list"], &nothing).await.out;
    assert!(page.contains("\n\\&  purse dlq list \\-\\-first 20\n"), "{page}");
}

#[test]
fn the_handbook_lists_the_checks_of_the_doctor() {
    let rows = Check::ALL.map(|check| format!("| `{}` | {} |", check.name(), check.about()));
    let expected = format!("| check | passes if |\n|---|---|\n{}", rows.join("\n"));
    let page = text("docs/operations.md");
    assert!(
        between(&page, "checks") == expected,
        "put this between the marks checks:begin and checks:end of docs/operations.md:\n\n{expected}\n"
    );
}

/// The end of a pipe that takes nothing more. The other end has to stay open.
fn blocked() -> (std::io::PipeReader, std::io::PipeWriter) {
    let (reader, mut writer) = std::io::pipe().expect("a pipe");
    let flags = fcntl_getfl(&writer).expect("flags");
    fcntl_setfl(&writer, flags | OFlags::NONBLOCK).expect("non-blocking");
    // Also by single bytes, so that not even a short line fits.
    for part in [&[b'x'; 4096][..], b"x"] {
        while writer.write(part).is_ok() {}
    }
    fcntl_setfl(&writer, flags).expect("blocking");
    (reader, writer)
}

#[test]
fn a_standard_error_that_is_not_read_does_not_keep_a_command_from_ending() {
    for (arguments, code) in [
        (&[][..], 64),
        (&["--role", "bank"], 64),
        (&["dlq"], 64),
        (&["--role", "users", "--frobnicate"], 64),
        (&["check-config", "--role", "wallet"], 64),
        (&["dlq", "list"], 69),
        (&["outbox", "status"], 69),
    ] {
        let (_reader, writer) = blocked();
        let mut child =
            command(arguments, &settings(&[])).stdout(Stdio::null()).stderr(writer).spawn().expect("spawned");
        let until = Instant::now() + PATIENCE;
        let status = loop {
            if let Some(status) = child.try_wait().expect("waited") {
                break status;
            }
            if Instant::now() > until {
                child.kill().expect("killed");
                panic!("{arguments:?} waits for its standard error");
            }
            std::thread::sleep(Duration::from_millis(10));
        };
        assert_eq!(status.code(), Some(code), "{arguments:?}");
    }
}

#[test]
fn output_of_the_new_commands_that_cannot_be_written_is_70_and_says_so() {
    for arguments in [
        &["config", "show", "--role", "users"][..],
        &["config", "show", "--role", "users", "--json"],
        &["doctor", "--role", "users"],
        &["doctor", "--role", "users", "--json"],
        &["doctor", "--help"],
    ] {
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        let output = command(arguments, &settings(&[])).stdout(full).output().expect("spawned");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(70), "{arguments:?}: {err}");
        assert!(err.contains("cannot write to standard output"), "{arguments:?}: {err}");
    }
}

#[tokio::test]
async fn a_command_that_has_reached_its_server_and_cannot_print_ends_with_70() {
    let world = world_with_queues().await;
    publish_dead_letter(&world, "one", b"{}", "no").await;
    let mut settings = world.settings(Role::Users);
    settings.extend(world.settings(Role::Wallet));
    let migrated = purse(&["migrate", "--role", "users"], &settings).await;
    assert_eq!(migrated.code, Some(0), "{migrated:?}");
    for arguments in [
        &["dlq", "list"][..],
        &["dlq", "list", "--json"],
        &["dlq", "show", "one"],
        &["dlq", "redrive", "--dry-run"],
        &["dlq", "export"],
        &["dlq", "purge", "one", "--dry-run"],
        &["outbox", "status"],
        &["outbox", "republish", "--all"],
        &["ledger", "verify"],
        &["ledger", "verify", "--json"],
        &["doctor", "--role", "wallet"],
    ] {
        let full = File::options().write(true).open("/dev/full").expect("/dev/full");
        let mut printing = command(arguments, &settings);
        printing.stdout(full);
        let output = tokio::task::spawn_blocking(move || printing.output().expect("spawned")).await.expect("thread");
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(70), "{arguments:?}: {err}");
        assert!(err.contains("cannot write to standard output"), "{arguments:?}: {err}");
    }
}
