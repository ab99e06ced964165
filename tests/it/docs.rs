//! The documentation is true: settings, walk-throughs, recipes, links and the index of pages.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use purse::infra::config::setting::{ALL, Fallback};
use purse::kernel::ExitStatus;
use serde_json::Value;

use crate::support::repository::{between, files_with, root, sources, text as page};
use crate::support::{Document, ELLIPSIS, WalkStep, World, blocks, walk_steps};

/// The table that docs/configuration.md has to contain.
fn settings_table() -> String {
    let row = |setting: &purse::infra::config::Setting| {
        let role = setting.role.map_or("both", purse::kernel::Role::as_str);
        let default = match setting.default {
            Fallback::Text(text) => format!("`{text}`"),
            Fallback::Absent => "none".to_owned(),
            Fallback::RequiredSecret => "required; a secret".to_owned(),
            Fallback::OptionalSecret => "none; a secret".to_owned(),
        };
        format!("| `{}` | {role} | {default} | {} | {} |", setting.env, setting.accepts, setting.help)
    };
    let head = "| setting | role | default | values | meaning |\n|---|---|---|---|---|".to_owned();
    std::iter::once(head).chain(ALL.iter().map(row)).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_configuration_page_lists_the_settings_of_the_binary() {
    let (expected, page) = (settings_table(), page("docs/configuration.md"));
    let shown = between(&page, "settings");
    assert!(
        shown == expected,
        "put this between the marks settings:begin and settings:end of docs/configuration.md:\n\n{expected}\n"
    );
}

/// The pages with a walk-through, and the number of responses that each shows.
const WALKS: [(&str, usize); 2] = [("README.md", 5), ("docs/api.md", 29)];

fn walk(name: &str) -> Vec<WalkStep> {
    walk_steps(&page(name), "walk", "json")
}

/// Runs the steps in one shell, and returns the output of each.
fn run(steps: &[WalkStep], users: &str, wallet: &str) -> Vec<String> {
    const BREAK: &str = "-- end of the step --";
    let commands: Vec<&str> = steps.iter().map(|step| step.commands.as_str()).chain([""]).collect();
    let script = commands.join(&format!("\nprintf '\\n{BREAK}\\n'\n"));
    for address in ["http://localhost:3002", "http://localhost:3001"] {
        assert!(script.contains(address), "the walk-through does not name {address}");
    }
    let script = script.replace("http://localhost:3002", users).replace("http://localhost:3001", wallet);
    let ran = Command::new("sh").args(["-u", "-c", &script]).env("no_proxy", "*").output().expect("sh");
    let (printed, complaints) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(complaints.is_empty(), "the walk-through needs sh, curl, sed and date; the shell reports:\n{complaints}");
    let printed: Vec<String> = printed.split(BREAK).map(|part| part.trim().to_owned()).collect();
    printed.into_iter().take(steps.len()).collect()
}

/// The first difference between a response and the one on the page. Values marked as changing match any string.
fn differs(place: &str, shown: &Value, got: &Value) -> Option<String> {
    match (shown, got) {
        (Value::String(text), Value::String(_)) if text.contains(ELLIPSIS) => None,
        (Value::Object(shown), Value::Object(got)) => {
            let names = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
            if names(shown) != names(got) {
                return Some(format!("{place}: the page has {:?}, the response has {:?}", names(shown), names(got)));
            }
            shown.iter().find_map(|(name, value)| differs(&format!("{place}.{name}"), value, &got[name]))
        }
        (Value::Array(shown), Value::Array(got)) if shown.len() == got.len() => {
            let mut pairs = shown.iter().zip(got).enumerate();
            pairs.find_map(|(index, (shown, got))| differs(&format!("{place}[{index}]"), shown, got))
        }
        _ if shown == got => None,
        _ => Some(format!("{place}: the page has {shown}, the response has {got}")),
    }
}

#[tokio::test]
async fn each_walk_through_returns_the_responses_on_its_page() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    for (name, responses) in WALKS {
        let steps = walk(name);
        assert_eq!(steps.iter().filter(|step| step.output.is_some()).count(), responses, "responses shown in {name}");
        let client = client.clone();
        let ran = tokio::task::spawn_blocking(move || {
            let printed = run(&steps, &client.users, &client.wallet);
            steps.into_iter().zip(printed).collect::<Vec<_>>()
        });
        for (step, printed) in ran.await.expect("thread") {
            match &step.output {
                None => assert_eq!(printed, "", "{name} shows no response to:\n{}", step.commands),
                Some(shown) => {
                    let json = |text: &str| -> Value {
                        serde_json::from_str(text)
                            .unwrap_or_else(|e| panic!("{name}: {e}: {text}\nafter\n{}", step.commands))
                    };
                    assert_eq!(
                        differs("response", &json(shown), &json(&printed)),
                        None,
                        "{name}: after\n{}",
                        step.commands
                    );
                }
            }
        }
    }
}

/// The codes of a page with their status: the first cells of its table.
fn codes_listed(page: &str) -> BTreeSet<(String, String)> {
    let rows = between(page, "codes").lines().filter(|line| line.contains('`'));
    let cells = rows.filter_map(|row| row.trim_matches('|').split_once('|'));
    let code = |rest: &str| rest.split('`').nth(1).unwrap_or_default().to_owned();
    cells.map(|(status, rest)| (status.trim().to_owned(), code(rest))).collect()
}

#[tokio::test]
async fn the_api_page_lists_every_code_and_route_of_the_openapi_documents() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let page = page("docs/api.md");
    let mut codes = BTreeSet::new();
    for process in [users, wallet] {
        let document = Document::of(&client, &process.url()).await;
        codes.extend(document.codes_by_status());
        for (method, path, _) in document.operations() {
            // The page has one sentence about all endpoints of services.
            let path = path.replacen("/v1/wallets/{userId}/", "/v1/", 1);
            assert!(page.contains(&format!("`{method} {path}`")), "docs/api.md does not list {method} {path}");
        }
    }
    assert_eq!(codes_listed(&page), codes);
}

#[test]
fn a_response_that_differs_from_the_page_is_reported() {
    let shown = serde_json::json!({"id": "01a…", "items": [{"cents": 5}]});
    let got = |text: &str| differs("response", &shown, &serde_json::from_str(text).expect("json"));
    assert_eq!(got(r#"{"id": "77", "items": [{"cents": 5}]}"#), None);
    assert!(
        got(r#"{"id": 77, "items": [{"cents": 5}]}"#).is_some_and(|difference| difference.starts_with("response.id:"))
    );
    assert!(
        got(r#"{"id": "77", "items": [{"cents": 6}]}"#)
            .is_some_and(|difference| difference.starts_with("response.items[0].cents:"))
    );
    assert!(got(r#"{"id": "77", "items": []}"#).is_some());
    assert!(got(r#"{"id": "77", "items": [{"cents": 5}], "more": 1}"#).is_some());
}

#[test]
fn every_shell_block_is_valid_syntax() {
    for (_, body) in WALKS.map(|(name, _)| blocks(&page(name))).concat().iter().filter(|(language, _)| language == "sh")
    {
        let read = Command::new("sh").args(["-n", "-c", body]).output().expect("sh");
        assert!(read.status.success(), "{}\n{body}", String::from_utf8_lossy(&read.stderr));
    }
}

/// The recipes that a page mentions in code: `just up`, `./justw test`.
fn recipes_named(text: &str) -> BTreeSet<String> {
    let fenced: Vec<String> = blocks(text).into_iter().map(|(_, body)| body).collect();
    let prose: String = {
        let mut inside = false;
        let outside = text.lines().filter(|line| {
            let fence = line.starts_with("```");
            inside ^= fence;
            !inside && !fence
        });
        outside.collect::<Vec<_>>().join("\n")
    };
    let spans = prose.split('`').skip(1).step_by(2).map(str::to_owned);
    let is_name = |word: &&str| word.starts_with(|c: char| c.is_ascii_lowercase());
    let mut named = BTreeSet::new();
    for code in fenced.into_iter().chain(spans) {
        for line in code.lines() {
            let words: Vec<&str> = line.split('#').next().unwrap_or_default().split_whitespace().collect();
            let calls = words.windows(2).filter(|pair| matches!(pair[0], "just" | "./justw"));
            named.extend(calls.map(|pair| pair[1]).filter(is_name).map(str::to_owned));
        }
    }
    named
}

/// The recipes of a justfile, without running `just`.
fn recipes_of(text: &str) -> BTreeSet<String> {
    let name = |line: &str| {
        let (head, rest) = line.split_once(':')?;
        let name = head.trim_start_matches('@').split_whitespace().next()?;
        let plain = name.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'));
        (plain && !rest.starts_with('=') && line.starts_with(|c: char| c.is_ascii_alphabetic() || c == '@'))
            .then(|| name.to_owned())
    };
    text.lines().filter_map(name).collect()
}

/// The files that the justfile imports if they exist.
fn optional_imports(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| line.strip_prefix("import? ").map(|path| root().join(path.trim_matches('\'')));
    text.lines().filter_map(path).collect()
}

#[test]
fn every_recipe_that_a_page_mentions_exists() {
    let justfile = page("justfile");
    let (present, absent): (Vec<_>, Vec<_>) = optional_imports(&justfile).into_iter().partition(|path| path.exists());
    let mut recipes = recipes_of(&justfile);
    recipes.extend(present.iter().flat_map(|path| recipes_of(&fs::read_to_string(path).expect("import"))));
    // Where `just` is installed, it decides.
    let summary = Command::new("just").arg("--summary").current_dir(root()).output();
    if let Some(summary) = summary.ok().filter(|summary| summary.status.success()) {
        let known: BTreeSet<String> =
            String::from_utf8_lossy(&summary.stdout).split_whitespace().map(str::to_owned).collect();
        recipes.retain(|recipe| known.contains(recipe));
    }
    assert!(recipes.contains("up") && recipes.contains("test"), "{recipes:?}");
    // Recipes of an imported file that is absent start with its name.
    let elsewhere = |recipe: &String| {
        absent.iter().any(|path| path.file_stem().is_some_and(|stem| recipe.starts_with(&*stem.to_string_lossy())))
    };
    for path in markdown() {
        let named = recipes_named(&page(&path));
        let missing: Vec<_> = named.iter().filter(|r| !recipes.contains(*r) && !elsewhere(r)).collect();
        assert!(missing.is_empty(), "{path} mentions recipes that the justfile does not have: {missing:?}");
    }
    assert!(recipes_named(&page("README.md")).len() >= 4);
}

#[test]
fn recipes_are_found_in_code_only() {
    let text = "It is just right. Type `just up`, or:\n\n```console\n$ ./justw test   # just because\n```\n";
    assert_eq!(recipes_named(text).into_iter().collect::<Vec<_>>(), ["test", "up"]);
    let justfile = "purse := \"x\"\n[group('a')]\nup: servers\n    echo: no\n@status:\n_built:\nrun name='x':\n";
    assert_eq!(recipes_of(justfile).into_iter().collect::<Vec<_>>(), ["run", "status", "up"]);
}

fn markdown() -> Vec<String> {
    files_with("", &["md"])
}

#[test]
fn the_index_lists_every_page_of_documentation() {
    let index = page("docs/README.md");
    let missing: Vec<_> = files_with("docs", &["md", "http"])
        .iter()
        .map(|path| path.trim_start_matches("docs/").to_owned())
        .filter(|name| name != "README.md" && !index.contains(&format!("]({name})")))
        .collect();
    assert!(missing.is_empty(), "docs/README.md has no link to {missing:?}");
}

#[test]
fn the_readme_has_at_most_150_lines() {
    let lines = page("README.md").lines().count();
    assert!(lines <= 150, "{lines} lines: move details to docs/");
}

/// The anchors of a page: its headings as links spell them.
fn anchors(text: &str) -> BTreeSet<String> {
    let kept = |c: char| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_');
    let headings = text.lines().filter(|line| line.starts_with('#')).map(|line| line.trim_start_matches('#').trim());
    headings
        .map(|heading| heading.to_lowercase().chars().filter(|c| kept(*c)).collect::<String>().replace(' ', "-"))
        .collect()
}

#[test]
fn every_link_between_pages_has_a_target() {
    let pages = markdown();
    assert!(pages.len() >= 15, "{pages:?}");
    let mut broken = Vec::new();
    for path in pages {
        let (text, path) = (page(&path), root().join(path));
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        for target in targets.filter(|t| !t.contains("://") && !t.starts_with("mailto:")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let linked = if file.is_empty() { path.clone() } else { path.parent().expect("folder").join(file) };
            let has_anchor = || anchors(&fs::read_to_string(&linked).unwrap_or_default()).contains(anchor);
            if !linked.exists() || !(anchor.is_empty() || has_anchor()) {
                broken.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "broken links:\n{}", broken.join("\n"));
}

/// The test names in the tables of a page: words in backticks like `fr_08_a_marked_event_is_not_published_again`.
fn named_tests(page: &str) -> Vec<&str> {
    let is_name = |word: &&str| {
        word.matches('_').count() >= 3 && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    page.lines().filter(|line| line.starts_with('|')).flat_map(|line| line.split('`')).filter(is_name).collect()
}

#[test]
fn every_fault_on_the_reliability_page_has_a_test_and_every_fault_test_a_row() {
    let read = |folder: &str| -> String { sources(folder).iter().map(|path| page(path)).collect() };
    let tests = read("src") + &read("tests");
    let page = page("docs/reliability.md");
    let named = named_tests(&page);
    assert!(named.len() > 60, "only {} tests are named", named.len());
    for name in &named {
        let exists = tests.contains(&format!("fn {name}()")) || tests.contains(&format!("ablation!({name},"));
        assert!(exists, "docs/reliability.md names {name}, which does not exist");
    }
    let faults = read("tests/it/faults");
    let all =
        faults.split("#[tokio::test]").skip(1).filter_map(|text| text.split("async fn ").nth(1)?.split('(').next());
    for name in all.filter(|name| !matches!(*name, "$name" | "soak")) {
        assert!(named.contains(&name), "docs/reliability.md has no row for {name}");
    }
}

/// The table of exit codes that `docs/configuration.md` has to show.
fn exit_codes_table() -> String {
    let row = |status: ExitStatus| format!("| {} | {} |", status.code(), status.meaning());
    let head = "| code | meaning |\n|---|---|".to_owned();
    std::iter::once(head).chain(ExitStatus::ALL.map(row)).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_exit_codes_of_the_handbook_and_of_help_are_those_of_the_binary() {
    let (expected, page) = (exit_codes_table(), page("docs/configuration.md"));
    assert!(
        between(&page, "exit-codes") == expected,
        "put this between the marks exit-codes:begin and exit-codes:end of docs/configuration.md:\n\n{expected}\n"
    );
    let help = Command::new(env!("CARGO_BIN_EXE_purse")).arg("--help").output().expect("purse --help");
    let help = String::from_utf8_lossy(&help.stdout);
    for status in ExitStatus::ALL {
        assert!(help.contains(&format!("{}  {}", status.code(), status.meaning())), "{status:?} is not in:\n{help}");
    }
}
