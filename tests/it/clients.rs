//! The clients of `docs/clients`, packed, installed, and used against real roles and in a real browser.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use purse::kernel::Role;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::OnceCell;

use crate::openapi::{printed, purse};
use crate::support::repository::{root, text};
use crate::support::{Browser, LossyProxy, PATIENCE, World, eventually};

/// The folder of this test process: packages, and where they are installed.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("clients")
}

/// Ends a program that takes too long. What a program prints has to fit into a pipe.
fn output(mut command: Command) -> Output {
    let about = format!("{command:?}");
    let command = command.env("no_proxy", "*").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let started = command.spawn();
    let mut child =
        started.unwrap_or_else(|e| panic!("{about}: {e}. Run `just test-tools`, which installs Node, npm and Python."));
    let end = Instant::now() + 4 * PATIENCE;
    while child.try_wait().expect("a child").is_none() {
        if Instant::now() > end {
            child.kill().expect("killed");
            panic!("{about} did not end");
        }
        thread::sleep(Duration::from_millis(20));
    }
    child.wait_with_output().expect("its output")
}

async fn succeeded(command: Command) -> String {
    let about = format!("{command:?}");
    let ran = tokio::task::spawn_blocking(move || output(command)).await.expect("thread");
    let (printed, errors) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(ran.status.success(), "{about}:\n{printed}\n{errors}");
    printed.into_owned()
}

/// Packs both clients and installs the packages, once per test process; returns the folder.
async fn installed() -> &'static Path {
    static INSTALLED: OnceCell<PathBuf> = OnceCell::const_new();
    INSTALLED
        .get_or_init(|| async {
            let folder = folder();
            let _ = fs::remove_dir_all(&folder);
            let packs = folder.join("packs");
            let mut pack = Command::new(root().join("dev/scripts/clients.sh"));
            pack.arg(&packs);
            succeeded(pack).await;
            let version = env!("CARGO_PKG_VERSION");
            fs::write(folder.join("package.json"), "{}").expect("written");
            let mut npm = Command::new("npm");
            npm.args(["install", "--offline", "--no-audit", "--no-fund", "--silent", "--prefix"]).arg(&folder);
            npm.arg(packs.join(format!("purse-client-{version}.tgz")));
            succeeded(npm).await;
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "install", "--quiet", "--no-index", "--disable-pip-version-check", "--target"]);
            pip.arg(folder.join("python")).arg(packs.join(format!("purse_client-{version}-py3-none-any.whl")));
            succeeded(pip).await;
            for example in ["typescript/example.js", "python/example.py"] {
                let name = Path::new(example).file_name().expect("a name");
                fs::copy(root().join("docs/clients").join(example), folder.join(name)).expect("copied");
            }
            fs::write(folder.join("package.json"), r#"{"type": "module"}"#).expect("written");
            folder
        })
        .await
}

#[derive(Clone, Copy, Debug)]
pub enum Language {
    TypeScript,
    Python,
}

impl Language {
    /// A program that runs in the folder of the installed packages.
    async fn command(self, arguments: &[&str]) -> Command {
        let folder = installed().await;
        let mut command = Command::new(match self {
            Self::TypeScript => "node",
            Self::Python => "python3",
        });
        command.current_dir(folder).args(arguments).env("PYTHONPATH", folder.join("python"));
        command
    }

    /// Runs a program given as text; returns what it prints.
    pub async fn run(self, program: &str, arguments: &[&str]) -> String {
        let flags = match self {
            Self::TypeScript => &["--input-type=module", "--eval", program][..],
            Self::Python => &["-c", program],
        };
        succeeded(self.command(&[flags, arguments].concat()).await).await
    }
}

/// Runs the example through a lost registration, a wallet that does not exist yet, a lost credit and a rate limit.
async fn assert_example_survives_failures(language: Language, file: &str) {
    let world = World::new().await;
    // This users role cannot reach its broker, so the wallet is created only after another process relays the event.
    let without_broker = world.spawn(Role::Users, &[("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:9/%2f")]).await;
    let limits = [("RATE_LIMIT_ENABLED", "true"), ("RL_TX_MAX", "2"), ("RL_TX_WINDOW", "2s")];
    let wallet = world.start_with(Role::Wallet, &limits).await;
    let registration = LossyProxy::to(&without_broker.url(), "POST /v1/auth/register ").await;
    let credit = LossyProxy::to(&wallet.url(), "POST /v1/transactions/credit ").await;

    let command = language.command(&[file, &registration.url, &credit.url]).await;
    let ran = tokio::spawn(succeeded(command));
    eventually(PATIENCE, "the client waits at the gate", || async {
        let waits = wallet.log().iter().any(|line| line["route"] == "/v1/wallet/status" && line["status"] == 503);
        (waits || ran.is_finished()).then_some(())
    })
    .await;
    assert!(!ran.is_finished(), "the client did not wait for its wallet: {:?}", ran.await);
    let _relay = world.start(Role::Users).await;

    let printed: Value = serde_json::from_str(&ran.await.expect("ran")).expect("JSON");
    let expected =
        json!({"balanceMinor": 1100, "amounts": [400, 500, 400, 300, 200, 100], "rejected": "INSUFFICIENT_FUNDS"});
    assert_eq!(printed, expected, "{language:?}");
    assert_eq!((registration.lost(), credit.lost()), (1, 1), "no response was lost, so nothing was retried");
    let posts = |status: u16| {
        let log = wallet.log();
        log.iter().filter(|line| line["method"] == "POST" && line["status"] == status).count()
    };
    assert_eq!((posts(201), posts(200), posts(409)), (6, 1, 1), "{language:?}: created, replayed, rejected");
    assert!(posts(429) >= 1, "{language:?}: the limit was never reached");
    assert_eq!(world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await, "6");
    assert_eq!(world.sql(Role::Users, "SELECT count(*) FROM users").await, "1");
}

#[tokio::test]
async fn the_python_client_waits_retries_and_paginates() {
    assert_example_survives_failures(Language::Python, "example.py").await;
}

#[tokio::test]
async fn the_typescript_client_waits_retries_and_paginates() {
    assert_example_survives_failures(Language::TypeScript, "example.js").await;
}

/// The code blocks of a client's README that are in its language, one after the other.
fn shown(readme: &str, fence: &str) -> String {
    let readme = text(readme);
    let start = format!("```{fence}\n");
    let blocks = readme.split(&start).skip(1).filter_map(|rest| rest.split_once("```"));
    let blocks: Vec<_> = blocks.map(|(block, _)| block).collect();
    assert_eq!(blocks.len(), 2, "{readme}");
    blocks.concat()
}

#[tokio::test]
async fn the_readme_of_each_client_shows_a_program_that_runs() {
    for (language, readme, fence) in [
        (Language::TypeScript, "docs/clients/typescript/README.md", "js"),
        (Language::Python, "docs/clients/python/README.md", "python"),
    ] {
        let world = World::new().await;
        let (users, wallet, _client) = world.both().await;
        let program = shown(readme, fence);
        assert!(program.contains("http://localhost:3002") && program.contains("http://localhost:3001"), "{program}");
        let program = program.replace("http://localhost:3002", &users.url());
        let program = program.replace("http://localhost:3001", &wallet.url());
        // Node 18 has this global only there.
        let webcrypto = "import { webcrypto } from 'node:crypto'; globalThis.crypto ??= webcrypto;\n";
        let before = if matches!(language, Language::TypeScript) { webcrypto } else { "" };
        language.run(&format!("{before}{program}"), &[]).await;
        let posted = "SELECT type || ' ' || amount_minor || ' ' || idempotency_key FROM transactions";
        assert_eq!(world.sql(Role::Wallet, posted).await, "credit 1500 order-17", "{language:?}");
    }
}

/// A server that returns, for each scenario (the first part of the path), one response after the other, and the last one
/// again and again. An empty response closes the connection; `hang` never
/// responds, and `drip` never completes its response.
struct Scripted {
    url: String,
    requests: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Scripted {
    async fn start(scenarios: &'static [(&'static str, &'static [&'static str])]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
        let url = format!("http://{}", listener.local_addr().expect("address"));
        let requests = Arc::<Mutex<BTreeMap<String, usize>>>::default();
        let counted = Arc::clone(&requests);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let counted = Arc::clone(&counted);
                tokio::spawn(async move { respond(client, scenarios, &counted).await });
            }
        });
        Self { url, requests }
    }

    /// How often a call of a scenario was sent.
    fn sent(&self, scenario: &str, call: &str) -> usize {
        self.requests.lock().expect("counts").get(&format!("{scenario}/{call}")).copied().unwrap_or_default()
    }
}

async fn respond(
    mut client: TcpStream,
    scenarios: &[(&str, &[&str])],
    counted: &Mutex<BTreeMap<String, usize>>,
) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_lowercase();
    let length = head.split_once("content-length: ").and_then(|(_, rest)| rest.split("\r\n").next()?.parse().ok());
    client.read_exact(&mut vec![0; length.unwrap_or(0)]).await?;
    let mut parts = head.split(' ').nth(1).unwrap_or_default().split('/').skip(1);
    let (scenario, call) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let earlier = {
        let mut counts = counted.lock().expect("counts");
        let count = counts.entry(format!("{scenario}/{call}")).or_default();
        *count += 1;
        *count - 1
    };
    let (_, responses) = scenarios.iter().find(|(name, _)| *name == scenario).expect("a scenario");
    match *responses.get(earlier).or(responses.last()).expect("a response") {
        "hang" => std::future::pending().await,
        "drip" => {
            client.write_all(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n").await?;
            loop {
                client.write_all(b" ").await?;
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
        response => client.write_all(response.as_bytes()).await,
    }
}

const DONE: &str = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\n{}";
const OVERLOADED: &str = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 0\r\n\r\n\
                          {\"code\": \"OVERLOADED\", \"message\": \"Overloaded.\"}";
const LIMITED: &str = "HTTP/1.1 429 Too Many Requests\r\nconnection: close\r\nretry-after: 0\r\n\r\n\
                       {\"code\": \"RATE_LIMITED\", \"message\": \"Wait.\"}";
const UNKNOWN: &str = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 0\r\n\r\n\
                       {\"code\": \"OUTCOME_UNKNOWN\", \"message\": \"Unknown.\"}";
const LONG_WAIT: &str = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\nretry-after: 3600\r\n\r\n\
                         {\"code\": \"OVERLOADED\", \"message\": \"Overloaded.\"}";
const GATEWAY: &str = "HTTP/1.1 502 Bad Gateway\r\nconnection: close\r\n\r\n<h1>Bad Gateway</h1>";
const BUG: &str = "HTTP/1.1 500 Internal Server Error\r\nconnection: close\r\nx-request-id: r-1\r\n\r\n\
                   {\"code\": \"INTERNAL_ERROR\", \"message\": \"A bug.\"}";
const INVALID: &str = "HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n\
    {\"code\": \"VALIDATION_ERROR\", \"message\": \"Invalid.\", \"details\": [{\"field\": \"a\", \"message\": \"b\"}]}";
const REDIRECT: &str =
    "HTTP/1.1 307 Temporary Redirect\r\nconnection: close\r\nlocation: /redirected/get/v1/balance\r\n\r\n";
const DATED: &str = "HTTP/1.1 503 Service Unavailable\r\nconnection: close\r\n\
                     retry-after: Fri, 31 Dec 9999 23:59:59 GMT\r\n\r\n";

/// The responses of a scenario; how often a read, a post with a key and one without are then sent; and their error.
type Scenario = (&'static str, &'static [&'static str], [usize; 3], &'static str);

const SCENARIOS: &[Scenario] = &[
    ("dropped", &["", DONE], [2, 2, 1], "NoResponseError"),
    ("gateway", &[GATEWAY, DONE], [2, 2, 1], "502 UNEXPECTED_RESPONSE"),
    ("unknown", &[UNKNOWN, DONE], [2, 2, 1], "503 OUTCOME_UNKNOWN"),
    ("overloaded", &[OVERLOADED, OVERLOADED, DONE], [3, 3, 3], ""),
    ("limited", &[LIMITED, DONE], [2, 2, 2], ""),
    ("bug", &[BUG], [1, 1, 1], "500 INTERNAL_ERROR r-1"),
    ("invalid", &[INVALID], [1, 1, 1], "400 VALIDATION_ERROR a"),
    ("redirect", &[REDIRECT], [1, 1, 1], "307 UNEXPECTED_RESPONSE"),
    ("redirected", &[DONE], [1, 1, 1], ""),
    // The next attempt would start too late.
    ("long", &[LONG_WAIT], [1, 1, 1], "503 OVERLOADED"),
    ("dated", &[DATED], [1, 1, 1], "503 UNEXPECTED_RESPONSE"),
];

/// Calls each scenario in each way; prints an object of the errors.
const CALLS: [(Language, &str); 2] = [
    (
        Language::TypeScript,
        r#"
import { ApiError, Purse, PurseError } from "@purse/client";
const [server, ...scenarios] = process.argv.slice(1);
const calls = {
  get: (purse) => purse.getBalance(),
  keyed: (purse) => purse.creditWallet({ amountMinor: 1 }, { idempotencyKey: "k" }),
  keyless: (purse) => purse.creditWallet({ amountMinor: 1 }, { idempotencyKey: null }),
};
const errors = {};
for (const scenario of scenarios) {
  for (const [name, call] of Object.entries(calls)) {
    try {
      await call(new Purse({ users: server, wallet: `${server}/${scenario}/${name}/` }));
    } catch (error) {
      if (!(error instanceof PurseError)) throw error;
      const parts = [error.status, error.code, error.requestId, error.details?.[0]?.field];
      errors[`${scenario}/${name}`] = error instanceof ApiError ? parts.filter(Boolean).join(" ") : error.name;
    }
  }
}
console.log(JSON.stringify(errors));
"#,
    ),
    (
        Language::Python,
        r#"
import json, sys
from purse_client import ApiError, Purse, PurseError
server, *scenarios = sys.argv[1:]
calls = {
    "get": lambda purse: purse.get_balance(),
    "keyed": lambda purse: purse.credit_wallet(1, idempotency_key="k"),
    "keyless": lambda purse: purse.credit_wallet(1, idempotency_key=None),
}
errors = {}
for scenario in scenarios:
    for name, call in calls.items():
        try:
            call(Purse(server, f"{server}/{scenario}/{name}/"))
        except ApiError as error:
            field = error.details[0]["field"] if error.details else None
            parts = [str(error.status), error.code, error.request_id, field]
            errors[f"{scenario}/{name}"] = " ".join(part for part in parts if part)
        except PurseError as error:
            errors[f"{scenario}/{name}"] = type(error).__name__
print(json.dumps(errors))
"#,
    ),
];

#[tokio::test]
async fn a_client_retries_what_is_safe_to_retry_and_nothing_else() {
    const RESPONSES: &[(&str, &[&str])] = &{
        let mut responses: [(&str, &[&str]); SCENARIOS.len()] = [("", &[]); SCENARIOS.len()];
        let mut next = 0;
        while next < SCENARIOS.len() {
            responses[next] = (SCENARIOS[next].0, SCENARIOS[next].1);
            next += 1;
        }
        responses
    };
    let names: Vec<_> = SCENARIOS.iter().map(|(name, ..)| *name).collect();
    for (language, program) in CALLS {
        let server = Scripted::start(RESPONSES).await;
        let printed = language.run(program, &[&[server.url.as_str()], names.as_slice()].concat()).await;
        let errors: BTreeMap<String, String> = serde_json::from_str(&printed).expect("JSON");
        for (scenario, responses, expected, error) in SCENARIOS {
            for (call, expected) in ["get", "keyed", "keyless"].into_iter().zip(expected) {
                let about = format!("{language:?}: {scenario}/{call}");
                assert_eq!(server.sent(scenario, call), *expected, "{about}: requests");
                let failed = *expected < responses.len() || responses.last() != Some(&DONE);
                let expected = if failed { Some(*error) } else { None };
                assert_eq!(errors.get(&format!("{scenario}/{call}")).map(String::as_str), expected, "{about}");
            }
        }
    }
}

#[tokio::test]
async fn a_call_ends_after_its_timeout_and_after_the_time_for_retries() {
    const RESPONSES: &[(&str, &[&str])] = &[("hang", &["hang"]), ("drip", &["drip"]), ("busy", &[OVERLOADED])];
    for (language, program) in [
        (
            Language::TypeScript,
            r#"
import { Purse } from "@purse/client";
const server = process.argv[1];
const hang = new Purse({ users: server, wallet: `${server}/hang/get`, timeoutMs: 300, retryForMs: 0 });
await hang.getBalance().catch((error) => console.log(error.name));
const drip = new Purse({ users: server, wallet: `${server}/drip/get`, timeoutMs: 300, retryForMs: 0 });
await drip.getBalance().catch((error) => console.log(error.name));
const busy = new Purse({ users: server, wallet: `${server}/busy/get`, retryForMs: 1500 });
await busy.getBalance().catch((error) => console.log(error.code));
const aborted = AbortSignal.timeout(300);
const slow = new Purse({ users: server, wallet: `${server}/hang/aborted` });
await slow.getBalance({}, { signal: aborted }).catch((error) => console.log(error === aborted.reason));
"#,
        ),
        (
            Language::Python,
            r#"
import sys
from purse_client import Purse, PurseError
server = sys.argv[1]
hang = Purse(server, server + "/hang/get", timeout=0.3, retry_for=0)
drip = Purse(server, server + "/drip/get", timeout=0.3, retry_for=0)
for purse in [hang, drip, Purse(server, server + "/busy/get", retry_for=1.5)]:
    try:
        purse.get_balance()
    except PurseError as error:
        print(getattr(error, "code", type(error).__name__))
"#,
        ),
    ] {
        let server = Scripted::start(RESPONSES).await;
        let printed = language.run(program, &[&server.url]).await;
        let aborts = if matches!(language, Language::TypeScript) { "true\n" } else { "" };
        assert_eq!(printed, format!("NoResponseError\nNoResponseError\nOVERLOADED\n{aborts}"), "{language:?}");
        assert_eq!(server.sent("hang", "get"), 1, "{language:?}");
        assert!(server.sent("busy", "get") > 1, "{language:?}");
    }
}

#[tokio::test]
async fn registering_a_taken_address_is_an_error_and_with_the_same_key_the_same_user() {
    for (language, program) in [
        (
            Language::TypeScript,
            r#"
import { Purse } from "@purse/client";
const [users, wallet] = process.argv.slice(1);
const user = { firstName: "Ada", lastName: "Lovelace", email: "ada@example.com", password: "correct horse battery" };
const purse = new Purse({ users, wallet });
const first = await purse.registerUser(user, { idempotencyKey: "8d7e-1" });
console.log(first.user.email, (await purse.getCurrentUser()).firstName);
await purse.registerUser(user, { idempotencyKey: "8d7e-2" }).catch((error) => console.log(error.code));
console.log((await purse.registerUser(user, { idempotencyKey: "8d7e-1" })).user.id === first.user.id);
"#,
        ),
        (
            Language::Python,
            r#"
import sys
from purse_client import ApiError, Purse
user = dict(first_name="Ada", last_name="Lovelace", email="ada@example.com", password="correct horse battery")
purse = Purse(*sys.argv[1:3])
first = purse.register_user(**user, idempotency_key="8d7e-1")
print(first["user"]["email"], purse.get_current_user()["firstName"])
try:
    purse.register_user(**user, idempotency_key="8d7e-2")
except ApiError as error:
    print(error.code)
print(str(purse.register_user(**user, idempotency_key="8d7e-1")["user"]["id"] == first["user"]["id"]).lower())
"#,
        ),
    ] {
        let world = World::new().await;
        let (users, wallet, _client) = world.both().await;
        let printed = language.run(program, &[&users.url(), &wallet.url()]).await;
        assert_eq!(printed, "ada@example.com Ada\nEMAIL_EXISTS\ntrue\n", "{language:?}");
    }
}

#[test]
fn what_the_clients_take_from_the_document_is_up_to_date() {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("generated-clients");
    let document = folder.join("all.json");
    fs::create_dir_all(&folder).expect("folder");
    fs::write(&document, purse(&["openapi", "--role", "all"]).stdout).expect("written");
    let mut generate = Command::new("python3");
    generate.arg(root().join("docs/clients/generate.py")).arg(&folder);
    let ran = generate.stdin(fs::File::open(&document).expect("opened")).output().expect("python3");
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    for file in ["typescript/src/api.ts", "python/purse_client/api.py"] {
        let generated = fs::read_to_string(folder.join(file)).expect("generated");
        assert!(generated == text(&format!("docs/clients/{file}")), "{file} is not up to date: run `just clients`");
    }
}

/// Prints for each method of the Python clients its parameters, with a `?` after those that have a default.
const SIGNATURES: &str = r#"
import inspect, json
from purse_client import Purse, Wallet
print(json.dumps({
    client.__name__: {
        name: [p.name + ("" if p.default is p.empty else "?") for p in inspect.signature(method).parameters.values()]
        for name, method in inspect.getmembers(client, inspect.isfunction)
    }
    for client in [Purse, Wallet]
}))
"#;

/// Prints the methods of the TypeScript clients of a user and of a service.
const METHODS: &str = r#"
import { Purse, PurseService } from "@purse/client";
const methods = (object) => object === Object.prototype ? []
  : [...Object.getOwnPropertyNames(object), ...methods(Object.getPrototypeOf(object))];
const urls = { users: "http://users", wallet: "http://wallet" };
const service = new PurseService({ wallet: urls.wallet, serviceToken: "" });
console.log(JSON.stringify({ Purse: methods(Purse.prototype), Wallet: methods(Object.getPrototypeOf(service.walletOf("id"))) }));
"#;

/// The class and the method that have an operation: a service has the method of the user in another class.
fn method_of(operation_id: &str) -> (&'static str, &str) {
    operation_id.strip_suffix("ForUser").map_or(("Purse", operation_id), |method| ("Wallet", method))
}

#[tokio::test]
async fn the_typescript_client_has_every_operation_of_the_document() {
    let methods: BTreeMap<String, Vec<String>> =
        serde_json::from_str(&Language::TypeScript.run(METHODS, &[]).await).expect("JSON");
    let document = printed("all");
    assert!(document.operations().len() > 30, "{} operations", document.operations().len());
    for (_, path, operation) in document.operations() {
        let (class, method) = method_of(operation["operationId"].as_str().expect("an ID"));
        assert!(methods[class].iter().any(|name| name == method), "{class} has no {method}: {path}");
    }
}

/// `amountMinor` as `amount_minor`; a keyword gets an underscore.
fn snake_case(name: &str) -> String {
    let parts = name.chars().map(|c| if c.is_uppercase() { format!("_{}", c.to_lowercase()) } else { c.to_string() });
    let name = parts.collect::<String>();
    if name == "from" { name + "_" } else { name }
}

#[tokio::test]
async fn the_python_client_has_every_operation_with_every_parameter_of_the_document() {
    let signatures: BTreeMap<String, BTreeMap<String, Vec<String>>> =
        serde_json::from_str(&Language::Python.run(SIGNATURES, &[]).await).expect("JSON");
    let document = printed("all");
    for (_, path, operation) in document.operations() {
        let (class, method) = method_of(operation["operationId"].as_str().expect("an ID"));
        let name = snake_case(method);
        let parameters = signatures[class].get(&name).unwrap_or_else(|| panic!("{class} has no {name}: {path}"));
        let body = &operation["requestBody"]["content"]["application/json"]["schema"];
        let body = document.resolved(body);
        let required = |field: &String| body["required"].as_array().is_some_and(|all| all.contains(&json!(field)));
        let fields = body["properties"].as_object().into_iter().flat_map(|fields| fields.keys());
        let mut expected: Vec<String> = fields
            .map(|field| if required(field) { snake_case(field) } else { snake_case(field) + "?" })
            .chain(operation["parameters"].as_array().into_iter().flatten().filter_map(|parameter| {
                let name = parameter["name"].as_str()?;
                match parameter["in"].as_str()? {
                    "query" if parameter["required"] == true => Some(snake_case(name)),
                    "query" => Some(snake_case(name) + "?"),
                    // `PurseService.wallet_of` has it.
                    "path" if name == "userId" => None,
                    // Required, so that a caller decides about it.
                    "header" => Some(name.to_lowercase().replace('-', "_")),
                    _ => Some(name.to_owned()),
                }
            }))
            .chain(["self".to_owned()])
            // OpenAPI cannot describe the query parameters `metadata.<key>`.
            .chain((name == "list_transactions").then(|| "metadata?".to_owned()))
            .collect();
        let mut parameters = parameters.clone();
        parameters.sort();
        expected.sort();
        assert_eq!(parameters, expected, "{name}: {path}");
    }
}

#[tokio::test]
async fn a_credit_without_an_idempotency_key_and_an_unknown_field_do_not_pass_the_type_checkers() {
    let folder = installed().await;
    let tools = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| !path.as_os_str().is_empty());
    let home = || PathBuf::from(std::env::var_os("HOME").unwrap_or_else(|| "/tmp".into())).join(".cache");
    let tools = tools.unwrap_or_else(home).join("purse/tools");
    let path = format!("{}:{}", std::env::var("PATH").expect("PATH"), tools.join("bin").display());

    let typescript = r#"
import { Purse, ApiError, type Transaction } from "@purse/client";
const purse = new Purse({ users: "", wallet: "" });
export const credited: Promise<Transaction> = purse.creditWallet({ amountMinor: 1 }, { idempotencyKey: "k" });
export const isFunds = (error: ApiError): boolean => error.code === "INSUFFICIENT_FUNDS";
"#;
    let wrong = "purse.creditWallet({ amountMinor: 1 }, {});\npurse.creditWallet({ amount: 1 }, { idempotencyKey: null });\n\
                 purse.listTransactions({ type: \"refund\" });\n";
    for (file, program, problems) in [("right.ts", typescript, 0), ("wrong.ts", &(typescript.to_owned() + wrong), 3)] {
        fs::write(folder.join(file), program).expect("written");
        let mut tsc = Command::new("tsc");
        tsc.args(["--noEmit", "--strict", "--target", "ES2022", "--module", "NodeNext", file]);
        tsc.current_dir(folder).env("PATH", &path);
        let ran = printed_by(tsc).await;
        assert_eq!(ran.matches("error TS").count(), problems, "{file}: {ran}");
    }

    let python = "from purse_client import Purse\npurse = Purse('', '')\n\
                  balance: int = purse.credit_wallet(1, idempotency_key='k')['balanceAfterMinor']\n";
    let wrong =
        "purse.credit_wallet(1)\nprint(purse.get_balance()['balance'])\npurse.list_transactions(type='refund')\n";
    for (file, program, problems) in [("right.py", python, 0), ("wrong.py", &(python.to_owned() + wrong), 3)] {
        fs::write(folder.join(file), program).expect("written");
        let mut mypy = Command::new("python3");
        mypy.args(["-m", "mypy", "--strict", "--cache-dir", "mypy-cache", file]).current_dir(folder);
        let packages = std::env::join_paths([tools.join("mypy"), folder.join("python")]).expect("paths");
        mypy.env("PYTHONPATH", packages).env("MYPYPATH", folder.join("python"));
        let ran = printed_by(mypy).await;
        assert_eq!(ran.matches(" error: ").count(), problems, "{file}: {ran}");
    }
}

/// Standard output and standard error, whether the command succeeds or not.
async fn printed_by(command: Command) -> String {
    let ran = tokio::task::spawn_blocking(move || output(command)).await.expect("thread");
    String::from_utf8_lossy(&[ran.stdout, ran.stderr].concat()).into_owned()
}

#[test]
fn the_versions_of_the_clients_are_that_of_the_release() {
    let version = env!("CARGO_PKG_VERSION");
    assert!(text("docs/clients/typescript/package.json").contains(&format!("\n  \"version\": \"{version}\",\n")));
    assert!(text("docs/clients/python/pyproject.toml").contains(&format!("\nversion = \"{version}\"\n")));
}

/// Serves the installed packages and a page that can import them; returns its origin.
async fn page_with_the_client() -> String {
    let folder = installed().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("bound");
    let origin = format!("http://{}", listener.local_addr().expect("address"));
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(async move { serve(client, folder).await });
        }
    });
    origin
}

async fn serve(mut client: TcpStream, folder: &Path) -> std::io::Result<()> {
    const PAGE: &str = r#"<!doctype html><link rel="icon" href="data:,"><script type="importmap">
        {"imports": {"@purse/client": "/node_modules/@purse/client/dist/index.js"}}</script>
        <script type="module">
        import { example } from "/example.js"; import { Purse } from "@purse/client";
        Object.assign(window, { example, Purse });</script>"#;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head);
    let path = head.split(' ').nth(1).unwrap_or_default();
    let (media_type, body) = match path {
        "/" => ("text/html", PAGE.to_owned()),
        _ => ("text/javascript", fs::read_to_string(folder.join(path.trim_start_matches('/')))?),
    };
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {media_type}\r\ncontent-length: {}", body.len());
    client.write_all(format!("{head}\r\nconnection: close\r\n\r\n{body}").as_bytes()).await
}

#[tokio::test]
async fn the_typescript_client_runs_in_a_browser_on_a_page_of_another_origin() {
    let world = World::new().await;
    let origin = page_with_the_client().await;
    let allowed = [("CORS_ORIGINS", origin.as_str())];
    let without_broker = [&allowed[..], &[("RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:9/%2f")]].concat();
    let users = world.spawn(Role::Users, &without_broker).await;
    let limits = [("RATE_LIMIT_ENABLED", "true"), ("RL_TX_MAX", "2"), ("RL_TX_WINDOW", "2s")];
    let wallet = world.start_with(Role::Wallet, &[&allowed[..], &limits].concat()).await;
    let proxy = LossyProxy::to(&wallet.url(), "POST /v1/transactions/credit ").await;

    let browser = Browser::start().await;
    browser.open(&origin).await;
    let start = format!(
        "const start = () => window.example ? example('{}', '{}').then(
             result => window.result = result, error => window.result = String(error)) : setTimeout(start, 50);
         start()",
        users.url(),
        proxy.url
    );
    browser.run(&start).await;
    eventually(PATIENCE, "the page waits at the gate", || async {
        let log = wallet.log();
        log.iter().any(|line| line["route"] == "/v1/wallet/status" && line["status"] == 503).then_some(())
    })
    .await;
    assert_eq!(browser.run("return window.result ?? null").await, Value::Null);
    let _relay = world.start(Role::Users).await;
    let result = eventually(PATIENCE, "the page has a result", || async {
        Some(browser.run("return window.result ?? null").await).filter(|result| !result.is_null())
    })
    .await;
    let expected =
        json!({"balanceMinor": 1100, "amounts": [400, 500, 400, 300, 200, 100], "rejected": "INSUFFICIENT_FUNDS"});
    assert_eq!(result, expected);
    assert_eq!(proxy.lost(), 1);

    // A page of any other origin cannot use the roles.
    browser.open(&origin.replace("127.0.0.1", "localhost")).await;
    let call = format!(
        "const done = arguments[0];
         const call = () => window.Purse ? new Purse({{users: '{0}', wallet: '{0}', retryForMs: 0}}).getCurrentUser().then(
             () => done('allowed'), error => done(error.name)) : setTimeout(call, 50);
         call()",
        users.url()
    );
    assert_eq!(browser.run_async(&call).await, "NoResponseError");
    browser.open(&origin).await;
    assert_eq!(browser.run_async(&call).await, "ApiError");
}
