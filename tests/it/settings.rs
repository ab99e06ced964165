//! A setting is declared once: CONTRIBUTING.md lists the files that adding one touches, and no other file names it.

use std::collections::BTreeSet;
use std::fs;

use purse::infra::config::setting::ALL;

use crate::support::repository::{files, root, text};

/// Most files that adding a setting may touch.
const FILES_MAX: usize = 4;

/// Whether a file contains one of these words, not as part of a longer one.
fn names(file: &str, words: &[&str]) -> bool {
    let text = fs::read(root().join(file)).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).expect("file");
    text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').any(|word| words.contains(&word))
}

#[test]
fn adding_a_setting_touches_the_files_that_the_guide_lists_and_no_other() {
    let guide = text("CONTRIBUTING.md");
    let (_, section) = guide.split_once("### Add a setting").expect("the section");
    let section = section.split("\n### ").next().unwrap_or_default();
    let code = |text: &str| text.split('`').nth(1).expect("code in backticks").to_owned();
    let link = |text: &str| text.split(['(', ')']).nth(1).expect("a link to a file").to_owned();
    let example = code(section);
    let setting = ALL.iter().find(|setting| setting.env == example).expect("the example is a setting");
    let listed: BTreeSet<String> =
        section.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).map(link).collect();
    assert!((1..=FILES_MAX).contains(&listed.len()), "{listed:?}");

    let key = setting.key();
    // The file that uses the value gets it under a name of its own: `batch_max` for `LEDGER_BATCH_MAX`.
    let (_, short) = key.split_once('_').expect("a name of several words");
    for file in &listed {
        assert!(names(file, &[setting.env, &key, short]), "{file} does not name {example}");
    }
    let mut production = vec!["README.md".to_owned(), "docs/configuration.md".to_owned()];
    production.extend(["src", "config", "docker"].into_iter().flat_map(files));
    let naming: BTreeSet<String> = production.into_iter().filter(|file| names(file, &[setting.env, &key])).collect();
    assert!(naming.is_subset(&listed), "CONTRIBUTING.md does not list {:?}", &naming - &listed);
}
