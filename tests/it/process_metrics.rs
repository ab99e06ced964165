//! What `/metrics` reports of the process and of long polls.

use std::time::SystemTime;

use purse::kernel::Role;

use crate::support::{Client, PATIENCE, Scrape, World, eventually, token_of, unknown_user_id};

const DURATION: &str = "http_server_request_duration_seconds";
const LONG_POLL: &str = "purse_http_long_poll_duration_seconds";

/// The values are those that the kernel shows to everyone.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn each_role_reports_its_memory_cpu_time_descriptors_and_start() {
    let world = World::new().await;
    let before = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("a time").as_secs_f64();
    let (users, wallet, client) = world.both().await;
    for _ in 0..3 {
        client.user().await;
    }
    for process in [&users, &wallet] {
        let scrape = Scrape::of(&process.url()).await;
        let value = |name: &str| scrape.number(name).unwrap_or_else(|| panic!("{name} is missing"));
        let (memory, kib) = (value("process_resident_memory_bytes") / 1024.0, process.memory_kib());
        let kib = f64::from(u32::try_from(kib).expect("KiB"));
        assert!((memory - kib).abs() < kib / 4.0, "{memory} KiB, and {kib} in /proc");
        let cpu = process.cpu_time().as_secs_f64();
        assert!((value("process_cpu_seconds_total") - cpu).abs() <= 2.0, "{cpu} s in /proc\n{}", scrape.0);
        let (open, descriptors) = (value("process_open_fds"), process.descriptors());
        let descriptors = f64::from(u32::try_from(descriptors).expect("descriptors"));
        assert!(open > 10.0 && (open - descriptors).abs() <= 8.0, "{open}, and {descriptors} in /proc");
        let limits =
            std::fs::read_to_string(format!("/proc/{}/limits", process.pid().as_raw_nonzero())).expect("limits");
        let limit = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("the limit");
        let limit = limit.split_whitespace().next().and_then(|soft| soft.parse::<f64>().ok()).expect("a number");
        assert_eq!(value("process_max_fds").to_bits(), limit.to_bits());
        let start = value("process_start_time_seconds");
        // Both the boot time and the start are in whole seconds.
        assert!((before - 2.0..before + PATIENCE.as_secs_f64()).contains(&start), "{start}, began at {before}");
    }
}

#[tokio::test]
async fn a_request_that_waits_for_a_wallet_is_no_slow_request() {
    let world = World::new().await;
    let wallet = world.start(Role::Wallet).await;
    let client = Client::new(&wallet.url(), &wallet.url());
    let token = token_of(&unknown_user_id());
    let get = async |query: &str| {
        let url = format!("{}/v1/wallet/status{query}", wallet.url());
        client.send(client.request(reqwest::Method::GET, &url).bearer_auth(&token)).await
    };
    for query in ["?wait=2", "?wait=0", "", "?wait=31"] {
        assert_eq!(get(query).await.code(), "WALLET_PROVISIONING", "{query}");
    }
    let labels = "{method=\"GET\",route=\"/v1/wallet/status\",status=\"503\"}";
    let scrape = eventually(PATIENCE, "all four are counted", || async {
        let scrape = Scrape::of(&wallet.url()).await;
        let counts = [DURATION, LONG_POLL].map(|name| scrape.value(&format!("{name}_count{labels}")));
        (counts == [Some("3".to_owned()), Some("1".to_owned())]).then_some(scrape)
    })
    .await;
    let sum = |name: &str| scrape.number(&format!("{name}_sum{labels}")).expect("a sum");
    assert!(sum(LONG_POLL) >= 2.0, "{}", sum(LONG_POLL));
    let slow = scrape
        .number(&format!("{DURATION}_bucket{{method=\"GET\",route=\"/v1/wallet/status\",status=\"503\",le=\"+Inf\"}}"));
    assert_eq!(slow.map(f64::to_bits), Some(3.0_f64.to_bits()));
    // The reason of the rejection is counted for all of them.
    let refused = "purse_http_refusals_total{route=\"/v1/wallet/status\",code=\"WALLET_PROVISIONING\"}";
    assert_eq!(scrape.value(refused).as_deref(), Some("4"));
}
