//! CONTRIBUTING.md lists the files that a new endpoint touches; the code must agree.

use std::collections::BTreeSet;

use crate::support::repository::{between, production, sources, text};

/// The links to sources between two marks of CONTRIBUTING.md.
fn listed(mark: &str) -> BTreeSet<String> {
    let page = text("CONTRIBUTING.md");
    between(&page, mark).split("](").skip(1).filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

#[test]
fn an_endpoint_touches_the_files_that_contributing_lists_and_no_others() {
    let listed = listed("endpoint");
    assert!((1..=5).contains(&listed.len()), "an endpoint that reads touches at most five files: {listed:?}");
    // What exists only for the balance: its module, operation, path, queries and statements.
    let marks =
        ["get_balance", "getBalance", "\"/v1/balance\"", "fn balance(&self", "balance_at", "wallet.ledger.balance"];
    let touched: BTreeSet<String> = sources("src")
        .into_iter()
        .filter(|file| !file.ends_with("/tests.rs"))
        .filter(|file| {
            let code = production(&text(file));
            file.ends_with("get_balance.rs") || marks.iter().any(|mark| code.contains(mark))
        })
        .collect();
    assert_eq!(touched, listed, "the files of GET /v1/balance, and those that CONTRIBUTING.md lists");
}
