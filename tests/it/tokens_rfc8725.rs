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
    ACCESS_KEY, Answer, Client, INTERNAL_KEY, World, assert_refused, mint, part, seconds_from_now, stranger,
};

/// What [`fixtures/mint_tokens.py`](fixtures/mint_tokens.py) printed.
const PYJWT: &str = include_str!("fixtures/pyjwt.json");

/// The token shown to both roles: what each says of somebody it recognises but who does not exist there, or a 401.
async fn shown(client: &Client, token: &str) -> [Answer; 2] {
    let ask = |url: String| client.send(client.request(Method::GET, &url).bearer_auth(token));
    [ask(format!("{}/v1/users/me", client.users)).await, ask(format!("{}/v1/balance", client.wallet)).await]
}

async fn is_taken(client: &Client, token: &str, about: &str) {
    let [users, wallet] = shown(client, token).await;
    assert_refused(&users, 404, "USER_NOT_FOUND", about);
    assert_refused(&wallet, 503, "WALLET_PROVISIONING", about);
}

async fn is_refused(client: &Client, token: &str, about: &str) {
    for answer in shown(client, token).await {
        assert_refused(&answer, 401, "UNAUTHORIZED", about);
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

/// Every shape that must be refused, by the section that warns of it. Each is one step away from a good token.
fn attacks() -> Vec<(&'static str, String)> {
    let (sub, exp) = (stranger(), seconds_from_now(600));
    let good = json!({"sub": sub, "exp": exp});
    let (header_text, claims_text) = (r#"{"alg":"HS256"}"#, good.to_string());
    let head = |header: Value| mint(&header, &good, ACCESS_KEY);
    let claims = |claims: Value| mint(&json!({"alg": "HS256"}), &claims, ACCESS_KEY);
    let genuine = claims(good.clone());
    let parts: Vec<&str> = genuine.split('.').collect();
    // The last character of 32 bytes in base64 has two bits that mean nothing.
    let (signature, last) = parts[2].split_at(parts[2].len() - 1);
    let malleable = URL_SAFE_NO_PAD.decode(parts[2]).expect("base64");
    let alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let place = alphabet.find(last).expect("a character of base64");
    let twin = &alphabet[place + 1..place + 2];
    let long_sub = json!({"sub": format!("{sub}{}", "0".repeat(3000)), "exp": exp});
    vec![
        ("2.1 none", format!("{}.{}.", part(&json!({"alg": "none"})), parts[1])),
        ("2.1 nOnE", format!("{}.{}.", part(&json!({"alg": "nOnE"})), parts[1])),
        ("2.1 none, with our signature", head(json!({"alg": "none"}))),
        ("2.1 two algorithms", raw(br#"{"alg":"HS256","alg":"none"}"#, claims_text.as_bytes(), ACCESS_KEY)),
        ("2.1 two algorithms, the other way", raw(br#"{"alg":"none","alg":"HS256"}"#, claims_text.as_bytes(), "")),
        ("2.1 a list of algorithms", head(json!({"alg": ["HS256"]}))),
        ("2.1 an algorithm null", head(json!({"alg": null}))),
        ("2.1 HS256 with a blank", head(json!({"alg": "HS256 "}))),
        ("2.1 RS256 verified as HS256", head(json!({"alg": "RS256"}))),
        ("2.1 ES256 verified as HS256", head(json!({"alg": "ES256"}))),
        ("2.1 EdDSA verified as HS256", head(json!({"alg": "EdDSA"}))),
        ("2.2 the empty key", mint(&json!({"alg": "HS256"}), &good, "")),
        ("2.2 a key of zeros", mint(&json!({"alg": "HS256"}), &good, &"\0".repeat(32))),
        ("2.2 our key in base64", mint(&json!({"alg": "HS256"}), &good, &STANDARD.encode(ACCESS_KEY))),
        ("2.2 our key with a line end", mint(&json!({"alg": "HS256"}), &good, &format!("{ACCESS_KEY}\n"))),
        (
            "2.3 an encrypted token",
            format!("{}.{}.{}.{}.{}", part(&json!({"alg": "dir", "enc": "A128GCM"})), "", parts[1], parts[2], "AA"),
        ),
        ("2.3 a token in a token", raw(br#"{"alg":"HS256","cty":"JWT"}"#, genuine.as_bytes(), ACCESS_KEY)),
        (
            "2.3 work for a key derivation",
            head(json!({"alg": "PBES2-HS256+A128KW", "p2c": 2_147_483_647_u32, "p2s": "AA"})),
        ),
        ("2.6 a header in UTF-16", raw(&utf16(header_text), claims_text.as_bytes(), ACCESS_KEY)),
        ("2.6 claims in UTF-16", raw(header_text.as_bytes(), &utf16(&claims_text), ACCESS_KEY)),
        ("2.6 claims in UTF-32", raw(header_text.as_bytes(), &utf32(&claims_text), ACCESS_KEY)),
        ("2.6 a byte order mark", raw(header_text.as_bytes(), format!("\u{feff}{claims_text}").as_bytes(), ACCESS_KEY)),
        ("2.6 claims in Latin-1", raw(header_text.as_bytes(), b"{\"sub\":\"\xfc\",\"exp\":4102444800}", ACCESS_KEY)),
        (
            "2.6 two subjects",
            raw(
                header_text.as_bytes(),
                format!(r#"{{"sub":"{sub}","sub":"{sub}","exp":{exp}}}"#).as_bytes(),
                ACCESS_KEY,
            ),
        ),
        (
            "2.6 two expiries",
            raw(header_text.as_bytes(), format!(r#"{{"sub":"{sub}","exp":0,"exp":{exp}}}"#).as_bytes(), ACCESS_KEY),
        ),
        (
            "2.6 claims after the claims",
            raw(header_text.as_bytes(), format!("{claims_text}{{}}").as_bytes(), ACCESS_KEY),
        ),
        ("2.6 another text of the same signature", format!("{}.{}.{signature}{twin}", parts[0], parts[1])),
        ("2.6 base64 with its padding", format!("{genuine}=")),
        ("2.6 base64 of the other alphabet", format!("{}.{}.{}", parts[0], parts[1], STANDARD.encode(&malleable))),
        ("2.6 a line break in base64", format!("{}.{}%0a.{}", parts[0], parts[1], parts[2])),
        (
            "2.6 the JSON form of a signature",
            format!(r#"{{"protected":"{}","payload":"{}","signature":"{}"}}"#, parts[0], parts[1], parts[2]),
        ),
        ("2.7 a token for somebody else", claims(json!({"sub": sub, "exp": exp, "aud": "https://bank.example"}))),
        ("2.7 a token for nobody", claims(json!({"sub": sub, "exp": exp, "aud": []}))),
        ("2.7 an audience that is a number", claims(json!({"sub": sub, "exp": exp, "aud": 7}))),
        ("2.7 an audience null", claims(json!({"sub": sub, "exp": exp, "aud": null}))),
        (
            "2.8 the signature of an event",
            mint(
                &json!({"alg": "HS256"}),
                &json!({"iss": "users", "aud": "wallet", "jti": "m", "sub": sub, "bh": "AA", "exp": exp}),
                INTERNAL_KEY,
            ),
        ),
        (
            "2.8 the claims of an event under our key",
            claims(json!({"iss": "users", "aud": "wallet", "jti": "m", "sub": sub, "bh": "AA"})),
        ),
        ("3.1 no algorithm", head(json!({"typ": "JWT"}))),
        ("3.1 no header", format!(".{}.{}", parts[1], parts[2])),
        ("3.3 a signature of nothing", format!("{}..{}", parts[0], parts[2])),
        ("3.3 half a signature", format!("{}.{}.{}", parts[0], parts[1], &parts[2][..21])),
        ("3.3 a signature and more", format!("{genuine}AAAA")),
        (
            "3.3 the header of another token",
            format!("{}.{}.{}", part(&json!({"alg": "HS256", "kid": "1"})), parts[1], parts[2]),
        ),
        ("3.10 a subject to be looked up elsewhere", claims(json!({"sub": "http://127.0.0.1/users/1", "exp": exp}))),
        ("3.10 a subject for the database", claims(json!({"sub": "' OR ''='", "exp": exp}))),
        ("3.10 a subject that goes on", claims(long_sub)),
        ("3.10 an expiry past counting", claims(json!({"sub": sub, "exp": -9_223_372_036_854_775_808_i64}))),
        ("3.10 a beginning that is a text", claims(json!({"sub": sub, "exp": exp, "nbf": "4102444800"}))),
        ("3.10 a beginning that is a list", claims(json!({"sub": sub, "exp": exp, "nbf": [exp]}))),
        ("3.10 a beginning null", claims(json!({"sub": sub, "exp": exp, "nbf": null}))),
        ("3.10 a beginning past counting", claims(json!({"sub": sub, "exp": exp, "nbf": 1e300}))),
        ("3.11 a critical type", head(json!({"alg": "HS256", "typ": "at+jwt", "crit": ["typ"]}))),
    ]
}

#[tokio::test]
async fn every_attack_of_the_rfc_that_applies_is_a_401_at_both_roles() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let attacks = attacks();
    assert!(attacks.len() >= 40, "{} shapes", attacks.len());
    for (about, token) in attacks {
        is_refused(&client, &token, about).await;
    }
    let genuine = mint(&json!({"alg": "HS256"}), &json!({"sub": stranger(), "exp": seconds_from_now(600)}), ACCESS_KEY);
    is_taken(&client, &genuine, "each of them is one step away from this one").await;
}

#[tokio::test]
async fn a_key_that_a_token_brings_or_points_to_is_neither_used_nor_fetched() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let bait = std::net::TcpListener::bind("127.0.0.1:0").expect("bound");
    bait.set_nonblocking(true).expect("nonblocking");
    let url = format!("http://{}/keys.json", bait.local_addr().expect("address"));
    let own = json!({"kty": "oct", "k": URL_SAFE_NO_PAD.encode("mine"), "alg": "HS256"});
    let claims = json!({"sub": stranger(), "exp": seconds_from_now(600), "iss": url});
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
async fn the_tokens_that_pyjwt_mints_are_taken_or_refused_as_its_script_says() {
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
