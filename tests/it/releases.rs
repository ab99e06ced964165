//! A release: `just release` in a clone that is thrown away, with commits made for it.
//!
//! The clone has the project's own recipes, manifest and lock file; of the sources it has stubs, because a release
//! builds nothing.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A clone of a small repository, its origin beside it; both are removed in the end.
struct Clone {
    folder: PathBuf,
}

impl Drop for Clone {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

impl Clone {
    fn make(name: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("purse-release-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        let (root, seed) = (Path::new(env!("CARGO_MANIFEST_DIR")), folder.join("seed"));
        for part in ["src", "benches", "docker", "dev/src"] {
            fs::create_dir_all(seed.join(part)).expect("folder");
        }
        let own = [
            "Cargo.toml",
            "dev/Cargo.toml",
            "Cargo.lock",
            "build.rs",
            "justfile",
            "justw",
            "docker/compose.just",
            "cliff.toml",
        ];
        for file in own.iter().chain(&["CHANGELOG.md"]) {
            fs::copy(root.join(file), seed.join(file)).unwrap_or_else(|e| panic!("{file}: {e}"));
        }
        for stub in fs::read_dir(root.join("benches")).expect("benches").flatten() {
            fs::write(seed.join("benches").join(stub.file_name()), "").expect("stub");
        }
        for library in ["src/lib.rs", "dev/src/lib.rs"] {
            fs::write(seed.join(library), "//! Stub.\n").expect("stub");
        }
        fs::write(seed.join("src/main.rs"), "//! Stub.\nfn main() {}\n").expect("stub");
        let clone = Self { folder };
        clone.done(&seed, "git", &["init", "--quiet", "--initial-branch", "main"]);
        clone.done(&seed, "git", &["add", "--all"]);
        clone.done(&seed, "git", &["commit", "--quiet", "--message", "build: begin"]);
        clone.done(&clone.folder, "git", &["clone", "--quiet", "--bare", "seed", "origin"]);
        clone.done(&clone.folder, "git", &["clone", "--quiet", "origin", "clone"]);
        clone
    }

    fn here(&self) -> PathBuf {
        self.folder.join("clone")
    }

    /// Runs a program there as somebody whom git knows, whatever this machine's own settings of git are.
    fn run(folder: &Path, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder);
        // A run inside a hook of git's hands those on.
        for name in ["GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"] {
            command.env_remove(name);
        }
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        for whose in ["GIT_AUTHOR", "GIT_COMMITTER"] {
            command.env(format!("{whose}_NAME"), "A test").env(format!("{whose}_EMAIL"), "test@example.com");
        }
        command.output().unwrap_or_else(|e| panic!("{program}: {e}"))
    }

    /// The same; it must succeed. What it printed.
    fn done(&self, folder: &Path, program: &str, arguments: &[&str]) -> String {
        let output = Self::run(folder, program, arguments);
        assert!(output.status.success(), "{program} {arguments:?} in {}: {output:?}", self.folder.display());
        String::from_utf8(output.stdout).expect("text").trim().to_owned()
    }

    fn git(&self, arguments: &[&str]) -> String {
        self.done(&self.here(), "git", arguments)
    }

    fn commit(&self, message: &str) {
        self.git(&["commit", "--quiet", "--allow-empty", "--message", message]);
    }

    /// Runs a recipe: its exit code and all that it printed.
    fn just(&self, recipe: &str) -> (Option<i32>, String) {
        let output = Self::run(&self.here(), "./justw", &[recipe]);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("text"))
    }

    /// What a release could change: the commit, the tags, the files.
    fn state(&self) -> String {
        [["rev-parse", "HEAD"], ["tag", "--list"], ["status", "--porcelain"]].map(|words| self.git(&words)).join("\n")
    }

    /// Releases; it must become this version, everywhere.
    fn releases(&self, version: &str, entries: &[&str]) {
        let tag = format!("v{version}");
        let (code, preview) = self.just("changelog");
        assert_eq!(code, Some(0), "{preview}");
        assert!(preview.contains(&format!("next version: {tag}\n")), "{tag}: {preview}");
        let (code, said) = self.just("release");
        assert_eq!(code, Some(0), "{said}");
        assert!(said.contains(&format!("{tag} is committed and tagged")), "{said}");

        let file = |name: &str| fs::read_to_string(self.here().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let line = format!("\nversion = \"{version}\"\n");
        assert!(file("Cargo.toml").starts_with(&format!("[package]\nname = \"purse\"{line}")), "{version}: Cargo.toml");
        assert!(file("Cargo.lock").contains(&format!("\nname = \"purse\"{line}")), "{version}: Cargo.lock");
        // cargo itself finds nothing to change in the lock file.
        self.done(&self.here(), "cargo", &["update", "--workspace", "--offline", "--locked", "--quiet"]);
        let changelog = file("CHANGELOG.md");
        let newest = changelog.split("\n## ").nth(1).expect("an entry of this version");
        assert!(newest.starts_with(&format!("{version} (20")), "{changelog}");
        let listed: Vec<&str> = newest.lines().filter(|line| line.starts_with("- ")).collect();
        assert_eq!(listed, entries, "{changelog}");
        for entry in entries {
            assert!(preview.contains(entry), "{entry} is not in the preview: {preview}");
        }
        assert_eq!(self.git(&["log", "-1", "--format=%s"]), format!("chore(release): {tag}"));
        assert_eq!(
            self.git(&["cat-file", "-t", &tag]),
            "tag",
            "an annotated tag: git push --follow-tags takes no other"
        );
        assert_eq!(self.git(&["rev-parse", &format!("{tag}^{{}}")]), self.git(&["rev-parse", "HEAD"]));
        let mut changed: Vec<String> =
            self.git(&["show", "--format=", "--name-only", "HEAD"]).lines().map(str::to_owned).collect();
        changed.retain(|name| !["CHANGELOG.md", "Cargo.lock", "Cargo.toml"].contains(&name.as_str()));
        assert_eq!(changed, [""; 0], "{tag}");
        assert_eq!(self.git(&["status", "--porcelain"]), "");
    }

    /// A release that must be refused with this exit code and these words, and change nothing.
    fn refuses(&self, code: i32, words: &str) {
        let before = self.state();
        let (ended, said) = self.just("release");
        assert!(ended == Some(code) && said.contains(words), "{ended:?} instead of {code} and `{words}`: {said}");
        assert_eq!(self.state(), before, "{words}");
    }
}

#[test]
fn a_release_takes_its_version_from_the_commits_and_writes_it_everywhere() {
    let clone = Clone::make("versions");
    clone.commit("feat(wallet): keep money");
    clone.commit("docs: say how");
    clone.releases("0.1.0", &["- wallet: Keep money"]);
    clone.refuses(0, "nothing is new since v0.1.0");
    clone.commit("docs: say more");
    clone.refuses(0, "no commit since v0.1.0 changes what a user gets");

    clone.commit("fix(users): let nobody in");
    clone.releases("0.1.1", &["- users: Let nobody in"]);
    clone.commit("fix(users): let somebody in");
    clone.commit("feat(users): let everybody in");
    clone.releases("0.2.0", &["- users: Let everybody in", "- users: Let somebody in"]);
    // Before 1.0 this is a minor version; the entry says what is to be done.
    clone.commit("refactor(config)!: rename a setting\n\nBREAKING CHANGE: write the new name");
    clone.releases("0.3.0", &["- config: Rename a setting: write the new name"]);

    let tags = clone.git(&["tag", "--list"]);
    clone.git(&["push", "--quiet", "--follow-tags"]);
    assert_eq!(clone.done(&clone.folder.join("origin"), "git", &["tag", "--list"]), tags);
    assert_eq!(tags.lines().collect::<Vec<_>>(), ["v0.1.0", "v0.1.1", "v0.2.0", "v0.3.0"]);
}

#[test]
fn a_release_is_refused_where_it_would_not_be_one_of_main_and_is_whole_or_not_there() {
    let clone = Clone::make("refusals");
    clone.commit("feat(wallet): keep money");
    fs::write(clone.here().join("note"), "").expect("written");
    clone.refuses(64, "there are changes that are not committed");
    fs::remove_file(clone.here().join("note")).expect("removed");
    fs::write(clone.here().join("cliff.toml"), "").expect("written");
    clone.refuses(64, "there are changes that are not committed");
    clone.git(&["checkout", "--quiet", "cliff.toml"]);
    clone.git(&["switch", "--quiet", "--create", "feature/other"]);
    clone.refuses(64, "releases are made on main, and this is feature/other");
    clone.git(&["switch", "--quiet", "--detach", "main"]);
    clone.refuses(64, "HEAD is on no branch");
    clone.git(&["switch", "--quiet", "main"]);

    // A hook that refuses the commit stands for whatever may go wrong after the files were written.
    let hook = clone.here().join(".git/hooks/pre-commit");
    fs::create_dir_all(hook.parent().expect("folder")).expect("folder");
    fs::write(&hook, "#!/bin/sh\nexit 1\n").expect("hook");
    clone.done(&clone.folder, "chmod", &["+x", &hook.display().to_string()]);
    clone.refuses(1, "v0.1.0 was not made; the files are as before");
    fs::remove_file(&hook).expect("removed");
    clone.releases("0.1.0", &["- wallet: Keep money"]);
}
