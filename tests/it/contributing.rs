//! The handbook for contributors names the files that a change touches. That list is compared with the code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The sources below a folder, except those of unit tests.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs") {
            found.push(path);
        }
    }
}

/// The source without its comments and tests, which may mention whatever they like.
fn production(source: &str) -> String {
    let code = source.split("#[cfg(test)]").next().unwrap_or_default();
    code.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The links to sources between two marks of CONTRIBUTING.md.
fn listed(mark: &str) -> BTreeSet<String> {
    let page = read(&root().join("CONTRIBUTING.md"));
    let (_, rest) = page.split_once(&format!("<!-- {mark}:begin -->")).expect("the mark of the beginning");
    let (list, _) = rest.split_once(&format!("<!-- {mark}:end -->")).expect("the mark of the end");
    list.split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

#[test]
fn an_endpoint_touches_the_files_that_contributing_lists_and_no_others() {
    let listed = listed("endpoint");
    assert!((1..=5).contains(&listed.len()), "an endpoint that reads touches at most five files: {listed:?}");
    let mut files = Vec::new();
    sources(&root().join("src"), &mut files);
    // What exists only for the balance: its module, operation, path, queries and statements.
    let marks =
        ["get_balance", "getBalance", "\"/v1/balance\"", "fn balance(&self", "balance_at", "wallet.ledger.balance"];
    let touched: BTreeSet<String> = files
        .iter()
        .filter(|file| {
            let code = production(&read(file));
            file.ends_with("get_balance.rs") || marks.iter().any(|mark| code.contains(mark))
        })
        .map(|file| file.strip_prefix(root()).expect("below the root").to_string_lossy().into_owned())
        .collect();
    assert_eq!(touched, listed, "the files of GET /v1/balance, and those that CONTRIBUTING.md lists");
}
