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
    Client, Line, PATIENCE, Panel, RoleProcess, Scrape, World, eventually, free_port, render_panels, token_of,
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
    let runbooks = values(&rules, "runbook_url:");
    for (alert, runbook) in alerts.iter().zip(&runbooks) {
        for fires in [true, false] {
            assert!(cases.contains(&(alert.clone(), fires)), "{alert} has no test where it fires: {fires}");
        }
        assert_eq!(*runbook, format!("https://purse.example.com/docs/operations.md#{}", alert.to_lowercase()));
        assert!(handbook.contains(&format!("\n### {alert}\n")), "docs/operations.md has no section {alert}");
    }
    assert_eq!(runbooks.len(), alerts.len());
}

/// A query of a dashboard.
#[derive(Clone, Debug)]
struct Query {
    panel: String,
    unit: String,
    legend: String,
    expression: String,
}

fn dashboard(role: Role) -> Value {
    let file = folder().join(format!("grafana/dashboards/{role}.json"));
    serde_json::from_str(&text(&file)).expect("a dashboard")
}

fn queries(role: Role) -> Vec<Query> {
    let of = |panel: &Value| {
        let word = |value: &Value| value.as_str().unwrap_or_else(|| panic!("a text is missing in {panel}")).to_owned();
        let (title, unit) = (word(&panel["title"]), word(&panel["fieldConfig"]["defaults"]["unit"]));
        let targets = panel["targets"].as_array().cloned().unwrap_or_default();
        assert!(!targets.is_empty(), "{panel}");
        let query = |target: &Value| Query {
            panel: title.clone(),
            unit: unit.clone(),
            legend: word(&target["legendFormat"]),
            expression: word(&target["expr"]),
        };
        targets.iter().map(query).collect::<Vec<_>>()
    };
    dashboard(role)["panels"].as_array().expect("panels").iter().flat_map(of).collect()
}

#[test]
fn every_panel_follows_the_variables_and_shows_units_legends_and_words_instead_of_0_and_1() {
    for role in Role::ALL {
        let dashboard = dashboard(role);
        let variables = dashboard["templating"]["list"].as_array().expect("variables");
        let variable = |name: &str| variables.iter().find(|variable| variable["name"] == name).expect("a variable");
        assert_eq!(variable("datasource")["query"], "prometheus");
        assert_eq!(
            variable("instance")["query"]["query"],
            format!("label_values(purse_build_info{{job=\"{role}\"}}, instance)")
        );
        assert_eq!(variable("instance")["includeAll"], true);
        let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
        for panel in dashboard["panels"].as_array().expect("panels") {
            let title = panel["title"].as_str().expect("a title");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{title}");
            assert!(ids.insert(panel["id"].as_u64().expect("an id")), "{title}: its id is taken");
            let [x, y, w, h] = ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().expect("a number"));
            assert!(x + w <= 24, "{title} is out of the grid");
            for cell in (x..x + w).flat_map(|x| (y..y + h).map(move |y| (x, y))) {
                assert!(places.insert(cell), "{title} covers another panel");
            }
            let is_single = panel["type"] == "stat";
            assert!(is_single || panel["options"]["legend"]["showLegend"] == true, "{title} has no legend");
            let is_state = ["purse_ready", "purse_dependency_up", "purse_broker_connection_blocked"];
            let shows_state = panel["targets"].as_array().expect("queries").iter().any(|target| {
                is_state.iter().any(|name| target["expr"].as_str().is_some_and(|query| query.contains(name)))
            });
            let words = &panel["fieldConfig"]["defaults"]["mappings"][0]["options"];
            assert_eq!(shows_state, words["0"]["text"].is_string() && words["1"]["text"].is_string(), "{title}");
        }
        for query in queries(role) {
            let selectors = query.expression.matches("job=").count();
            let followed = query.expression.matches(&format!("job=\"{role}\", instance=~\"$instance\"")).count();
            assert!(selectors > 0 && selectors == followed, "{query:?} does not follow the variable for the instance");
            for (metric, units) in [("_seconds_bucket", &["s"][..]), ("_bytes", &["bytes"]), ("age_seconds", &["s"])] {
                assert!(!query.expression.contains(metric) || units.contains(&query.unit.as_str()), "{query:?}");
            }
            let is_rate = query.expression.starts_with("sum") && query.expression.contains("rate(");
            assert!(
                !is_rate || query.expression.contains(" / ") || ["reqps", "cps"].contains(&&*query.unit),
                "{query:?}"
            );
        }
    }
}

/// A dashboard's query for all instances over the last seconds, as Grafana would fill it in.
fn real(query: &str) -> String {
    query.replace("$__rate_interval", "10s").replace("$instance", ".*")
}

/// A series' name in a legend, as Grafana writes it. The address of an instance is different in each picture.
fn named(format: &str, labels: &Value) -> String {
    let labels = labels.as_object().into_iter().flatten();
    let filled = labels.fold(format.to_owned(), |name, (label, value)| {
        let value = if label == "instance" { "instance 1" } else { value.as_str().unwrap_or_default() };
        name.replace(&format!("{{{{{label}}}}}"), value)
    });
    filled.trim().to_owned()
}

/// The names of purse metrics in a query.
fn names(query: &str) -> BTreeSet<String> {
    let words = query.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let ours = words.filter(|word| ["purse_", "http_server_", "process_"].iter().any(|p| word.starts_with(p)));
    ours.map(|word| ["_bucket", "_sum", "_count"].iter().find_map(|s| word.strip_suffix(s)).unwrap_or(word).to_owned())
        .collect()
}

/// A percent-encoded query.
fn encoded(query: &str) -> String {
    query.bytes().flat_map(|byte| format!("%{byte:02X}").into_bytes()).map(char::from).collect()
}

/// The stack's configuration with these targets, scraped every second. A job that is not named has no target.
fn configuration(jobs: &[(&str, &str)]) -> String {
    let mut config = text(&folder().join("prometheus.yml")).replace("15s", "1s");
    for role in Role::ALL {
        let target = format!("\"{role}:9464\"");
        assert!(config.contains(&target), "prometheus.yml does not scrape {role}");
        let url = jobs.iter().find_map(|(job, url)| (*job == role.as_str()).then_some(*url));
        let address = url.map(|url| format!("\"{}\"", url.trim_start_matches("http://"))).unwrap_or_default();
        config = config.replace(&target, &address);
    }
    config
}

/// A private Prometheus server.
pub struct Prometheus {
    child: Child,
    pub url: String,
    data: PathBuf,
}

impl Prometheus {
    /// Scrapes these processes with the stack's configuration, but every second.
    fn over(users: &RoleProcess, wallet: &RoleProcess) -> Self {
        let rules = text(&folder().join("alerts.yml"));
        Self::scraping(&[("users", &users.url()), ("wallet", &wallet.url())], &rules)
    }

    /// Scrapes these jobs at these URLs with the stack's configuration, but every second and with other rules.
    pub fn scraping(jobs: &[(&str, &str)], rules: &str) -> Self {
        let port = free_port();
        let data = std::env::temp_dir().join(format!("purse-prometheus-{}-{port}", std::process::id()));
        fs::create_dir_all(&data).expect("a folder");
        fs::write(data.join("prometheus.yml"), configuration(jobs)).expect("written");
        fs::write(data.join("alerts.yml"), rules).expect("written");
        let mut command = Command::new(program("prometheus"));
        command.current_dir(&data).args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"]);
        command.arg(format!("--web.listen-address=127.0.0.1:{port}")).stdin(Stdio::null());
        command.stdout(Stdio::null()).stderr(fs::File::create(data.join("log")).expect("a log"));
        let child = command.spawn().expect("prometheus");
        Self { child, url: format!("http://127.0.0.1:{port}"), data }
    }

    /// Scrapes these jobs from now on.
    pub fn scrape(&self, jobs: &[(&str, &str)]) {
        fs::write(self.data.join("prometheus.yml"), configuration(jobs)).expect("written");
        kill_process(Pid::from_child(&self.child), Signal::HUP).expect("signalled");
    }

    async fn get(&self, path: &str) -> Option<Value> {
        let response = reqwest::get(format!("{}{path}", self.url)).await.ok()?;
        serde_json::from_str(&response.text().await.ok()?).ok()
    }

    /// Whether a query returns at least one number.
    pub async fn has_data(&self, query: &str) -> bool {
        let Some(response) = self.get(&format!("/api/v1/query?query={}", encoded(query))).await else { return false };
        assert_ne!(response["status"], "error", "{query}: {response}");
        let results = response["data"]["result"].as_array().cloned().unwrap_or_default();
        let numbers = results.iter().filter_map(|result| result["value"][1].as_str()?.parse::<f64>().ok());
        numbers.into_iter().any(f64::is_finite)
    }

    #[expect(clippy::float_arithmetic, reason = "a picture has coordinates")]
    /// Every series of a query over the last `seconds`, with times from 0 and a name in this format.
    async fn series(&self, query: &str, legend: &str, seconds: i64) -> Vec<Line> {
        let end = jiff::Timestamp::now().as_second();
        let path = format!("/api/v1/query_range?query={}&start={}&end={end}&step=1", encoded(query), end - seconds);
        let response = self.get(&path).await.unwrap_or_default();
        let begin = f64::from(u32::try_from(end - seconds).expect("a time"));
        let point = |pair: &Value| Some((pair[0].as_f64()? - begin, pair[1].as_str()?.parse().ok()?));
        let results = response["data"]["result"].as_array().cloned().unwrap_or_default();
        let line = |result: &Value| Line {
            name: named(legend, &result["metric"]),
            points: result["values"].as_array().into_iter().flatten().filter_map(point).collect(),
        };
        results.iter().map(line).collect()
    }

    /// Pending and firing alerts.
    pub async fn alerts(&self) -> BTreeSet<String> {
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
    let mut empty: Vec<Query> = Role::ALL.into_iter().flat_map(queries).collect();
    assert!(empty.len() > 30, "only {} queries", empty.len());

    let mut known = BTreeSet::new();
    load(&client).await;
    for process in [&users, &wallet] {
        known.extend(Scrape::of(&process.url()).await.families().into_iter().map(|family| family.name));
    }
    let rules = text(&folder().join("alerts.yml"));
    let used: BTreeSet<_> = empty.iter().flat_map(|query| names(&query.expression)).chain(names(&rules)).collect();
    assert_eq!(used.difference(&known).collect::<Vec<_>>(), Vec::<&String>::new(), "metrics that no role exports");
    assert_eq!(known.difference(&used).collect::<Vec<_>>(), Vec::<&String>::new(), "metrics that no panel uses");

    let until = std::time::Instant::now() + PATIENCE;
    while !empty.is_empty() {
        assert!(std::time::Instant::now() < until, "panels without data:\n{empty:#?}");
        load(&client).await;
        let mut still = Vec::new();
        for query in empty {
            if !prometheus.has_data(&real(&query.expression)).await {
                still.push(query);
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
        for Query { panel: title, unit, legend, expression } in queries(role) {
            let lines = prometheus.series(&real(&expression), &legend, PICTURE_S).await;
            match panels.last_mut().filter(|panel| panel.title == title) {
                Some(panel) => panel.lines.extend(lines),
                None => panels.push(Panel { title, unit, lines }),
            }
        }
        render_panels(&folder.join(format!("dashboard-{role}.svg")), &panels);
    }
}
