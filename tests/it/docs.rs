//! What the pages say is true: the table of settings, the walk-through, the recipes, the links.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use purse::infra::config::setting::{ALL, Fallback};
use serde_json::Value;

use crate::support::{Document, World};

/// Stands in an answer for what is different each time.
const ELLIPSIS: char = '…';

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn page(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// What stands between two marks of a page.
fn between<'a>(text: &'a str, mark: &str) -> &'a str {
    let (begin, end) = (format!("<!-- {mark}:begin -->"), format!("<!-- {mark}:end -->"));
    let inside = text.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end));
    inside.unwrap_or_else(|| panic!("the page has no marks {begin} and {end}")).0.trim()
}

/// The fenced blocks of a text, with their language.
fn blocks(text: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    let mut open: Option<(String, String)> = None;
    for line in text.lines() {
        match (line.strip_prefix("```"), open.as_mut()) {
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(language), None) => open = Some((language.trim().to_owned(), String::new())),
            (None, Some((_, body))) => {
                body.push_str(line);
                body.push('\n');
            }
            (None, None) => {}
        }
    }
    assert_eq!(open, None, "a block is not closed");
    blocks
}

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

/// One step of the walk-through.
struct Step {
    commands: String,
    answer: Option<Value>,
}

/// The pages that have a walk-through.
const WALKS: [&str; 2] = ["README.md", "docs/api.md"];

fn walk(name: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (language, body) in blocks(between(&page(name), "walk")) {
        match (language.as_str(), steps.last_mut()) {
            ("sh", _) => steps.push(Step { commands: body, answer: None }),
            ("json", Some(step)) if step.answer.is_none() => {
                step.answer = Some(serde_json::from_str(&body).unwrap_or_else(|e| panic!("{e}: {body}")));
            }
            (other, _) => panic!("a block `{other}` stands where none belongs:\n{body}"),
        }
    }
    steps
}

/// Runs the steps one after the other in one shell, and returns what each printed.
fn run(steps: &[Step], users: &str, wallet: &str) -> Vec<String> {
    const BREAK: &str = "-- end of the step --";
    let commands: Vec<&str> = steps.iter().map(|step| step.commands.as_str()).chain([""]).collect();
    let script = commands.join(&format!("\nprintf '\\n{BREAK}\\n'\n"));
    for address in ["http://localhost:3002", "http://localhost:3001"] {
        assert!(script.contains(address), "the walk-through does not name {address}");
    }
    let script = script.replace("http://localhost:3002", users).replace("http://localhost:3001", wallet);
    let ran = Command::new("sh").args(["-u", "-c", &script]).env("no_proxy", "*").output().expect("sh");
    let (printed, complaints) = (String::from_utf8_lossy(&ran.stdout), String::from_utf8_lossy(&ran.stderr));
    assert!(complaints.is_empty(), "the walk-through needs sh, curl, sed and date, and the shell says:\n{complaints}");
    let printed: Vec<String> = printed.split(BREAK).map(|part| part.trim().to_owned()).collect();
    printed.into_iter().take(steps.len()).collect()
}

/// Whether an answer is the one that the page shows; what is different each time needs only to be a text.
fn differs(place: &str, shown: &Value, got: &Value) -> Option<String> {
    match (shown, got) {
        (Value::String(text), Value::String(_)) if text.contains(ELLIPSIS) => None,
        (Value::Object(shown), Value::Object(got)) => {
            let names = |object: &serde_json::Map<String, Value>| object.keys().cloned().collect::<Vec<_>>();
            if names(shown) != names(got) {
                return Some(format!("{place}: the page has {:?}, the answer has {:?}", names(shown), names(got)));
            }
            shown.iter().find_map(|(name, value)| differs(&format!("{place}.{name}"), value, &got[name]))
        }
        (Value::Array(shown), Value::Array(got)) if shown.len() == got.len() => {
            let mut pairs = shown.iter().zip(got).enumerate();
            pairs.find_map(|(index, (shown, got))| differs(&format!("{place}[{index}]"), shown, got))
        }
        _ if shown == got => None,
        _ => Some(format!("{place}: the page has {shown}, the answer has {got}")),
    }
}

#[tokio::test]
async fn each_walk_through_gives_the_answers_that_its_page_shows() {
    let world = World::new().await;
    let (_users, _wallet, client) = world.both().await;
    for name in WALKS {
        let steps = walk(name);
        assert!(steps.iter().filter(|step| step.answer.is_some()).count() >= 8, "{name}: the walk has become short");
        let client = client.clone();
        let ran = tokio::task::spawn_blocking(move || {
            let printed = run(&steps, &client.users, &client.wallet);
            steps.into_iter().zip(printed).collect::<Vec<_>>()
        });
        for (step, printed) in ran.await.expect("thread") {
            match &step.answer {
                None => assert_eq!(printed, "", "{name} shows no answer to:\n{}", step.commands),
                Some(shown) => {
                    let got: Value = serde_json::from_str(&printed)
                        .unwrap_or_else(|e| panic!("{name}: {e}: {printed}\nafter\n{}", step.commands));
                    assert_eq!(differs("answer", shown, &got), None, "{name}: after\n{}", step.commands);
                }
            }
        }
    }
}

/// The codes that a page tells of, with their status: the first cells of its table.
fn codes_told(page: &str) -> BTreeSet<(String, String)> {
    let rows = between(page, "codes").lines().filter(|line| line.contains('`'));
    let cells = rows.filter_map(|row| row.trim_matches('|').split_once('|'));
    let code = |rest: &str| rest.split('`').nth(1).unwrap_or_default().to_owned();
    cells.map(|(status, rest)| (status.trim().to_owned(), code(rest))).collect()
}

#[tokio::test]
async fn the_api_page_tells_of_every_code_and_every_route_that_the_documents_have() {
    let world = World::new().await;
    let (users, wallet, client) = world.both().await;
    let page = page("docs/api.md");
    let mut codes = BTreeSet::new();
    for process in [users, wallet] {
        let document = Document::of(&client, &process.url()).await;
        codes.extend(document.codes_by_status());
        for (method, path, _) in document.operations() {
            assert!(page.contains(&format!("`{method} {path}`")), "docs/api.md does not tell of {method} {path}");
        }
    }
    assert_eq!(codes_told(&page), codes);
}

#[test]
fn an_answer_that_differs_from_the_page_is_told() {
    let shown = serde_json::json!({"id": "01a…", "items": [{"cents": 5}]});
    let got = |text: &str| differs("answer", &shown, &serde_json::from_str(text).expect("json"));
    assert_eq!(got(r#"{"id": "77", "items": [{"cents": 5}]}"#), None);
    assert!(got(r#"{"id": 77, "items": [{"cents": 5}]}"#).is_some_and(|told| told.starts_with("answer.id:")));
    assert!(
        got(r#"{"id": "77", "items": [{"cents": 6}]}"#).is_some_and(|told| told.starts_with("answer.items[0].cents:"))
    );
    assert!(got(r#"{"id": "77", "items": []}"#).is_some());
    assert!(got(r#"{"id": "77", "items": [{"cents": 5}], "more": 1}"#).is_some());
}

#[test]
fn every_shell_block_is_one_that_a_shell_can_read() {
    for (_, body) in WALKS.map(|name| blocks(&page(name))).concat().iter().filter(|(language, _)| language == "sh") {
        let read = Command::new("sh").args(["-n", "-c", body]).output().expect("sh");
        assert!(read.status.success(), "{}\n{body}", String::from_utf8_lossy(&read.stderr));
    }
}

/// The recipes that a page names in code: `just up`, `./justw test`.
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

/// The recipes of a justfile, without asking `just`.
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

/// The files that the justfile takes in where they are there.
fn optional_imports(text: &str) -> Vec<PathBuf> {
    let path = |line: &str| line.strip_prefix("import? ").map(|path| root().join(path.trim_matches('\'')));
    text.lines().filter_map(path).collect()
}

#[test]
fn every_recipe_that_a_page_names_exists() {
    let justfile = page("justfile");
    let (present, absent): (Vec<_>, Vec<_>) = optional_imports(&justfile).into_iter().partition(|path| path.exists());
    let mut recipes = recipes_of(&justfile);
    recipes.extend(present.iter().flat_map(|path| recipes_of(&fs::read_to_string(path).expect("import"))));
    // Where `just` is installed it has the last word.
    let asked = Command::new("just").arg("--summary").current_dir(root()).output();
    if let Some(answer) = asked.ok().filter(|answer| answer.status.success()) {
        let known: BTreeSet<String> =
            String::from_utf8_lossy(&answer.stdout).split_whitespace().map(str::to_owned).collect();
        recipes.retain(|recipe| known.contains(recipe));
    }
    assert!(recipes.contains("up") && recipes.contains("test"), "{recipes:?}");
    // Recipes of a file that is not in this checkout begin with its name.
    let elsewhere = |recipe: &String| {
        absent.iter().any(|path| path.file_stem().is_some_and(|stem| recipe.starts_with(&*stem.to_string_lossy())))
    };
    let pages = [
        "README.md",
        "CONTRIBUTING.md",
        "SECURITY.md",
        "docs/api.md",
        "docs/architecture.md",
        "docs/decisions.md",
        "docs/operations.md",
        "docs/reliability.md",
        "docs/threat-model.md",
    ];
    for name in pages {
        let named = recipes_named(&page(name));
        let missing: Vec<_> = named.iter().filter(|r| !recipes.contains(*r) && !elsewhere(r)).collect();
        assert!(missing.is_empty(), "{name} names recipes that the justfile does not have: {missing:?}");
    }
    assert!(recipes_named(&page("README.md")).len() >= 4);
}

#[test]
fn recipes_are_read_out_of_code_alone() {
    let text = "It is just right. Type `just up`, or:\n\n```console\n$ ./justw test   # just because\n```\n";
    assert_eq!(recipes_named(text).into_iter().collect::<Vec<_>>(), ["test", "up"]);
    let justfile = "purse := \"x\"\n[group('a')]\nup: servers\n    echo: no\n@status:\n_built:\nrun name='x':\n";
    assert_eq!(recipes_of(justfile).into_iter().collect::<Vec<_>>(), ["run", "status", "up"]);
}

fn markdown(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("folder") {
        let path = entry.expect("entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && name != "target" {
            markdown(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

#[test]
fn every_link_from_page_to_page_leads_somewhere() {
    let mut pages = Vec::new();
    markdown(root(), &mut pages);
    assert!(pages.len() >= 5, "{pages:?}");
    let mut dead = Vec::new();
    for path in pages {
        let text = fs::read_to_string(&path).expect("page");
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(target, _)| target);
        for target in targets.filter(|t| !t.contains("://") && !t.starts_with('#') && !t.starts_with("mailto:")) {
            let file = target.split('#').next().unwrap_or_default();
            if !path.parent().unwrap_or(root()).join(file).exists() {
                dead.push(format!("{}: {target}", path.display()));
            }
        }
    }
    assert!(dead.is_empty(), "links that lead nowhere:\n{}", dead.join("\n"));
}

/// The words in backticks that are names of tests: `fr_05_a_claim_whose_owner_died_is_free_after_its_lease`.
fn named_tests(page: &str) -> Vec<&str> {
    let is_name = |word: &&str| {
        word.matches('_').count() >= 3 && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    page.lines().filter(|line| line.starts_with('|')).flat_map(|line| line.split('`')).filter(is_name).collect()
}

#[test]
fn every_fault_of_the_reliability_page_has_its_test_and_every_fault_test_its_line() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/reliability.md")).expect("the page");
    let sources = |folder: &str| {
        let mut texts = String::new();
        let mut folders = vec![root.join(folder)];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path()) {
                if entry.is_dir() {
                    folders.push(entry);
                } else {
                    texts.push_str(&std::fs::read_to_string(entry).expect("a text"));
                }
            }
        }
        texts
    };
    let tests = sources("src") + &sources("tests");
    let named = named_tests(&page);
    assert!(named.len() > 60, "only {} tests are named", named.len());
    for name in &named {
        let there = tests.contains(&format!("fn {name}()")) || tests.contains(&format!("notices!({name},"));
        assert!(there, "docs/reliability.md names {name}, and there is no such test");
    }
    let faults = sources("tests/it/faults");
    let all =
        faults.split("#[tokio::test]").skip(1).filter_map(|text| text.split("async fn ").nth(1)?.split('(').next());
    for name in all.filter(|name| !matches!(*name, "$name" | "soak")) {
        assert!(named.contains(&name), "docs/reliability.md has no line for {name}");
    }
}
