//! Bodies as such, over every POST route: what is no JSON object, how it is announced, how long it is.

use purse::kernel::Role;
use reqwest::{Method, RequestBuilder};

use crate::support::{Client, PASSWORD, Raw, Response, RoleProcess, User, World, assert_error, assert_invalid};

const BODY_BYTES_MAX: usize = 16 * 1024;
const USERS_ROWS: &str = "SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM outbox)";
const WALLET_ROWS: &str = "SELECT count(*) FROM transactions";

/// Every POST route, with a sound body for it.
struct Routes {
    world: World,
    client: Client,
    user: User,
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

    async fn nothing_was_written(&self) {
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
    for (url, sound) in &routes.all {
        let doubled = sound.replacen(
            '{',
            r#"{"email":"x@example.com","email":"x@example.com","amountMinor":1,"amountMinor":1,"#,
            1,
        );
        let escaped = sound.replacen('{', r#"{"amountMinor":1,"\u0061mountMinor":1,"#, 1);
        let nested = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
        let deep = sound.replacen('{', &format!("{{\"deep\":{nested},"), 1);
        let in_latin1 = [sound.replacen('}', ",\"x\":\"", 1).as_bytes(), b"\xfc\"}"].concat();
        let cases: Vec<(&str, Vec<u8>)> = vec![
            ("empty", vec![]),
            ("blanks", b" \n ".to_vec()),
            ("null", b"null".to_vec()),
            ("a number", b"5".to_vec()),
            ("a text", b"\"x\"".to_vec()),
            ("an empty list", b"[]".to_vec()),
            ("a list of the fields", br#"["A","L","new@example.com","12345678"]"#.to_vec()),
            ("a list of an amount", b"[5]".to_vec()),
            ("the object in a list", format!("[{sound}]").into_bytes()),
            ("two objects", format!("{sound}{sound}").into_bytes()),
            ("more behind it", format!("{sound}x").into_bytes()),
            ("cut short", sound.as_bytes()[..sound.len() - 1].to_vec()),
            ("a comma too many", sound.replacen('}', ",}", 1).into_bytes()),
            ("single quotes", sound.replace('"', "'").into_bytes()),
            ("a comment", format!("/* x */{sound}").into_bytes()),
            ("a byte order mark", format!("\u{feff}{sound}").into_bytes()),
            ("a NUL behind it", format!("{sound}\0").into_bytes()),
            ("a bare control character", sound.replacen('"', "\"\u{1}", 1).into_bytes()),
            ("a lone surrogate", sound.replacen('{', r#"{"x":"\ud800","#, 1).into_bytes()),
            ("no UTF-8", in_latin1),
            ("UTF-16", sound.encode_utf16().flat_map(u16::to_le_bytes).collect()),
            ("a field twice", doubled.into_bytes()),
            ("a field twice, once escaped", escaped.into_bytes()),
            ("nested 5,000 deep", deep.into_bytes()),
            ("a form", b"email=x&password=y".to_vec()),
            ("gzip", b"\x1f\x8b\x08\x00\x00\x00\x00\x00".to_vec()),
        ];
        for (what, body) in cases {
            let answer = routes.post(url, "application/json", body).await;
            assert_invalid(&answer, &["body"], &format!("{url}: {what}"));
        }
    }
    routes.nothing_was_written().await;
}

#[tokio::test]
async fn a_body_that_is_not_declared_as_json_returns_415_on_every_route() {
    let routes = Routes::new().await;
    for (url, sound) in &routes.all {
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
            let answer = routes.post(url, media_type, sound.clone()).await;
            assert_error(&answer, 415, "UNSUPPORTED_MEDIA_TYPE", &format!("{url}: {media_type:?}"));
        }
        let unannounced = routes.client.send(routes.request(url).body(sound.clone())).await;
        assert_error(&unannounced, 415, "UNSUPPORTED_MEDIA_TYPE", url);
        // It stands before the size and the form of the body.
        let large = routes.post(url, "text/plain", "x".repeat(BODY_BYTES_MAX + 1)).await;
        assert_error(&large, 415, "UNSUPPORTED_MEDIA_TYPE", url);
    }
    routes.nothing_was_written().await;
    for (url, sound) in &routes.all[1..] {
        for media_type in [
            "application/json",
            "APPLICATION/JSON",
            "application/json; charset=utf-8",
            "application/json;charset=\"UTF-8\"",
            "application/json ; Charset=utf-8",
        ] {
            let answer = routes.post(url, media_type, sound.clone()).await;
            assert!(answer.status.is_success(), "{url}: {media_type:?}: {answer:?}");
        }
    }
}

#[tokio::test]
async fn a_body_of_16_kib_is_accepted_and_one_byte_more_is_rejected() {
    let routes = Routes::new().await;
    for (url, sound) in &routes.all {
        let padded = |bytes: usize| format!("{}{sound}", " ".repeat(bytes - sound.len()));
        let over = routes.post(url, "application/json", padded(BODY_BYTES_MAX + 1)).await;
        assert_error(&over, 413, "PAYLOAD_TOO_LARGE", url);
        // It stands before the form of the body.
        let nonsense = routes.post(url, "application/json", "x".repeat(BODY_BYTES_MAX + 1)).await;
        assert_error(&nonsense, 413, "PAYLOAD_TOO_LARGE", url);
    }
    routes.nothing_was_written().await;
    for (url, sound) in &routes.all {
        let padded = format!("{}{sound}", " ".repeat(BODY_BYTES_MAX - sound.len()));
        let exact = routes.post(url, "application/json", padded).await;
        assert!(exact.status.is_success(), "{url}: {exact:?}");
    }
}

#[tokio::test]
async fn three_megabytes_return_413_with_and_without_a_content_length() {
    let routes = Routes::new().await;
    let large = format!("{{\"amountMinor\":5,\"description\":\"{}\"}}", "x".repeat(3_000_000));
    for (url, _) in &routes.all {
        let announced = routes.post(url, "application/json", large.clone()).await;
        assert_error(&announced, 413, "PAYLOAD_TOO_LARGE", url);
        assert_error(&in_chunks(&routes, url, &large).await, 413, "PAYLOAD_TOO_LARGE", url);
    }
    routes.nothing_was_written().await;
}

#[tokio::test]
async fn a_chunked_body_has_the_same_size_limit() {
    let routes = Routes::new().await;
    for (url, sound) in &routes.all {
        let padded = |bytes: usize| format!("{}{sound}", " ".repeat(bytes - sound.len()));
        assert_error(&in_chunks(&routes, url, &padded(BODY_BYTES_MAX + 1)).await, 413, "PAYLOAD_TOO_LARGE", url);
        let exact = in_chunks(&routes, url, &padded(BODY_BYTES_MAX)).await;
        assert!(exact.status.is_success(), "{url}: {exact:?}");
    }
}

/// Sends a body in chunks of a kilobyte, without saying how long it will be.
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
    // Where the other side has had enough, its answer is there all the same.
    let _ = open && raw.send("0\r\n\r\n").await;
    raw.response().await.unwrap_or_else(|| panic!("{url}: closed without an answer"))
}
