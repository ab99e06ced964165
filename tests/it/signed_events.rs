//! Signatures of events: what the users role signs, and what the wallet role rejects.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use purse::kernel::Role;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::support::{ACCESS_KEY, Client, INTERNAL_KEY, Message, PATIENCE, World, eventually, mint};

const DEAD: &str = "wallet.provision.dlq";
const INVALID: &str = "signature is not valid";
const OTHER: &str = "signature belongs to another event";
const UNSIGNED: &str = "event is not signed";

fn body(user: Uuid) -> Vec<u8> {
    format!(r#"{{"userId":"{user}"}}"#).into_bytes()
}

fn digest(body: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(ring::digest::digest(&ring::digest::SHA256, body))
}

/// The claims that the contract requires for this message.
fn claims(message_id: &str, user: Uuid, body: &[u8]) -> Value {
    json!({"iss": "users", "aud": "wallet", "jti": message_id, "sub": user.to_string(), "bh": digest(body)})
}

fn signed(claims: &Value, key: &str) -> String {
    mint(&json!({"typ": "JWT", "alg": "HS256"}), claims, key)
}

/// Description, body, message id, signature, and the expected reason.
type Shape<'a> = (&'a str, &'a [u8], Option<&'a str>, String, &'a str);

async fn publish(world: &World, body: &[u8], message_id: Option<&str>, signature: Option<&str>) {
    let headers: Vec<(&str, &str)> = signature.map(|signature| ("x-signature", signature)).into_iter().collect();
    world.broker.publish("domain.events", "user.registered", body, message_id, &headers).await;
}

async fn dead_letter(world: &World) -> Message {
    eventually(PATIENCE, "a dead letter", || async { world.broker.take(DEAD).await }).await
}

async fn wallets(world: &World) -> String {
    world.sql(Role::Wallet, "SELECT count(*) FROM wallets").await
}

#[tokio::test]
async fn the_users_role_signs_the_message_the_user_and_the_body_without_an_expiry() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    world.broker.tap("tap", "domain.events", "user.registered").await;
    let client = Client::new(&users.url(), &users.url());
    let user: Uuid = client.user().await.id.parse().expect("id");
    let sent = eventually(PATIENCE, "the event", || async { world.broker.take("tap").await }).await;
    assert_eq!(sent.body, body(user));
    let signature = sent.headers.get("x-signature").expect("a signature");
    let parts: Vec<&str> = signature.split('.').collect();
    let decoded =
        |part: &str| -> Value { serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON") };
    assert_eq!(decoded(parts[0])["alg"], "HS256");
    assert_eq!(decoded(parts[1]), claims(sent.id.as_deref().expect("an id"), user, &sent.body));
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, INTERNAL_KEY.as_bytes());
    let message = format!("{}.{}", parts[0], parts[1]);
    let tag = URL_SAFE_NO_PAD.decode(parts[2]).expect("base64");
    assert!(ring::hmac::verify(&key, message.as_bytes(), &tag).is_ok(), "not signed with the internal key");
}

#[tokio::test]
async fn forged_altered_and_reused_signatures_are_dead_lettered_with_their_reason() {
    let world = World::new().await;
    let wallet = world.start(Role::Wallet).await;
    let (user, victim) = (Uuid::now_v7(), Uuid::now_v7());
    let (own_body, other) = (body(user), body(victim));
    let valid = claims("m-1", user, &own_body);
    let genuine = signed(&valid, INTERNAL_KEY);
    let (signed_part, tag) = genuine.rsplit_once('.').expect("three parts");
    let with = |name: &str, value: Value| {
        let mut claims = valid.clone();
        claims[name] = value;
        signed(&claims, INTERNAL_KEY)
    };
    let unsigned =
        format!("{}.{}.", URL_SAFE_NO_PAD.encode(r#"{"alg":"none"}"#), URL_SAFE_NO_PAD.encode(valid.to_string()));
    let spaced = [&own_body[..], b" "].concat();
    let more = format!(r#"{{"userId":"{user}","plan":"gold"}}"#).into_bytes();
    let shapes: Vec<Shape<'_>> = vec![
        ("signed with the access key", &own_body, Some("m-1"), signed(&valid, ACCESS_KEY), INVALID),
        ("signed with an unknown key", &own_body, Some("m-1"), signed(&valid, "unknown"), INVALID),
        ("signed with an empty key", &own_body, Some("m-1"), signed(&valid, ""), INVALID),
        ("alg none", &own_body, Some("m-1"), unsigned, INVALID),
        ("not a signature", &own_body, Some("m-1"), "trust me".to_owned(), INVALID),
        ("an empty signature", &own_body, Some("m-1"), String::new(), INVALID),
        ("a truncated signature", &own_body, Some("m-1"), format!("{signed_part}.{}", &tag[..20]), INVALID),
        ("another issuer", &own_body, Some("m-1"), with("iss", json!("wallet")), INVALID),
        ("another audience", &own_body, Some("m-1"), with("aud", json!("bank")), INVALID),
        (
            "an extension",
            &own_body,
            Some("m-1"),
            mint(&json!({"alg": "HS256", "crit": ["exp"]}), &valid, INTERNAL_KEY),
            INVALID,
        ),
        ("an access token", &own_body, Some("m-1"), crate::support::token_of(&user.to_string()), INVALID),
        ("an altered body", &spaced, Some("m-1"), genuine.clone(), OTHER),
        ("a body with an additional field", &more, Some("m-1"), genuine.clone(), OTHER),
        ("replayed for another user", &other, Some("m-1"), genuine.clone(), OTHER),
        ("another user in the claims only", &own_body, Some("m-1"), with("sub", json!(victim.to_string())), OTHER),
        ("replayed under another id", &own_body, Some("m-2"), genuine.clone(), OTHER),
        ("replayed without an id", &own_body, None, genuine.clone(), OTHER),
        ("the digest of another body", &own_body, Some("m-1"), with("bh", json!(digest(&other))), OTHER),
    ];
    for (about, body, message_id, signature, reason) in &shapes {
        publish(&world, body, *message_id, Some(signature)).await;
        let dead = dead_letter(&world).await;
        assert_eq!(dead.headers.get("x-error").map(String::as_str), Some(*reason), "{about}: {dead:?}");
        assert_eq!(dead.body, *body, "{about}: the body was changed");
        // A message without an id gets one, which identifies the confirm of the copy.
        assert!(message_id.is_none() || dead.id.as_deref() == *message_id, "{about}: {dead:?}");
    }
    assert_eq!(wallets(&world).await, "0");
    let logged = wallet
        .log()
        .iter()
        .filter(|line| line["msg"] == "provisioning failed permanently; event moved to the dead-letter queue")
        .count();
    assert_eq!(logged, shapes.len(), "log lines about dead letters");
    // Replaying the unchanged message creates the one wallet, however often.
    for _ in 0..3 {
        publish(&world, &own_body, Some("m-1"), Some(&genuine)).await;
    }
    eventually(PATIENCE, "a wallet", || async { (wallets(&world).await == "1").then_some(()) }).await;
    assert_eq!(world.broker.depth(DEAD).await, Some(0));
}

#[tokio::test]
async fn in_production_an_unsigned_event_is_dead_lettered_and_a_signed_one_creates_a_wallet() {
    let world = World::new().await;
    let production = [
        ("APP_ENV", "production"),
        ("JWT_PRIVATE_KEY", "an access key of more than thirty-two bytes"),
        ("INTERNAL_JWT_PRIVATE_KEY", "an internal key of more than thirty-two bytes"),
        ("SELF_POST", "none"),
    ];
    // No setting about signatures: production requires them by default.
    let _wallet = world.start_with(Role::Wallet, &production).await;
    let (unsigned, user) = (Uuid::now_v7(), Uuid::now_v7());
    publish(&world, &body(unsigned), Some("m-1"), None).await;
    let dead = dead_letter(&world).await;
    assert_eq!(dead.headers.get("x-error").map(String::as_str), Some(UNSIGNED), "{dead:?}");
    let genuine = signed(&claims("m-2", user, &body(user)), "an internal key of more than thirty-two bytes");
    publish(&world, &body(user), Some("m-2"), Some(&genuine)).await;
    eventually(PATIENCE, "a wallet", || async { (wallets(&world).await == "1").then_some(()) }).await;
    let owner = world.sql(Role::Wallet, "SELECT user_id FROM wallets").await;
    assert_eq!(owner, user.to_string());
}
