//! What a request that posts may be refused with is the same in the OpenAPI document and on the page of the API.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::support::{Client, Document, World, repository};
use purse::kernel::Role;

/// What every endpoint that posts may return; the page says so in its sections on errors and on services.
const OF_ALL: [&str; 16] = [
    "VALIDATION_ERROR",
    "UNAUTHORIZED",
    "REQUEST_TIMEOUT",
    "PAYLOAD_TOO_LARGE",
    "UNSUPPORTED_MEDIA_TYPE",
    "RATE_LIMITED",
    "HEADERS_TOO_LARGE",
    "INTERNAL_ERROR",
    "DEPENDENCY_UNAVAILABLE",
    "OVERLOADED",
    "OUTCOME_UNKNOWN",
    "IDEMPOTENCY_KEY_REUSED",
    "NOT_ALLOWED",
    "WALLET_PROVISIONING",
    "WALLET_NOT_FOUND",
    "INSUFFICIENT_SCOPE",
];

/// Those of an operation that are not of all.
fn own_codes(document: &Document, operation: &Value) -> BTreeSet<String> {
    let responses = operation["responses"].as_object().expect("responses").values();
    let codes = responses.flat_map(|response| {
        let examples = &document.resolved(response)["content"]["application/json"]["examples"];
        examples.as_object().into_iter().flat_map(|examples| examples.keys().cloned()).collect::<Vec<_>>()
    });
    codes.filter(|code| *code == code.to_uppercase() && !OF_ALL.contains(&code.as_str())).collect()
}

/// The codes that a row of the table of endpoints names.
fn codes_on_page(page: &str, path: &str) -> BTreeSet<String> {
    let mut rows: Vec<&str> = page.lines().filter(|row| row.starts_with("| wallet | ")).collect();
    let typed = "`POST /v1/transactions`";
    let row = rows.iter().position(|row| row.contains(&format!("`POST {path}`"))).unwrap_or_else(|| panic!("{path}"));
    // The row after that of the two paths for one direction says "the same".
    let row = rows.swap_remove(if rows[row].contains(typed) && path == "/v1/transactions" { row - 1 } else { row });
    let errors = row.trim_end_matches([' ', '|']).rsplit(" | ").next().expect("a cell");
    let named = errors.split('`').skip(1).step_by(2).map(str::to_owned);
    named.filter(|code| !OF_ALL.contains(&code.as_str())).collect()
}

#[tokio::test]
async fn every_endpoint_that_posts_documents_the_same_codes_in_openapi_and_on_the_page() {
    let world = World::new().await;
    let wallet = world.start(Role::Wallet).await;
    let document = Document::of(&Client::new(&wallet.url(), &wallet.url()), &wallet.url()).await;
    let page = repository::text("docs/api.md");
    let mut found = BTreeMap::new();
    for (method, path, operation) in document.operations() {
        if method != "POST" {
            continue;
        }
        let codes = own_codes(&document, operation);
        if let Some(path) = path.strip_prefix("/v1/wallets/{userId}") {
            assert_eq!(found.get(&format!("/v1{path}")), Some(&codes), "a service gets the same: {path}");
        } else {
            found.insert(path, codes);
        }
    }
    assert_eq!(found.len(), 9, "{found:?}");
    for (path, codes) in found {
        let is_group = path.ends_with("/bulk");
        let refused = if is_group { "BULK_REFUSED" } else { "WALLET_CLOSED" };
        assert!(codes.contains(refused), "{path} does not document {refused}: {codes:?}");
        assert_eq!(codes_on_page(&page, &path), codes, "{path}");
    }
}
