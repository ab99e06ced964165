//! The release process: `just changelog` and `just release` in a temporary clone, with commits created for the test.
//!
//! The clone has the project's own recipes, scripts, manifests and lock file, but stubs in place of its sources, because
//! a release builds nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The manifests of the clients, and the line with their version.
const CLIENTS: [(&str, &str); 2] = [
    ("docs/clients/python/pyproject.toml", "\nversion = \"VERSION\"\n"),
    ("docs/clients/typescript/package.json", "\n  \"version\": \"VERSION\",\n"),
];

/// A clone of a small repository, with its origin beside it; dropping it deletes both.
struct Clone {
    folder: PathBuf,
}

impl Drop for Clone {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Copies a folder and its contents; Rust sources become empty files.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("folder");
    for entry in fs::read_dir(from).unwrap_or_else(|e| panic!("{}: {e}", from.display())).flatten() {
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else if from.extension().is_some_and(|extension| extension == "rs") {
            fs::write(to, "").expect("stub");
        } else {
            fs::copy(&from, to).unwrap_or_else(|e| panic!("{}: {e}", from.display()));
        }
    }
}

impl Clone {
    fn create(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("purse-release-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let (root, seed) = (Path::new(env!("CARGO_MANIFEST_DIR")), folder.join("seed"));
        for part in ["src", "benches", "dev", "packaging", "docs/clients"] {
            copy(&root.join(part), &seed.join(part));
        }
        fs::create_dir(seed.join("docker")).expect("folder");
        for file in [
            "Cargo.toml",
            "Cargo.lock",
            "CHANGELOG.md",
            "LICENSE",
            "README.md",
            "SECURITY.md",
            "build.rs",
            "cliff.toml",
            "docker/compose.just",
            "justfile",
            "justw",
            "rust-toolchain.toml",
        ] {
            fs::copy(root.join(file), seed.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        }
        let clone = Self { folder };
        clone.succeeds(&seed, "git", &["init", "--quiet", "--initial-branch", "main"]);
        clone.succeeds(&seed, "git", &["add", "--all"]);
        clone.succeeds(&seed, "git", &["commit", "--quiet", "--message", "build: begin"]);
        clone.succeeds(&clone.folder, "git", &["clone", "--quiet", "--bare", "seed", "origin"]);
        clone.succeeds(&clone.folder, "git", &["clone", "--quiet", "origin", "clone"]);
        clone
    }

    fn here(&self) -> PathBuf {
        self.folder.join("clone")
    }

    /// Runs a program with an identity for git, independent of the machine's own git configuration.
    fn run(folder: &Path, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder);
        // git sets these for its hooks, and one of those may run the tests.
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            command.env_remove(name);
        }
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        for role in ["GIT_AUTHOR", "GIT_COMMITTER"] {
            command.env(format!("{role}_NAME"), "A test").env(format!("{role}_EMAIL"), "test@example.com");
        }
        command.output().unwrap_or_else(|e| panic!("{program}: {e}"))
    }

    /// Runs a program that must succeed; returns its standard output.
    fn succeeds(&self, folder: &Path, program: &str, arguments: &[&str]) -> String {
        let output = Self::run(folder, program, arguments);
        assert!(output.status.success(), "{program} {arguments:?} in {}: {output:?}", self.folder.display());
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    fn git(&self, arguments: &[&str]) -> String {
        self.succeeds(&self.here(), "git", arguments)
    }

    fn commit(&self, message: &str) {
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
    }

    /// Runs a recipe; returns its exit code and everything it printed.
    fn just(&self, recipe: &str) -> (Option<i32>, String) {
        let output = Self::run(&self.here(), "./justw", &[recipe]);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("text"))
    }

    /// Packages a script in the place of the binary; returns the version of the Debian package.
    #[cfg(target_os = "linux")]
    fn packaged_version(&self) -> String {
        use std::os::unix::fs::PermissionsExt as _;

        let target = self.folder.join("target");
        let _ = fs::remove_dir_all(&target);
        fs::create_dir_all(target.join("release")).expect("folder");
        let binary = target.join("release/purse");
        fs::write(&binary, format!("#!/bin/sh\nexec '{}' \"$@\"\n", env!("CARGO_BIN_EXE_purse"))).expect("script");
        fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).expect("mode");
        let mut command = Command::new("./justw");
        let output = command.arg("_package").current_dir(self.here()).env("CARGO_TARGET_DIR", &target).output();
        let output = output.expect("./justw");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let printed = String::from_utf8(output.stdout).expect("text");
        let deb = printed.lines().find(|line| line.contains("/purse_")).expect("the package");
        self.succeeds(&self.folder, "dpkg-deb", &["--field", deb, "Version"])
    }

    /// Everything that a release may change: the commit, the tags, the files.
    fn state(&self) -> String {
        [["rev-parse", "HEAD"], ["tag", "--list"], ["status", "--porcelain"]].map(|words| self.git(&words)).join("\n")
    }

    /// Releases, and checks that every file and the tag have this version and the changelog these entries.
    fn releases(&self, version: &str, entries: &[&str]) {
        let tag = format!("v{version}");
        let (code, preview) = self.just("changelog");
        assert_eq!(code, Some(0), "{preview}");
        assert!(preview.contains(&format!("next version: {tag}\n")), "{tag}: {preview}");
        let (code, printed) = self.just("release");
        assert_eq!(code, Some(0), "{printed}");
        assert!(printed.contains(&format!("{tag} is committed and tagged")), "{printed}");

        let file = |name: &str| fs::read_to_string(self.here().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let line = format!("\nversion = \"{version}\"\n");
        assert!(file("Cargo.toml").starts_with(&format!("[package]\nname = \"purse\"{line}")), "{version}: Cargo.toml");
        for (client, line) in CLIENTS {
            assert!(file(client).contains(&line.replace("VERSION", version)), "{version}: {client}");
        }
        assert!(file("Cargo.lock").contains(&format!("\nname = \"purse\"{line}")), "{version}: Cargo.lock");
        // Cargo agrees with the lock file.
        self.succeeds(&self.here(), "cargo", &["update", "--workspace", "--offline", "--locked", "--quiet"]);
        let changelog = file("CHANGELOG.md");
        let newest = changelog.split("\n## ").nth(1).expect("a section of this version");
        let heading = newest.lines().next().unwrap_or_default().replace(['[', ']'], "");
        assert!(heading.starts_with(&format!("{version} - 20")), "{changelog}");
        let listed: Vec<&str> = newest.lines().filter(|line| line.starts_with("- ")).collect();
        assert_eq!(listed, entries, "{changelog}");
        for entry in entries {
            assert!(preview.contains(entry), "{entry} is not in the preview: {preview}");
        }
        assert_eq!(self.git(&["log", "-1", "--format=%s"]), format!("chore(release): {tag}"));
        assert_eq!(self.git(&["cat-file", "-t", &tag]), "tag", "git push --follow-tags pushes annotated tags only");
        assert_eq!(self.git(&["rev-parse", &format!("{tag}^{{}}")]), self.git(&["rev-parse", "HEAD"]));
        let mut changed: Vec<String> =
            self.git(&["show", "--format=", "--name-only", "HEAD"]).lines().map(str::to_owned).collect();
        changed.retain(|name| !["CHANGELOG.md", "Cargo.lock", "Cargo.toml"].contains(&name.as_str()));
        changed.retain(|name| !CLIENTS.iter().any(|(client, _)| client == name));
        assert_eq!(changed, [""; 0], "{tag}");
        assert_eq!(self.git(&["status", "--porcelain"]), "");
    }

    /// Tries to release; that must fail with this exit code and message, and change nothing.
    fn refuses(&self, code: i32, words: &str) {
        let before = self.state();
        let (ended, printed) = self.just("release");
        assert!(ended == Some(code) && printed.contains(words), "{ended:?} instead of {code} and `{words}`: {printed}");
        assert_eq!(self.state(), before, "{words}");
    }
}

#[test]
fn a_release_takes_its_version_from_the_commits_and_writes_it_everywhere() {
    let clone = Clone::create("versions");
    clone.commit("feat(wallet): keep money");
    clone.commit("fix(wallet): keep all of it");
    clone.commit("docs: explain it");
    // The first version lists features only: nothing in it was released before, so nothing has been fixed.
    clone.releases("0.1.0", &["- wallet: Keep money"]);
    clone.refuses(0, "no commits since v0.1.0");
    for invisible in [
        "docs: explain more",
        "feat(dev): start faster",
        "refactor(dev)!: move it",
        "refactor(http): sort handlers",
        "wip(wallet): half a feature",
    ] {
        clone.commit(invisible);
    }
    clone.refuses(0, "no commit since v0.1.0 is visible to users");
    let (code, preview) = clone.just("changelog");
    assert_eq!((code, preview.as_str()), (Some(0), "changelog: no commit since v0.1.0 is visible to users.\n"));

    clone.commit("fix(users): reject empty names");
    clone.releases("0.1.1", &["- users: Reject empty names"]);
    clone.commit("perf(users): log in faster");
    clone.commit("fix(users): accept long names");
    clone.commit("feat(wallet): hold money");
    clone.commit("feat(users): change a name");
    clone.releases(
        "0.2.0",
        &["- users: Change a name", "- wallet: Hold money", "- users: Accept long names", "- users: Log in faster"],
    );
    // A part of the code has the name that users know it by, and none of these is lost.
    clone.commit("fix(http): reject a header that is too long");
    clone.commit("fix(infra): connect to a standby");
    clone.commit("perf(amqp): publish faster");
    clone.releases(
        "0.2.1",
        &["- api: Reject a header that is too long", "- Connect to a standby", "- broker: Publish faster"],
    );
    // Before 1.0 a breaking change is a minor version; its entry says what to do.
    clone.commit("refactor(config)!: rename a setting\n\nBREAKING CHANGE: write the new name");
    clone.commit("refactor(dev)!: rename the folder\n\nBREAKING CHANGE: remove it by hand");
    clone.releases("0.3.0", &["- **Breaking:** config: Rename a setting. Write the new name"]);

    let tags = clone.git(&["tag", "--list"]);
    clone.git(&["push", "--quiet", "--follow-tags"]);
    assert_eq!(clone.succeeds(&clone.folder.join("origin"), "git", &["tag", "--list"]), tags);
    assert_eq!(tags.lines().collect::<Vec<_>>(), ["v0.1.0", "v0.1.1", "v0.2.0", "v0.2.1", "v0.3.0"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_package_between_releases_is_newer_than_the_last_release_and_older_than_the_next() {
    let clone = Clone::create("packages");
    clone.commit("feat(wallet): keep money");
    let before = clone.packaged_version();
    clone.releases("0.1.0", &["- wallet: Keep money"]);
    let released = clone.packaged_version();
    assert_eq!(released, "0.1.0");
    fs::write(clone.here().join("note"), "").expect("written");
    clone.git(&["add", "note"]);
    let changed = clone.packaged_version();
    clone.commit("fix(wallet): keep all of it");
    let after = clone.packaged_version();
    for [older, newer] in [[&before, &released], [&released, &changed], [&released, &after]] {
        clone.succeeds(&clone.folder, "dpkg", &["--compare-versions", older, "lt", newer]);
    }
    assert!(changed.contains(".dirty") && !after.contains(".dirty"), "{changed}, {after}");
    clone.succeeds(&clone.folder, "dpkg", &["--compare-versions", &after, "lt", "0.1.1"]);
}

#[test]
fn the_changelog_links_to_the_comparison_of_two_versions_where_the_remote_has_a_web_address() {
    let clone = Clone::create("links");
    clone.commit("feat(wallet): keep money");
    clone.releases("0.1.0", &["- wallet: Keep money"]);
    clone.commit("fix(wallet): keep all of it");
    for (remote, address) in [
        ("git@example.com:acme/purse.git", "https://example.com/acme/purse"),
        ("ssh://git@example.com:2222/acme/purse.git", "https://example.com/acme/purse"),
        ("https://someone:secret@example.com:8443/acme/purse", "https://example.com:8443/acme/purse"),
    ] {
        clone.git(&["remote", "set-url", "origin", remote]);
        let (_, preview) = clone.just("changelog");
        let link = format!("\n[0.1.1]: {address}/compare/v0.1.0...v0.1.1\n");
        assert!(preview.contains("\n## [0.1.1] - ") && preview.contains(&link), "{remote}: {preview}");
    }
    clone.releases("0.1.1", &["- wallet: Keep all of it"]);
    for without in [["remote", "set-url", "origin", "/srv/purse.git"].as_slice(), &["remote", "remove", "origin"]] {
        clone.git(without);
        clone.commit("fix(wallet): count it");
        let (_, preview) = clone.just("changelog");
        assert!(preview.contains("\n## 0.1.2 - ") && !preview.contains("]: "), "{without:?}: {preview}");
    }
}

#[test]
fn the_changelog_of_this_repository_lists_released_versions_only() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let changelog = fs::read_to_string(root.join("CHANGELOG.md")).expect("CHANGELOG.md");
    assert!(changelog.starts_with("# Changelog\n"), "{changelog}");
    let versions: Vec<String> = changelog
        .lines()
        .filter_map(|line| line.strip_prefix("## "))
        .map(|heading| heading.replace(['[', ']'], ""))
        .map(|heading| heading.split_once(" - 20").unwrap_or_else(|| panic!("no release: {heading}")).0.to_owned())
        .collect();
    for heading in changelog.lines().filter_map(|line| line.strip_prefix("### ")) {
        assert!(["Added", "Changed", "Fixed", "Performance", "Security"].contains(&heading), "{heading}");
    }
    // A source archive and a clone without tags have no release in git.
    let tag = Clone::run(root, "git", &["describe", "--tags", "--abbrev=0", "--match", "v[0-9]*"]);
    if tag.status.success() {
        let tag = String::from_utf8(tag.stdout).expect("text");
        assert_eq!(versions.first().map(String::as_str), Some(tag.trim().trim_start_matches('v')));
    }
}

#[test]
fn a_release_requires_a_clean_main_and_is_complete_or_changes_nothing() {
    let clone = Clone::create("rejections");
    clone.commit("feat(wallet): keep money");
    fs::write(clone.here().join("note"), "").expect("written");
    clone.refuses(64, "there are uncommitted changes");
    fs::remove_file(clone.here().join("note")).expect("removed");
    fs::write(clone.here().join("cliff.toml"), "").expect("written");
    clone.refuses(64, "there are uncommitted changes");
    clone.git(&["checkout", "--quiet", "cliff.toml"]);
    clone.git(&["switch", "--quiet", "--create", "feature/other"]);
    clone.refuses(64, "releases are made on main, and the current branch is feature/other");
    clone.git(&["switch", "--quiet", "--detach", "main"]);
    clone.refuses(64, "HEAD is detached");
    clone.git(&["switch", "--quiet", "main"]);

    // A hook that rejects the commit simulates a failure after the files were written.
    let hook = clone.here().join(".git/hooks/pre-commit");
    fs::create_dir_all(hook.parent().expect("folder")).expect("folder");
    fs::write(&hook, "#!/bin/sh\nexit 1\n").expect("hook");
    clone.succeeds(&clone.folder, "chmod", &["+x", &hook.display().to_string()]);
    clone.refuses(1, "v0.1.0 was not released; the files are unchanged");
    fs::remove_file(&hook).expect("removed");
    clone.releases("0.1.0", &["- wallet: Keep money"]);
}
