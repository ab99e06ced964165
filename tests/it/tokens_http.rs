//! Access tokens over HTTP, at both roles: which are accepted, and which are rejected.

use purse::kernel::Role;
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{
    ACCESS_KEY, Client, INTERNAL_KEY, Response, World, assert_error, mint, part, seconds_from_now, unknown_user_id,
};

/// The responses of both roles to a request with this token.
async fn send_to_both(client: &Client, token: &str) -> [Response; 2] {
    let get = |url: String| client.send(client.request(Method::GET, &url).bearer_auth(token));
    [get(format!("{}/v1/users/me", client.users)).await, get(format!("{}/v1/balance", client.wallet)).await]
}

async fn assert_rejected(client: &Client, token: &str, about: &str) {
    for response in send_to_both(client, token).await {
        assert_error(&response, 401, "UNAUTHORIZED", about);
        assert_eq!(response.header("www-authenticate"), "Bearer", "{about}");
    }
}

async fn assert_accepted(client: &Client, token: &str, about: &str) {
    for response in send_to_both(client, token).await {
        assert_eq!(response.status, 200, "{about}: {response:?}");
    }
}

#[tokio::test]
async fn every_forged_or_invalid_token_returns_401_at_both_roles() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let hs256 = json!({"alg": "HS256", "typ": "JWT"});
    let valid = json!({"sub": user.id, "exp": seconds_from_now(600)});
    let signed = |header: &Value, claims: &Value| mint(header, claims, ACCESS_KEY);
    let with = |name: &str, value: Value| {
        let mut claims = valid.clone();
        claims[name] = value;
        signed(&hs256, &claims)
    };
    let head = |header: Value| signed(&header, &valid);
    let genuine = signed(&hs256, &valid);
    let (message, signature) = genuine.rsplit_once('.').expect("three parts");
    let other_claims = part(&json!({"sub": unknown_user_id(), "exp": seconds_from_now(600)}));
    let unsigned = format!("{}.{}.", part(&json!({"alg": "none"})), part(&valid));
    let mut shapes: Vec<(String, String)> = [
        ("expired by 6 s", with("exp", json!(seconds_from_now(-6)))),
        ("expired long ago", with("exp", json!(0))),
        ("exp negative", with("exp", json!(-1))),
        ("exp a text", with("exp", json!("9999999999"))),
        ("exp null", with("exp", Value::Null)),
        ("no exp", signed(&hs256, &json!({"sub": user.id}))),
        ("not yet valid", with("nbf", json!(seconds_from_now(60)))),
        ("not valid for years", with("nbf", json!(9_999_999_999_i64))),
        ("alg none, signed", head(json!({"alg": "none"}))),
        ("alg none, unsigned", unsigned),
        ("no signature", format!("{message}.")),
        ("alg None", head(json!({"alg": "None"}))),
        ("alg hs256", head(json!({"alg": "hs256"}))),
        ("alg HS512", head(json!({"alg": "HS512"}))),
        ("alg RS256", head(json!({"alg": "RS256"}))),
        ("alg empty", head(json!({"alg": ""}))),
        ("no alg", head(json!({"typ": "JWT"}))),
        ("crit", head(json!({"alg": "HS256", "crit": ["b64"], "b64": true}))),
        ("crit exp", head(json!({"alg": "HS256", "crit": ["exp"]}))),
        ("crit empty", head(json!({"alg": "HS256", "crit": []}))),
        ("another key", mint(&hs256, &valid, "another key")),
        ("the internal key", mint(&hs256, &valid, INTERNAL_KEY)),
        ("an empty key", mint(&hs256, &valid, "")),
        ("a key in its header", mint(&json!({"alg": "HS256", "jwk": {"kty": "oct", "k": "YQ"}}), &valid, "a")),
        ("no sub", signed(&hs256, &json!({"exp": seconds_from_now(600)}))),
        ("the claims of another token", format!("{}.{other_claims}.{signature}", part(&hs256))),
        ("audience", with("aud", json!("bank"))),
        ("two segments", message.to_owned()),
        ("four segments", format!("{genuine}.x")),
        ("padded", format!("{genuine}=")),
        ("a truncated signature", genuine[..genuine.len() - 4].to_owned()),
        ("standard base64", genuine.replace(['-', '_'], "+") + "+"),
        ("dots", "..".to_owned()),
        ("a word", "x".to_owned()),
        ("5,000 bytes", with("pad", json!("x".repeat(5000)))),
        ("claims a list", signed(&hs256, &json!([user.id]))),
        ("header a list", signed(&json!(["HS256"]), &valid)),
    ]
    .map(|(about, token)| (about.to_owned(), token))
    .into();
    for sub in [
        json!(""),
        json!("x"),
        json!("1"),
        json!(1),
        Value::Null,
        json!([user.id]),
        json!({"id": user.id}),
        json!("../../x"),
        json!("' OR 1=1--"),
        json!(format!("{} ", user.id)),
        json!(format!("{{{}}}", user.id)),
        json!(user.id.replace('-', "")),
        json!(format!("urn:uuid:{}", user.id)),
        json!("\u{0}"),
    ] {
        shapes.push((format!("sub {sub}"), with("sub", sub)));
    }
    for (about, token) in shapes {
        assert_rejected(&client, &token, &about).await;
    }
    assert_accepted(&client, &genuine, "the valid token that the others are derived from").await;
}

#[tokio::test]
async fn tokens_minted_elsewhere_with_our_key_are_accepted() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    let user = client.ready_user().await;
    let exp = seconds_from_now(600);
    for (header, claims) in [
        (json!({"alg": "HS256"}), json!({"sub": user.id, "exp": exp})),
        (
            json!({"alg": "HS256", "typ": "at+jwt", "kid": "1"}),
            json!({"sub": user.id, "exp": exp, "iss": "another", "jti": "1"}),
        ),
        (
            json!({"typ": "JWT", "alg": "HS256"}),
            json!({"sub": user.id.to_uppercase(), "exp": exp, "nbf": seconds_from_now(-60)}),
        ),
        (json!({"alg": "HS256"}), json!({"sub": user.id, "exp": exp, "aud": ["wallet", "users"], "scope": {"a": [1]}})),
        // Within the leeway for clock differences.
        (
            json!({"alg": "HS256"}),
            json!({"sub": user.id, "exp": exp, "nbf": seconds_from_now(2), "iat": seconds_from_now(2)}),
        ),
    ] {
        assert_accepted(&client, &mint(&header, &claims, ACCESS_KEY), &claims.to_string()).await;
    }
}

#[tokio::test]
async fn a_token_expires_after_the_configured_lifetime() {
    let world = World::new().await;
    let users = world.start_with(Role::Users, &[("ACCESS_TOKEN_TTL", "1s")]).await;
    let client = Client::new(&users.url(), &users.url());
    let response = client.register(&Client::fresh_email()).await;
    assert_eq!(response.body["expiresIn"], json!(1), "{response:?}");
    let token = response.body["accessToken"].as_str().expect("token").to_owned();
    assert_eq!(client.me(&token).await.status, 200);
    let refused = crate::support::eventually(crate::support::PATIENCE, "the token has expired", || async {
        Some(client.me(&token).await).filter(|response| response.status != 200)
    });
    assert_error(&refused.await, 401, "UNAUTHORIZED", "expired");
}

#[tokio::test]
async fn during_key_rotation_the_previous_key_verifies_and_the_new_one_signs() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let user = client.ready_user().await;
    drop((users, wallet));
    let keys = [("JWT_PRIVATE_KEY", "the new key"), ("JWT_PRIVATE_KEY_PREVIOUS", ACCESS_KEY)];
    let (users, wallet) = tokio::join!(world.start_with(Role::Users, &keys), world.start_with(Role::Wallet, &keys));
    let during = Client::new(&users.url(), &wallet.url());
    assert_accepted(&during, &user.token, "signed with the previous key").await;
    let login = during.log_in(&user.email, crate::support::PASSWORD).await;
    let new = login.body["accessToken"].as_str().expect("token").to_owned();
    assert_accepted(&during, &new, "signed with the new key").await;
    drop((users, wallet));
    let (users, wallet) =
        tokio::join!(world.start_with(Role::Users, &keys[..1]), world.start_with(Role::Wallet, &keys[..1]));
    let after = Client::new(&users.url(), &wallet.url());
    assert_accepted(&after, &new, "after the rotation").await;
    assert_rejected(&after, &user.token, "after the rotation, signed with the previous key").await;
}

#[tokio::test]
async fn the_profile_of_a_user_who_does_not_exist_returns_404() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let client = Client::new(&users.url(), &users.url());
    let never = crate::support::token_of(&unknown_user_id());
    assert_error(&client.me(&never).await, 404, "USER_NOT_FOUND", "never registered");
    let user = client.user().await;
    assert_eq!(client.me(&user.token).await.status, 200);
    world.sql(Role::Users, "DELETE FROM users").await;
    assert_error(&client.me(&user.token).await, 404, "USER_NOT_FOUND", "deleted");
    let login = client.log_in(&user.email, crate::support::PASSWORD).await;
    assert_error(&login, 401, "INVALID_CREDENTIALS", "deleted");
}
