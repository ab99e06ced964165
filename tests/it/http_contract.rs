//! Invalid input to the users role's POST routes: the documented status and field, and no row written.

use purse::kernel::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{Client, PASSWORD, Response, World, assert_error, assert_invalid, assert_json_response};

const REGISTER: &str = "/v1/auth/register";
const LOGIN: &str = "/v1/auth/login";
const ROWS: &str = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM outbox)";

async fn world() -> (World, crate::support::RoleProcess, Client) {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let client = Client::new(&users.url(), &users.url());
    (world, users, client)
}

async fn post(client: &Client, path: &str, body: &Value) -> Response {
    client.send(client.request(Method::POST, &format!("{}{path}", client.users)).json(body)).await
}

fn registration() -> Value {
    json!({"firstName": "Ada", "lastName": "Lovelace", "email": Client::fresh_email(), "password": PASSWORD})
}

/// A valid registration with one field changed.
fn registration_with(field: &str, value: Value) -> Value {
    let mut body = registration();
    body[field] = value;
    body
}

/// An address with this length in bytes.
fn email_of(bytes: usize) -> String {
    let domain = ["d".repeat(61), "e".repeat(61), "f".repeat(61), "com".to_owned()].join(".");
    let unique = Client::fresh_email().replace('@', "-");
    let local = format!("{}{}", &unique[..8], "a".repeat(bytes - domain.len() - 9));
    format!("{local}@{domain}")
}

/// JSON values that are not text.
fn not_texts() -> [Value; 7] {
    [Value::Null, json!(5), json!(5.5), json!(true), json!([]), json!(["x"]), json!({"a": "x"})]
}

#[tokio::test]
async fn a_registration_with_an_invalid_field_returns_400_naming_it_and_writes_nothing() {
    let (world, _users, client) = world().await;
    let mut cases: Vec<(&str, Value)> = Vec::new();
    for field in ["firstName", "lastName", "email", "password"] {
        cases.extend(not_texts().map(|value| (field, value)));
        cases.push((field, json!("")));
        cases.push((field, json!("Ada\u{0}Lovelace@example.com")));
    }
    for field in ["firstName", "lastName"] {
        for text in [" ", " \t\n ", "\u{a0}\u{2003}", "A\nda", "A\u{7f}da", "A\u{85}da"] {
            cases.push((field, json!(text)));
        }
        cases.push((field, json!("x".repeat(101))));
        cases.push((field, json!("ü".repeat(101))));
    }
    for text in [
        "ada",
        "ada@",
        "@example.com",
        "ada@localhost",
        " ada@example.com",
        "ada@example.com ",
        "ada@example.com\n",
        "a da@example.com",
        "ada@example..com",
        "ada@@example.com",
        "Ada <ada@example.com>",
        "ada@[127.0.0.1]",
        "ada@example.com,b@example.com",
    ] {
        cases.push(("email", json!(text)));
    }
    cases.push(("email", json!(email_of(255))));
    for text in ["1234567", "üüüüüüü", "       "] {
        cases.push(("password", json!(text)));
    }
    cases.push(("password", json!("p".repeat(1025))));
    cases.push(("password", json!("ü".repeat(513))));
    cases.push(("password", json!("p".repeat(9000))));

    for (field, value) in cases {
        let about = format!("{field} = {value}");
        let response = post(&client, REGISTER, &registration_with(field, value)).await;
        assert_invalid(&response, &[field], &about);
    }
    assert_eq!(world.sql(Role::Users, ROWS).await, "0|0");
}

#[tokio::test]
async fn a_registration_with_missing_or_unknown_fields_reports_all_of_them_at_once() {
    let (world, _users, client) = world().await;
    let nothing = post(&client, REGISTER, &json!({})).await;
    assert_invalid(&nothing, &["firstName", "lastName", "email", "password"], "no field at all");
    for field in ["firstName", "lastName", "email", "password"] {
        let mut body = registration();
        body.as_object_mut().expect("object").remove(field);
        assert_invalid(&post(&client, REGISTER, &body).await, &[field], field);
    }
    for unknown in ["id", "role", "balance", "firstname", "first_name", "Email", "__proto__", "constructor", "é"] {
        let response = post(&client, REGISTER, &registration_with(unknown, json!("x"))).await;
        assert_invalid(&response, &[unknown], unknown);
    }
    let forged = post(&client, REGISTER, &registration_with("a\u{0}\nb", json!("x"))).await;
    assert_invalid(&forged, &["ab"], "control characters are not echoed");
    let long = post(&client, REGISTER, &registration_with(&"k".repeat(5000), json!("x"))).await;
    assert_invalid(&long, &["k".repeat(100).as_str()], "long names are truncated");
    let everything = json!({"firstName": 1, "lastName": "", "email": "x", "password": "short", "more": {}});
    let response = post(&client, REGISTER, &everything).await;
    assert_invalid(&response, &["firstName", "lastName", "email", "password", "more"], "all at once");
    assert_eq!(world.sql(Role::Users, ROWS).await, "0|0");
}

#[tokio::test]
async fn the_shortest_and_the_longest_value_of_each_field_are_accepted() {
    let (world, _users, client) = world().await;
    let cases = [
        ("firstName", json!("x"), "x".to_owned()),
        ("firstName", json!("ü".repeat(100)), "ü".repeat(100)),
        ("lastName", json!(format!("  {}\t", "x".repeat(100))), "x".repeat(100)),
        ("lastName", json!("O'Brien; DROP TABLE users;--"), "O'Brien; DROP TABLE users;--".to_owned()),
        ("lastName", json!("李\u{1f600}"), "李\u{1f600}".to_owned()),
    ];
    for (field, sent, stored) in cases {
        let response = post(&client, REGISTER, &registration_with(field, sent)).await;
        assert_eq!((response.status.as_u16(), response.body["user"][field].as_str()), (201, Some(stored.as_str())));
        assert_json_response(&response, "a registration");
    }
    let email = email_of(254).to_uppercase();
    let response = post(&client, REGISTER, &registration_with("email", json!(email))).await;
    assert_eq!(response.body["user"]["email"], json!(email.to_lowercase()), "{response:?}");
    let again = post(&client, REGISTER, &registration_with("email", json!(email.to_lowercase()))).await;
    assert_error(&again, 409, "EMAIL_EXISTS", "the same address in another case");
    assert_eq!(world.sql(Role::Users, ROWS).await, "6|6");
}

#[tokio::test]
async fn a_registration_returns_exactly_the_documented_fields() {
    let (_world, _users, client) = world().await;
    let sent = registration();
    let response = post(&client, REGISTER, &sent).await;
    let keys = |value: &Value| value.as_object().expect("object").keys().cloned().collect::<Vec<_>>();
    assert_eq!(response.status, 201);
    assert_eq!(keys(&response.body), ["accessToken", "expiresIn", "tokenType", "user"]);
    assert_eq!(keys(&response.body["user"]), ["createdAt", "email", "firstName", "id", "lastName"]);
    assert_eq!((&response.body["tokenType"], &response.body["expiresIn"]), (&json!("Bearer"), &json!(3600)));
    let id: uuid::Uuid = response.body["user"]["id"].as_str().expect("id").parse().expect("a UUID");
    assert_eq!(id.get_version_num(), 7);
    let created = response.body["user"]["createdAt"].as_str().expect("time");
    assert!(created.ends_with('Z') && created.parse::<purse::kernel::Timestamp>().is_ok(), "{created}");

    let me = client.me(response.body["accessToken"].as_str().expect("token")).await;
    assert_eq!((me.status.as_u16(), &me.body), (200, &response.body["user"]));
    let login = client.log_in(sent["email"].as_str().expect("email"), PASSWORD).await;
    assert_eq!((login.status.as_u16(), keys(&login.body).join(" ")), (200, "accessToken expiresIn tokenType".into()));
    assert_json_response(&login, "a login");
}

#[tokio::test]
async fn a_password_is_used_exactly_as_sent() {
    let (_world, _users, client) = world().await;
    let longest = "p".repeat(1024);
    // Each with similar passwords that must be rejected.
    let cases = [
        ("  padded  ", vec!["padded", "  padded", "padded  ", " padded "]),
        (
            "üüüüüüüü",
            vec!["uuuuuuuu", "üüüüüüü", "ÜÜÜÜÜÜÜÜ", "u\u{308}u\u{308}u\u{308}u\u{308}u\u{308}u\u{308}u\u{308}u\u{308}"],
        ),
        ("MixedCase1", vec!["mixedcase1", "MIXEDCASE1"]),
        ("line\nbreak\t", vec!["line\nbreak", "linebreak"]),
        (longest.as_str(), vec![&longest[..1023], &longest[..72]]),
    ];
    for (password, others) in cases {
        let body = registration_with("password", json!(password));
        assert_eq!(post(&client, REGISTER, &body).await.status, 201, "{password:?}");
        let email = body["email"].as_str().expect("email");
        assert_eq!(client.log_in(email, password).await.status, 200, "{password:?}");
        for other in others {
            assert_error(&client.log_in(email, other).await, 401, "INVALID_CREDENTIALS", other);
        }
    }
}

#[tokio::test]
async fn a_login_reports_a_malformed_body_but_not_whether_the_account_exists() {
    let (_world, _users, client) = world().await;
    let user = client.user().await;
    for field in ["email", "password"] {
        for value in not_texts().into_iter().chain([json!("nul\u{0}here@example.com")]) {
            let mut body = json!({"email": user.email, "password": PASSWORD});
            body[field] = value;
            assert_invalid(&post(&client, LOGIN, &body).await, &[field], &body.to_string());
        }
    }
    assert_invalid(&post(&client, LOGIN, &json!({})).await, &["email", "password"], "nothing");
    let more = json!({"email": user.email, "password": PASSWORD, "otp": 1});
    assert_invalid(&post(&client, LOGIN, &more).await, &["otp"], "an unknown field");
    assert_invalid(&client.log_in(&user.email, &"p".repeat(1025)).await, &["password"], "too long for any password");

    let wrong = client.log_in(&user.email, "not the password").await;
    assert_error(&wrong, 401, "INVALID_CREDENTIALS", "a wrong password");
    for (email, password) in [
        ("unknown@example.com", PASSWORD),
        ("not an address", PASSWORD),
        ("", PASSWORD),
        (user.email.as_str(), ""),
        (user.email.as_str(), "short"),
        (email_of(255).as_str(), PASSWORD),
    ] {
        let response = client.log_in(email, password).await;
        assert_eq!((response.status, &response.body), (wrong.status, &wrong.body), "{email:?} {password:?}");
        assert_eq!(response.header("www-authenticate"), wrong.header("www-authenticate"));
        let names = |response: &Response| response.headers.keys().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(names(&response), names(&wrong), "{email:?} {password:?}");
    }
}
