//! What `just package` builds: a tarball and a Debian package with the same files, and units that run the roles under a
//! real systemd.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use purse::infra::config::setting::ALL;
use purse::kernel::{ExitStatus, Role};
use serde_json::Value;

use crate::support::machine::Machine;
use crate::support::repository::{between, root, text};
use crate::support::world::PURSE;
use crate::support::{Client, PATIENCE, World, blocks, eventually, free_port, purse};

const UNITS: [&str; 2] = ["packaging/systemd/purse@.service", "packaging/systemd/purse-migrate@.service"];
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// 2026-11-26 00:00 UTC.
const COMMITTED_S: &str = "1795651200";

/// The files of a release, built from a binary that a test provides.
struct Packages(PathBuf);

impl Packages {
    /// `variables` are those of `just package`.
    fn build(name: &str, binary: &[u8], variables: &[(&str, &str)]) -> Self {
        let folder = std::env::temp_dir().join(format!("purse-package-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let built = folder.join("release/purse");
        fs::create_dir_all(folder.join("release")).expect("folder");
        fs::write(&built, binary).expect("binary");
        fs::set_permissions(&built, fs::Permissions::from_mode(0o755)).expect("mode");
        let mut command = Command::new("./justw");
        command.arg("_package").current_dir(root()).env("CARGO_TARGET_DIR", &folder);
        command.env("SOURCE_DATE_EPOCH", COMMITTED_S).env("DEBEMAIL", "release@example.com");
        let output = command.envs(variables.iter().copied()).output().expect("./justw");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self(folder)
    }

    /// Packages a script that runs the binary under test, which is quicker to compress.
    fn of_a_script(name: &str, variables: &[(&str, &str)]) -> Self {
        Self::build(name, format!("#!/bin/sh\nexec '{PURSE}' \"$@\"\n").as_bytes(), variables)
    }

    fn folder(&self) -> PathBuf {
        self.0.join("package")
    }

    fn file(&self, extension: &str) -> PathBuf {
        let names = fs::read_dir(self.folder()).expect("folder").flatten().map(|entry| entry.path());
        let found: Vec<PathBuf> = names.filter(|path| path.to_string_lossy().ends_with(extension)).collect();
        assert_eq!(found.len(), 1, "{extension}: {found:?}");
        found.into_iter().next().expect("one")
    }
}

impl Drop for Packages {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Runs a program that must succeed; returns its standard output.
fn succeeds(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    assert!(output.status.success(), "{program} {arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("text")
}

/// Mode, size and path of each file, as `tar --list --verbose` prints them, without the first `skipped` folders.
fn listed(tar: &[&str], skipped: usize) -> BTreeMap<String, String> {
    let printed = succeeds("tar", tar);
    let files = printed.lines().filter(|line| line.starts_with('-'));
    files
        .map(|line| {
            let columns: Vec<&str> = line.split_whitespace().collect();
            let path = columns[5].trim_start_matches("./").split('/').skip(skipped).collect::<Vec<_>>().join("/");
            (path, format!("{} {} {}", columns[0], columns[1], columns[2]))
        })
        .collect()
}

/// The manual pages that there must be: one for the binary, and one for each of its subcommands.
async fn manual_pages() -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![Vec::<String>::new()];
    while let Some(command) = open.pop() {
        let words: Vec<&str> = command.iter().map(String::as_str).chain(["--help"]).collect();
        let help = purse(&words, &BTreeMap::new()).await.out;
        let commands = help.split_once("\nCommands:\n").map_or("", |(_, rest)| rest);
        let names = commands.lines().take_while(|line| !line.is_empty()).filter(|line| line.starts_with("  "));
        let names = names.filter(|line| !line.starts_with("   ")).filter_map(|line| line.split_whitespace().next());
        open.extend(names.filter(|name| *name != "help").map(|name| [&command[..], &[name.to_owned()]].concat()));
        found.insert(["purse".to_owned()].into_iter().chain(command).collect::<Vec<_>>().join("-"));
    }
    found
}

#[tokio::test]
async fn the_tarball_and_the_debian_package_have_the_same_files_and_a_page_for_every_command() {
    let packages = Packages::of_a_script("files", &[]);
    let (archive, deb) = (packages.file(".tar.gz"), packages.file(".deb"));
    let in_archive = listed(&["--list", "--verbose", "--numeric-owner", "--file", &archive.display().to_string()], 1);
    let data = packages.0.join("data.tar");
    let extracted = Command::new("dpkg-deb").arg("--fsys-tarfile").arg(&deb).output().expect("dpkg-deb");
    fs::write(&data, extracted.stdout).expect("data");
    let mut in_deb = listed(&["--list", "--verbose", "--numeric-owner", "--file", &data.display().to_string()], 0);

    // The settings are configuration files in the one, and examples to copy in the other.
    for role in Role::ALL {
        let installed = in_deb.remove(&format!("etc/purse/{role}.env"));
        assert_eq!(installed.as_ref(), in_deb.get(&format!("usr/share/doc/purse/examples/{role}.env")), "{role}");
    }
    // Debian has its own form of a licence.
    assert!(in_deb.remove("usr/share/doc/purse/copyright").is_some());
    let mut in_archive = in_archive;
    assert!(in_archive.remove("usr/share/doc/purse/LICENSE").is_some());
    assert_eq!(in_archive, in_deb);
    assert!(in_deb["usr/bin/purse"].starts_with("-rwxr-xr-x 0/0 "), "{in_deb:?}");

    let page = |path: &String| path.strip_prefix("usr/share/man/man1/")?.strip_suffix(".1.gz").map(str::to_owned);
    let pages: BTreeSet<String> = in_deb.keys().filter_map(page).collect();
    let expected = manual_pages().await;
    assert!(expected.contains("purse-dlq-redrive") && expected.contains("purse-check-config"), "{expected:?}");
    assert_eq!(pages, expected);
    for path in [
        "usr/lib/systemd/system/purse@.service",
        "usr/lib/systemd/system/purse-migrate@.service",
        "usr/share/bash-completion/completions/purse",
        "usr/share/zsh/vendor-completions/_purse",
        "usr/share/fish/vendor_completions.d/purse.fish",
    ] {
        assert!(in_deb.contains_key(path), "{path}: {in_deb:?}");
    }

    let control = succeeds("dpkg-deb", &["--field", &deb.display().to_string()]);
    for line in ["Package: purse", "Maintainer: purse <release@example.com>", "Recommends: ca-certificates"] {
        assert!(control.lines().any(|found| found == line), "{line}: {control}");
    }
    let unpacked = packages.0.join("unpacked");
    fs::create_dir(&unpacked).expect("folder");
    succeeds(
        "tar",
        &["-C", &unpacked.display().to_string(), "-xf", &archive.display().to_string(), "--strip-components=1"],
    );
    let binary = unpacked.join("usr/bin/purse").display().to_string();
    assert_eq!(succeeds(&binary, &["--version"]), format!("purse {VERSION}\n"));
    let page = succeeds("gzip", &["-dc", &unpacked.join("usr/share/man/man1/purse-dlq.1.gz").display().to_string()]);
    assert!(page.contains("purse\\-dlq\\-redrive(1)"), "{page}");
}

#[test]
fn the_same_commit_gives_the_same_bytes_and_the_checksums_match_them() {
    let one = Packages::of_a_script("one", &[]);
    let other = Packages::of_a_script("other", &[("TZ", "Asia/Tokyo"), ("LC_ALL", "C")]);
    let sums = |packages: &Packages| fs::read_to_string(packages.folder().join("SHA256SUMS")).expect("checksums");
    assert_eq!(sums(&one), sums(&other));
    assert_eq!(sums(&one).lines().count(), 2, "{}", sums(&one));
    let check = |packages: &Packages| {
        let mut command = Command::new("sha256sum");
        command.args(["--check", "--quiet", "SHA256SUMS"]).current_dir(packages.folder());
        command.output().expect("sha256sum").status.success()
    };
    assert!(check(&one));
    fs::write(one.file(".deb"), "another file").expect("written");
    assert!(!check(&one), "the checksums accept another file");
}

/// The sections of a unit, as lines of `key=value`.
fn directives(unit: &str) -> Vec<(String, String)> {
    let text = text(unit);
    let lines = text.lines().filter(|line| !line.starts_with('#')).filter_map(|line| line.split_once('='));
    lines.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

fn values<'a>(directives: &'a [(String, String)], key: &str) -> Vec<&'a str> {
    directives.iter().filter(|(name, _)| name == key).map(|(_, value)| value.as_str()).collect()
}

#[test]
fn the_units_pass_every_required_secret_as_a_credential_and_stop_for_longer_than_the_grace_period() {
    let serving = directives(UNITS[0]);
    let credentials: BTreeSet<&str> =
        values(&serving, "LoadCredential").into_iter().filter_map(|value| Some(value.split_once(':')?.0)).collect();
    let variables: BTreeMap<&str, &str> = values(&serving, "Environment")
        .into_iter()
        .flat_map(str::split_whitespace)
        .filter_map(|assignment| assignment.split_once('='))
        .collect();
    let required = |setting: &&purse::infra::config::Setting| {
        setting.default == purse::infra::config::setting::Fallback::RequiredSecret
    };
    let secrets: Vec<_> = ALL.iter().filter(required).collect();
    assert!(secrets.len() >= 5, "{}", secrets.len());
    for secret in secrets {
        let file = variables.get(secret.file_variable().as_str()).unwrap_or_else(|| panic!("{}", secret.env));
        let credential = file.strip_prefix("%d/").unwrap_or_else(|| panic!("{file}"));
        assert!(credentials.contains(credential), "{credential}: {credentials:?}");
    }
    // Only the migrations get the owner's URL.
    assert!(!text(UNITS[0]).contains("MIGRATION_DATABASE_URL"));
    for variable in variables.keys().filter(|name| **name != "PURSE_CONFIG_DIR") {
        assert!(ALL.iter().any(|setting| setting.file_variable() == *variable), "{variable}");
    }

    let grace = ALL.iter().find(|setting| setting.env == "SHUTDOWN_GRACE_MS").expect("setting");
    let purse::infra::config::setting::Fallback::Text(grace) = grace.default else { panic!("no default") };
    let seconds: Vec<u64> = values(&serving, "TimeoutStopSec")
        .into_iter()
        .map(|value| value.trim_end_matches('s').parse().expect("seconds"))
        .collect();
    assert_eq!(seconds.len(), 1);
    assert!(seconds[0] * 1000 > grace.parse::<u64>().expect("a number"), "{seconds:?} and {grace} ms");
    assert_eq!(values(&serving, "RestartPreventExitStatus"), [ExitStatus::Usage.code().to_string()]);

    let confinement = |unit: &str| {
        let text = text(unit);
        let (_, rest) = text.split_once("# Confinement, the same in both units.\n").expect("the mark");
        rest.split("\n[Install]").next().unwrap_or_default().trim().to_owned()
    };
    assert_eq!(confinement(UNITS[0]), confinement(UNITS[1]));
}

#[test]
fn systemd_finds_no_mistake_in_the_units_and_rates_their_exposure_below_1_5() {
    // Where the binary is installed, and nothing else.
    let folder = std::env::temp_dir().join(format!("purse-units-{}", std::process::id()));
    let units = folder.join("usr/lib/systemd/system");
    fs::create_dir_all(&units).expect("folder");
    fs::create_dir_all(folder.join("usr/bin")).expect("folder");
    fs::copy(PURSE, folder.join("usr/bin/purse")).expect("binary");
    for unit in UNITS {
        let name = Path::new(unit).file_name().expect("name");
        let installed = units.join(name);
        fs::copy(root().join(unit), &installed).expect("unit");
        let verified = Command::new("systemd-analyze")
            .args(["verify", "--man=no", "--root"])
            .arg(&folder)
            .arg(name.to_string_lossy().replace('@', "@users"))
            .output()
            .expect("systemd-analyze");
        let complaints = String::from_utf8_lossy(&verified.stderr).into_owned();
        // The folder has none of systemd's own units.
        let ours: Vec<&str> =
            complaints.lines().filter(|line| line.contains("purse") && !line.contains("not found")).collect();
        assert!(ours.is_empty(), "{ours:?}");
        let rated = succeeds(
            "systemd-analyze",
            &["security", "--offline=yes", "--threshold=15", "--no-pager", &installed.display().to_string()],
        );
        assert!(rated.contains("Overall exposure level for"), "{rated}");
    }
    let _ = fs::remove_dir_all(&folder);
}

#[tokio::test]
async fn a_role_accepts_the_packaged_settings_with_its_credentials_and_names_each_that_is_missing() {
    for role in Role::ALL {
        let name = format!("packaging/env/{role}.env");
        let packaged = text(&name);
        let assignments =
            packaged.lines().map(|line| line.trim_start_matches("# ")).filter_map(|line| line.split_once('='));
        // Without the comments that contain an equals sign.
        let assignments = assignments.filter(|(key, _)| key.bytes().all(|b| b.is_ascii_uppercase() || b == b'_'));
        let mut settings: BTreeMap<String, String> =
            assignments.map(|(key, value)| (key.to_owned(), value.to_owned())).collect();
        assert_eq!(settings["APP_ENV"], "production");
        for key in settings.keys() {
            let setting = ALL.iter().find(|setting| setting.env == key).unwrap_or_else(|| panic!("{name}: {key}"));
            assert!(!setting.is_secret(), "{name} has {key}, which is a secret");
        }
        let url = format!("{}_DATABASE_URL", role.as_str().to_uppercase());
        for (key, value) in [
            (url.as_str(), "postgres://u:p@127.0.0.1:1/x"),
            ("RABBITMQ_URL", "amqp://u:p@127.0.0.1:1/%2f"),
            ("JWT_PRIVATE_KEY", "a key of 32 bytes for the tokens."),
            ("INTERNAL_JWT_PRIVATE_KEY", "another key of 32 bytes, for events"),
        ] {
            let checked = purse(&["check-config", "--role", role.as_str()], &settings).await;
            assert!(checked.code == Some(64) && checked.err.contains(key), "{role} without {key}: {checked:?}");
            settings.insert(key.to_owned(), value.to_owned());
        }
        let checked = purse(&["check-config", "--role", role.as_str()], &settings).await;
        assert_eq!(checked.code, Some(0), "{checked:?}");
    }
}

/// A package with the binary under test.
fn installable() -> PathBuf {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT
        .get_or_init(|| {
            let stripped = std::env::temp_dir().join(format!("purse-stripped-{}", std::process::id()));
            succeeds("strip", &["--strip-all", "-o", &stripped.display().to_string(), PURSE]);
            let binary = fs::read(&stripped).expect("binary");
            let _ = fs::remove_file(&stripped);
            let packages = Packages::build("installable", &binary, &[("PURSE_DEB_FLAGS", "--fast")]);
            // Replaced by the next run.
            let kept = Path::new(env!("CARGO_TARGET_TMPDIR")).join("purse.deb");
            fs::copy(packages.file(".deb"), &kept).expect("copied");
            kept
        })
        .clone()
}

/// The commands of "Install" in docs/deployment.md: install, keys, servers, start, and an operator command; with the servers
/// of the test.
fn commands_of_the_page(world: &World) -> [String; 5] {
    let mut page = between(&text("docs/deployment.md"), "install").replace("purse_0.1.0_amd64.deb", "/root/purse.deb");
    for role in Role::ALL {
        let (settings, prefix) = (world.settings(role), role.as_str().to_uppercase());
        for (scheme, account, variable) in [
            ("postgres", "app", format!("{prefix}_DATABASE_URL")),
            ("postgres", "owner", format!("{prefix}_MIGRATION_DATABASE_URL")),
            ("amqps", "", "RABBITMQ_URL".to_owned()),
        ] {
            let user = if account.is_empty() { format!("purse_{role}") } else { format!("{role}_{account}") };
            let begin = format!("'{scheme}://{user}:password@");
            let (_, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("the page does not name {user}"));
            let shown = format!("{begin}{}'", rest.split('\'').next().unwrap_or_default());
            page = page.replace(&shown, &format!("'{}'", settings[&variable]));
        }
    }
    let commands: Vec<String> = blocks(&page).into_iter().map(|(_, body)| body).collect();
    commands.try_into().unwrap_or_else(|found| panic!("{found:?}"))
}

/// A machine on which the package is installed, and the roles' ports.
struct Installed {
    machine: Machine,
    ports: HashMap<Role, u16>,
    /// The last two commands of the page: they start the roles, and list the dead letters.
    start: String,
    list: String,
}

impl Installed {
    async fn on(world: &World) -> Self {
        let machine = Machine::boot().await;
        fs::copy(installable(), machine.path("/root/purse.deb")).expect("copied");
        let [install, keys, servers, start, list] = commands_of_the_page(world);
        machine.succeeds(&["sh", "-euc", &[install, keys, servers].join("\n")]);
        let ports: HashMap<Role, u16> = Role::ALL.map(|role| (role, free_port())).into();
        let installed = Self { machine, ports, start, list };
        for role in Role::ALL {
            installed.set(role, &[]);
        }
        installed
    }

    /// Writes the role's settings: the packaged ones, another port and these.
    fn set(&self, role: Role, changed: &[&str]) {
        let own = format!("{}_PORT={}", role.as_str().to_uppercase(), self.ports[&role]);
        let lines = [&[own.as_str(), "METRICS_PORT="], changed].concat();
        let packaged = text(&format!("packaging/env/{role}.env"));
        self.machine.write(&format!("/etc/purse/{role}.env"), &format!("{packaged}\n{}\n", lines.join("\n")));
    }

    fn url(&self, role: Role) -> String {
        format!("http://127.0.0.1:{}", self.ports[&role])
    }

    async fn ready(&self, role: Role) {
        let url = format!("{}/health/ready", self.url(role));
        let journal = || self.machine.journal();
        eventually(PATIENCE, &format!("{role} is ready"), || async {
            let body: Value = reqwest::get(&url).await.ok()?.json().await.ok()?;
            (body["status"] == "ok").then_some(())
        })
        .await;
        assert!(!journal().contains("panicked"), "{}", journal());
    }

    fn systemctl(&self, arguments: &[&str]) {
        self.machine.succeeds(&[&["systemctl"], arguments].concat());
    }

    fn state(&self, unit: &str) -> String {
        self.machine.show(unit, "ActiveState")
    }
}

#[tokio::test]
#[ignore = "boots a machine, which needs root: just test-packages"]
async fn both_roles_serve_from_the_installed_package_confined_and_without_the_owners_password() {
    let world = World::new().await;
    let installed = Installed::on(&world).await;
    // The packaged setting leaves credits to back ends.
    installed.set(Role::Wallet, &["SELF_POST=credit,debit"]);
    installed.machine.succeeds(&["sh", "-euc", &installed.start]);
    for role in Role::ALL {
        installed.ready(role).await;
        assert_eq!(installed.machine.succeeds(&["systemctl", "is-enabled", &format!("purse@{role}")]), "enabled");
    }
    let listed = installed.machine.succeeds(&["sh", "-euc", &installed.list]);
    assert!(listed.to_lowercase().contains("no dead letters"), "{listed}");
    let client = Client::new(&installed.url(Role::Users), &installed.url(Role::Wallet));
    let user = client.ready_user().await;
    client.post(&user, "credit", 70, None).await;
    assert_eq!(client.balance(&user).await, 70);

    for role in Role::ALL {
        let unit = format!("purse@{role}");
        let process = format!("/proc/{}", installed.machine.show(&unit, "MainPID"));
        let status = installed.machine.succeeds(&["cat", &format!("{process}/status")]);
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
            line.unwrap_or_else(|| panic!("{name}: {status}")).split_whitespace().next().unwrap_or_default().to_owned()
        };
        assert_ne!(field("Uid"), "0", "{status}");
        assert_eq!(field("CapEff").trim_matches('0'), "", "{status}");
        assert_eq!(field("CapBnd").trim_matches('0'), "", "{status}");
        assert_eq!((field("NoNewPrivs"), field("Seccomp")), ("1".into(), "2".into()), "{status}");
        // Neither the environment nor the credentials of a role have a password of the owner, or any other secret in the clear.
        let environment = installed.machine.succeeds(&["cat", &format!("{process}/environ")]);
        assert!(environment.contains("JWT_PRIVATE_KEY_FILE=/run/credentials/"), "{environment}");
        assert!(!environment.contains("postgres://") && !environment.contains("amqp://"), "{environment}");
        let credentials = installed.machine.succeeds(&["ls", &format!("/run/credentials/{unit}.service")]);
        assert_eq!(credentials, "DATABASE_URL\nINTERNAL_JWT_PRIVATE_KEY\nJWT_PRIVATE_KEY\nRABBITMQ_URL", "{unit}");
        assert_eq!(installed.machine.show(&format!("purse-migrate@{role}"), "Result"), "success");
        // The root of the file system is read-only to it, and the files of the secrets are closed.
        let inside =
            |path: &str| installed.machine.run(&["nsenter", "--target", &process[6..], "--mount", "test", "-w", path]);
        assert!(!inside("/usr").status.success() && !inside("/etc").status.success(), "{unit} may write to the system");
    }

    // A killed process returns on its own; one that is stopped exits in order.
    installed.systemctl(&["kill", "--signal=KILL", "purse@wallet"]);
    eventually(PATIENCE, "systemd restarts the role", || async {
        (installed.machine.show("purse@wallet", "NRestarts") == "1").then_some(())
    })
    .await;
    installed.ready(Role::Wallet).await;
    assert_eq!(client.balance(&user).await, 70);
    installed.systemctl(&["stop", "purse@wallet"]);
    assert_eq!(installed.machine.show("purse@wallet", "Result"), "success");
    assert_eq!(installed.machine.show("purse@wallet", "ExecMainStatus"), "0");

    // An upgrade restarts what runs and starts nothing else.
    let before = installed.machine.show("purse@users", "MainPID");
    installed.machine.succeeds(&["dpkg", "--install", "/root/purse.deb"]);
    installed.ready(Role::Users).await;
    assert_ne!(installed.machine.show("purse@users", "MainPID"), before);
    assert_eq!(installed.state("purse@wallet"), "inactive");
    // The operator's settings are kept: without them, another port would be used.
    assert_eq!(client.log_in(&user.email, crate::support::PASSWORD).await.status, 200);

    // Removed, nothing runs; purged, nothing is left, least of all secrets.
    installed.machine.succeeds(&["dpkg", "--remove", "purse"]);
    assert_eq!(installed.state("purse@users"), "inactive");
    assert!(
        installed.machine.path("/etc/purse/credentials/JWT_PRIVATE_KEY").exists(),
        "a removal keeps the configuration"
    );
    installed.machine.succeeds(&["dpkg", "--purge", "purse"]);
    assert!(!installed.machine.path("/etc/purse").exists());
}

#[tokio::test]
#[ignore = "boots a machine, which needs root: just test-packages"]
async fn a_role_with_an_invalid_setting_does_not_start_and_does_not_restart_for_ever() {
    let world = World::new().await;
    let installed = Installed::on(&world).await;
    installed.set(Role::Users, &["RL_LOGIN_MAX=0"]);
    // Sooner than in production, as often.
    installed.machine.write("/etc/systemd/system/purse@.service.d/test.conf", "[Service]\nRestartSec=100ms\n");
    installed.systemctl(&["daemon-reload"]);
    let started = installed.machine.run(&["systemctl", "start", "purse@users"]);
    assert_eq!(started.status.code(), Some(1), "{started:?}");
    assert!(installed.machine.journal().contains("RL_LOGIN_MAX: `0` must be"), "{}", installed.machine.journal());
    eventually(PATIENCE, "systemd gives up", || async { (installed.state("purse@users") == "failed").then_some(()) })
        .await;
    assert_eq!(installed.machine.show("purse@users", "MainPID"), "0");

    installed.set(Role::Users, &[]);
    installed.systemctl(&["reset-failed", "purse@users"]);
    installed.systemctl(&["start", "purse@users"]);
    installed.ready(Role::Users).await;
    // A missing credential is named.
    fs::remove_file(installed.machine.path("/etc/purse/credentials/users/RABBITMQ_URL")).expect("removed");
    assert!(!installed.machine.run(&["systemctl", "restart", "purse@users"]).status.success());
    assert!(installed.machine.journal().contains("credential"), "{}", installed.machine.journal());
}
