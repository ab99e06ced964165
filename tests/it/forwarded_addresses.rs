//! The client addresses that a trusted proxy reports: however it writes them, and when it reports none.

use purse::kernel::Role;
use reqwest::header::HeaderValue;
use reqwest::{Method, RequestBuilder};

use crate::support::{Client, PATIENCE, Raw, RoleProcess, Scrape, World, eventually};

const LOGIN: &str = "/v1/auth/login";
const WARNING: &str = "a trusted proxy does not report its clients; they share one rate limit";

/// The users role behind a proxy on this machine, with a limit of one login per hour.
async fn behind_proxy(world: &World) -> (RoleProcess, Client) {
    let settings = [
        ("RATE_LIMIT_ENABLED", "true"),
        ("RL_LOGIN_MAX", "1"),
        ("RL_LOGIN_WINDOW", "1h"),
        ("TRUSTED_PROXIES", "127.0.0.0/8,10.0.0.0/8"),
    ];
    let users = world.start_with(Role::Users, &settings).await;
    let client = Client::new(&users.url(), &users.url());
    (users, client)
}

/// A request that is rejected before its body is read: 415 unless it is limited.
fn login(client: &Client) -> RequestBuilder {
    client.request(Method::POST, &format!("{}{LOGIN}", client.users))
}

async fn status(client: &Client, lines: &[&[u8]]) -> u16 {
    let request = lines.iter().fold(login(client), |request, line| {
        request.header("x-forwarded-for", HeaderValue::from_bytes(line).expect("a header"))
    });
    client.send(request).await.status.as_u16()
}

async fn unknown(users: &RoleProcess, reason: &str) -> String {
    let series = format!("purse_http_client_addresses_unknown_total{{reason=\"{reason}\"}}");
    Scrape::of(&users.url()).await.value(&series).unwrap_or_else(|| panic!("no {series}"))
}

#[tokio::test]
async fn each_client_has_its_own_limit_however_the_proxy_writes_its_address() {
    let world = World::new().await;
    let (users, client) = behind_proxy(&world).await;
    // The second request of each client is written in another form.
    for (first, second) in [
        ("203.0.114.1:5112", "203.0.114.1"),
        ("203.0.114.2:5113", "203.0.114.2:61000"),
        ("::ffff:203.0.114.3", "203.0.114.3:1"),
        ("[::ffff:203.0.114.4]:80", "::FFFF:203.0.114.4"),
        ("\"203.0.114.5:1\"", "\"203.0.114.5\""),
        ("203.0.114.6,", "203.0.114.6 , ,"),
        (",203.0.114.7", ", ,\t203.0.114.7"),
        ("6.6.6.6,203.0.114.8:1", "203.0.114.8, 10.1.2.3:443"),
        ("[2001:db8:0:1::1]:443", "2001:db8:0:1::1"),
        ("[2001:db8:0:2::1]", "\"[2001:db8:0:2::1]:1\""),
        ("2001:db8:0:3::1%eth0", "[2001:db8:0:3::1%eth0]:443"),
        ("[2001:db8:0:4::1]:443", "[2001:db8:0:4::2]:443, [::ffff:10.0.0.1]:80"),
    ] {
        assert_eq!(status(&client, &[first.as_bytes()]).await, 415, "{first} shares a limit with another client");
        assert_eq!(status(&client, &[second.as_bytes()]).await, 429, "{second} is another client than {first}");
    }
    for reason in ["missing", "unreadable"] {
        assert_eq!(unknown(&users, reason).await, "0", "{reason}");
    }
    assert_eq!(users.logged(WARNING).len(), 0);
}

#[tokio::test]
async fn nothing_that_a_client_sends_before_the_proxy_changes_its_count() {
    let world = World::new().await;
    let (users, client) = behind_proxy(&world).await;
    assert_eq!(status(&client, &[b"203.0.114.1"]).await, 415);
    for sent in [
        &b"nonsense"[..],
        b"203.0.114.77",
        b"[",
        b"\"",
        b"\"203.0.114.78",
        b"unknown",
        b",,,,",
        b"\xff\xfe",
        b"203.0.114.79:",
        b"10.0.0.1",
        b"::1%a,",
    ] {
        let shown = String::from_utf8_lossy(sent);
        // A proxy appends to the line, or adds one.
        assert_eq!(status(&client, &[&[sent, b", 203.0.114.1:40000"].concat()]).await, 429, "{shown}");
        assert_eq!(status(&client, &[sent, b"203.0.114.1"]).await, 429, "{shown}");
    }
    // Nor is it the proxy's count, which would keep out those whose address is unknown.
    assert_eq!(status(&client, &[b"unknown"]).await, 415);
    assert_eq!(unknown(&users, "missing").await, "0");
    assert_eq!(unknown(&users, "unreadable").await, "1");
}

#[tokio::test]
async fn clients_whose_address_is_not_reported_share_the_limit_of_their_proxy_which_is_counted_and_logged_once() {
    let world = World::new().await;
    let (users, client) = behind_proxy(&world).await;
    // Each differs, and no difference is a new client.
    assert_eq!(status(&client, &[b"unknown"]).await, 415);
    for sent in [&b"unix:"[..], b"_hidden1", b"_hidden2", b"203.0.114", b"203.0.114.1, unknown", b"\xff"] {
        assert_eq!(status(&client, &[sent]).await, 429, "{}", String::from_utf8_lossy(sent));
    }
    assert_eq!(status(&client, &[b"203.0.114.1", b"unknown"]).await, 429);
    assert_eq!(status(&client, &[]).await, 429, "no header at all");
    assert_eq!(status(&client, &[b""]).await, 429, "an empty header");
    // The nearest proxy whose address is known: another one has a limit of its own.
    assert_eq!(status(&client, &[b"unknown, 10.0.0.7:1"]).await, 415);
    assert_eq!(status(&client, &[b"_hidden3, 10.0.0.7"]).await, 429);
    assert_eq!(status(&client, &[b"203.0.114.1"]).await, 415, "a client whose address is reported");

    assert_eq!(unknown(&users, "unreadable").await, "10");
    assert_eq!(unknown(&users, "missing").await, "2");
    let logged = eventually(PATIENCE, "both warnings are logged", || async {
        let logged = users.logged(WARNING);
        (logged.len() >= 2).then_some(logged)
    })
    .await;
    let shown: Vec<_> = logged.iter().map(|line| (line["level"].clone(), line["proxy"].clone())).collect();
    assert_eq!(shown, [("warn".into(), "127.0.0.1".into()), ("warn".into(), "127.0.0.1".into())], "{logged:?}");
    let errors: Vec<_> = logged.iter().map(|line| line["error"].as_str().expect("an error")).collect();
    assert_eq!(
        errors,
        [
            "the proxy sent an X-Forwarded-For whose last address is not an IP address",
            "the proxy sent no X-Forwarded-For"
        ]
    );
    // Nothing of what was sent is logged.
    assert!(!users.output().contains("_hidden") && !users.output().contains("unix:"));
}

#[tokio::test]
async fn a_client_that_is_not_behind_a_trusted_proxy_is_not_reported_whatever_it_sends() {
    let world = World::new().await;
    let settings = [("RATE_LIMIT_ENABLED", "true"), ("RL_LOGIN_MAX", "1"), ("TRUSTED_PROXIES", "10.0.0.0/8")];
    let users = world.start_with(Role::Users, &settings).await;
    let client = Client::new(&users.url(), &users.url());
    assert_eq!(status(&client, &[b"unknown"]).await, 415);
    assert_eq!(status(&client, &[b"203.0.114.1"]).await, 429);
    assert_eq!(status(&client, &[]).await, 429);
    for reason in ["missing", "unreadable"] {
        assert_eq!(unknown(&users, reason).await, "0", "{reason}");
    }
}

/// The header may be as long as the head of a request, with thousands of elements.
#[tokio::test]
async fn a_long_list_of_hops_is_read_from_its_end_and_costs_nothing() {
    let world = World::new().await;
    let (_users, client) = behind_proxy(&world).await;
    let mut raw = Raw::connect(&client.users).await;
    for (list, expected) in [
        (format!("{}203.0.114.1", ",".repeat(6000)), 415),
        (format!("{}203.0.114.1", "1,".repeat(3000)), 429),
        (format!("203.0.114.1{}", ",".repeat(6000)), 429),
        (format!("203.0.114.2{}", ",10.0.0.1".repeat(800)), 415),
        (format!("203.0.114.2:1{}", ", 10.0.0.1:2".repeat(600)), 429),
    ] {
        raw.send(format!("POST {LOGIN} HTTP/1.1\r\nhost: x\r\nx-forwarded-for: {list}\r\ncontent-length: 0\r\n\r\n"))
            .await;
        assert_eq!(raw.response().await.expect("a response").status.as_u16(), expected, "{}", &list[..30]);
    }
}
