//! Bodies of every POST route: malformed JSON, media types, sizes.

use purse::kernel::Role;
use reqwest::{Method, RequestBuilder};

use crate::support::{Client, PASSWORD, Raw, Response, RoleProcess, User, World, assert_error, assert_invalid};

const BODY_BYTES_MAX: usize = 16 * 1024;
const USERS_ROWS: &str = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM outbox)";
const WALLET_ROWS: &str = "SELECT count(*) FROM transactions";

struct Routes {
    world: World,
    client: Client,
    user: User,
    /// The URL of every POST route, with a valid body.
    all: [(String, String); 5],
    rows: (String, String),
    _roles: (RoleProcess, RoleProcess),
}

impl Routes {
    async fn new() -> Self {
        let world = World::new().await;
        let (users, wallet, client) = world.both().await;
        let user = client.ready_user().await;
        client.post(&user, "credit", 1_000_000, None).await;
        let register = r#"{"firstName":"A","lastName":"L","email":"new@example.com","password":"12345678"}"#;
        let login = format!(r#"{{"email":"{}","password":"{PASSWORD}"}}"#, user.email);
        let all = [
            (format!("{}/v1/auth/register", client.users), register.to_owned()),
            (format!("{}/v1/auth/login", client.users), login),
            (format!("{}/v1/transactions/credit", client.wallet), r#"{"amountMinor":5}"#.to_owned()),
            (format!("{}/v1/transactions/debit", client.wallet), r#"{"amountMinor":5}"#.to_owned()),
            (format!("{}/v1/transactions", client.wallet), r#"{"type":"debit","amountMinor":5}"#.to_owned()),
        ];
        let mut routes = Self { world, client, user, all, rows: Default::default(), _roles: (users, wallet) };
        routes.rows = routes.count().await;
        routes
    }

    async fn count(&self) -> (String, String) {
        (self.world.sql(Role::Users, USERS_ROWS).await, self.world.sql(Role::Wallet, WALLET_ROWS).await)
    }

    async fn assert_nothing_was_written(&self) {
        assert_eq!(self.count().await, self.rows);
    }

    fn request(&self, url: &str) -> RequestBuilder {
        self.client.request(Method::POST, url).bearer_auth(&self.user.token)
    }

    async fn post(&self, url: &str, media_type: &str, body: impl Into<reqwest::Body>) -> Response {
        self.client.send(self.request(url).header("content-type", media_type).body(body)).await
    }
}

#[tokio::test]
async fn a_body_that_is_not_one_json_object_without_duplicate_fields_returns_400_on_every_route() {
    let routes = Routes::new().await;
    for (url, valid) in &routes.all {
        let doubled = valid.replacen(
            '{',
            r#"{"email":"x@example.com","email":"x@example.com","amountMinor":1,"amountMinor":1,"#,
            1,
        );
        let escaped = valid.replacen('{', r#"{"amountMinor":1,"\u0061mountMinor":1,"#, 1);
        let nested = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        let deep = valid.replacen('{', &format!("{{\"deep\":{nested},"), 1);
        let in_latin1 = [valid.replacen('}', ",\"x\":\"", 1).as_bytes(), b"\xfc\"}"].concat();
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("empty", vec![]),
            ("whitespace", b" \n ".to_vec()),
            ("null", b"null".to_vec()),
            ("a number", b"5".to_vec()),
            ("a text", b"\"x\"".to_vec()),
            ("an empty list", b"[]".to_vec()),
            ("a list of the fields", br#"["A","L","new@example.com","12345678"]"#.to_vec()),
            ("a list of an amount", b"[5]".to_vec()),
            ("the object inside a list", format!("[{valid}]").into_bytes()),
            ("two objects", format!("{valid}{valid}").into_bytes()),
            ("trailing text", format!("{valid}x").into_bytes()),
            ("truncated", valid.as_bytes()[..valid.len() - 1].to_vec()),
            ("a trailing comma", valid.replacen('}', ",}", 1).into_bytes()),
            ("single quotes", valid.replace('"', "'").into_bytes()),
            ("a comment", format!("/* x */{valid}").into_bytes()),
            ("a byte order mark", format!("\u{feff}{valid}").into_bytes()),
            ("a trailing NUL", format!("{valid}\0").into_bytes()),
            ("an unescaped control character", valid.replacen('"', "\"\u{1}", 1).into_bytes()),
            ("a lone surrogate", valid.replacen('{', r#"{"x":"\ud800","#, 1).into_bytes()),
            ("not UTF-8", in_latin1),
            ("UTF-16", valid.encode_utf16().flat_map(u16::to_le_bytes).collect()),
            ("nested 5,000 deep", deep.into_bytes()),
            ("a form", b"email=x&password=y".to_vec()),
            ("gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00".to_vec()),
        ];
        for (what, body) in cases {
            let response = routes.post(url, "application/json", body).await;
            assert_invalid(&response, &["body"], &format!("{url}: {what}"));
        }
        for (names, body) in [(&["amountMinor", "email"][..], doubled), (&["amountMinor"], escaped)] {
            let response = routes.post(url, "application/json", body.into_bytes()).await;
            assert_error(&response, 400, "VALIDATION_ERROR", url);
            let details = response.body["details"].as_array().expect("details").iter();
            let repeated: Vec<_> = details.filter(|detail| detail["message"] == "must not be repeated").collect();
            let repeated: Vec<_> = repeated.iter().filter_map(|detail| detail["field"].as_str()).collect();
            assert_eq!(repeated, names, "{url}: {response:?}");
        }
    }
    routes.assert_nothing_was_written().await;
}

#[tokio::test]
async fn a_body_that_is_not_declared_as_json_returns_415_on_every_route() {
    let routes = Routes::new().await;
    for (url, valid) in &routes.all {
        for media_type in [
            "",
            "text/plain",
            "text/json",
            "application/jsonx",
            "application/json5",
            "application/problem+json",
            "application/x-www-form-urlencoded",
            "multipart/form-data; boundary=x",
            "application/json; charset=latin1",
            "application/json; charset=utf-16",
            "application/json; charset=utf-8; charset=latin1",
            "application/json; v=1",
            "application/json, text/plain",
            "*/*",
            "json",
        ] {
            let response = routes.post(url, media_type, valid.clone()).await;
            assert_error(&response, 415, "UNSUPPORTED_MEDIA_TYPE", &format!("{url}: {media_type:?}"));
        }
        let undeclared = routes.client.send(routes.request(url).body(valid.clone())).await;
        assert_error(&undeclared, 415, "UNSUPPORTED_MEDIA_TYPE", url);
        // `header` adds one.
        for second in ["text/plain", "application/json"] {
            let twice = routes.request(url).header("content-type", "application/json").header("content-type", second);
            let twice = routes.client.send(twice.body(valid.clone())).await;
            assert_error(&twice, 415, "UNSUPPORTED_MEDIA_TYPE", &format!("{url}: twice, {second}"));
        }
        // The media type is checked before size and format.
        let large = routes.post(url, "text/plain", "x".repeat(BODY_BYTES_MAX + 1)).await;
        assert_error(&large, 415, "UNSUPPORTED_MEDIA_TYPE", url);
    }
    routes.assert_nothing_was_written().await;
    for (url, valid) in &routes.all[1..] {
        for media_type in [
            "application/json",
            "APPLICATION/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "application/json ; Charset=utf-8",
        ] {
            let response = routes.post(url, media_type, valid.clone()).await;
            assert!(response.status.is_success(), "{url}: {media_type:?}: {response:?}");
        }
    }
}

#[tokio::test]
async fn a_body_of_16_kib_is_accepted_and_one_byte_more_is_rejected() {
    let routes = Routes::new().await;
    for (url, valid) in &routes.all {
        let padded = |bytes: usize| format!("{}{valid}", " ".repeat(bytes - valid.len()));
        let over = routes.post(url, "application/json", padded(BODY_BYTES_MAX + 1)).await;
        assert_error(&over, 413, "PAYLOAD_TOO_LARGE", url);
        // The size is checked before the format.
        let nonsense = routes.post(url, "application/json", "x".repeat(BODY_BYTES_MAX + 1)).await;
        assert_error(&nonsense, 413, "PAYLOAD_TOO_LARGE", url);
    }
    routes.assert_nothing_was_written().await;
    for (url, valid) in &routes.all {
        let padded = format!("{}{valid}", " ".repeat(BODY_BYTES_MAX - valid.len()));
        let exact = routes.post(url, "application/json", padded).await;
        assert!(exact.status.is_success(), "{url}: {exact:?}");
    }
}

#[tokio::test]
async fn three_megabytes_return_413_with_and_without_a_content_length() {
    let routes = Routes::new().await;
    let large = format!("{{\"amountMinor\":5,\"description\":\"{}\"}}", "x".repeat(3_000_000));
    for (url, _) in &routes.all {
        let declared = routes.post(url, "application/json", large.clone()).await;
        assert_error(&declared, 413, "PAYLOAD_TOO_LARGE", url);
        assert_error(&in_chunks(&routes, url, &large).await, 413, "PAYLOAD_TOO_LARGE", url);
    }
    routes.assert_nothing_was_written().await;
}

#[tokio::test]
async fn a_chunked_body_has_the_same_size_limit() {
    let routes = Routes::new().await;
    for (url, valid) in &routes.all {
        let padded = |bytes: usize| format!("{}{valid}", " ".repeat(bytes - valid.len()));
        assert_error(&in_chunks(&routes, url, &padded(BODY_BYTES_MAX + 1)).await, 413, "PAYLOAD_TOO_LARGE", url);
        let exact = in_chunks(&routes, url, &padded(BODY_BYTES_MAX)).await;
        assert!(exact.status.is_success(), "{url}: {exact:?}");
    }
}

/// Sends a body in chunks of a KiB, without its length.
async fn in_chunks(routes: &Routes, url: &str, body: &str) -> Response {
    let (host, path) = url.trim_start_matches("http://").split_once('/').expect("a path");
    let mut raw = Raw::connect(&format!("http://{host}")).await;
    let head = format!(
        "POST /{path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         transfer-encoding: chunked\r\n\r\n",
        routes.user.token
    );
    let mut open = raw.send(head).await;
    for chunk in body.as_bytes().chunks(1024) {
        open = open && raw.send([format!("{:x}\r\n", chunk.len()).as_bytes(), chunk, b"\r\n"].concat()).await;
    }
    // If the server has closed its side, its response has arrived all the same.
    let _ = open && raw.send("0\r\n\r\n").await;
    raw.response().await.unwrap_or_else(|| panic!("{url}: closed without a response"))
}
