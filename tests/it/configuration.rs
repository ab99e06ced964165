//! Every setting with every kind of wrong value, in each place that it can come from: exit code 64 with its name, once,
//! or accepted. Generated from the table of settings, so that a new setting is covered as soon as it has a row.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use purse::infra::config::Setting;
use purse::infra::config::setting::{ALL, Accepts, Fallback};
use purse::kernel::Role;

use crate::support::world::PURSE;
use crate::support::{Client, PATIENCE, RoleProcess, World, purse};

/// Processes at once.
const THREADS: usize = 4;
/// More than a value may have.
const HUGE: usize = 70_000;

/// The required settings, each with a value that is not printed in any other way.
const REQUIRED: [(&str, &str); 5] = [
    ("USERS_DATABASE_URL", "postgres://users_app:pw-of-users@127.0.0.1:1/users"),
    ("WALLET_DATABASE_URL", "postgres://wallet_app:pw-of-wallet@127.0.0.1:1/wallet"),
    ("RABBITMQ_URL", "amqp://broker:pw-of-broker@127.0.0.1:1/%2f"),
    ("JWT_PRIVATE_KEY", "the-access-key-of-this-test-32-bytes"),
    ("INTERNAL_JWT_PRIVATE_KEY", "the-event-key-of-this-test-32-bytes"),
];

/// A folder that is removed with its content.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static COUNTER: AtomicUsize = AtomicUsize::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("purse-configuration-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).expect("folder");
        Self(path)
    }

    fn file(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, content).expect("written");
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).expect("removed");
    }
}

/// `purse check-config`, or another command, with a valid configuration that a test changes.
struct Check {
    command: Command,
    label: String,
}

impl Check {
    fn of(role: Role) -> Self {
        Self::command(&["check-config", "--role", role.as_str()])
    }

    fn command(arguments: &[&str]) -> Self {
        let mut command = Command::new(PURSE);
        command.args(arguments).env_clear().envs(REQUIRED).current_dir(std::env::temp_dir());
        command.envs(std::env::vars().filter(|(name, _)| name == "LLVM_PROFILE_FILE"));
        Self { command, label: String::new() }
    }

    fn variable(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.env(name, value.as_ref());
        self
    }

    fn without(mut self, name: &str) -> Self {
        self.command.env_remove(name);
        self
    }

    fn flag(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.command.arg(name).arg(value.as_ref());
        self
    }

    /// What a failure is reported with.
    fn label(mut self, label: String) -> Self {
        self.label = label;
        self
    }

    fn run(mut self) -> (String, Output) {
        (self.label, self.command.output().expect("spawned"))
    }

    /// Exit code 64, with this name in exactly one line of standard error, once.
    fn refused(self, name: &str) -> String {
        let (label, output) = self.run();
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        let about = format!("{label}: {:?}\n{out}\n{err}", output.status);
        assert!(output.status.code() == Some(64) && out.is_empty(), "not refused: {about}");
        let is_part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let named = err.split(|c| !is_part(c)).filter(|word| *word == name).count();
        assert_eq!(named, 1, "{name} is not named once: {about}");
        assert!(err.contains("the configuration has 1 problem:\n"), "{about}");
        assert!(err.len() < 1_000 && !err.contains("panicked"), "{about}");
        let printable = |c: char| c == '\n' || !c.is_control();
        assert!(err.chars().all(printable), "it could control a terminal: {about}");
        for (_, secret) in REQUIRED {
            let password = secret.split([':', '@']).find(|part| part.starts_with("pw-of")).unwrap_or(secret);
            assert!(!err.contains(password), "a secret is shown: {about}");
        }
        err.into_owned()
    }

    fn accepted(self) {
        let (label, output) = self.run();
        let err = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(0), "not accepted: {label}: {:?}\n{err}", output.status);
    }
}

/// Runs the checks on a few threads; a failed one fails the test.
fn all(checks: Vec<Box<dyn FnOnce() + Send>>) {
    let queue = std::sync::Mutex::new(checks);
    let next = || queue.lock().expect("queue").pop();
    thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                while let Some(check) = next() {
                    check();
                }
            });
        }
    });
}

/// A value that the setting takes, and that is not its default where that matters.
fn valid(setting: &Setting) -> String {
    if let Some((_, value)) = REQUIRED.iter().find(|(name, _)| *name == setting.env) {
        return (*value).to_owned();
    }
    match (setting.default, setting.accepts, setting.placeholder) {
        (Fallback::Text(text), ..) => text,
        (_, Accepts::Numbers(..), _) => "7",
        (_, _, "BOOL") => "true",
        (_, _, "FORMAT") => "json",
        (_, _, "ACTS") => "debit",
        (_, _, "CIDRS") => "10.0.0.0/8",
        (_, _, "ORIGINS") => "https://app.example.com",
        (_, _, "KEY") if setting.env == "LEDGER_SIGNING_KEY" => "bGVkZ2VybGVkZ2VybGVkZ2VybGVkZ2VybGVkZ2Vyc2U=",
        (_, _, "KEYS") => "bGVkZ2VybGVkZ2VybGVkZ2VybGVkZ2VybGVkZ2Vyc2U=",
        (_, _, "KEY") => "a-key-of-another-name-with-32-bytes-",
        (_, _, "URL") if setting.env.ends_with("_DATABASE_URL") => "postgres://owner:secret@127.0.0.1:1/x",
        (_, _, "URL") => "https://wallet.example.com",
        (_, _, other) => panic!("{} takes a {other}: add a valid one here", setting.env),
    }
    .to_owned()
}

/// A value that no setting takes, and what it is.
type Wrong = (&'static str, fn(&str) -> Vec<u8>);

/// Wrong in each place, also in a key, which may be any text.
const NEVER: &[Wrong] = &[
    ("two line breaks at the end", |v| format!("{v}\n\n").into()),
    ("a line break at the beginning", |v| format!("\n{v}").into()),
    ("a line break inside", |v| v.replacen(|_| true, "x\ny", 1).into()),
    ("a carriage return at the end", |v| format!("{v}\r").into()),
    ("a blank at the beginning", |v| format!(" {v}").into()),
    ("a blank at the end", |v| format!("{v} ").into()),
    ("a tab at the end", |v| format!("{v}\t").into()),
    ("a no-break space at the end", |v| format!("{v}\u{a0}").into()),
    ("a byte order mark", |v| format!("\u{feff}{v}").into()),
    ("a zero width space at the end", |v| format!("{v}\u{200b}").into()),
    ("an escape character inside", |v| v.replacen(|_| true, "x\u{1b}y", 1).into()),
    ("a right-to-left override inside", |v| v.replacen(|_| true, "x\u{202e}y", 1).into()),
    ("blanks only", |_| b"  ".to_vec()),
    ("a line break only", |_| b"\n".to_vec()),
    ("too long", |v| format!("{v}{}", "x".repeat(HUGE)).into()),
];

const NOT_UTF8: Wrong = ("not UTF-8 at its end", |v| [v.as_bytes(), b"\xff"].concat());
const WRONG_KIND: Wrong = ("of another kind", |_| b"~".to_vec());

/// The wrong values for a setting, in a place that can hold any bytes.
fn wrong_values(setting: &Setting) -> impl Iterator<Item = &'static Wrong> {
    const KIND: &[Wrong] = &[WRONG_KIND];
    const BYTES: &[Wrong] = &[NOT_UTF8];
    let kind = if setting.placeholder == "KEY" { &[][..] } else { KIND };
    NEVER.iter().chain(BYTES).chain(kind)
}

/// The role that reads the setting.
fn reader(setting: &Setting) -> Role {
    // Settings of both roles alternate, so that each role is tested with many.
    let shared = if setting.env.len().is_multiple_of(2) { Role::Users } else { Role::Wallet };
    setting.role.unwrap_or(shared)
}

/// Values with one line break at their end, as files and `echo` leave it.
fn with_line_break(setting: &Setting) -> [String; 2] {
    ["\n", "\r\n"].map(|line_break| format!("{}{line_break}", valid(setting)))
}

#[test]
fn a_wrong_value_in_a_variable_is_64_with_its_name_once() {
    let mut checks: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    for setting in ALL {
        let check = |value: Vec<u8>, what: &str| {
            let label = format!("{} {what}", setting.env);
            Check::of(reader(setting)).variable(setting.env, OsString::from_vec(value)).label(label)
        };
        for (what, wrong) in wrong_values(setting) {
            let check = check(wrong(&valid(setting)), what);
            checks.push(Box::new(move || drop(check.refused(setting.env))));
        }
        for value in with_line_break(setting).into_iter().chain([valid(setting)]) {
            let check = check(value.into_bytes(), "valid");
            checks.push(Box::new(move || check.accepted()));
        }
    }
    all(checks);
}

#[test]
fn a_wrong_value_in_a_flag_is_64_with_its_name_once() {
    let mut checks: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    for setting in ALL.iter().filter(|setting| !setting.is_secret()) {
        let flag = format!("--{}", setting.flag());
        let check = |value: Vec<u8>, what: &str| {
            let argument = [flag.as_bytes(), b"=", &value].concat();
            let mut check = Check::of(reader(setting)).label(format!("{flag} {what}"));
            check.command.arg(OsStr::from_bytes(&argument));
            check
        };
        for (what, wrong) in wrong_values(setting).chain([&("empty", (|_| Vec::new()) as fn(&str) -> Vec<u8>)]) {
            // An empty list is a value: it overrides a list that a file has.
            let is_list = matches!(setting.placeholder, "CIDRS" | "ORIGINS");
            if *what == "empty" && is_list {
                continue;
            }
            let (check, flag) = (check(wrong(&valid(setting)), what), flag.clone());
            checks.push(Box::new(move || drop(check.refused(&flag))));
        }
        for value in with_line_break(setting).into_iter().chain([valid(setting)]) {
            let check = check(value.into_bytes(), "valid");
            checks.push(Box::new(move || check.accepted()));
        }
    }
    all(checks);
}

/// A value of a file as a TOML string.
fn quoted(value: &str) -> String {
    let escaped = value.chars().map(|c| match c {
        '"' | '\\' => format!("\\{c}"),
        c if c.is_control() => format!("\\u{:04X}", u32::from(c)),
        c => c.to_string(),
    });
    format!("\"{}\"", escaped.collect::<String>())
}

#[test]
fn a_wrong_value_in_a_file_is_64_with_its_key_once() {
    let mut checks: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    let wrong_types = ["[1]", "1.5", "{ a = 1 }", "1979-05-27", "\"a\\u0000b\"", "[]"];
    for setting in ALL.iter().filter(|setting| !setting.is_secret()) {
        let check = move |toml: &str, what: &str| {
            let folder = Folder::new();
            folder.file("base.toml", format!("{} = {toml}\n", setting.key()));
            let check = Check::of(reader(setting)).flag("--config-dir", &folder.0);
            (check.label(format!("{} {what}", setting.key())), folder)
        };
        let texts = NEVER
            .iter()
            .chain([&WRONG_KIND])
            .map(|(what, wrong)| (*what, quoted(&String::from_utf8(wrong(&valid(setting))).expect("text"))));
        for (what, toml) in texts.chain(wrong_types.map(|toml| (toml, toml.to_owned()))) {
            checks.push(Box::new(move || {
                let (check, _folder) = check(&toml, what);
                check.refused(&setting.key());
            }));
        }
        for value in with_line_break(setting).into_iter().chain([valid(setting)]) {
            checks.push(Box::new(move || {
                let (check, _folder) = check(&quoted(&value), "valid");
                check.accepted();
            }));
        }
    }
    all(checks);
}

#[test]
fn a_secret_can_come_from_a_file_and_a_wrong_file_is_64_with_its_variable_once() {
    let mut checks: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
    for setting in ALL.iter().filter(|setting| setting.is_secret()) {
        let variable = format!("{}_FILE", setting.env);
        let check = {
            let variable = variable.clone();
            move |path: &Path, what: &str| {
                let check = Check::of(reader(setting)).without(setting.env).variable(&variable, path);
                check.label(format!("{variable} {what}"))
            }
        };
        for (what, wrong) in wrong_values(setting).chain([&("empty", (|_| Vec::new()) as fn(&str) -> Vec<u8>)]) {
            let (check, variable) = (check.clone(), variable.clone());
            checks.push(Box::new(move || {
                let folder = Folder::new();
                let path = folder.file("secret", wrong(&valid(setting)));
                check(&path, what).refused(&variable);
            }));
        }
        for value in with_line_break(setting).into_iter().chain([valid(setting)]) {
            let check = check.clone();
            checks.push(Box::new(move || {
                let folder = Folder::new();
                // Kubernetes mounts a secret as a link to a file.
                symlink(folder.file("..data", value), folder.0.join("secret")).expect("linked");
                check(&folder.0.join("secret"), "valid").accepted();
            }));
        }
        let (check, name) = (check.clone(), variable.clone());
        checks.push(Box::new(move || {
            let folder = Folder::new();
            check(&folder.0.join("missing"), "that does not exist").refused(&name);
            check(&folder.0, "that is a folder").refused(&name);
            check(Path::new("/dev/zero"), "without an end").refused(&name);
            check(OsStr::from_bytes(b"/no/such\xff").as_ref(), "whose path is not UTF-8").refused(&name);
            symlink("/no/such/file", folder.0.join("dangling")).expect("linked");
            check(&folder.0.join("dangling"), "that is a dangling link").refused(&name);
            let path = folder.file("secret", valid(setting));
            let both = check(&path, "beside the variable itself").variable(setting.env, valid(setting));
            both.refused(setting.env);
            // An empty variable counts as unset.
            check(&path, "beside an empty variable").variable(setting.env, "").accepted();
            Check::of(reader(setting)).variable(&name, "").accepted();
        }));
    }
    all(checks);
}

/// The error in a file, and the function that creates it.
type Unreadable = (&'static str, fn(&Path));

#[test]
fn a_file_that_cannot_be_read_as_text_is_64_with_its_path_and_never_waited_for() {
    for name in ["base.toml", "users.toml"] {
        let cases: [Unreadable; 6] = [
            ("not UTF-8", |path| fs::write(path, b"log_level = \"\xff\"").expect("written")),
            ("not TOML", |path| fs::write(path, "log_level: debug").expect("written")),
            ("too long", |path| fs::write(path, "# ".repeat(600_000)).expect("written")),
            ("a folder", |path| fs::create_dir(path).expect("created")),
            ("a dangling link", |path| symlink("/no/such/file", path).expect("linked")),
            ("a pipe", |path| {
                assert!(Command::new("mkfifo").arg(path).status().expect("mkfifo").success());
            }),
        ];
        for (what, create) in cases {
            let folder = Folder::new();
            create(&folder.0.join(name));
            let mut check = Check::of(Role::Users).flag("--config-dir", &folder.0);
            let mut child = check.command.stderr(std::process::Stdio::piped()).spawn().expect("spawned");
            let until = Instant::now() + PATIENCE;
            while child.try_wait().expect("waited").is_none() {
                if Instant::now() > until {
                    child.kill().expect("killed");
                    panic!("it waits for a file that is {what}");
                }
                thread::sleep(Duration::from_millis(5));
            }
            let output = child.wait_with_output().expect("ended");
            let err = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(64), "{what}: {err}");
            assert_eq!(err.matches(name).count(), 1, "{what}: {err}");
        }
    }
}

#[test]
fn the_folder_of_the_files_is_named_when_it_is_wrong_and_may_have_any_name() {
    for wrong in [&b"/no/such"[..], b"/no/such\xff", b"/dev/null", b"/tmp\n"] {
        let wrong = OsStr::from_bytes(wrong);
        for (name, check) in [
            ("PURSE_CONFIG_DIR", Check::of(Role::Users).variable("PURSE_CONFIG_DIR", wrong)),
            ("--config-dir", Check::of(Role::Users).flag("--config-dir", wrong)),
        ] {
            let (_, output) = check.run();
            let err = String::from_utf8_lossy(&output.stderr);
            assert_eq!((output.status.code(), err.matches(name).count()), (Some(64), 1), "{err}");
        }
    }
    Check::of(Role::Users).variable("PURSE_CONFIG_DIR", "").accepted();
    let folder = Folder::new();
    let strange = folder.0.join(OsStr::from_bytes(b"\xff"));
    fs::create_dir(&strange).expect("folder");
    fs::write(strange.join("base.toml"), "log_level = \"loud\"").expect("written");
    Check::of(Role::Users).variable("PURSE_CONFIG_DIR", &strange).refused("log_level");
}

#[test]
fn an_argument_that_is_not_utf8_is_64_and_named() {
    let bad = OsStr::from_bytes(b"x\xff");
    for arguments in [
        &["check-config", "--role"][..],
        &["check-config", "--role", "wallet", "--retry-ttl-ms"],
        &["check-config", "--role", "users", "--port"],
        &["dlq", "show"],
        &["dlq", "list", "--format"],
        &["dlq", "list", "--first"],
        &["ledger", "verify", "--user"],
        &["outbox", "republish", "--since"],
        &["man"],
        &[],
    ] {
        let mut check = Check::command(arguments);
        check.command.arg(bad);
        let (_, output) = check.run();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{arguments:?}: {err}");
        let last = arguments.last().copied().unwrap_or("x");
        let name = if last.starts_with("--") { last } else { "x\u{fffd}" };
        assert!(err.contains(name), "{arguments:?}: {err}");
    }
}

#[test]
fn each_wrong_setting_is_reported_once_however_many_things_are_wrong_with_it() {
    // Too short for production, and the same as the access key.
    let short = Check::of(Role::Users).variable("APP_ENV", "production");
    let err = short.variable("JWT_PRIVATE_KEY", "k".repeat(32)).variable("INTERNAL_JWT_PRIVATE_KEY", "short");
    let err = err.refused("INTERNAL_JWT_PRIVATE_KEY");
    assert!(err.contains("has 5 bytes"), "{err}");
    let (_, output) = Check::of(Role::Users)
        .variable("APP_ENV", "production")
        .variable("JWT_PRIVATE_KEY", "short")
        .variable("INTERNAL_JWT_PRIVATE_KEY", "short")
        .run();
    let err = String::from_utf8_lossy(&output.stderr);
    assert!(err.contains("has 2 problems"), "{err}");
    assert_eq!(err.matches("\n  INTERNAL_JWT_PRIVATE_KEY: has 5 bytes").count(), 1, "{err}");
    assert!(err.contains("It also must differ"), "{err}");
    // A secret in a file is not also missing.
    let folder = Folder::new();
    folder.file("base.toml", "jwt_private_key = \"x\"\n");
    let in_file = Check::of(Role::Users).without("JWT_PRIVATE_KEY").flag("--config-dir", &folder.0);
    in_file.refused("JWT_PRIVATE_KEY");
    // A window that two limits share.
    Check::of(Role::Users).variable("RL_LOGIN_WINDOW", "0s").refused("RL_LOGIN_WINDOW");
    // Both files, the variable and the flag: the flag counts.
    folder.file("base.toml", "users_port = \"x\"\n");
    folder.file("users.toml", "users_port = [1]\n");
    let everywhere = || Check::of(Role::Users).flag("--config-dir", &folder.0).variable("USERS_PORT", "y");
    everywhere().flag("--port", "z").refused("--port");
    everywhere().refused("USERS_PORT");
    everywhere().without("USERS_PORT").refused("users_port");
    everywhere().flag("--port", "3002").accepted();
}

#[test]
fn two_flags_for_one_setting_are_64() {
    for (role, flags) in [
        ("users", ["--port", "--users-port"]),
        ("wallet", ["--port", "--wallet-port"]),
        ("wallet", ["--retry-ttl-ms", "--retry-ttl-2-ms"]),
        ("users", ["--host", "--host"]),
    ] {
        let mut check = Check::command(&["check-config", "--role", role]);
        for flag in flags {
            check = check.flag(flag, if flag == "--retry-ttl-ms" { "1,2,3" } else { "5000" });
        }
        let (_, output) = check.run();
        let err = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(64), "{flags:?}: {err}");
        assert!(flags.iter().all(|flag| err.contains(flag)), "{flags:?}: {err}");
    }
}

#[test]
fn flags_of_the_other_role_are_reported_together_with_all_other_problems() {
    let check = Check::of(Role::Users).flag("--prefetch", "5").flag("--retry-ttl-ms", "1").flag("--log-level", "loud");
    let (_, output) = check.variable("HASH_QUEUE_MAX", "0").run();
    let err = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(64), "{err}");
    assert!(err.contains("the configuration has 4 problems:\n"), "{err}");
    for problem in [
        "--prefetch: is a setting of --role wallet, not of --role users",
        "--retry-ttl-ms: is a setting of --role wallet, not of --role users",
        "--log-level: ",
        "HASH_QUEUE_MAX: ",
    ] {
        assert!(err.contains(&format!("\n  {problem}")), "{problem}: {err}");
    }
    Check::of(Role::Wallet).flag("--retry-ttl-ms", "1,2").refused("--retry-ttl-ms");
}

#[test]
fn commas_alone_are_not_a_list() {
    for name in ["TRUSTED_PROXIES", "CORS_ORIGINS"] {
        for commas in [",", ", ,"] {
            Check::of(Role::Users).variable(name, commas).refused(name);
        }
    }
}

/// Registers with the users role and reads the wallet's status with that token.
async fn token_and_event_are_accepted(users: &RoleProcess, wallet: &RoleProcess) {
    let client = Client::new(&users.url(), &wallet.url());
    let user = client.ready_user().await;
    assert_eq!(client.get(&user, "/v1/balance").await.status, 200);
}

#[tokio::test]
async fn a_line_break_after_a_key_at_one_role_only_makes_no_difference() {
    let world = World::new().await;
    let folder = Folder::new();
    let path = |name: &str, content: &str| folder.file(name, content).display().to_string();
    let access = path("access", "ILIACHALLENGE\n");
    let events = path("events", "ILIACHALLENGE_INTERNAL\r\n");
    let broker = path("broker", &format!("{}\n", world.broker.url()));
    let in_files = [
        ("JWT_PRIVATE_KEY", ""),
        ("JWT_PRIVATE_KEY_FILE", access.as_str()),
        ("INTERNAL_JWT_PRIVATE_KEY", ""),
        ("INTERNAL_JWT_PRIVATE_KEY_FILE", events.as_str()),
        ("RABBITMQ_URL", ""),
        ("RABBITMQ_URL_FILE", broker.as_str()),
    ];
    let wallet = world.start_with(Role::Wallet, &in_files).await;
    let users = world.start(Role::Users).await;
    token_and_event_are_accepted(&users, &wallet).await;
    drop(users);
    let with_break = [("JWT_PRIVATE_KEY", "ILIACHALLENGE\n"), ("INTERNAL_JWT_PRIVATE_KEY", "ILIACHALLENGE_INTERNAL\n")];
    let users = world.start_with(Role::Users, &with_break).await;
    token_and_event_are_accepted(&users, &wallet).await;
    assert_eq!(world.broker.depth("wallet.provision.dlq").await, Some(0));
}

#[tokio::test]
async fn a_migration_needs_the_databases_alone() {
    let world = World::new().await;
    for role in Role::ALL {
        let mut settings = world.settings(role);
        settings.retain(|name, _| name.ends_with("_DATABASE_URL"));
        for arguments in [&["migrate", "--role", role.as_str()][..], &["--role", role.as_str(), "--migrate-only"]] {
            let migrated = purse(arguments, &settings).await;
            assert_eq!(migrated.code, Some(0), "{migrated:?}");
        }
        let prefix = role.as_str().to_uppercase();
        settings.remove(&format!("{prefix}_DATABASE_URL"));
        let refused = purse(&["migrate", "--role", role.as_str()], &settings).await;
        assert_eq!(refused.code, Some(64), "{refused:?}");
        assert!(refused.err.contains(&format!("{prefix}_DATABASE_URL: is required")), "{refused:?}");
    }
}

#[test]
fn output_that_cannot_be_written_is_70_and_says_so() {
    let full = || fs::File::options().write(true).open("/dev/full").expect("/dev/full");
    let read_only = || fs::File::open("/dev/null").expect("/dev/null");
    for arguments in [
        &["openapi", "--role", "users"][..],
        &["--help"],
        &["--version"],
        &["-h"],
        &["help"],
        &["help", "dlq", "purge"],
        &["dlq", "list", "--help"],
        &["man"],
        &["man", "dlq"],
        &["completions", "bash"],
        &["config", "template"],
        &["check-config", "--role", "users"],
        &["--role", "wallet", "--check-config"],
    ] {
        for (what, target) in [("full", full()), ("read-only", read_only())] {
            let mut check = Check::command(arguments);
            let output = check.command.stdout(target).output().expect("spawned");
            let err = String::from_utf8_lossy(&output.stderr);
            assert_eq!(output.status.code(), Some(70), "{arguments:?} {what}: {err}");
            assert!(err.contains("cannot write to standard output"), "{arguments:?} {what}: {err}");
        }
    }
}
