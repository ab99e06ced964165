//! The public text is in plain English: it avoids the phrases below, which native readers stumble over. Public are the
//! documentation, help, manual pages, OpenAPI, messages and log records, scripts and their comments, configuration files,
//! alerts, dashboards, and the comments of tables and columns.

use std::collections::BTreeMap;

use purse::kernel::Role;
use serde_json::Value;

use crate::support::repository::{files_with, sources, text as read, without_tests};
use crate::support::source::literals;
use crate::support::{World, purse};

/// Phrases that the public text avoids, each with a better one. `a|b` stands for either word, `#` for a number.
const AVOIDED: &[(&str, &str)] = &[
    ("mend|mends|mended|mending", "fix"),
    ("weakness|weaknesses", "vulnerability"),
    ("whoever|whosoever", "operators, callers, readers, …"),
    ("who runs|calls purse", "operators, callers"),
    ("nobody|somebody|everybody", "name the actor"),
    ("a person has|looks|acts", "requires operator action"),
    ("strangers", "unauthenticated clients"),
    ("told", "reported, returned, logged"),
    ("tells", "reports, returns, shows"),
    ("is|are|be sound", "is valid"),
    ("built again", "restarted"),
    ("made again", "recreated"),
    ("anew", "again"),
    ("our own fault", "internal error (a bug)"),
    ("our fault", "internal error (a bug)"),
    ("of ours", "server error, bug"),
    ("stands|stood", "is, is stored, as of"),
    ("lie|lies", "is, is stored"),
    ("token|tokens|law|laws|rule|rules|key holds|hold", "is valid, is true"),
    ("does|do not hold", "is not valid, is not true"),
    ("what|everything that holds", "conventions, guarantees"),
    ("is|are|was|stays|while|be away", "is unreachable, is down"),
    ("refusal|refusals", "error response, rejection"),
    ("goes|go|went on by itself|themselves", "resumes on its own"),
    ("all|everything goes|go on", "resumes, continues"),
    ("wallet|wallets|row|rows is|are|was|were made", "is created"),
    ("makes|make a|the|no|one|two wallet|wallets|account|accounts|row|rows|queue", "creates"),
    ("being|been made", "being created"),
    ("given up", "abandoned, failed permanently"),
    ("put|puts back to work", "requeue, redrive"),
    ("believed|believes", "trusted"),
    ("from nothing to", "quick start, from scratch"),
    ("rules of the house", "conventions"),
    ("so many", "number of"),
    ("the begin of", "the start of"),
    ("in hand", "in progress, unacknowledged"),
    ("misspelt", "misspelled"),
    ("for ever", "forever"),
    ("some milliseconds|seconds|minutes|hours", "a few seconds, …"),
    ("in the clear", "in plain text"),
    ("with other arguments", "with different arguments"),
    // Rates and ratios.
    ("# a second|minute|hour", "per second, per minute, per hour"),
    (
        "posts|rows|events|requests|logins|registrations|credits|debits|reads|hashes|tries \
         a second|minute|hour|user|batch|transaction|wallet|core|million",
        "per second, per user, …",
    ),
    ("one wallet|account|entry|event|change|file|test|hash|dashboard|thread a|an", "per user, per key, …"),
    ("address|user|account a window", "per window"),
];

/// Where an avoided phrase is right: the phrase in its context, and why.
const EXCEPTIONS: &[(&str, &str)] = &[
    ("one event a thousand times", "the article belongs to the number"),
    ("tells the planner", "the established term for a hint"),
];

/// A word or punctuation mark in lower case, and its line.
struct Token {
    word: String,
    line: usize,
}

fn tokens(text: &str) -> Vec<Token> {
    let mut tokens: Vec<Token> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let mut glued = false;
        for c in line.chars() {
            let in_word = c.is_alphanumeric() || c == '_';
            match tokens.last_mut() {
                Some(last) if in_word && glued => last.word.extend(c.to_lowercase()),
                _ if in_word || ".,;:|()".contains(c) => {
                    tokens.push(Token { word: c.to_lowercase().collect(), line: index + 1 });
                }
                _ => {}
            }
            glued = in_word;
        }
    }
    tokens
}

/// The number of words of a phrase, if `tokens` start with it.
fn matches(phrase: &str, tokens: &[Token]) -> Option<usize> {
    let words: Vec<&str> = phrase.split_whitespace().collect();
    let fits = |pattern: &str, word: &str| match pattern {
        "#" => word.starts_with(|c: char| c.is_ascii_digit()),
        _ => pattern.split('|').any(|option| option.eq_ignore_ascii_case(word)),
    };
    let start = tokens.get(..words.len())?;
    words.iter().zip(start).all(|(pattern, token)| fits(pattern, &token.word)).then_some(words.len())
}

/// The avoided phrases of a text: line, phrase, better wording.
fn findings(text: &str) -> Vec<(usize, String, &'static str)> {
    let mut tokens = tokens(text);
    for start in 0..tokens.len() {
        for length in EXCEPTIONS.iter().filter_map(|(phrase, _)| matches(phrase, &tokens[start..])).collect::<Vec<_>>()
        {
            tokens[start..start + length].iter_mut().for_each(|token| token.word.clear());
        }
    }
    let mut findings = Vec::new();
    for start in 0..tokens.len() {
        for (phrase, better) in AVOIDED {
            if let Some(length) = matches(phrase, &tokens[start..]) {
                let words: Vec<&str> = tokens[start..start + length].iter().map(|token| token.word.as_str()).collect();
                findings.push((tokens[start].line, words.join(" "), *better));
            }
        }
    }
    findings
}

/// The texts that a JSON document shows to people, each with its place.
fn texts(place: &str, value: &Value) -> Vec<(String, String)> {
    match value {
        Value::Array(items) => {
            items.iter().enumerate().flat_map(|(index, item)| texts(&format!("{place}/{index}"), item)).collect()
        }
        Value::Object(fields) => fields
            .iter()
            .flat_map(|(name, value)| match value {
                Value::String(text) if matches!(name.as_str(), "title" | "summary" | "description") => {
                    vec![(format!("{place}/{name}"), text.clone())]
                }
                _ => texts(&format!("{place}/{name}"), value),
            })
            .collect(),
        _ => Vec::new(),
    }
}

/// The help and the manual pages of a command and of its subcommands.
async fn help(command: &[&str]) -> Vec<(String, String)> {
    let arguments = [command, &["--help"]].concat();
    let text = purse(&arguments, &BTreeMap::new()).await.out;
    let commands = text.lines().skip_while(|line| *line != "Commands:").skip(1).take_while(|line| !line.is_empty());
    let names = commands.filter_map(|line| line.strip_prefix("  ")?.split_once(' ')).map(|(name, _)| name);
    let mut pages = Vec::new();
    for name in names.filter(|name| !matches!(*name, "" | "help")) {
        pages.extend(Box::pin(help(&[command, &[name]].concat())).await);
    }
    pages.push((format!("purse {}", arguments.join(" ")), text));
    let arguments = [&["man"], command].concat();
    let roff = purse(&arguments, &BTreeMap::new()).await.out;
    let plain = ["\\fB", "\\fI", "\\fR", "\\"].into_iter().fold(roff, |text, mark| text.replace(mark, ""));
    pages.push((format!("purse {}", arguments.join(" ")), plain));
    pages
}

/// The comments of the tables and columns of both roles; nothing may lack one.
async fn schema_comments() -> Vec<(String, String)> {
    let world = World::new().await;
    let comments = "SELECT relname || coalesce('.' || attname, ''), coalesce(
                        CASE WHEN attnum IS NULL THEN obj_description(pg_class.oid) ELSE col_description(pg_class.oid, attnum) END, '')
                    FROM pg_class, LATERAL (
                        SELECT attname, attnum FROM pg_attribute WHERE attrelid = pg_class.oid AND attnum > 0 AND NOT attisdropped
                        UNION ALL SELECT NULL, NULL) AS columns
                    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND relname <> 'refinery_schema_history'";
    let mut pages = Vec::new();
    for role in Role::ALL {
        let migrated = purse(&["migrate", "--role", role.as_str()], &world.settings(role)).await;
        assert_eq!(migrated.code, Some(0), "{migrated:?}");
        for line in world.sql(role, comments).await.lines() {
            let (name, comment) = line.split_once('|').expect("two columns");
            assert!(!comment.is_empty(), "{name} has no comment");
            pages.push((format!("{role} database: {name}"), comment.to_owned()));
        }
    }
    pages
}

/// Everything that operators, callers and contributors read, each text with its place.
async fn public_text() -> Vec<(String, String)> {
    let named = ["README.md", "SECURITY.md", "CONTRIBUTING.md"];
    let scripts = ["justfile", "justw", ".ci/run", "docker/Dockerfile", "config/.env.example"];
    let by_extension = files_with("", &["sh", "just", "py", "lua", "toml", "yml", "yaml"]);
    let names = named.into_iter().chain(scripts).map(str::to_owned).chain(by_extension);
    let mut pages: Vec<(String, String)> = names.map(|name| (name.clone(), read(&name))).collect();
    let messages = ["src", "dev"].into_iter().flat_map(sources);
    pages.extend(messages.map(|name| (name.clone(), literals(without_tests(&read(&name))))));
    let changelog = read("CHANGELOG.md");
    pages.push(("CHANGELOG.md".to_owned(), changelog.split("\n## ").next().unwrap_or_default().to_owned()));
    pages.extend(files_with("docs", &["md", "http", "mjs"]).into_iter().map(|name| (name.clone(), read(&name))));
    for role in Role::ALL {
        let dashboard = format!("docker/observability/grafana/dashboards/{role}.json");
        pages.extend(texts(&dashboard, &serde_json::from_str(&read(&dashboard)).expect("a dashboard")));
    }
    for role in ["users", "wallet", "all"] {
        let document = purse(&["openapi", "--role", role], &BTreeMap::new()).await.json();
        pages.extend(texts(&format!("purse openapi --role {role}: "), &document));
    }
    pages.extend(help(&[]).await);
    pages.extend(schema_comments().await);
    pages
}

#[tokio::test]
async fn the_public_text_is_in_plain_english() {
    let pages = public_text().await;
    assert!(pages.len() > 100, "only {} texts", pages.len());
    let mut found = Vec::new();
    for (place, text) in &pages {
        let lines = findings(text).into_iter();
        found.extend(lines.map(|(line, phrase, better)| format!("{place}:{line}: “{phrase}” → {better}")));
    }
    assert!(found.is_empty(), "{} phrases to reword:\n{}", found.len(), found.join("\n"));
}

#[test]
fn an_avoided_phrase_in_a_message_is_found_at_its_line() {
    let source = "// mended\nlet mended = \"mended\";\nlog(\"the wallet\\nmended\");\nlog(r#\"it is \"told\" so\"#);\nlog(\"built \\\n    again\", \"a nobody\");";
    let found: Vec<_> = findings(&literals(source)).into_iter().map(|(line, phrase, _)| (line, phrase)).collect();
    let expected = [(3, "mended"), (4, "told"), (5, "built again"), (6, "nobody")];
    assert_eq!(found, expected.map(|(line, phrase)| (line, phrase.to_owned())));
    assert_eq!(findings(&literals("log(\"was built \", \"again \")")).len(), 0, "a phrase does not cross literals");
}

#[test]
fn an_avoided_phrase_is_found_at_its_line() {
    let found = |text: &str| findings(text).into_iter().map(|(line, phrase, _)| (line, phrase)).collect::<Vec<_>>();
    let one = |line: usize, phrase: &str| vec![(line, phrase.to_owned())];
    assert_eq!(found("It is **Mended**."), one(1, "mended"));
    assert_eq!(found("fine\nan actor was built\nagain"), one(2, "built again"));
    assert_eq!(found("at 1,000 a second"), one(1, "000 a second"));
    assert_eq!(found("logins a minute"), one(1, "logins a minute"));
    for fine in
        ["a second signal", "within a second of", "posts. A second process", "recommended", "is_told", "holds locks"]
    {
        assert_eq!(found(fine), [], "{fine}");
    }
    let document = serde_json::json!({"info": {"title": "a", "version": "b"}, "tags": [{"description": "c"}]});
    let places = [("x/info/title", "a"), ("x/tags/0/description", "c")];
    assert_eq!(texts("x", &document), places.map(|(place, text)| (place.to_owned(), text.to_owned())));
}
