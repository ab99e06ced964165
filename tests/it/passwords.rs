//! Passwords: response times reveal nothing, and outdated hashes are renewed.

use std::time::{Duration, Instant};

use argon2::{Algorithm, Argon2, Params, PasswordHasher as _, Version};
use purse::kernel::Role;

use crate::support::{Client, PASSWORD, Response, World, assert_error};

/// Samples of each kind per round.
const SAMPLES: usize = 60;
/// Rounds until a difference counts as real. On a busy machine medians converge slowly; a real difference stays.
const ROUNDS: usize = 6;
/// Measurements run one at a time, because they would disturb each other.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
/// Largest accepted difference between the medians of two kinds of login, in percent of the larger one.
const LOGINS_PERCENT_MAX: u128 = 10;
/// The same for registrations. One kind also writes two rows, and the status differs anyway; the limit only detects a
/// kind that computes no hash.
const REGISTRATIONS_PERCENT_MAX: u128 = 25;

/// The time until the response, which must have this status.
async fn timed(response: impl Future<Output = Response>, status: u16) -> Duration {
    let began = Instant::now();
    let response = response.await;
    let took = began.elapsed();
    assert_eq!(response.status.as_u16(), status, "{response:?}");
    took
}

fn median(samples: &mut [Duration]) -> Duration {
    samples.sort_unstable();
    samples[samples.len() / 2]
}

/// In percent of the larger one.
fn difference_percent(one: Duration, other: Duration) -> u128 {
    one.abs_diff(other).as_micros() * 100 / one.max(other).as_micros().max(1)
}

/// Takes samples of both kinds in turn, so that other load affects both alike, until the medians are close enough.
async fn assert_equal_in_time<F: AsyncFnMut(usize, bool) -> Duration>(about: &str, percent_max: u128, mut sample: F) {
    let _turn = TURN.lock().await;
    let (mut one, mut other) = (Vec::new(), Vec::new());
    let mut seen = Vec::new();
    for round in 0..ROUNDS {
        for n in 0..SAMPLES {
            let number = round * SAMPLES + n;
            // The order alternates too.
            for first in [n % 2 == 0, n % 2 != 0] {
                let took = sample(number, first).await;
                if first { one.push(took) } else { other.push(took) }
            }
        }
        let medians = (median(&mut one), median(&mut other));
        seen.push(medians);
        let difference = difference_percent(medians.0, medians.1);
        if difference < percent_max {
            eprintln!("{about}: medians of {} each {medians:?}, a difference of {difference} %", one.len());
            return;
        }
    }
    panic!("{about}: the medians keep differing: {seen:?}");
}

#[tokio::test]
async fn an_unknown_address_and_a_wrong_password_get_the_same_response_in_the_same_time() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let client = Client::new(&users.url(), &users.url());
    let known = client.user().await.email;
    let (unknown, wrong) =
        (client.log_in("unknown@example.com", "wrong password").await, client.log_in(&known, "wrong password").await);
    assert_error(&unknown, 401, "INVALID_CREDENTIALS", "unknown");
    assert_eq!((unknown.status, &unknown.body), (wrong.status, &wrong.body));
    let comparable = |response: &Response| {
        let mut headers = response.headers.clone();
        for own in ["x-request-id", "traceparent", "date"] {
            headers.remove(own);
        }
        headers
    };
    assert_eq!(comparable(&unknown), comparable(&wrong), "the headers differ");
    assert_equal_in_time("unknown address, wrong password", LOGINS_PERCENT_MAX, async |n, first| {
        let email = if first { format!("unknown-{n}@example.com") } else { known.clone() };
        timed(client.log_in(&email, "wrong password"), 401).await
    })
    .await;
}

#[tokio::test]
async fn registrations_of_a_taken_and_of_a_new_address_take_the_same_time() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let client = Client::new(&users.url(), &users.url());
    let taken = client.user().await.email;
    assert_equal_in_time("new address, taken address", REGISTRATIONS_PERCENT_MAX, async |_, first| {
        if first {
            timed(client.register(&Client::fresh_email()), 201).await
        } else {
            timed(client.register(&taken), 409).await
        }
    })
    .await;
}

#[test]
fn medians_that_differ_are_detected() {
    let ms = Duration::from_millis;
    assert_eq!(median(&mut [ms(9), ms(1), ms(5)]), ms(5));
    assert_eq!(difference_percent(ms(100), ms(91)), 9);
    assert_eq!(difference_percent(ms(1), ms(100)), 99, "a login that computes no hash");
}

#[tokio::test]
async fn a_successful_login_renews_a_hash_with_smaller_parameters() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let client = Client::new(&users.url(), &users.url());
    let user = client.user().await;
    let stored = async || world.sql(Role::Users, "SELECT password_hash FROM users").await;
    assert!(stored().await.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{}", stored().await);
    let small = Argon2::new(Algorithm::Argon2id, Version::V0x13, Params::new(8192, 1, 1, None).expect("parameters"));
    let old = small.hash_password(PASSWORD.as_bytes()).expect("hash").to_string();
    world.sql(Role::Users, &format!("UPDATE users SET password_hash = '{old}'")).await;
    assert_eq!(client.log_in(&user.email, "wrong password").await.status, 401);
    assert_eq!(stored().await, old, "a wrong password renewed the hash");
    assert_eq!(client.log_in(&user.email, PASSWORD).await.status, 200);
    let renewed = stored().await;
    assert!(renewed.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{renewed}");
    assert_eq!(client.log_in(&user.email, PASSWORD).await.status, 200);
    assert_eq!(stored().await, renewed, "a current hash was renewed");
}

#[tokio::test]
async fn a_long_password_is_not_truncated_and_a_longer_one_is_rejected_before_hashing() {
    let world = World::new().await;
    let users = world.start_with(Role::Users, &[("HASH_QUEUE_MAX", "1")]).await;
    let client = Client::new(&users.url(), &users.url());
    let email = Client::fresh_email();
    let longest = format!("{}\u{1f980}", "p".repeat(1020));
    assert_eq!(longest.len(), 1024);
    let body = serde_json::json!({"firstName": "Ada", "lastName": "Lovelace", "email": email, "password": longest});
    let register = client.request(reqwest::Method::POST, &format!("{}/v1/auth/register", client.users)).json(&body);
    assert_eq!(client.send(register).await.status, 201);
    assert_eq!(client.log_in(&email, &longest).await.status, 200);
    for other in [&longest[..1020], &longest[..72], &format!("{}q", &longest[..1020])] {
        assert_error(&client.log_in(&email, other).await, 401, "INVALID_CREDENTIALS", other);
    }
    let too_long = "p".repeat(1025);
    let flood = futures_util::future::join_all((0..40).map(|_| client.log_in(&email, &too_long))).await;
    for response in flood {
        // The hash queue has one place: if any of them were hashed, others would get a 503.
        assert_error(&response, 400, "VALIDATION_ERROR", "1,025 bytes");
    }
}
