//! What keeps the project maintained: dependency updates, owners, the oldest Rust, space on the disk, and the way to report a
//! vulnerability.

use std::collections::BTreeSet;
use std::process::Command;

use serde_json::Value;

use crate::support::repository::{root, text};

#[test]
fn every_path_in_the_example_of_code_owners_exists() {
    let owners = text(".github/CODEOWNERS.example");
    let rules: Vec<&str> = owners.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert!(rules.len() >= 10 && rules[0].starts_with("* "), "{rules:?}");
    for rule in &rules[1..] {
        let mut columns = rule.split_whitespace();
        let path = columns.next().unwrap_or_default();
        let here = root().join(path.trim_start_matches('/'));
        assert!(here.exists() && here.is_dir() == path.ends_with('/'), "{path} is not in the repository");
        assert!(columns.clone().count() > 0 && columns.all(|owner| owner.starts_with('@')), "{rule}");
    }
}

#[test]
fn too_little_space_on_the_disk_is_reported_with_the_free_space_and_another_way() {
    for (needed, code) in [("0", 0), ("1000000000", 69)] {
        let folder = std::env::temp_dir().join("does/not/exist/yet");
        let mut check = Command::new(root().join("dev/scripts/need-space.sh"));
        check.arg(needed).arg(&folder).args(["The first build", "set CARGO_TARGET_DIR"]);
        let output = check.output().expect("spawned");
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{message}");
        if code != 0 {
            let start = format!("The first build needs about {needed} GB in {}, where ", folder.display());
            assert!(message.starts_with(&start) && message.trim().ends_with("or set CARGO_TARGET_DIR."), "{message}");
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn renovate_finds_every_development_tool_that_a_script_pins() {
    let config: Value = serde_json::from_str(&text("renovate.json")).expect("renovate.json");
    let managers = config["customManagers"].as_array().expect("managers");
    let script = text("dev/scripts/fetch-tool.sh");
    let pinned: BTreeSet<&str> = script.lines().filter(|line| line.contains(" version=")).map(str::trim).collect();
    let mut found = BTreeSet::new();
    for manager in managers {
        assert_eq!(manager["managerFilePatterns"][0], "/^dev/scripts/fetch-tool\\.sh$/");
        let pattern = manager["matchStrings"][0].as_str().expect("a pattern");
        // Perl's expressions contain those of Renovate that are used here.
        let mut grep = Command::new("grep");
        let output =
            grep.args(["-P", pattern, "dev/scripts/fetch-tool.sh"]).current_dir(root()).output().expect("grep");
        let lines = String::from_utf8(output.stdout).expect("text");
        found.extend(lines.lines().map(|line| line.trim().to_owned()));
    }
    assert!(pinned.len() >= 10, "{pinned:?}");
    assert_eq!(found.iter().map(String::as_str).collect::<BTreeSet<_>>(), pinned);
}

#[test]
fn every_page_names_the_oldest_rust_of_the_manifest() {
    let manifest = text("Cargo.toml");
    let oldest = manifest.lines().find_map(|line| line.strip_prefix("rust-version = \"")).expect("rust-version");
    let oldest = oldest.trim_end_matches('"');
    assert_eq!(manifest.matches("rust-version = \"").count(), 1, "each member takes it from the workspace");
    for page in ["README.md", "CONTRIBUTING.md"] {
        let named = text(page).contains(&format!("[Rust](https://rustup.rs) {oldest} or later"));
        assert!(named, "{page} does not name Rust {oldest}");
    }
}

#[test]
fn every_form_of_the_tracker_sends_vulnerabilities_to_the_security_page() {
    for form in
        [".github/ISSUE_TEMPLATE/bug.yml", ".github/ISSUE_TEMPLATE/config.yml", ".github/pull_request_template.md"]
    {
        assert!(text(form).contains("SECURITY.md"), "{form}");
    }
    // Otherwise an issue without a form is one click away.
    assert!(text(".github/ISSUE_TEMPLATE/config.yml").lines().any(|line| line == "blank_issues_enabled: false"));
    assert!(text("SECURITY.md").contains("private vulnerability reporting"));
}
