//! A real browser without a window, driven over the WebDriver protocol.
//!
//! A handful of its commands over the HTTP client that the tests have anyway. The libraries for it were looked at: one
//! switches `serde_json`'s `preserve_order` on for the whole build and so changes what is tested, the other brings a
//! second HTTP stack.
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

/// Where the protocol keeps the name of an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// Where a browser may be; a whole path stands for itself.
const CHROME: [&str; 3] = ["chromium", "google-chrome", "/Applications/Google Chrome.app/Contents/MacOS/Google Chrome"];
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A browser with one window; it ends with this value.
pub struct Browser {
    driver: Child,
    port: u16,
    session: String,
    profile: PathBuf,
    http: reqwest::Client,
}

/// The first of these programs that is there: a path from the environment, or a name to be looked for.
fn program(variable: &str, names: &[&str]) -> PathBuf {
    let named = std::env::var_os(variable).map(PathBuf::from);
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let searched = names.iter().flat_map(|name| folders.iter().map(move |folder| folder.join(name)));
    let found = named.into_iter().chain(searched).find(|candidate| candidate.is_file());
    found.unwrap_or_else(|| {
        panic!(
            "the page is tried in a real browser, and there is no {}. Type `just test-tools`, which installs Chromium \
             and its driver (Debian: apt-get install chromium chromium-driver), or name it with {variable}.",
            names[0]
        )
    })
}

impl Browser {
    pub async fn start() -> Self {
        let mut driver = Command::new(program("CHROMEDRIVER", &["chromedriver", "chromium.chromedriver"]))
            .arg("--port=0")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromedriver");
        let mut said = BufReader::new(driver.stdout.take().expect("stdout")).lines().map_while(Result::ok);
        let port = said.find_map(|line| line.split_once("successfully on port ")?.1.trim_end_matches('.').parse().ok());
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let profile = std::env::temp_dir().join(format!("purse-browser-{}-{number}", std::process::id()));
        let port = port.expect("chromedriver says its port");
        let mut browser = Self { driver, port, session: String::new(), profile, http: reqwest::Client::new() };
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
        let begun =
            browser.ask(Method::POST, "/session", &json!({"capabilities": {"alwaysMatch": capabilities}})).await;
        begun["sessionId"].as_str().expect("a session").clone_into(&mut browser.session);
        browser
    }

    async fn ask(&self, method: Method, path: &str, body: &Value) -> Value {
        self.try_ask(method, path, body).await.unwrap_or_else(|e| panic!("{path} {body}: {e}"))
    }

    async fn try_ask(&self, method: Method, path: &str, body: &Value) -> Result<Value, String> {
        let request = self.http.request(method.clone(), format!("http://127.0.0.1:{}{path}", self.port));
        let request = if method == Method::POST { request.json(body) } else { request };
        let response = request.send().await.expect("the driver answers");
        let succeeded = response.status().is_success();
        let mut answer: Value = response.json().await.expect("JSON");
        let value = answer["value"].take();
        if succeeded { Ok(value) } else { Err(value["message"].as_str().unwrap_or_default().to_owned()) }
    }

    async fn command(&self, path: &str, body: &Value) -> Value {
        self.ask(Method::POST, &format!("/session/{}{path}", self.session), body).await
    }

    async fn read(&self, path: &str) -> Value {
        self.ask(Method::GET, &format!("/session/{}{path}", self.session), &Value::Null).await
    }

    pub async fn open(&self, url: &str) {
        self.command("/url", &json!({"url": url})).await;
    }

    pub async fn url(&self) -> String {
        self.read("/url").await.as_str().expect("a URL").to_owned()
    }

    /// Waits until a person could see an element of this CSS selector; its name.
    async fn element(&self, css: &str) -> String {
        let find = format!("/session/{}/element", self.session);
        eventually(PATIENCE, &format!("the page shows {css}"), || async {
            let found =
                self.try_ask(Method::POST, &find, &json!({"using": "css selector", "value": css})).await.ok()?;
            let name = found[ELEMENT].as_str()?.to_owned();
            let shown = format!("/session/{}/element/{name}/displayed", self.session);
            let shown = self.try_ask(Method::GET, &shown, &Value::Null).await.ok()?;
            (shown == true).then_some(name)
        })
        .await
    }

    /// Scrolls to it and clicks, once nothing lies over it.
    pub async fn click(&self, css: &str) {
        eventually(PATIENCE, &format!("{css} can be clicked"), || async {
            let element = self.element(css).await;
            let script = "arguments[0].scrollIntoView({block: 'center', behavior: 'instant'})";
            let scroll = json!({"script": script, "args": [{ELEMENT: element}]});
            let session = format!("/session/{}", self.session);
            self.try_ask(Method::POST, &format!("{session}/execute/sync"), &scroll).await.ok()?;
            self.try_ask(Method::POST, &format!("{session}/element/{element}/click"), &json!({})).await.ok()
        })
        .await;
    }

    pub async fn write(&self, css: &str, text: &str) {
        let path = format!("/element/{}/value", self.element(css).await);
        self.command(&path, &json!({"text": text})).await;
    }

    /// What an element says.
    pub async fn text(&self, css: &str) -> String {
        let path = format!("/element/{}/text", self.element(css).await);
        self.read(&path).await.as_str().expect("a text").to_owned()
    }

    /// What a script returns.
    pub async fn run(&self, script: &str) -> Value {
        self.command("/execute/sync", &json!({"script": script, "args": []})).await
    }

    /// What the browser had to say about the page since it was last asked.
    pub async fn complaints(&self) -> Vec<String> {
        let said = self.command("/se/log", &json!({"type": "browser"})).await;
        said.as_array().into_iter().flatten().map(|entry| entry["message"].to_string()).collect()
    }

    /// A picture of the window.
    pub async fn picture(&self, file: &Path) {
        let picture = self.read("/screenshot").await;
        let bytes = STANDARD.decode(picture.as_str().expect("a picture")).expect("base64");
        fs::create_dir_all(file.parent().expect("a folder")).expect("the folder");
        fs::write(file, bytes).expect("the picture");
    }
}

impl Drop for Browser {
    /// The browser is ended by its driver, so the driver is asked before it ends itself.
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
