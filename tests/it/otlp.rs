//! The export of spans, to a minimal collector.

use std::sync::{Arc, Mutex};

use purse::kernel::Role;
use reqwest::Method;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::support::{Client, PATIENCE, World, eventually};

/// The trace id.
const TRACE: u128 = 0x4bf9_2f35_77b3_4da6_a3ce_929d_0e0e_4736;
const PARENT: u64 = 0x00f0_67aa_0ba9_02b7;

type Exports = Arc<Mutex<Vec<Vec<u8>>>>;

/// Stores the bodies of all requests, and returns 200 to each.
async fn collect(mut stream: TcpStream, exports: Exports) -> std::io::Result<()> {
    let mut read = Vec::new();
    loop {
        while let Some(head) = read.windows(4).position(|end| end == b"\r\n\r\n").map(|at| at + 4) {
            let text = String::from_utf8_lossy(&read[..head]).to_ascii_lowercase();
            assert!(text.starts_with("post /v1/traces http/1.1\r\n"), "{text}");
            assert!(text.contains("content-type: application/x-protobuf\r\n"), "{text}");
            let length = text.lines().find_map(|line| line.strip_prefix("content-length: ")).expect("a length");
            let end = head + length.parse::<usize>().expect("a number");
            while read.len() < end {
                if stream.read_buf(&mut read).await? == 0 {
                    return Ok(());
                }
            }
            exports.lock().expect("exports").push(read[head..end].to_vec());
            read.drain(..end);
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await?;
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
}

/// A running collector, and the exports that it receives.
async fn collector() -> (String, Exports) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let url = format!("http://{}", listener.local_addr().expect("address"));
    let exports = Exports::default();
    let kept = Arc::clone(&exports);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(collect(stream, Arc::clone(&kept)));
        }
    });
    (url, exports)
}

fn contains(body: &[u8], part: &[u8]) -> bool {
    body.windows(part.len()).any(|window| window == part)
}

/// Whether one export contains all of these parts.
fn has(exports: &Exports, parts: &[&[u8]]) -> bool {
    exports.lock().expect("exports").iter().any(|body| parts.iter().all(|part| contains(body, part)))
}

#[tokio::test]
async fn the_three_steps_of_a_registration_reach_the_collector_in_one_trace() {
    let world = World::new().await;
    let (url, exports) = collector().await;
    let exporting = [("OTLP_URL", url.as_str())];
    let users = world.start_with(Role::Users, &exporting).await;
    let wallet = world.start_with(Role::Wallet, &exporting).await;
    let client = Client::new(&users.url(), &wallet.url());
    let register = |sampled: &str, trace: u128| {
        let body = json!({"firstName": "Ada", "lastName": "L", "email": Client::fresh_email(), "password": "12345678"});
        let traceparent = format!("00-{trace:032x}-{PARENT:016x}-{sampled}");
        let request = client.request(Method::POST, &format!("{}/v1/auth/register", client.users)).json(&body);
        client.send(request.header("traceparent", traceparent))
    };
    assert_eq!(register("00", TRACE + 1).await.status, 201);
    assert_eq!(register("01", TRACE).await.status, 201);

    let (trace, parent) = (TRACE.to_be_bytes(), PARENT.to_be_bytes());
    let steps: [&[&[u8]]; 3] = [
        &[b"purse-users", b"request", b"/v1/auth/register"],
        &[b"purse-users", b"publish user.registered"],
        &[b"purse-wallet", b"provision wallet"],
    ];
    for step in steps {
        let parts: Vec<&[u8]> = step.iter().copied().chain([&trace[..], &parent[..]]).collect();
        let what = format!("a span {}", String::from_utf8_lossy(step[1]));
        eventually(PATIENCE, &what, || async { has(&exports, &parts).then_some(()) }).await;
    }
    // Its event was published first, so its spans would have arrived by now.
    assert!(!has(&exports, &[&(TRACE + 1).to_be_bytes()]), "a trace that the client did not sample was sent");
}

#[tokio::test]
async fn an_unreachable_collector_loses_spans_and_nothing_else() {
    let world = World::new().await;
    let nowhere = [("OTLP_URL", "http://127.0.0.1:1")];
    let mut users = world.start_with(Role::Users, &nowhere).await;
    let wallet = world.start_with(Role::Wallet, &nowhere).await;
    Client::new(&users.url(), &wallet.url()).ready_user().await;
    users.signal(rustix::process::Signal::TERM);
    assert_eq!(users.exited().await.code(), Some(0));
}
