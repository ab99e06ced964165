//! `dev/scripts/lint-openapi.sh`, with stubs of the linters: what fails it, and when it is skipped.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A folder of executable stubs; dropping it deletes them.
struct Stubs(PathBuf);

impl Stubs {
    fn create(name: &str, scripts: &[(&str, &str)]) -> Self {
        let folder = std::env::temp_dir().join(format!("purse-lint-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).expect("folder");
        for (name, script) in scripts {
            let path = folder.join(name);
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("script");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("executable");
        }
        Self(folder)
    }

    /// Exit code and output.
    fn lint(&self, flags: &[&str]) -> (Option<i32>, String) {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("dev/scripts/lint-openapi.sh");
        let mut command = Command::new(script);
        command.arg(env!("CARGO_BIN_EXE_purse")).args(flags).env_clear();
        command.envs(std::env::vars().filter(|(name, _)| name == "LLVM_PROFILE_FILE"));
        command.env("PATH", format!("{}:/usr/bin:/bin", self.0.display())).env("XDG_CACHE_HOME", &self.0);
        let output = command.output().expect("sh");
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8_lossy(&text).into_owned())
    }
}

impl Drop for Stubs {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

const REDOCLY_PASSES: &str = r#"test -s "$6" && echo '{"totals": {"errors": 0, "warnings": 0, "ignored": 0}}'"#;

#[test]
fn errors_and_warnings_of_either_linter_fail_the_check() {
    for (name, redocly, spectral, code) in [
        ("clean", REDOCLY_PASSES, "exit 0", 0),
        ("warning", r#"echo '{"totals": {"errors": 0, "warnings": 1, "ignored": 0}}'"#, "exit 0", 1),
        ("error", r#"echo '{"totals": {"errors": 2, "warnings": 0, "ignored": 0}}'"#, "exit 0", 1),
        ("crash", "exit 134", "exit 0", 1),
        ("spectral", REDOCLY_PASSES, "echo a finding; exit 1", 1),
    ] {
        let stubs = Stubs::create(name, &[("redocly", redocly), ("spectral", spectral)]);
        let (ended, output) = stubs.lint(&[]);
        assert_eq!(ended, Some(code), "{name}: {output}");
        assert!(name != "spectral" || output.contains("a finding"), "{output}");
    }
}

#[test]
fn the_check_is_skipped_with_a_message_where_npm_cannot_be_reached_and_only_if_that_is_allowed() {
    let stubs = Stubs::create("offline", &[("npm", "echo 'npm ERR! network' >&2; exit 1")]);
    let (ended, output) = stubs.lint(&[]);
    assert_eq!(ended, Some(69), "{output}");
    let (ended, output) = stubs.lint(&["--or-skip"]);
    assert_eq!(ended, Some(0), "{output}");
    assert!(output.contains("lint-openapi: SKIPPED: redocly could not be fetched from npm"), "{output}");
}
