//! Access tokens: the attacks of RFC 8725, section by section, and tokens that another implementation has minted.
//!
//! Not applicable to purse: elliptic curves (§2.5, §3.4), encryption and its compression (§2.4, §3.6). Weak keys (§2.2,
//! §3.5) cause a warning or an error at boot: see `lifecycle`.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    ACCESS_KEY, Client, INTERNAL_KEY, Response, World, assert_error, mint, part, seconds_from_now, unknown_user_id,
};

/// The output of [`fixtures/mint_tokens.py`](fixtures/mint_tokens.py).
const PYJWT: &str = include_str!("fixtures/pyjwt.json");

/// The responses of both roles to a request with this token.
async fn send_to_both(client: &Client, token: &str) -> [Response; 2] {
    let get = |url: String| client.send(client.request(Method::GET, &url).bearer_auth(token));
    [get(format!("{}/v1/users/me", client.users)).await, get(format!("{}/v1/balance", client.wallet)).await]
}

/// The user of the token does not exist, which both roles report after they have accepted the token.
async fn assert_accepted(client: &Client, token: &str, about: &str) {
    let [users, wallet] = send_to_both(client, token).await;
    assert_error(&users, 404, "USER_NOT_FOUND", about);
    assert_error(&wallet, 503, "WALLET_PROVISIONING", about);
}

async fn assert_rejected(client: &Client, token: &str, about: &str) {
    for response in send_to_both(client, token).await {
        assert_error(&response, 401, "UNAUTHORIZED", about);
    }
}

/// A token of raw parts, signed with HMAC-SHA256 over exactly these bytes.
fn raw(header: &[u8], claims: &[u8], key: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, message.as_bytes())))
}

/// UTF-16, little endian.
fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// UTF-32, big endian.
fn utf32(text: &str) -> Vec<u8> {
    text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect()
}

/// A valid token and its parts. Each attack differs from it in one respect.
struct ValidToken {
    sub: String,
    exp: i64,
    claims: Value,
    parts: [String; 3],
}

type AttackTokens = Vec<(&'static str, String)>;

/// A token with these claims, signed with our key.
fn signed_token(claims: &Value) -> String {
    mint(&json!({"alg": "HS256"}), claims, ACCESS_KEY)
}

impl ValidToken {
    fn new() -> Self {
        let (sub, exp) = (unknown_user_id(), seconds_from_now(600));
        let valid = json!({"sub": sub, "exp": exp});
        let parts: Vec<String> = signed_token(&valid).split('.').map(str::to_owned).collect();
        Self { sub, exp, claims: valid, parts: parts.try_into().expect("three parts") }
    }

    fn compact(&self) -> String {
        self.parts.join(".")
    }

    /// The same claims with another header, signed with our key.
    fn with_header(&self, header: &Value) -> String {
        mint(header, &self.claims, ACCESS_KEY)
    }

    /// The same claims, signed with another key.
    fn with_key(&self, key: &str) -> String {
        mint(&json!({"alg": "HS256"}), &self.claims, key)
    }

    /// The same claims, with one added or replaced.
    fn with_claim(&self, name: &str, value: Value) -> String {
        let mut more = self.claims.clone();
        more[name] = value;
        signed_token(&more)
    }

    /// §2.1 to §2.3 and §3.1 to §3.3: algorithms, keys, and what is signed.
    fn algorithms_and_keys(&self) -> AttackTokens {
        let [header, payload, signature] = &self.parts;
        let text = self.claims.to_string();
        let unsigned = |alg: &str| format!("{}.{payload}.", part(&json!({"alg": alg})));
        let derived = json!({"alg": "PBES2-HS256+A128KW", "p2c": 2_147_483_647_u32, "p2s": "AA"});
        let encrypted = part(&json!({"alg": "dir", "enc": "A128GCM"}));
        vec![
            ("2.1 none", unsigned("none")),
            ("2.1 nOnE", unsigned("nOnE")),
            ("2.1 none, with our signature", self.with_header(&json!({"alg": "none"}))),
            ("2.1 two algorithms", raw(br#"{"alg":"HS256","alg":"none"}"#, text.as_bytes(), ACCESS_KEY)),
            (
                "2.1 two algorithms, in the other order",
                raw(br#"{"alg":"none","alg":"HS256"}"#, text.as_bytes(), ACCESS_KEY),
            ),
            ("2.1 a list of algorithms", self.with_header(&json!({"alg": ["HS256"]}))),
            ("2.1 a null algorithm", self.with_header(&json!({"alg": null}))),
            ("2.1 HS256 with a space", self.with_header(&json!({"alg": "HS256 "}))),
            ("2.1 RS256 verified as HS256", self.with_header(&json!({"alg": "RS256"}))),
            ("2.1 ES256 verified as HS256", self.with_header(&json!({"alg": "ES256"}))),
            ("2.1 EdDSA verified as HS256", self.with_header(&json!({"alg": "EdDSA"}))),
            ("2.2 the empty key", self.with_key("")),
            ("2.2 our key in base64", self.with_key(&STANDARD.encode(ACCESS_KEY))),
            ("2.2 our key with a line break", self.with_key(&format!("{ACCESS_KEY}\n"))),
            ("2.3 an encrypted token", format!("{encrypted}..{payload}.{signature}.AA")),
            ("2.3 a token in a token", raw(br#"{"alg":"HS256","cty":"JWT"}"#, self.compact().as_bytes(), ACCESS_KEY)),
            ("2.3 an expensive key derivation", self.with_header(&derived)),
            ("3.1 no algorithm", self.with_header(&json!({"typ": "JWT"}))),
            ("3.1 no header", format!(".{payload}.{signature}")),
            ("3.3 a signature of nothing", format!("{header}..{signature}")),
            ("3.3 half a signature", format!("{header}.{payload}.{}", &signature[..21])),
            ("3.3 a signature and more", format!("{}AAAA", self.compact())),
            (
                "3.3 the header of another token",
                format!("{}.{payload}.{signature}", part(&json!({"alg": "HS256", "kid": "1"}))),
            ),
        ]
    }

    /// §2.6 and §3.7: other encodings of the same token.
    fn encodings(&self) -> AttackTokens {
        let [header, payload, signature] = &self.parts;
        let (header_text, text) = (r#"{"alg":"HS256"}"#, self.claims.to_string());
        let (sub, exp) = (&self.sub, self.exp);
        let signed = |claims: &[u8]| raw(header_text.as_bytes(), claims, ACCESS_KEY);
        let latin1 = [format!(r#"{{"sub":"{sub}","exp":{exp},"name":""#).as_bytes(), b"\xfc\"}"].concat();
        // Two bits of the last character of 32 bytes in base64 are unused.
        let (most, last) = signature.split_at(signature.len() - 1);
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let place = alphabet.find(last).expect("a character of base64");
        let other = &alphabet[place + 1..place + 2];
        let standard = STANDARD.encode(URL_SAFE_NO_PAD.decode(signature).expect("base64"));
        vec![
            ("2.6 a header in UTF-16", raw(&utf16(header_text), text.as_bytes(), ACCESS_KEY)),
            ("2.6 claims in UTF-16", signed(&utf16(&text))),
            ("2.6 claims in UTF-32", signed(&utf32(&text))),
            ("2.6 claims in Latin-1", signed(&latin1)),
            ("2.6 a byte order mark", signed(format!("\u{feff}{text}").as_bytes())),
            ("2.6 two subjects", signed(format!(r#"{{"sub":"{sub}","sub":"{sub}","exp":{exp}}}"#).as_bytes())),
            ("2.6 two expiries", signed(format!(r#"{{"sub":"{sub}","exp":0,"exp":{exp}}}"#).as_bytes())),
            ("2.6 claims after the claims", signed(format!("{text}{{}}").as_bytes())),
            ("2.6 another encoding of the same signature", format!("{header}.{payload}.{most}{other}")),
            ("2.6 base64 with padding", format!("{}=", self.compact())),
            ("2.6 the standard alphabet of base64", format!("{header}.{payload}.{standard}")),
            ("2.6 a line break in base64", format!("{header}.{payload}%0a.{signature}")),
            (
                "2.6 the JSON form of a signature",
                json!({"protected": header, "payload": payload, "signature": signature}).to_string(),
            ),
        ]
    }

    /// §2.7, §2.8 and §3.8 to §3.12: tokens for other purposes, and malicious claims.
    fn claims(&self) -> AttackTokens {
        let (sub, exp) = (&self.sub, self.exp);
        let event = json!({"iss": "users", "aud": "wallet", "jti": "m", "sub": sub, "bh": "AA"});
        let mut lasting = event.clone();
        lasting["exp"] = json!(exp);
        vec![
            ("2.7 a token for another audience", self.with_claim("aud", json!("https://bank.example"))),
            ("2.7 an empty audience", self.with_claim("aud", json!([]))),
            ("2.7 an audience that is a number", self.with_claim("aud", json!(7))),
            ("2.7 a null audience", self.with_claim("aud", Value::Null)),
            ("2.8 the signature of an event", mint(&json!({"alg": "HS256"}), &lasting, INTERNAL_KEY)),
            ("2.8 the claims of an event, signed with our key", signed_token(&event)),
            ("3.10 a subject that is a URL", self.with_claim("sub", json!("http://127.0.0.1/users/1"))),
            ("3.10 a subject with SQL", self.with_claim("sub", json!("' OR ''='"))),
            ("3.10 a subject that is too long", self.with_claim("sub", json!(format!("{sub}{}", "0".repeat(2000))))),
            ("3.10 an expiry out of range", self.with_claim("exp", json!(i64::MIN))),
            ("3.10 nbf as text", self.with_claim("nbf", json!("4102444800"))),
            ("3.10 nbf as a list", self.with_claim("nbf", json!([exp]))),
            ("3.10 a null nbf", self.with_claim("nbf", Value::Null)),
            ("3.10 nbf out of range", self.with_claim("nbf", json!(1e300))),
            ("3.11 a critical type", self.with_header(&json!({"alg": "HS256", "typ": "at+jwt", "crit": ["typ"]}))),
        ]
    }
}

#[tokio::test]
async fn every_applicable_attack_of_the_rfc_returns_401_at_both_roles() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let valid = ValidToken::new();
    let attacks = [valid.algorithms_and_keys(), valid.encodings(), valid.claims()].concat();
    assert!(attacks.len() >= 40, "only {} attacks", attacks.len());
    for (about, token) in attacks {
        assert_rejected(&client, &token, about).await;
    }
    assert_accepted(&client, &valid.compact(), "the valid token that the attacks are derived from").await;
}

#[tokio::test]
async fn a_key_that_a_token_contains_or_links_to_is_neither_used_nor_fetched() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let bait = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    bait.set_nonblocking(true).expect("nonblocking");
    let url = format!("http://{}/keys.json", bait.local_addr().expect("address"));
    let own = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode("mine"), "alg": "HS256"});
    let claims = json!({"sub": unknown_user_id(), "exp": seconds_from_now(600), "iss": url});
    for header in [
        json!({"alg": "HS256", "jwk": own}),
        json!({"alg": "HS256", "jku": url}),
        json!({"alg": "HS256", "x5u": url}),
        json!({"alg": "HS256", "x5c": ["AA=="]}),
        json!({"alg": "HS256", "kid": "../../../../dev/null"}),
        json!({"alg": "HS256", "kid": "x' UNION SELECT 'mine"}),
        json!({"alg": "HS256", "kid": url}),
    ] {
        assert_rejected(&client, &mint(&header, &claims, "mine"), &header.to_string()).await;
        // With our key the token is valid, and these headers are ignored. An unreadable certificate list may be rejected.
        if header.get("x5c").is_none() {
            assert_accepted(&client, &mint(&header, &claims, ACCESS_KEY), &header.to_string()).await;
        }
    }
    let called = bait.accept().map(|(_, from)| from);
    assert!(called.as_ref().is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock), "{called:?}");
}

#[tokio::test]
async fn tokens_minted_by_pyjwt_are_accepted_or_rejected_as_its_script_states() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let minted: Vec<Value> = serde_json::from_str(PYJWT).expect("JSON");
    let text = |one: &Value, field: &str| one[field].as_str().expect("text").to_owned();
    let mut counts = [0, 0];
    for one in &minted {
        let (about, token, accepted) = (text(one, "about"), text(one, "token"), one["accepted"] == true);
        counts[usize::from(accepted)] += 1;
        if accepted {
            assert_accepted(&client, &token, &about).await;
        } else {
            assert_rejected(&client, &token, &about).await;
        }
    }
    assert_eq!(counts, [18, 10], "rejected and accepted");
}
