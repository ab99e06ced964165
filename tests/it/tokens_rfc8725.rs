//! Access tokens against the attacks of RFC 8725, section by section, and against tokens that another implementation
//! has minted.
//!
//! Not here because nothing of ours has it: elliptic curves (§2.5, §3.4), encryption and its compression (§2.4, §3.6).
//! Weak keys (§2.2, §3.5) are refused or warned of at boot: see `lifecycle`.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    ACCESS_KEY, Client, INTERNAL_KEY, Response, World, assert_error, mint, part, seconds_from_now, unknown_user_id,
};

/// What [`fixtures/mint_tokens.py`](fixtures/mint_tokens.py) printed.
const PYJWT: &str = include_str!("fixtures/pyjwt.json");

/// The token shown to both roles: what each says of somebody it recognises but who does not exist there, or a 401.
async fn shown(client: &Client, token: &str) -> [Response; 2] {
    let ask = |url: String| client.send(client.request(Method::GET, &url).bearer_auth(token));
    [ask(format!("{}/v1/users/me", client.users)).await, ask(format!("{}/v1/balance", client.wallet)).await]
}

async fn is_taken(client: &Client, token: &str, about: &str) {
    let [users, wallet] = shown(client, token).await;
    assert_error(&users, 404, "USER_NOT_FOUND", about);
    assert_error(&wallet, 503, "WALLET_PROVISIONING", about);
}

async fn is_refused(client: &Client, token: &str, about: &str) {
    for answer in shown(client, token).await {
        assert_error(&answer, 401, "UNAUTHORIZED", about);
    }
}

/// A token out of raw parts, signed with HMAC-SHA256 over exactly these bytes.
fn raw(header: &[u8], claims: &[u8], key: &str) -> String {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, key.as_bytes());
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(ring::hmac::sign(&key, message.as_bytes())))
}

/// A text in UTF-16, lower byte first.
fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_le_bytes).collect()
}

/// A text in UTF-32, higher byte first.
fn utf32(text: &str) -> Vec<u8> {
    text.chars().flat_map(|c| u32::from(c).to_be_bytes()).collect()
}

/// A good token, taken apart; each attack is one step away from it.
struct Good {
    sub: String,
    exp: i64,
    claims: Value,
    parts: [String; 3],
}

type Attacks = Vec<(&'static str, String)>;

/// A token of ours with these claims.
fn ours(claims: &Value) -> String {
    mint(&json!({"alg": "HS256"}), claims, ACCESS_KEY)
}

impl Good {
    fn new() -> Self {
        let (sub, exp) = (unknown_user_id(), seconds_from_now(600));
        let good = json!({"sub": sub, "exp": exp});
        let parts: Vec<String> = ours(&good).split('.').map(str::to_owned).collect();
        Self { sub, exp, claims: good, parts: parts.try_into().expect("three parts") }
    }

    fn whole(&self) -> String {
        self.parts.join(".")
    }

    /// The same claims under another header, signed by us.
    fn head(&self, header: &Value) -> String {
        mint(header, &self.claims, ACCESS_KEY)
    }

    /// The same claims under another key.
    fn key(&self, key: &str) -> String {
        mint(&json!({"alg": "HS256"}), &self.claims, key)
    }

    /// The same claims with one more.
    fn with(&self, name: &str, value: Value) -> String {
        let mut more = self.claims.clone();
        more[name] = value;
        ours(&more)
    }

    /// §2.1 to §2.3 and §3.1 to §3.3: algorithms, keys, and what is signed.
    fn algorithms_and_keys(&self) -> Attacks {
        let [header, payload, signature] = &self.parts;
        let text = self.claims.to_string();
        let unsigned = |alg: &str| format!("{}.{payload}.", part(&json!({"alg": alg})));
        let derived = json!({"alg": "PBES2-HS256+A128KW", "p2c": 2_147_483_647_u32, "p2s": "AA"});
        let encrypted = part(&json!({"alg": "dir", "enc": "A128GCM"}));
        vec![
            ("2.1 none", unsigned("none")),
            ("2.1 nOnE", unsigned("nOnE")),
            ("2.1 none, with our signature", self.head(&json!({"alg": "none"}))),
            ("2.1 two algorithms", raw(br#"{"alg":"HS256","alg":"none"}"#, text.as_bytes(), ACCESS_KEY)),
            ("2.1 two algorithms, the other way", raw(br#"{"alg":"none","alg":"HS256"}"#, text.as_bytes(), ACCESS_KEY)),
            ("2.1 a list of algorithms", self.head(&json!({"alg": ["HS256"]}))),
            ("2.1 an algorithm null", self.head(&json!({"alg": null}))),
            ("2.1 HS256 with a blank", self.head(&json!({"alg": "HS256 "}))),
            ("2.1 RS256 verified as HS256", self.head(&json!({"alg": "RS256"}))),
            ("2.1 ES256 verified as HS256", self.head(&json!({"alg": "ES256"}))),
            ("2.1 EdDSA verified as HS256", self.head(&json!({"alg": "EdDSA"}))),
            ("2.2 the empty key", self.key("")),
            ("2.2 our key in base64", self.key(&STANDARD.encode(ACCESS_KEY))),
            ("2.2 our key with a line end", self.key(&format!("{ACCESS_KEY}\n"))),
            ("2.3 an encrypted token", format!("{encrypted}..{payload}.{signature}.AA")),
            ("2.3 a token in a token", raw(br#"{"alg":"HS256","cty":"JWT"}"#, self.whole().as_bytes(), ACCESS_KEY)),
            ("2.3 work for a key derivation", self.head(&derived)),
            ("3.1 no algorithm", self.head(&json!({"typ": "JWT"}))),
            ("3.1 no header", format!(".{payload}.{signature}")),
            ("3.3 a signature of nothing", format!("{header}..{signature}")),
            ("3.3 half a signature", format!("{header}.{payload}.{}", &signature[..21])),
            ("3.3 a signature and more", format!("{}AAAA", self.whole())),
            (
                "3.3 the header of another token",
                format!("{}.{payload}.{signature}", part(&json!({"alg": "HS256", "kid": "1"}))),
            ),
        ]
    }

    /// §2.6 and §3.7: other encodings of the same token.
    fn encodings(&self) -> Attacks {
        let [header, payload, signature] = &self.parts;
        let (head, text) = (r#"{"alg":"HS256"}"#, self.claims.to_string());
        let (sub, exp) = (&self.sub, self.exp);
        let signed = |claims: &[u8]| raw(head.as_bytes(), claims, ACCESS_KEY);
        let latin1 = [format!(r#"{{"sub":"{sub}","exp":{exp},"name":""#).as_bytes(), b"\xfc\"}"].concat();
        // The last character of 32 bytes in base64 has two bits that mean nothing.
        let (most, last) = signature.split_at(signature.len() - 1);
        let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
        let place = alphabet.find(last).expect("a character of base64");
        let twin = &alphabet[place + 1..place + 2];
        let standard = STANDARD.encode(URL_SAFE_NO_PAD.decode(signature).expect("base64"));
        vec![
            ("2.6 a header in UTF-16", raw(&utf16(head), text.as_bytes(), ACCESS_KEY)),
            ("2.6 claims in UTF-16", signed(&utf16(&text))),
            ("2.6 claims in UTF-32", signed(&utf32(&text))),
            ("2.6 claims in Latin-1", signed(&latin1)),
            ("2.6 a byte order mark", signed(format!("\u{feff}{text}").as_bytes())),
            ("2.6 two subjects", signed(format!(r#"{{"sub":"{sub}","sub":"{sub}","exp":{exp}}}"#).as_bytes())),
            ("2.6 two expiries", signed(format!(r#"{{"sub":"{sub}","exp":0,"exp":{exp}}}"#).as_bytes())),
            ("2.6 claims after the claims", signed(format!("{text}{{}}").as_bytes())),
            ("2.6 another text of the same signature", format!("{header}.{payload}.{most}{twin}")),
            ("2.6 base64 with its padding", format!("{}=", self.whole())),
            ("2.6 base64 of the other alphabet", format!("{header}.{payload}.{standard}")),
            ("2.6 a line break in base64", format!("{header}.{payload}%0a.{signature}")),
            (
                "2.6 the JSON form of a signature",
                json!({"protected": header, "payload": payload, "signature": signature}).to_string(),
            ),
        ]
    }

    /// §2.7, §2.8 and §3.8 to §3.12: tokens for other purposes, and claims that are not to be trusted.
    fn claims(&self) -> Attacks {
        let (sub, exp) = (&self.sub, self.exp);
        let event = json!({"iss": "users", "aud": "wallet", "jti": "m", "sub": sub, "bh": "AA"});
        let mut lasting = event.clone();
        lasting["exp"] = json!(exp);
        vec![
            ("2.7 a token for somebody else", self.with("aud", json!("https://bank.example"))),
            ("2.7 a token for nobody", self.with("aud", json!([]))),
            ("2.7 an audience that is a number", self.with("aud", json!(7))),
            ("2.7 an audience null", self.with("aud", Value::Null)),
            ("2.8 the signature of an event", mint(&json!({"alg": "HS256"}), &lasting, INTERNAL_KEY)),
            ("2.8 the claims of an event under our key", ours(&event)),
            ("3.10 a subject to be looked up elsewhere", self.with("sub", json!("http://127.0.0.1/users/1"))),
            ("3.10 a subject for the database", self.with("sub", json!("' OR ''='"))),
            ("3.10 a subject that goes on", self.with("sub", json!(format!("{sub}{}", "0".repeat(2000))))),
            ("3.10 an expiry past counting", self.with("exp", json!(i64::MIN))),
            ("3.10 a beginning that is a text", self.with("nbf", json!("4102444800"))),
            ("3.10 a beginning that is a list", self.with("nbf", json!([exp]))),
            ("3.10 a beginning null", self.with("nbf", Value::Null)),
            ("3.10 a beginning past counting", self.with("nbf", json!(1e300))),
            ("3.11 a critical type", self.head(&json!({"alg": "HS256", "typ": "at+jwt", "crit": ["typ"]}))),
        ]
    }
}

#[tokio::test]
async fn every_applicable_attack_of_the_rfc_returns_401_at_both_roles() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let good = Good::new();
    let attacks = [good.algorithms_and_keys(), good.encodings(), good.claims()].concat();
    assert!(attacks.len() >= 40, "{} shapes", attacks.len());
    for (about, token) in attacks {
        is_refused(&client, &token, about).await;
    }
    is_taken(&client, &good.whole(), "each of them is one step away from this one").await;
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
        is_refused(&client, &mint(&header, &claims, "mine"), &header.to_string()).await;
        // Beside our own key they mean nothing. A certificate list that cannot be read may be a refusal of its own.
        if header.get("x5c").is_none() {
            is_taken(&client, &mint(&header, &claims, ACCESS_KEY), &header.to_string()).await;
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
        let (about, token, taken) = (text(one, "about"), text(one, "token"), one["taken"] == true);
        counts[usize::from(taken)] += 1;
        if taken {
            is_taken(&client, &token, &about).await;
        } else {
            is_refused(&client, &token, &about).await;
        }
    }
    assert_eq!(counts, [18, 10], "refused and taken");
}
