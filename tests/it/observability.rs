//! Alerts and dashboards, tested with Prometheus itself: each alert fires when it should and only then, and each panel's
//! query returns data from two roles under load.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use purse::kernel::Role;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use uuid::Uuid;

use crate::support::{
    Client, PATIENCE, Panel, RoleProcess, Scrape, World, eventually, free_port, render_panels, token_of,
    unknown_user_id,
};

/// Time range of the dashboard pictures, in seconds.
const PICTURE_S: i64 = 45;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/observability")
}

fn text(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A Prometheus program: from `PATH`, or from the tools folder.
fn program(name: &str) -> PathBuf {
    let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
    let cache =
        cache.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache"))).unwrap_or("/tmp/.cache".into());
    let path = std::env::var_os("PATH").unwrap_or_default();
    let places = std::env::split_paths(&path).chain([cache.join("purse/tools/prometheus/usr/bin")]);
    let found = places.map(|place| place.join(name)).find(|program| program.is_file());
    found.unwrap_or_else(|| panic!("{name} is missing. Run: just test-tools"))
}

/// Runs promtool in the folder of the rules.
fn promtool(arguments: &[&str]) -> Result<String, String> {
    let ran = Command::new(program("promtool")).args(arguments).current_dir(folder()).output().expect("promtool");
    let output = format!("{}{}", String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    if ran.status.success() { Ok(output) } else { Err(output) }
}

/// All values of a key in a file of rules or rule tests.
fn values(text: &str, key: &str) -> Vec<String> {
    let behind = |line: &str| line.trim().trim_start_matches("- ").strip_prefix(key).map(|rest| rest.trim().to_owned());
    text.lines().filter_map(behind).collect()
}

#[test]
fn every_alert_fires_when_it_should_and_only_then() {
    promtool(&["check", "config", "prometheus.yml"]).unwrap_or_else(|e| panic!("{e}"));
    promtool(&["check", "rules", "alerts.yml"]).unwrap_or_else(|e| panic!("{e}"));
    promtool(&["test", "rules", "alerts.test.yml"]).unwrap_or_else(|e| panic!("{e}"));

    let (rules, tests) = (text(&folder().join("alerts.yml")), text(&folder().join("alerts.test.yml")));
    let alerts = values(&rules, "alert:");
    assert!(alerts.len() >= 7, "{alerts:?}");
    let cases: Vec<(String, bool)> = tests
        .split("alertname: ")
        .skip(1)
        .map(|case| {
            let (name, rest) = case.split_once('\n').expect("a line");
            let case = rest.split("\n\n").next().unwrap_or_default();
            assert!(case.contains("exp_alerts:"), "{name} has no expectation");
            (name.to_owned(), !case.contains("exp_alerts: []"))
        })
        .collect();
    let handbook = text(&Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/operations.md"));
    let runbooks = values(&rules, "runbook:");
    for (alert, runbook) in alerts.iter().zip(&runbooks) {
        for fires in [true, false] {
            assert!(cases.contains(&(alert.clone(), fires)), "{alert} has no test where it fires: {fires}");
        }
        assert_eq!(*runbook, format!("docs/operations.md#{}", alert.to_lowercase()));
        assert!(handbook.contains(&format!("\n### {alert}\n")), "docs/operations.md has no section {alert}");
    }
    assert_eq!(runbooks.len(), alerts.len());
}

/// A dashboard's queries, with the title of their panel.
fn queries(role: Role) -> Vec<(String, String)> {
    let file = folder().join(format!("grafana/dashboards/{role}.json"));
    let dashboard: Value = serde_json::from_str(&text(&file)).expect("a dashboard");
    let panels = dashboard["panels"].as_array().expect("panels");
    let of = |panel: &Value| {
        assert_eq!(panel["datasource"]["uid"], "prometheus", "{panel}");
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        assert!(!targets.is_empty(), "{panel}");
        let title = panel["title"].as_str().expect("a title").to_owned();
        targets.into_iter().map(move |target| (title.clone(), target["expr"].as_str().expect("a query").to_owned()))
    };
    panels.iter().flat_map(of).collect()
}

/// The names of purse metrics in a query.
fn names(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| word.starts_with("purse_") || word.starts_with("http_server_"));
    ours.map(|word| ["_bucket", "_sum", "_count"].iter().find_map(|s| word.strip_suffix(s)).unwrap_or(word).to_owned())
        .collect()
}

/// A percent-encoded query.
fn encoded(query: &str) -> String {
    query.bytes().flat_map(|byte| format!("%{byte:02X}").into_bytes()).map(char::from).collect()
}

/// A private Prometheus server.
struct Prometheus {
    child: Child,
    url: String,
    data: PathBuf,
}

impl Prometheus {
    /// Scrapes these processes with the stack's configuration, but every second.
    fn over(users: &RoleProcess, wallet: &RoleProcess) -> Self {
        let port = free_port();
        let data = std::env::temp_dir().join(format!("purse-prometheus-{}-{port}", std::process::id()));
        fs::create_dir_all(&data).expect("a folder");
        let mut config = text(&folder().join("prometheus.yml")).replace("15s", "1s");
        for (name, process) in [("users", users), ("wallet", wallet)] {
            let address = process.url().replace("http://", "");
            assert!(config.contains(&format!("{name}:9464")), "prometheus.yml does not scrape {name}");
            config = config.replace(&format!("{name}:9464"), &address);
        }
        fs::write(data.join("prometheus.yml"), config).expect("written");
        fs::copy(folder().join("alerts.yml"), data.join("alerts.yml")).expect("copied");
        let mut command = Command::new(program("prometheus"));
        command.current_dir(&data).args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(fs::File::create(data.join("log")).expect("a log"));
        let child = command.spawn().expect("prometheus");
        Self { child, url: format!("http://127.0.0.1:{port}"), data }
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let response = reqwest::get(format!("{}{path}", self.url)).await.ok()?;
        serde_json::from_str(&response.text().await.ok()?).ok()
    }

    /// Whether a query returns at least one number.
    async fn has_data(&self, query: &str) -> bool {
        let Some(response) = self.get(&format!("/api/v1/query?query={}", encoded(query))).await else { return false };
        assert_ne!(response["status"], "error", "{query}: {response}");
        let results = response["data"]["result"].as_array().cloned().unwrap_or_default();
        let numbers = results.iter().filter_map(|result| result["value"][1].as_str()?.parse::<f64>().ok());
        numbers.into_iter().any(f64::is_finite)
    }

    #[expect(clippy::float_arithmetic, reason = "a picture has coordinates")]
    /// Every series of a query over the last `seconds`, with times from 0.
    async fn series(&self, query: &str, seconds: i64) -> Vec<Vec<(f64, f64)>> {
        let end = jiff::Timestamp::now().as_second();
        let path = format!("/api/v1/query_range?query={}&start={}&end={end}&step=1", encoded(query), end - seconds);
        let response = self.get(&path).await.unwrap_or_default();
        let begin = f64::from(u32::try_from(end - seconds).expect("a time"));
        let point = |pair: &Value| Some((pair[0].as_f64()? - begin, pair[1].as_str()?.parse().ok()?));
        let results = response["data"]["result"].as_array().cloned().unwrap_or_default();
        let points = |result: &Value| result["values"].as_array().into_iter().flatten().filter_map(point).collect();
        results.iter().map(points).collect()
    }

    /// Pending and firing alerts.
    async fn alerts(&self) -> BTreeSet<String> {
        let response = self.get("/api/v1/alerts").await.unwrap_or_default();
        let alerts = response["data"]["alerts"].as_array().cloned().unwrap_or_default();
        alerts.iter().filter_map(|alert| alert["labels"]["alertname"].as_str().map(str::to_owned)).collect()
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{}", fs::read_to_string(self.data.join("log")).unwrap_or_default());
        }
        let _ = kill_process(Pid::from_child(&self.child), Signal::TERM);
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.data);
    }
}

/// Produces data for every panel: users, posts, errors.
async fn load(client: &Client) {
    let user = client.ready_user().await;
    for (kind, cents) in [("credit", 500), ("debit", 200), ("debit", 9_000)] {
        client.post(&user, kind, cents, None).await;
    }
    client.log_in(&user.email, "another password").await;
    client.me("no token").await;
    let url = format!("{}/v1/balance", client.wallet);
    client.send(client.request(reqwest::Method::GET, &url).bearer_auth(token_of(&unknown_user_id()))).await;
}

#[tokio::test]
async fn every_panel_has_data_under_load_and_a_dead_letter_raises_its_alert() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let prometheus = Prometheus::over(&users, &wallet);
    let mut empty: Vec<(String, String)> = Role::ALL.into_iter().flat_map(queries).collect();
    assert!(empty.len() > 30, "only {} queries", empty.len());

    let mut known = BTreeSet::new();
    load(&client).await;
    for process in [&users, &wallet] {
        known.extend(Scrape::of(&process.url()).await.families().into_iter().map(|family| family.name));
    }
    let rules = text(&folder().join("alerts.yml"));
    let used: BTreeSet<_> = empty.iter().flat_map(|(_, query)| names(query)).chain(names(&rules)).collect();
    assert_eq!(used.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new(), "metrics that no role exports");
    assert_eq!(known.difference(&used).collect::<Vec<_>>(), Vec::<&String>::new(), "metrics that no panel uses");

    let until = std::time::Instant::now() + PATIENCE;
    while !empty.is_empty() {
        assert!(std::time::Instant::now() < until, "panels without data:\n{empty:#?}");
        load(&client).await;
        let mut still = Vec::new();
        for (title, query) in empty {
            if !prometheus.has_data(&query.replace("$__rate_interval", "10s")).await {
                still.push((title, query));
            }
        }
        empty = still;
    }
    assert!(!prometheus.has_data("purse_nothing").await, "a query for an unknown metric returns data");
    if let Some(folder) = std::env::var_os("PURSE_PICTURES") {
        pictures(&prometheus, &client, Path::new(&folder)).await;
    }

    assert!(!prometheus.alerts().await.contains("PurseDeadLetters"));
    world.broker.publish("domain.events", "user.registered", b"poison", Some(&Uuid::now_v7().to_string()), &[]).await;
    eventually(PATIENCE, "the dead letter raises its alert", || async {
        prometheus.alerts().await.contains("PurseDeadLetters").then_some(())
    })
    .await;
}

/// Draws both dashboards after more load.
async fn pictures(prometheus: &Prometheus, client: &Client, folder: &Path) {
    for _ in 0..PICTURE_S {
        load(client).await;
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
    }
    for role in Role::ALL {
        let mut panels: Vec<Panel> = Vec::new();
        for (title, query) in queries(role) {
            let series = prometheus.series(&query.replace("$__rate_interval", "10s"), PICTURE_S).await;
            match panels.last_mut().filter(|panel| panel.0 == title) {
                Some(panel) => panel.1.extend(series),
                None => panels.push((title, series)),
            }
        }
        render_panels(&folder.join(format!("dashboard-{role}.svg")), &panels);
    }
}
