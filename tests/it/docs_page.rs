//! `/docs` in a real browser: what a newcomer can do by clicking, and what the page may not do.

use std::path::PathBuf;

use purse::kernel::Role;
use reqwest::Method;

use crate::support::{Browser, Client, RoleProcess, World, assert_error};

/// Starts both roles; the page of the users role links to that of the wallet role.
async fn roles(world: &World) -> (RoleProcess, RoleProcess) {
    let wallet = world.start(Role::Wallet).await;
    let users = world.start_with(Role::Users, &[("WALLET_PUBLIC_URL", &format!("{}/", wallet.url()))]).await;
    (users, wallet)
}

/// Opens an operation and executes it; returns status and body of the response.
async fn execute(browser: &Browser, operation: &str) -> (String, String) {
    let place = format!("#operations-{operation}");
    browser.click(&format!("{place} .opblock-summary-control")).await;
    browser.click(&format!("{place} button.execute")).await;
    let status = browser.text(&format!("{place} .live-responses-table tbody .response-col_status")).await;
    let body = browser.text(&format!("{place} .live-responses-table tbody .highlight-code code")).await;
    (status.trim().to_owned(), body)
}

async fn authorize(browser: &Browser, token: &str) {
    browser.click("button.authorize.unlocked").await;
    browser.write("#auth-bearer-value", token).await;
    browser.click(".modal-ux button.authorize[type=submit]").await;
    browser.click(".modal-ux button.btn-done").await;
}

/// Saves a picture for the documentation, if `PURSE_PICTURES` names a folder.
async fn picture(browser: &Browser, name: &str) {
    if let Some(folder) = std::env::var_os("PURSE_PICTURES") {
        browser.screenshot(&PathBuf::from(folder).join(format!("{name}.png"))).await;
    }
}

#[tokio::test]
async fn a_newcomer_can_register_and_credit_a_wallet_by_clicking() {
    let world = World::new().await;
    let (users, wallet) = roles(&world).await;
    let browser = Browser::start().await;

    browser.open(&format!("{}/docs", users.url())).await;
    picture(&browser, "docs-users").await;
    let (status, body) = execute(&browser, "users-registerUser").await;
    assert_eq!(status, "201", "{body}");
    assert!(body.contains("ada@example.com"), "{body}");
    let token = browser.run("return document.getElementById('token').value").await;
    let token = token.as_str().expect("a token");
    assert_eq!(token.split('.').count(), 3, "{token}");
    picture(&browser, "docs-registered").await;
    authorize(&browser, token).await;
    let (status, body) = execute(&browser, "users-getCurrentUser").await;
    assert!(status == "200" && body.contains("Lovelace"), "{status} {body}");

    browser.click("#next").await;
    assert_eq!(browser.url().await, format!("{}/docs", wallet.url()));
    authorize(&browser, token).await;
    let (status, body) = execute(&browser, "wallet-getWalletStatus").await;
    assert!(status == "200" && body.contains("ready"), "{status} {body}");
    let (status, body) = execute(&browser, "transactions-creditWallet").await;
    assert!(status == "201" && body.contains("\"balanceAfterMinor\": 1500"), "{status} {body}");
    let (status, body) = execute(&browser, "wallet-getBalance").await;
    assert!(status == "200" && body.contains("\"balanceMinor\": 1500"), "{status} {body}");
    browser.run("document.getElementById('operations-wallet-getBalance').scrollIntoView()").await;
    picture(&browser, "docs-balance").await;
    assert_eq!(world.sql(Role::Wallet, "SELECT sum(amount_minor) FROM transactions").await, "1500");
    assert_eq!(browser.console().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_page_can_load_from_and_connect_to_its_own_origin_only() {
    let world = World::new().await;
    let (users, wallet) = roles(&world).await;
    let browser = Browser::start().await;
    for role in [&users, &wallet] {
        browser.open(&format!("{}/docs", role.url())).await;
        browser.click("button.authorize.unlocked").await;
        let loaded = browser.run("return performance.getEntriesByType('resource').map(entry => entry.name)").await;
        let loaded: Vec<_> = loaded.as_array().into_iter().flatten().filter_map(|name| name.as_str()).collect();
        assert!(loaded.len() >= 5, "{loaded:?}");
        let foreign = |name: &&&str| !name.starts_with(&role.url()) && !name.starts_with("data:");
        assert_eq!(loaded.iter().filter(foreign).collect::<Vec<_>>(), Vec::<&&str>::new());
        assert_eq!(browser.console().await, Vec::<String>::new());
    }
    // The policy blocks a request to another origin.
    let script = "return fetch('http://127.0.0.1:9/').then(() => 'allowed', error => String(error))";
    assert!(browser.run(script).await.as_str().is_some_and(|result| result.contains("Failed to fetch")));
    let complaints = browser.console().await.join("\n");
    assert!(complaints.contains("Content Security Policy"), "{complaints}");
    // Without a configured address the link points to the same host.
    let next = browser.run("return document.getElementById('other').href").await;
    assert_eq!(next, "http://127.0.0.1:3002/docs");
}

#[tokio::test]
async fn the_page_and_its_files_have_their_media_types_and_other_files_return_404() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let client = Client::new(&users.url(), &users.url());
    let get = |path: &str| client.request(Method::GET, &format!("{}{path}", users.url()));
    let page = get("/docs").send().await.expect("a response");
    let policy = page.headers()["content-security-policy"].to_str().expect("text").to_owned();
    assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self';"), "{policy}");
    assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert_eq!(page.headers()["content-type"], "text/html; charset=utf-8");
    let text = page.text().await.expect("text");
    assert!(!text.contains('{') && text.contains("purse: users"), "{text}");
    for (file, media_type) in [
        ("page.js", "text/javascript"),
        ("swagger-ui.js", "text/javascript"),
        ("page.css", "text/css"),
        ("swagger-ui.css", "text/css"),
    ] {
        let response = get(&format!("/docs/{file}")).send().await.expect("a response");
        assert_eq!(response.status(), 200, "{file}");
        assert!(response.headers()["content-type"].to_str().expect("text").starts_with(media_type), "{file}");
        assert!(text.contains(&format!("\"docs/{file}\"")), "the page does not load {file}");
    }
    for path in ["/docs/", "/docs/page.html", "/docs/..%2fCargo.toml", "/docs/page.js/x"] {
        assert_error(&client.send(get(path)).await, 404, "NOT_FOUND", path);
    }
}

#[tokio::test]
async fn the_root_redirects_to_the_page() {
    let world = World::new().await;
    let users = world.start(Role::Users).await;
    let client = reqwest::Client::builder().redirect(reqwest::redirect::Policy::none()).build().expect("client");
    for method in [Method::GET, Method::HEAD] {
        let response = client.request(method, users.url()).send().await.expect("a response");
        assert_eq!(
            (response.status().as_u16(), &response.headers()["location"]),
            (302, &"/docs".parse().expect("header"))
        );
        assert_eq!(response.text().await.expect("text"), "");
    }
    let client = Client::new(&users.url(), &users.url());
    let response = client.send(client.request(Method::POST, &users.url())).await;
    assert_error(&response, 405, "METHOD_NOT_ALLOWED", "POST /");
}
