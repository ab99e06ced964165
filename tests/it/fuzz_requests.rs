//! Random requests: half of them arbitrary, half of them valid except for at most one defect.

use std::fmt::Write as _;

use proptest::prelude::*;
use purse::kernel::Role;
use serde_json::{Value, json};

use crate::support::User;

/// How the length of the body is declared.
#[derive(Clone, Copy, Debug)]
pub enum Framing {
    Length,
    Chunked,
    TooShort,
    TooLong,
    Missing,
    Both,
}

#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    pub framing: Framing,
}

impl Request {
    pub fn bytes(&self) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: fuzz\r\n", self.method, self.target).into_bytes();
        for (name, value) in &self.headers {
            head.extend([name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        let length = self.body.len();
        let announced = match self.framing {
            Framing::Length => format!("content-length: {length}\r\n"),
            Framing::Chunked => "transfer-encoding: chunked\r\n".to_owned(),
            Framing::TooShort => format!("content-length: {}\r\n", length / 2),
            Framing::TooLong => format!("content-length: {}\r\n", length + 7),
            Framing::Missing => String::new(),
            Framing::Both => format!("content-length: {length}\r\ntransfer-encoding: chunked\r\n"),
        };
        let body = match self.framing {
            Framing::Chunked if length > 0 => {
                [format!("{length:x}\r\n").as_bytes(), &self.body, b"\r\n0\r\n\r\n"].concat()
            }
            Framing::Chunked => b"0\r\n\r\n".to_vec(),
            _ => self.body.clone(),
        };
        [&head, announced.as_bytes(), b"\r\n", &body].concat()
    }
}

/// Percent-encoded for a query or a path.
fn escaped(text: &str) -> String {
    text.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

/// Texts that parsers often mishandle, and arbitrary ones.
fn text() -> BoxedStrategy<String> {
    prop_oneof![
        4 => "[a-zA-Z0-9 .@_-]{0,40}",
        2 => any::<String>(),
        1 => Just("\0".to_owned()),
        1 => Just("\u{202e}\u{feff}\u{10ffff}".to_owned()),
        1 => Just("' OR 1=1; DROP TABLE users --".to_owned()),
        1 => Just("../../etc/passwd".to_owned()),
        1 => Just("{{7*7}}${jndi:ldap://x}".to_owned()),
        1 => "[ -~]{200,300}",
        1 => Just("x".repeat(1100)),
        1 => "[a-z]{1,10}@[a-z]{1,10}\\.(com|org)",
    ]
    .boxed()
}

/// Numbers at bounds, as a client could write them; not all of them are JSON.
fn number() -> BoxedStrategy<String> {
    prop_oneof![
        4 => (-5..200_i64).prop_map(|n| n.to_string()),
        1 => any::<i64>().prop_map(|n| n.to_string()),
        1 => any::<f64>().prop_map(|n| n.to_string()),
        4 => prop::sample::select(vec![
            "9007199254740991", "9007199254740992", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
            "18446744073709551616", "1e308", "1e999", "-0", "0.5", "5.0", "1e2", "01", "+1", "NaN", "0x10", "1_000",
        ])
        .prop_map(str::to_owned),
    ]
    .boxed()
}

/// A JSON value as text, sometimes a broken one.
fn json_text() -> BoxedStrategy<String> {
    let leaf = prop_oneof![
        4 => text().prop_map(|text| json!(text).to_string()),
        3 => number(),
        1 => prop::sample::select(vec!["null", "true", "false", "{}", "[]", "\"\\ud800\"", "\"", "nul"]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec((text(), inner), 0..4).prop_map(|fields| object(&fields)),
        ]
    })
    .boxed()
}

fn object(fields: &[(String, String)]) -> String {
    let fields: Vec<String> = fields.iter().map(|(name, value)| format!("{}:{value}", json!(name))).collect();
    format!("{{{}}}", fields.join(","))
}

/// A body that is almost valid.
fn body() -> BoxedStrategy<Vec<u8>> {
    let names = vec![
        "firstName",
        "lastName",
        "email",
        "password",
        "amountMinor",
        "description",
        "type",
        "userId",
        "AmountMinor",
        "",
    ];
    let field = (prop::sample::select(names).prop_map(str::to_owned), json_text());
    let almost = prop::collection::vec(field, 0..6).prop_map(|fields| object(&fields));
    let valid = prop_oneof![
        (1..1000_i64, text()).prop_map(|(cents, text)| json!({"amountMinor": cents, "description": text})),
        (1..1000_i64, any::<bool>()).prop_map(|(cents, credit)| {
            json!({"amountMinor": cents, "type": if credit { "credit" } else { "debit" }})
        }),
        (text(), text()).prop_map(|(email, password)| json!({"email": email, "password": password})),
        (text(), text(), text()).prop_map(|(name, email, password)| {
            json!({"firstName": name, "lastName": "L", "email": email, "password": password})
        }),
        Just(json!({"email": "fuzz@example.com", "password": "12345678"})),
    ];
    prop_oneof![
        6 => almost.prop_map(String::into_bytes),
        8 => valid.prop_map(|value| value.to_string().into_bytes()),
        2 => json_text().prop_map(String::into_bytes),
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => Just(Vec::new()),
        1 => Just("[".repeat(5000).into_bytes()),
        1 => Just(vec![b' '; 16_385]),
        2 => (body_text(), any::<prop::sample::Index>()).prop_map(|(text, at)| text[..at.index(text.len())].to_vec()),
    ]
    .boxed()
}

fn body_text() -> BoxedStrategy<Vec<u8>> {
    (1..1000_i64, text())
        .prop_map(|(cents, text)| json!({"amountMinor": cents, "description": text}).to_string().into_bytes())
        .boxed()
}

fn query() -> BoxedStrategy<String> {
    let name = prop::sample::select(vec!["limit", "cursor", "type", "from", "to", "at", "wait", "Limit", "x", ""]);
    let value = prop_oneof![
        2 => number(),
        2 => text(),
        3 => prop::sample::select(vec![
            "20", "100", "101", "0", "credit", "debit", "djEuMg", "djEuMA", "2026-01-01T00:00:00Z", "2026-01-01", "30",
            "9999-12-31T23:59:60Z", "-009999-01-01T00:00:00Z", "2026-01-01T00:00:00+25:00", "now",
        ])
        .prop_map(str::to_owned),
    ];
    let pair = (name, value).prop_map(|(name, value)| format!("{}={}", escaped(name), escaped(&value)));
    prop_oneof![
        5 => Just(String::new()),
        4 => prop::collection::vec(pair, 1..4).prop_map(|pairs| format!("?{}", pairs.join("&"))),
        1 => "[!-~]{0,30}".prop_map(|raw| format!("?{raw}")),
    ]
    .boxed()
}

fn target(role: Role, entry: &str) -> impl Strategy<Value = String> + use<> {
    let mut paths = vec!["/health/live", "/health/ready", "/metrics", "/openapi.json", "/docs", "/", "//", "/v1"];
    let own: &[&str] = match role {
        Role::Users => &["/v1/auth/register", "/v1/auth/login", "/v1/users/me"],
        Role::Wallet => &[
            "/v1/transactions",
            "/v1/transactions/credit",
            "/v1/transactions/debit",
            "/v1/balance",
            "/v1/wallet/status",
        ],
    };
    // Mostly the role's own routes.
    paths.extend(own.iter().cycle().take(40));
    let path = prop_oneof![
        12 => prop::sample::select(paths).prop_map(str::to_owned),
        2 => Just(format!("/v1/transactions/{entry}")),
        1 => text().prop_map(|text| format!("/v1/transactions/{}", escaped(&text))),
        1 => "/[!-~]{0,40}",
        1 => "[ -~]{1,20}",
    ];
    (path, query()).prop_map(|(path, query)| path + &query)
}

fn headers(token: &str) -> impl Strategy<Value = Vec<(String, Vec<u8>)>> + use<> {
    let genuine = format!("Bearer {token}");
    let forged = format!("Bearer {}x", &token[..token.len() - 1]);
    let bearer = prop_oneof![
        10 => Just(Some(genuine)),
        1 => Just(Some(forged)),
        1 => text().prop_map(|text| Some(format!("Bearer {}", escaped(&text)))),
        2 => Just(None),
    ];
    let kind = prop_oneof![
        10 => Just(Some("application/json")),
        1 => prop::sample::select(vec![
            "application/json; charset=utf-8", "application/json;charset=latin1", "text/json", "multipart/form-data", "*/*", "",
        ])
        .prop_map(Some),
        1 => Just(None),
    ];
    let key = prop_oneof![4 => Just(None), 2 => "[a-c]{1,2}".prop_map(Some), 1 => "[ -~]{0,140}".prop_map(Some)];
    let names = vec![
        "x-request-id",
        "traceparent",
        "x-forwarded-for",
        "forwarded",
        "accept",
        "accept-encoding",
        "origin",
        "cookie",
        "range",
        "if-none-match",
        "x-http-method-override",
        "content-encoding",
        "te",
        "via",
        "x-fuzz",
        "authorization",
    ];
    let other = (
        prop::sample::select(names),
        prop_oneof!["[ -~]{0,60}".prop_map(String::into_bytes), prop::collection::vec(any::<u8>(), 0..40)],
    );
    (bearer, kind, key, prop::collection::vec(other, 0..3)).prop_map(|(bearer, kind, key, others)| {
        let mut headers: Vec<(String, Vec<u8>)> = Vec::new();
        headers.extend(bearer.map(|bearer| ("authorization".to_owned(), bearer.into_bytes())));
        headers.extend(kind.map(|kind| ("content-type".to_owned(), kind.as_bytes().to_vec())));
        headers.extend(key.map(|key| ("idempotency-key".to_owned(), key.into_bytes())));
        headers.extend(others.into_iter().map(|(name, value)| (name.to_owned(), value)));
        headers
    })
}

/// A valid request of a route, with at most one defect.
fn almost_valid(role: Role, token: &str, entry: &str) -> impl Strategy<Value = Request> + use<> {
    let cents = prop_oneof![4 => 1..100_i64, 1 => Just(9_007_199_254_740_991), 1 => 1_000_000..9_000_000_i64];
    let description = prop_oneof![Just(Value::Null), text().prop_map(Value::from)];
    let amount = (cents, description, any::<bool>());
    let email = prop_oneof![2 => "[a-e]{1,2}@example\\.com", 1 => "[a-z]{12}@example\\.com"];
    let password = prop_oneof![4 => Just("12345678".to_owned()), 1 => text()];
    let parts = match role {
        Role::Users => prop_oneof![
            2 => Just(("GET", "/v1/users/me", Value::Null)).boxed(),
            1 => (email.clone(), password.clone())
                .prop_map(|(email, password)| ("POST", "/v1/auth/login", json!({"email": email, "password": password})))
                .boxed(),
            1 => (email, password, text())
                .prop_map(|(email, password, name)| {
                    let body = json!({"firstName": name, "lastName": "L", "email": email, "password": password});
                    ("POST", "/v1/auth/register", body)
                })
                .boxed(),
        ]
        .boxed(),
        Role::Wallet => prop_oneof![
            6 => amount
                .prop_map(|(cents, description, credit)| {
                    let body = json!({"amountMinor": cents, "description": description});
                    ("POST", if credit { "/v1/transactions/credit" } else { "/v1/transactions/debit" }, body)
                })
                .boxed(),
            1 => Just(("GET", "/v1/balance", Value::Null)).boxed(),
            1 => Just(("GET", "/v1/transactions", Value::Null)).boxed(),
            1 => Just(("GET", "/v1/wallet/status?wait=1", Value::Null)).boxed(),
        ]
        .boxed(),
    };
    let entry = format!("/v1/transactions/{entry}");
    let defect = prop_oneof![
        6 => Just(Defect::None),
        1 => json_text().prop_map(Defect::Value),
        1 => text().prop_map(Defect::Field),
        1 => any::<prop::sample::Index>().prop_map(Defect::Cut),
        1 => (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(at, byte)| Defect::Byte(at, byte)),
        1 => query().prop_map(Defect::Query),
        1 => Just(Defect::OtherPath),
    ];
    let key = prop_oneof![2 => Just(None), 1 => "[a-c]".prop_map(Some)];
    let token = token.to_owned();
    (parts, defect, key).prop_map(move |((method, target, value), defect, key)| {
        let mut headers = vec![("authorization".to_owned(), format!("Bearer {token}").into_bytes())];
        headers.push(("content-type".to_owned(), b"application/json".to_vec()));
        headers.extend(key.map(|key| ("idempotency-key".to_owned(), key.into_bytes())));
        let body = if value.is_null() { Vec::new() } else { value.to_string().into_bytes() };
        let valid =
            Request { method: method.to_owned(), target: target.to_owned(), headers, body, framing: Framing::Length };
        defect.apply_to(valid, &entry)
    })
}

#[derive(Clone, Debug)]
enum Defect {
    None,
    Value(String),
    Field(String),
    Cut(prop::sample::Index),
    Byte(prop::sample::Index, u8),
    Query(String),
    OtherPath,
}

impl Defect {
    fn apply_to(self, mut request: Request, entry: &str) -> Request {
        let body = &mut request.body;
        match self {
            // Replaces the first value of the body.
            Self::Value(value) => {
                let text = String::from_utf8_lossy(body).into_owned();
                if let Some((head, tail)) = text.split_once(':') {
                    let rest = tail.find(',').map_or("}", |at| &tail[at..]);
                    *body = format!("{head}:{value}{rest}").into_bytes();
                }
            }
            Self::Field(name) if !body.is_empty() => {
                body.pop();
                body.extend(format!(",{}:1}}", json!(name)).into_bytes());
            }
            Self::Cut(at) if !body.is_empty() => body.truncate(at.index(body.len())),
            Self::Byte(at, byte) if !body.is_empty() => {
                let at = at.index(body.len());
                body[at] = byte;
            }
            Self::Query(query) => request.target += &query,
            Self::OtherPath => entry.clone_into(&mut request.target),
            // An empty body cannot be truncated or changed.
            Self::None | Self::Field(_) | Self::Cut(_) | Self::Byte(..) => {}
        }
        request
    }
}

/// Half of them arbitrary, half of them almost valid.
pub fn requests(role: Role, user: &User, entry: &str) -> impl Strategy<Value = Request> + use<> {
    // No HEAD: its response declares a length without a body; other tests cover it.
    let method = prop_oneof![
        6 => Just("POST".to_owned()),
        5 => Just("GET".to_owned()),
        1 => prop::sample::select(vec!["PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "BREW"]).prop_map(str::to_owned),
    ];
    let framing = prop_oneof![
        12 => Just(Framing::Length),
        3 => Just(Framing::Chunked),
        1 => prop::sample::select(vec![Framing::TooShort, Framing::TooLong, Framing::Missing, Framing::Both]),
    ];
    let arbitrary = (method, target(role, entry), headers(&user.token), body(), framing)
        .prop_map(|(method, target, headers, body, framing)| Request { method, target, headers, body, framing });
    prop_oneof![arbitrary.boxed(), almost_valid(role, &user.token, entry).boxed()]
}
