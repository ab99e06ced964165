//! What the OpenAPI documents promise to generators of typed clients.

use std::collections::BTreeSet;

use purse::kernel::Role;
use reqwest::Url;
use serde_json::{Map, Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};

use crate::openapi::{DOCUMENTS, objects, printed};
use crate::support::{Browser, Client, Document, World};

/// The operations of a client of both roles. Those of the users role come first.
const OPERATIONS: [(&str, &str, &str); 24] = [
    ("registerUser", "POST", "/v1/auth/register"),
    ("login", "POST", "/v1/auth/login"),
    ("getCurrentUser", "GET", "/v1/users/me"),
    ("getWalletStatus", "GET", "/v1/wallet/status"),
    ("getBalance", "GET", "/v1/balance"),
    ("listTransactions", "GET", "/v1/transactions"),
    ("getTransaction", "GET", "/v1/transactions/{id}"),
    ("getStatement", "GET", "/v1/statements"),
    ("creditWallet", "POST", "/v1/transactions/credit"),
    ("debitWallet", "POST", "/v1/transactions/debit"),
    ("createTransaction", "POST", "/v1/transactions"),
    ("reverseTransaction", "POST", "/v1/transactions/{id}/reverse"),
    ("createTransfer", "POST", "/v1/transfers"),
    ("getTransfer", "GET", "/v1/transfers/{id}"),
    ("createHold", "POST", "/v1/holds"),
    ("captureHold", "POST", "/v1/holds/{id}/capture"),
    ("voidHold", "POST", "/v1/holds/{id}/void"),
    ("getHold", "GET", "/v1/holds/{id}"),
    ("listHolds", "GET", "/v1/holds"),
    ("createTransactions", "POST", "/v1/transactions/bulk"),
    ("getReceipt", "GET", "/v1/transactions/{id}/receipt"),
    ("getLedgerHead", "GET", "/v1/ledger/head"),
    ("listChain", "GET", "/v1/ledger/chain"),
    ("getSigningKeys", "GET", "/.well-known/purse-keys.json"),
];

/// Operations of users that services do not have: what they do belongs to the user.
const OF_USERS_ONLY: [&str; 9] = [
    "registerUser",
    "login",
    "getCurrentUser",
    "getWalletStatus",
    "createTransactions",
    "getReceipt",
    "getLedgerHead",
    "listChain",
    "getSigningKeys",
];

/// Operations that need no access token.
const OPEN: [&str; 3] = ["registerUser", "login", "getSigningKeys"];

fn operations_of(document: &Document) -> BTreeSet<(String, String, String)> {
    let operations = document.operations().into_iter();
    operations.map(|(method, path, operation)| (text(&operation["operationId"]), method, path)).collect()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("not a text: {value}")).to_owned()
}

fn all_objects(document: &Document) -> Vec<&Map<String, Value>> {
    let mut all = Vec::new();
    objects(&document.value, &mut all);
    all
}

#[test]
fn the_documents_have_exactly_these_operations_and_none_for_operators() {
    let named = |operations: &[(&str, &str, &str)]| -> BTreeSet<(String, String, String)> {
        let of_users = operations.iter().map(|(id, method, path)| ((*id).into(), (*method).into(), (*path).into()));
        let for_services = operations.iter().filter(|(id, ..)| !OF_USERS_ONLY.contains(id));
        let for_services = for_services.map(|(id, method, path)| {
            (format!("{id}ForUser"), (*method).into(), path.replacen("/v1/", "/v1/wallets/{userId}/", 1))
        });
        of_users.chain(for_services).collect()
    };
    assert_eq!(operations_of(&printed("users")), named(&OPERATIONS[..3]));
    assert_eq!(operations_of(&printed("wallet")), named(&OPERATIONS[3..]));
    assert_eq!(operations_of(&printed("all")), named(&OPERATIONS));
}

#[test]
fn an_operation_states_that_it_needs_no_token_that_of_a_user_or_that_of_a_service() {
    for name in DOCUMENTS {
        for (method, path, operation) in printed(name).operations() {
            let is_open = OPEN.contains(&operation["operationId"].as_str().expect("id"));
            let expected = match path.contains("{userId}") {
                true => json!([{"service": []}]),
                false if is_open => json!([]),
                false => json!([{"bearer": []}]),
            };
            assert_eq!(operation["security"], expected, "{name}: {method} {path}");
        }
        let schemes = printed(name).value["components"]["securitySchemes"].clone();
        let schemes: Vec<String> = schemes.as_object().expect("schemes").keys().cloned().collect();
        let expected = if name == "users" { vec!["bearer"] } else { vec!["bearer", "service"] };
        assert_eq!(schemes, expected, "{name}");
    }
}

#[test]
fn a_field_with_a_fixed_set_of_values_is_an_enum_and_not_a_pattern() {
    for name in DOCUMENTS {
        let document = printed(name);
        for object in all_objects(&document) {
            let pattern = object.get("pattern").and_then(Value::as_str).unwrap_or_default();
            let lists_words =
                pattern.contains('|') || pattern.trim_matches(['^', '$']).chars().all(char::is_alphanumeric);
            assert!(pattern.is_empty() || !lists_words, "{name}: {pattern} lists values");
        }
    }
    let all = printed("all");
    let schemas = &all.value["components"]["schemas"];
    for (schema, values) in [
        ("TransactionType", json!(["credit", "debit"])),
        ("Currency", json!(["USD"])),
        ("TokenType", json!(["Bearer"])),
        ("WalletState", json!(["ready"])),
    ] {
        assert_eq!((&schemas[schema]["type"], &schemas[schema]["enum"]), (&json!("string"), &values), "{schema}");
    }
    let filter = all.operations().into_iter().find(|(.., operation)| operation["operationId"] == "listTransactions");
    let parameters = filter.expect("an operation").2["parameters"].as_array().expect("parameters").clone();
    let kind = parameters.iter().find(|parameter| parameter["name"] == "type").expect("a filter");
    assert_eq!(kind["schema"]["enum"], schemas["TransactionType"]["enum"]);
}

#[test]
fn every_error_is_the_one_error_schema_whose_code_is_an_enum_of_all_codes() {
    for name in DOCUMENTS {
        let document = printed(name);
        let components = &document.value["components"];
        let (mut shared, mut own, mut errors) = (BTreeSet::new(), BTreeSet::new(), 0);
        for (method, path, operation) in document.operations() {
            for (status, response) in operation["responses"].as_object().expect("responses") {
                let about = format!("{name}: {method} {path} {status}");
                if status.starts_with('2') {
                    continue;
                }
                errors += 1;
                let content = &document.resolved(response)["content"]["application/json"];
                assert_eq!(content["schema"], json!({"$ref": "#/components/schemas/Error"}), "{about}");
                let place = response["$ref"].as_str().and_then(|place| place.strip_prefix("#/components/responses/"));
                shared.extend(place.map(str::to_owned));
                // Only what the operation alone can say: several codes, or an example with its own fields.
                let codes = content["examples"].as_object().expect("examples").len();
                // A response that one operation has, such as that of a larger body, is its own. One that several have is shared.
                let is_own = codes > 1 || status == "400" || own.insert((status, content["examples"].to_string()));
                assert!(place.is_some() || is_own, "{about} is not shared");
            }
        }
        assert!(errors > 20, "{name}: {errors} error responses");
        let listed: BTreeSet<_> = components["responses"].as_object().expect("responses").keys().cloned().collect();
        assert_eq!(shared, listed, "{name}: shared responses that are used, and all");
        for status in ["Unauthorized", "RateLimited", "RequestTimeout", "HeadersTooLarge", "InternalError"] {
            assert!(listed.contains(status), "{name}: {status}");
        }
        assert_eq!(
            components["schemas"]["Error"]["properties"]["code"],
            json!({"$ref": "#/components/schemas/ErrorCode"})
        );
        let codes = components["schemas"]["ErrorCode"]["enum"].as_array().expect("codes");
        let codes: BTreeSet<String> = codes.iter().map(text).collect();
        assert_eq!(codes, document.codes(), "{name}");
    }
}

#[test]
fn the_version_of_the_documents_is_that_of_the_release() {
    for name in DOCUMENTS {
        assert_eq!(printed(name).value["info"]["version"], env!("CARGO_PKG_VERSION"), "{name}");
    }
}

/// The value with each reference replaced by what it refers to.
fn inlined(document: &Document, value: &Value) -> Value {
    match document.resolved(value) {
        Value::Array(items) => items.iter().map(|item| inlined(document, item)).collect(),
        Value::Object(fields) => {
            fields.iter().map(|(name, field)| (name.clone(), inlined(document, field))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

/// An operation without what the documents share: a code or a description of the other role may be added there.
fn own_parts(document: &Document, operation: &Value) -> Value {
    let mut own = operation.clone();
    for response in own["responses"].as_object_mut().expect("responses").values_mut() {
        if response["$ref"].is_null() {
            *response = inlined(document, &response["content"]["application/json"]["examples"]);
        }
    }
    own
}

#[test]
fn the_document_of_both_roles_has_each_operation_unchanged_at_the_server_of_its_role() {
    let all = printed("all");
    for role in Role::ALL {
        let document = printed(role.as_str());
        for (method, path, operation) in document.operations() {
            let item = &all.value["paths"][&path];
            let merged = &item[method.to_lowercase()];
            assert_eq!(own_parts(&all, merged), own_parts(&document, operation), "{method} {path}");
            let servers = item["servers"].as_array().expect("servers");
            assert_eq!(servers.len(), 1, "{path}");
            assert_eq!(servers[0]["url"], format!("{{{role}}}"), "{path}");
            assert!(all.value["servers"].as_array().expect("servers").contains(&servers[0]), "{path}");
        }
        for (name, schema) in document.value["components"]["schemas"].as_object().expect("schemas") {
            let merged = &all.value["components"]["schemas"][name];
            assert!(name == "ErrorCode" || merged == schema, "{name}: {merged}");
        }
    }
    let ports: Vec<_> = ["users", "wallet"]
        .iter()
        .enumerate()
        .map(|(place, role)| text(&all.value["servers"][place]["variables"][role]["default"]))
        .collect();
    assert_eq!(ports, ["http://localhost:3002", "http://localhost:3001"]);
}

/// A proxy that serves `url` under the path `/purse`, which it removes; returns its own URL.
async fn proxy_with_a_prefix(url: &str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let own = format!("http://{}", listener.local_addr().expect("address"));
    let target = url.trim_start_matches("http://").to_owned();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let target = target.clone();
            tokio::spawn(async move { forward(client, &target).await });
        }
    });
    own
}

/// One request per connection; a path outside of the prefix is not found.
async fn forward(mut client: TcpStream, target: &str) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let (line, fields) = head.split_once("\r\n").unwrap_or_default();
    if !line.contains(" /purse/") {
        return client.write_all(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await;
    }
    let fields = fields.replace("\r\nConnection: keep-alive", "\r\nConnection: close");
    let line = line.replacen(" /purse/", " /", 1);
    let mut server = TcpStream::connect(target).await?;
    server.write_all(format!("{line}\r\n{fields}").as_bytes()).await?;
    copy_bidirectional(&mut client, &mut server).await.map(drop)
}

#[tokio::test]
async fn the_server_of_a_document_is_right_behind_a_proxy_that_removes_a_prefix() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let proxy = proxy_with_a_prefix(&users.url()).await;
    let client = Client::new(&users.url(), &users.url());

    let place = Url::parse(&format!("{proxy}/purse/openapi.json")).expect("a URL");
    let document = client.send(client.request(reqwest::Method::GET, place.as_str())).await.body;
    let server = place.join(document["servers"][0]["url"].as_str().expect("a server")).expect("a URL");
    assert_eq!(server.as_str(), format!("{proxy}/purse/"));
    let direct = Url::parse(&format!("{}/openapi.json", users.url())).expect("a URL").join(".").expect("a URL");
    assert_eq!(direct.as_str(), format!("{}/", users.url()));

    // Swagger UI resolves it in the same way.
    let browser = Browser::start().await;
    browser.open(&format!("{proxy}/purse/docs")).await;
    browser.click("#operations-users-registerUser .opblock-summary-control").await;
    browser.click("#operations-users-registerUser button.execute").await;
    let place = "#operations-users-registerUser";
    let status = browser.text(&format!("{place} .live-responses-table tbody .response-col_status")).await;
    assert_eq!(status.trim(), "201");
    let url = browser.text(&format!("{place} .request-url pre")).await;
    assert_eq!(url.trim(), format!("{proxy}/purse/v1/auth/register"));
}
