//! docker/caddy/Caddyfile in front of real roles: TLS, and client addresses that cannot be forged.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use purse::kernel::Role;

use crate::support::world::kill_with_us;
use crate::support::{PATIENCE, RoleProcess, World, eventually, free_port};

/// `caddy`, which may be in the cache of tools.
fn caddy() -> PathBuf {
    let home = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| !path.as_os_str().is_empty());
    let cache = home("XDG_CACHE_HOME").or_else(|| Some(home("HOME")?.join(".cache"))).expect("HOME");
    let path = std::env::var_os("PATH").expect("PATH");
    let mut places = std::env::split_paths(&path).chain([cache.join("purse/tools/caddy/usr/bin")]);
    places
        .find_map(|folder| Some(folder.join("caddy")).filter(|program| program.exists()))
        .expect("caddy: ./justw test-tools installs it")
}

/// The proxy of a test; dropping it ends it.
struct Proxy {
    child: Child,
    folder: PathBuf,
    http: u16,
    https: u16,
}

impl Proxy {
    async fn start(users: &RoleProcess, wallet: &RoleProcess) -> Self {
        let (http, https) = (free_port(), free_port());
        let folder = std::env::temp_dir().join(format!("purse-caddy-{}-{https}", std::process::id()));
        fs::create_dir_all(&folder).expect("folder");
        let log = fs::File::create(folder.join("log")).expect("log");
        let child = Command::new(caddy())
            .args(["run", "--adapter", "caddyfile", "--config", "docker/caddy/Caddyfile"])
            .env_clear()
            // The authority and its certificates.
            .env("XDG_DATA_HOME", &folder)
            .env("XDG_CONFIG_HOME", &folder)
            .env("HOME", &folder)
            .env("LISTEN_HTTP", http.to_string())
            .env("LISTEN_HTTPS", https.to_string())
            .env("USERS_UPSTREAM", users.url().trim_start_matches("http://"))
            .env("WALLET_UPSTREAM", wallet.url().trim_start_matches("http://"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("caddy");
        kill_with_us(child.id());
        let proxy = Self { child, folder, http, https };
        eventually(PATIENCE, "the proxy has a certificate", || async {
            (proxy.curl("127.0.0.1", &proxy.https("users", "/openapi.json"), &[]).0 == "200").then_some(())
        })
        .await;
        proxy
    }

    fn https(&self, role: &str, path: &str) -> String {
        format!("https://{role}.localhost:{}{path}", self.https)
    }

    /// Sends a request from this address; returns the status, and the headers with the body.
    fn curl(&self, from: &str, url: &str, arguments: &[&str]) -> (String, String) {
        let mut command = Command::new("curl");
        command.args(["--silent", "--include", "--max-time", "30", "--interface", from, "--noproxy", "*"]);
        command.arg("--cacert").arg(self.folder.join("caddy/pki/authorities/local/root.crt"));
        for role in Role::ALL {
            for port in [self.http, self.https] {
                command.args(["--resolve", &format!("{role}.localhost:{port}:127.0.0.1")]);
            }
        }
        let output = command.args(["--write-out", "\n%{http_code}"]).args(arguments).arg(url).output().expect("curl");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        let (response, status) = printed.rsplit_once('\n').unwrap_or_default();
        (status.to_owned(), response.to_owned())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

const JSON: [&str; 2] = ["--header", "content-type: application/json"];

#[tokio::test(flavor = "multi_thread")]
async fn behind_the_proxy_a_client_is_limited_by_its_own_address_whatever_it_claims() {
    let world = World::new().await;
    let limited = [
        ("RATE_LIMIT_ENABLED", "true"),
        ("RL_LOGIN_MAX", "2"),
        ("RL_LOGIN_WINDOW", "1h"),
        ("TRUSTED_PROXIES", "127.0.0.1/32"),
    ];
    let (users, wallet) = (world.start_with(Role::Users, &limited).await, world.start(Role::Wallet).await);
    let proxy = Proxy::start(&users, &wallet).await;
    let log_in = |from: &str, claimed: &str| {
        let body = format!(r#"{{"email":"nobody-{}@example.com","password":"not the password"}}"#, fastrand::u32(..));
        let header = format!("x-forwarded-for: {claimed}");
        let arguments = [&JSON[..], &["--header", &header, "--data", &body]].concat();
        proxy.curl(from, &proxy.https("users", "/v1/auth/login"), &arguments).0
    };
    assert_eq!(["10.0.0.1", "10.0.0.2", "10.0.0.3"].map(|claimed| log_in("127.0.0.2", claimed)), ["401", "401", "429"]);
    assert_eq!(log_in("127.0.0.3", "127.0.0.2"), "401", "another client has a limit of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_serves_both_apis_over_tls_and_neither_metrics_nor_probes() {
    let world = World::new().await;
    let (users, wallet, _client) = world.both().await;
    let proxy = Proxy::start(&users, &wallet).await;
    let send =
        |role: &str, path: &str, arguments: &[&str]| proxy.curl("127.0.0.1", &proxy.https(role, path), arguments);
    let person =
        r#"{"firstName":"Ada","lastName":"Lovelace","email":"ada@example.com","password":"correct horse battery"}"#;
    let (status, response) = send("users", "/v1/auth/register", &[&JSON[..], &["--data", person]].concat());
    assert_eq!(status, "201", "{response}");
    assert!(response.contains("strict-transport-security: max-age=31536000"), "{response}");
    let token = response.split("\"accessToken\":\"").nth(1).and_then(|rest| rest.split('"').next()).expect("token");
    let authorization = format!("authorization: Bearer {token}");
    let (status, response) = send("wallet", "/v1/wallet/status?wait=30", &["--header", &authorization]);
    assert_eq!(status, "200", "{response}");
    let key = ["--header", &authorization, "--header", "idempotency-key: once", "--data", r#"{"amountMinor":70}"#];
    let (status, response) = send("wallet", "/v1/transactions/credit", &[&JSON[..], &key].concat());
    assert!(status == "201" && response.contains("\"balanceAfterMinor\":70"), "{status}: {response}");
    for role in ["users", "wallet"] {
        for path in ["/metrics", "/health/live", "/health/ready"] {
            assert_eq!(send(role, path, &[]).0, "404", "{role}{path}");
        }
        let plain = format!("http://{role}.localhost:{}/v1/balance", proxy.http);
        let (status, response) = proxy.curl("127.0.0.1", &plain, &[]);
        let secure = format!("location: https://{role}.localhost");
        assert!(status == "308" && response.to_lowercase().contains(&secure), "{status}: {response}");
    }
}
