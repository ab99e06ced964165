//! A real headless browser, driven over the WebDriver protocol.
//!
//! The few commands needed go through the tests' HTTP client. Of the WebDriver libraries, one enables `serde_json`'s
//! `preserve_order` for the whole build and so changes what is tested; the other adds a second HTTP stack.
//!
//! # Source
//! W3C WebDriver §8 to §17.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use serde_json::{Value, json};

use super::{PATIENCE, eventually};

/// The key of an element's id in the protocol's JSON.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// Program names, and one absolute path.
const CHROME: [&str; 3] = ["chromium", "google-chrome", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"];
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A browser with one window; dropping it closes the browser.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    profile: PathBuf,
    http: reqwest::Client,
    clicks: AtomicU32,
}

/// The path that the environment variable names, or the first of these programs on the `PATH`.
fn program(variable: &str, names: &[&str]) -> PathBuf {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let searched = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let found = named.into_iter().chain(searched).find(|candidate| candidate.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "this test needs a real browser, and {} is missing. Run `just test-tools` to install Chromium and its driver \
             (Debian: apt-get install chromium chromium-driver), or set {variable}.",
            names[0]
        )
    })
}

impl Browser {
    pub async fn start() -> Self {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let profile = std::env::temp_dir().join(format!("purse-browser-{}-{number}", std::process::id()));
        fs::create_dir_all(&profile).expect("created");
        let mut driver = Command::new(program("CHROMEDRIVER", &["chromedriver", "chromium.chromedriver"]))
            .arg("--port=0")
            // What Chromium leaves there when it is killed is deleted with the profile.
            .env("TMPDIR", &profile)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver");
        let mut lines = BufReader::new(driver.stdout.take().expect("stdout")).lines().map_while(Result::ok);
        let port =
            lines.find_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok());
        let port = port.expect("chromedriver prints its port");
        let mut browser = Self {
            driver,
            port,
            session: String::new(),
            profile,
            http: reqwest::Client::new(),
            clicks: AtomicU32::new(0),
        };
        let mut arguments = vec![
            "--headless".to_owned(),
            "--no-sandbox".to_owned(),
            "--disable-gpu".to_owned(),
            "--disable-dev-shm-usage".to_owned(),
            "--disable-quic".to_owned(),
            "--no-first-run".to_owned(),
            "--no-proxy-server".to_owned(),
            "--disable-background-networking".to_owned(),
            "--disable-component-update".to_owned(),
            "--disable-sync".to_owned(),
            "--hide-scrollbars".to_owned(),
            "--window-size=1200,1000".to_owned(),
        ];
        arguments.push(format!("--user-data-dir={}", browser.profile.display()));
        let options = json!({"args": arguments, "binary": program("CHROME", &CHROME)});
        let capabilities = json!({"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}});
        let created =
            browser.call(Method::POST, "/session", &json!({"capabilities": {"alwaysMatch": capabilities}})).await;
        created["sessionId"].as_str().expect("a session").clone_into(&mut browser.session);
        browser
    }

    async fn call(&self, method: Method, path: &str, body: &Value) -> Value {
        self.try_call(method, path, body).await.unwrap_or_else(|e| panic!("{path} {body}: {e}"))
    }

    async fn try_call(&self, method: Method, path: &str, body: &Value) -> Result<Value, String> {
        let request = self.http.request(method.clone(), format!("http://127.0.0.1:{}{path}", self.port));
        let request = if method == Method::POST { request.json(body) } else { request };
        let response = request.send().await.expect("a response from the driver");
        let succeeded = response.status().is_success();
        let mut body: Value = response.json().await.expect("JSON");
        let value = body["value"].take();
        if succeeded { Ok(value) } else { Err(value["message"].as_str().unwrap_or_default().to_owned()) }
    }

    async fn command(&self, path: &str, body: &Value) -> Value {
        self.call(Method::POST, &format!("/session/{}{path}", self.session), body).await
    }

    async fn read(&self, path: &str) -> Value {
        self.call(Method::GET, &format!("/session/{}{path}", self.session), &Value::Null).await
    }

    pub async fn open(&self, url: &str) {
        self.command("/url", &json!({"url": url})).await;
    }

    pub async fn url(&self) -> String {
        self.read("/url").await.as_str().expect("a URL").to_owned()
    }

    /// Waits until an element matching the selector is visible, and returns its id.
    async fn element(&self, css: &str) -> String {
        let find = format!("/session/{}/element", self.session);
        eventually(PATIENCE, &format!("the page shows {css}"), || async {
            let found =
                self.try_call(Method::POST, &find, &json!({"using": "css selector", "value": css})).await.ok()?;
            let id = found[ELEMENT].as_str()?.to_owned();
            let shown = format!("/session/{}/element/{id}/displayed", self.session);
            let shown = self.try_call(Method::GET, &shown, &Value::Null).await.ok()?;
            (shown == true).then_some(id)
        })
        .await
    }

    /// Scrolls to the element and clicks it, as soon as nothing covers it.
    pub async fn click(&self, css: &str) {
        eventually(PATIENCE, &format!("{css} can be clicked"), || async {
            let element = self.element(css).await;
            let script = "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})";
            let scroll = json!({"script": script, "args": [{ELEMENT: element}]});
            let session = format!("/session/{}", self.session);
            self.try_call(Method::POST, &format!("{session}/execute/sync"), &scroll).await.ok()?;
            self.try_call(Method::POST, &format!("{session}/element/{element}/click"), &json!({})).await.ok()
        })
        .await;
        self.clicks.fetch_add(1, Ordering::Relaxed);
    }

    /// Clicks so far.
    pub fn clicks(&self) -> u32 {
        self.clicks.load(Ordering::Relaxed)
    }

    /// The tab that was opened last; earlier ones keep running.
    pub async fn switch_to_newest_tab(&self) {
        let current = self.read("/window").await;
        let newest = eventually(PATIENCE, "a tab was opened", || async {
            let tabs = self.read("/window/handles").await;
            tabs.as_array()?.last().filter(|tab| **tab != current).cloned()
        })
        .await;
        self.command("/window", &json!({"handle": newest})).await;
    }

    /// The value of a form field.
    pub async fn value(&self, css: &str) -> String {
        let path = format!("/element/{}/property/value", self.element(css).await);
        self.read(&path).await.as_str().expect("a value").to_owned()
    }

    pub async fn text(&self, css: &str) -> String {
        let path = format!("/element/{}/text", self.element(css).await);
        self.read(&path).await.as_str().expect("a text").to_owned()
    }

    /// Returns the script's result.
    pub async fn run(&self, script: &str) -> Value {
        self.command("/execute/sync", &json!({"script": script, "args": []})).await
    }

    /// Returns what the script passes to its last argument, a function.
    pub async fn run_async(&self, script: &str) -> Value {
        self.command("/execute/async", &json!({"script": script, "args": []})).await
    }

    /// What the system prefers: `light` or `dark`.
    pub async fn colour_scheme(&self, scheme: &str) {
        let features = json!([{"name": "prefers-color-scheme", "value": scheme}]);
        let parameters = json!({"cmd": "Emulation.setEmulatedMedia", "params": {"features": features}});
        self.command("/goog/cdp/execute", &parameters).await;
    }

    /// Console messages since the last call.
    pub async fn console(&self) -> Vec<String> {
        let log = self.command("/se/log", &json!({"type": "browser"})).await;
        log.as_array().into_iter().flatten().map(|entry| entry["message"].to_string()).collect()
    }

    pub async fn screenshot(&self, file: &Path) {
        let png = self.read("/screenshot").await;
        let bytes = STANDARD.decode(png.as_str().expect("a screenshot")).expect("base64");
        fs::create_dir_all(file.parent().expect("a folder")).expect("the folder");
        fs::write(file, bytes).expect("written");
    }
}

impl Drop for Browser {
    /// Only the driver can close the browser, so it is asked to before it is killed.
    fn drop(&mut self) {
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            let _ = stream.set_read_timeout(Some(PATIENCE));
            let path = format!("/session/{}", self.session);
            let _ = write!(stream, "DELETE {path} HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\n\r\n");
            let _ = stream.read(&mut [0; 16]);
        }
        let _ = self.driver.kill();
        let _ = self.driver.wait();
        let _ = fs::remove_dir_all(&self.profile);
    }
}
