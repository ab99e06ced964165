//! `/docs` in a real browser: what a newcomer can do by clicking, and what the page may not do.

use std::collections::BTreeSet;
use std::path::PathBuf;

use purse::kernel::Role;
use reqwest::Method;
use serde_json::json;

use crate::support::{Browser, Client, PATIENCE, RoleProcess, World, assert_error, eventually, free_port};

/// Starts both roles; their pages link to each other.
async fn roles(world: &World) -> (RoleProcess, RoleProcess) {
    let port = free_port();
    let wallet = world.start_with(Role::Wallet, &[("USERS_PUBLIC_URL", &format!("http://127.0.0.1:{port}"))]).await;
    let users = world.start_on(Role::Users, port, &[("WALLET_PUBLIC_URL", &format!("{}/", wallet.url()))]).await;
    users.ready().await;
    (users, wallet)
}

/// Opens an operation and executes it; returns status and body of the response.
async fn execute(browser: &Browser, operation: &str) -> (String, String) {
    browser.click(&format!("#operations-{operation} .opblock-summary-control")).await;
    press(browser, operation).await
}

/// Executes an operation that is open already; returns status and body of the response.
async fn press(browser: &Browser, operation: &str) -> (String, String) {
    let place = format!("#operations-{operation}");
    // Clears an earlier response, so that it is not taken for the next one.
    browser.run(&format!("document.querySelector('{place} .btn-clear')?.click()")).await;
    browser.click(&format!("{place} button.execute")).await;
    let status = browser.text(&format!("{place} .live-responses-table tbody .response-col_status")).await;
    let body = browser.text(&format!("{place} .live-responses-table tbody .highlight-code code")).await;
    (status.trim().to_owned(), body)
}

/// Saves a picture for the documentation, if `PURSE_PICTURES` names a folder.
async fn picture(browser: &Browser, name: &str) {
    if let Some(folder) = std::env::var_os("PURSE_PICTURES") {
        browser.screenshot(&PathBuf::from(folder).join(format!("{name}.png"))).await;
    }
}

#[tokio::test]
async fn a_newcomer_registers_and_credits_a_wallet_with_six_clicks_and_no_typing() {
    let world = World::new().await;
    let (users, wallet) = roles(&world).await;
    let browser = Browser::start().await;

    browser.open(&format!("{}/docs", users.url())).await;
    picture(&browser, "docs-users").await;
    // Clicks 1 and 2.
    let (status, body) = execute(&browser, "users-registerUser").await;
    assert_eq!(status, "201", "{body}");
    assert_eq!(users_of(&world).await, 1);
    picture(&browser, "docs-registered").await;
    wallets(&world, 1).await;
    // Click 3 opens a tab in which the operation is already open; click 4 executes it.
    browser.click("#next").await;
    browser.switch_to_newest_tab().await;
    assert_eq!(browser.url().await, format!("{}/docs#/transactions/creditWallet", wallet.url()));
    browser.text("#signed-in").await;
    let (status, body) = press(&browser, "transactions-creditWallet").await;
    assert!(status == "201" && body.contains("\"balanceAfterMinor\": 1500"), "{status} {body}");
    // Clicks 5 and 6.
    let (status, body) = execute(&browser, "wallet-getBalance").await;
    assert!(status == "200" && body.contains("\"balanceMinor\": 1500"), "{status} {body}");
    assert_eq!(browser.clicks(), 6);
    browser.run("document.getElementById('operations-wallet-getBalance').scrollIntoView()").await;
    picture(&browser, "docs-balance").await;
    assert_eq!(world.sql(Role::Wallet, "SELECT sum(amount_minor) FROM transactions").await, "1500");
    assert_eq!(browser.console().await, Vec::<String>::new());
}

/// Waits until this number of wallets has been created.
async fn wallets(world: &World, expected: u32) {
    eventually(PATIENCE, "the wallets exist", || async {
        let created: u32 = world.sql(Role::Wallet, "SELECT count(*) FROM wallets").await.parse().expect("a number");
        (created == expected).then_some(())
    })
    .await;
}

async fn users_of(world: &World) -> u32 {
    world.sql(Role::Users, "SELECT count(*) FROM users").await.parse().expect("a number")
}

/// Registers, and opens the wallet role's page in a new tab, signed in.
async fn open_wallet_page(browser: &Browser, users: &RoleProcess) {
    browser.open(&format!("{}/docs", users.url())).await;
    execute(browser, "users-registerUser").await;
    browser.click("#next").await;
    browser.switch_to_newest_tab().await;
    browser.text("#signed-in").await;
}

#[tokio::test]
async fn each_visit_has_its_own_email_address_and_each_post_its_own_idempotency_key() {
    let world = World::new().await;
    let (users, _wallet) = roles(&world).await;
    let browser = Browser::start().await;
    for visits in 1..=2 {
        open_wallet_page(&browser, &users).await;
        assert_eq!(users_of(&world).await, visits);
    }
    wallets(&world, 2).await;
    let key = "#operations-transactions-creditWallet tr[data-param-name=Idempotency-Key] input";
    let mut keys = BTreeSet::new();
    for posts in 1..=2 {
        keys.insert(browser.value(key).await);
        let (status, body) = press(&browser, "transactions-creditWallet").await;
        assert_eq!(status, "201", "{body}");
        assert!(body.contains(&format!("\"balanceAfterMinor\": {}", 1500 * posts)), "{body}");
    }
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert!(keys.iter().all(|key| key.len() == 32), "{keys:?}");
    // A rejected request does not consume its key, so it is kept for the next attempt.
    let debit = "#operations-transactions-debitWallet tr[data-param-name=Idempotency-Key] input";
    browser.click("#operations-transactions-debitWallet .opblock-summary-control").await;
    let key = browser.value(debit).await;
    for expected in ["201", "201", "409"] {
        assert_eq!(press(&browser, "transactions-debitWallet").await.0, expected);
    }
    let kept = browser.value(debit).await;
    assert_ne!(kept, key);
    assert_eq!(press(&browser, "transactions-debitWallet").await.0, "409");
    assert_eq!(browser.value(debit).await, kept);
}

#[tokio::test]
async fn signing_out_on_the_page_forgets_the_token() {
    let world = World::new().await;
    let (users, _wallet) = roles(&world).await;
    let browser = Browser::start().await;
    browser.open(&format!("{}/docs", users.url())).await;
    execute(&browser, "users-registerUser").await;
    assert_eq!(execute(&browser, "users-getCurrentUser").await.0, "200");
    browser.click(".scheme-container button.authorize").await;
    browser.click(".modal-ux button[aria-label='Remove authorization']").await;
    browser.click(".modal-ux button.btn-done").await;
    assert_eq!(browser.run("return document.getElementById('token').value").await, "");
    assert_eq!(browser.run("return document.getElementById('signed-in').hidden").await, true);
    assert_eq!(press(&browser, "users-getCurrentUser").await.0, "401");
}

#[tokio::test]
async fn the_token_goes_to_the_exact_origin_of_the_other_role_only() {
    let world = World::new().await;
    let (users, wallet) = roles(&world).await;
    // A page with the same code on an origin that the users role does not link to.
    let unlinked = world.start_with(Role::Wallet, &[("USERS_PUBLIC_URL", &users.url())]).await;
    let browser = Browser::start().await;
    open_wallet_page(&browser, &users).await;

    // The tab that the users role's page opened is navigated elsewhere, and requests the token from there.
    browser.open(&format!("{}/docs", unlinked.url())).await;
    let opener = "return window.opener !== null && typeof ui.preauthorizeApiKey === 'function'";
    assert_eq!(browser.run(opener).await, true);
    browser.text("#operations-wallet-getBalance").await;
    // The page requested it when it loaded; this requests it again.
    let received = browser
        .run_async(
            "const done = arguments[0]; const all = []; onmessage = event => all.push(event.data); \
             opener.postMessage({type: 'purse-token-request'}, '*'); setTimeout(() => done(all), 1000);",
        )
        .await;
    assert_eq!(received, json!([]));
    assert_eq!(browser.run("return document.getElementById('token').value").await, "");
    // Back on its own origin, the same tab gets the token again.
    browser.open(&format!("{}/docs", wallet.url())).await;
    browser.text("#signed-in").await;
}

#[tokio::test]
async fn the_page_accepts_a_token_from_the_page_that_opened_it_and_only_from_the_other_roles_origin() {
    let world = World::new().await;
    let (users, wallet) = roles(&world).await;
    let browser = Browser::start().await;
    browser.open(&format!("{}/docs", wallet.url())).await;
    browser.text("#operations-wallet-getBalance").await;
    let sign_in = "const done = arguments[0]; \
                   postMessage({type: 'purse-token', accessToken: 'a.b.c'}, '*'); \
                   setTimeout(() => done(document.getElementById('token').value), 500);";
    // From its own window, at its own origin.
    assert_eq!(browser.run_async(sign_in).await, "");
    // From a page that opened it, at another origin than the configured one.
    browser.open(&format!("{}/docs", users.url().replace("127.0.0.1", "localhost"))).await;
    let open = format!(
        "const done = arguments[0]; const tab = window.open('{}/docs'); \
         const post = () => tab.postMessage({{type: 'purse-token', accessToken: 'a.b.c'}}, '*'); \
         const timer = setInterval(post, 50); setTimeout(() => {{ clearInterval(timer); done(tab !== null); }}, 3000);",
        wallet.url()
    );
    assert_eq!(browser.run_async(&open).await, true);
    browser.switch_to_newest_tab().await;
    browser.text("#operations-wallet-getBalance").await;
    assert_eq!(browser.run("return document.getElementById('token').value").await, "");
    // The same messages from the configured origin are accepted.
    browser.open(&format!("{}/docs", users.url())).await;
    assert_eq!(browser.run_async(&open).await, true);
    browser.switch_to_newest_tab().await;
    browser.text("#signed-in").await;
    assert_eq!(browser.run("return document.getElementById('token').value").await, "a.b.c");
}

/// The largest part of a colour of the page, from 0 to 255.
async fn brightness(browser: &Browser, css: &str, property: &str) -> Option<f64> {
    let script = format!(
        "return Math.max(...getComputedStyle(document.querySelector('{css}')).{property}.match(/[0-9]+/g).slice(0, 3))"
    );
    browser.run(&script).await.as_f64()
}

#[tokio::test]
async fn the_page_follows_the_colour_scheme_of_the_system() {
    let world = World::new().await;
    let (users, _wallet) = roles(&world).await;
    let browser = Browser::start().await;
    browser.open(&format!("{}/docs", users.url())).await;
    browser.text("#operations-users-registerUser").await;
    for (scheme, is_dark) in [("dark", true), ("light", false)] {
        browser.colour_scheme(scheme).await;
        for (css, property, is_bright) in [
            ("body", "color", is_dark),
            ("body", "backgroundColor", !is_dark),
            ("#document .swagger-ui", "color", is_dark),
            ("#document .opblock-summary-description", "color", is_dark),
        ] {
            eventually(PATIENCE, &format!("{scheme}: {property} of {css}"), || async {
                (brightness(&browser, css, property).await.map(|part| part > 128.0) == Some(is_bright)).then_some(())
            })
            .await;
        }
    }
}

#[tokio::test]
async fn an_operation_shows_no_empty_section_of_parameters_and_every_field_that_it_has() {
    let world = World::new().await;
    let (users, wallet) = roles(&world).await;
    let browser = Browser::start().await;
    for (role, operation, sections) in [
        (&users, "users-registerUser", vec!["Parameters", "Request body", "Responses"]),
        (&users, "users-login", vec!["Request body", "Responses"]),
        (&users, "users-getCurrentUser", vec!["Responses"]),
        (&wallet, "transactions-creditWallet", vec!["Parameters", "Request body", "Responses"]),
        (&wallet, "wallet-getBalance", vec!["Parameters", "Responses"]),
    ] {
        browser.open(&format!("{}/docs", role.url())).await;
        browser.click(&format!("#operations-{operation} .opblock-summary-control")).await;
        browser.text(&format!("#operations-{operation} button.execute")).await;
        let script = format!(
            "const headings = document.querySelectorAll('#operations-{operation} .opblock-section-header h4'); \
             const shown = [...headings].filter(heading => heading.checkVisibility()); \
             return shown.map(heading => heading.innerText.replace(/required/, '').trim())"
        );
        assert_eq!(browser.run(&script).await, json!(sections), "{operation}");
        let boxes = format!(
            "return [...document.querySelectorAll('#operations-{operation} tr[data-param-name]')] \
             .map(row => row.dataset.paramName)"
        );
        let names = browser.run(&boxes).await;
        assert!(!names.to_string().contains("traceparent"), "{operation}: {names}");
    }
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
    let wallet = world.start(Role::Wallet).await;
    browser.open(&format!("{}/docs", wallet.url())).await;
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
