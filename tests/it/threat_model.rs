//! Every test that the threat model names exists; the build keeps its safeguards.

use std::collections::BTreeSet;

use crate::support::repository::{sources, text as page};
use crate::support::source::tokens;

/// The names of the tests in a source: functions under an attribute that ends in `test`.
fn tests_of(source: &str) -> Vec<String> {
    let words: Vec<String> = tokens(source).into_iter().map(|token| token.text).collect();
    let mut names = Vec::new();
    let mut marked = false;
    let mut index = 0;
    while index < words.len() {
        if words[index] == "#" && words.get(index + 1).is_some_and(|word| word == "[") {
            let inside: Vec<&str> =
                words[index + 2..].iter().map(String::as_str).take_while(|word| !matches!(*word, "]" | "(")).collect();
            marked |= inside.last() == Some(&"test");
        }
        if words[index] == "fn" {
            if marked {
                names.extend(words.get(index + 1).cloned());
            }
            marked = false;
        }
        index += 1;
    }
    names
}

/// Every test: those of the `it` crate by module and name, unit tests by name only.
fn tests() -> BTreeSet<String> {
    let mut tests: BTreeSet<String> = sources("src").iter().flat_map(|path| tests_of(&page(path))).collect();
    for path in sources("tests/it") {
        let module = path.trim_start_matches("tests/it/").trim_end_matches(".rs").replace('/', "::");
        tests.extend(tests_of(&page(&path)).iter().map(|name| format!("{module}::{name}")));
    }
    tests
}

/// The rows of the tables of threats: number and named tests.
fn rows(page: &str) -> Vec<(String, Vec<String>)> {
    page.lines()
        .filter_map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [threat, _, shown] = cells[..] else { return None };
            let number =
                threat.split(' ').next().filter(|word| word.starts_with('T') && word[1..].parse::<u8>().is_ok())?;
            let named = shown.split('`').skip(1).step_by(2).map(str::to_owned).collect();
            Some((number.to_owned(), named))
        })
        .collect()
}

#[test]
fn every_threat_names_tests_and_each_of_them_exists() {
    let (rows, tests) = (rows(&page("docs/threat-model.md")), tests());
    assert!(rows.len() >= 30 && tests.len() >= 200, "{} threats, {} tests", rows.len(), tests.len());
    let mut numbers = BTreeSet::new();
    for (number, named) in &rows {
        assert!(numbers.insert(number), "{number} is a duplicate");
        assert!(!named.is_empty(), "{number} names no test");
        let missing: Vec<_> = named.iter().filter(|name| !tests.contains(*name)).collect();
        assert!(missing.is_empty(), "{number} names tests that do not exist: {missing:?}");
    }
}

#[test]
fn tests_are_found_by_their_attribute_and_rows_by_their_number() {
    let source = "#[test]\nfn one() {}\nfn helper() {}\n#[tokio::test(flavor = \"x\")]\nasync fn two() {}\n\
                  // #[test]\nfn three() {}\n#[cfg(test)]\nmod tests { #[actix_web::test] async fn four() {} }\n";
    assert_eq!(tests_of(source), ["one", "two", "four"]);
    let page = "| threat | measure | shown by |\n|---|---|---|\n| T01 A | b | `a::c`, `d` |\n| Tx no | b | `e` |\n";
    assert_eq!(rows(page), [("T01".to_owned(), vec!["a::c".to_owned(), "d".to_owned()])]);
}

#[test]
fn the_dependency_checks_are_part_of_the_tests() {
    let justfile = page("justfile");
    let test = justfile.lines().find(|line| line.starts_with("test:")).expect("a recipe");
    assert!(test.contains("deny"), "{test}");
    for recipe in ["deny ", "advisories:", "sbom:"] {
        assert!(justfile.lines().any(|line| line.starts_with(recipe)), "{recipe}");
    }
    let policy = page("deny.toml");
    for rule in [
        "unknown-registry = \"deny\"",
        "unknown-git = \"deny\"",
        "wildcards = \"deny\"",
        "yanked = \"deny\"",
        "crate = \"rsa\"",
    ] {
        assert!(policy.contains(rule), "{rule}");
    }
    assert!(!policy.contains("ignore = ["), "an advisory is ignored");
    // The lock file has no crate that the policy bans, and none from a git repository.
    let lock = page("Cargo.lock");
    for banned in ["name = \"rsa\"", "name = \"openssl-sys\"", "name = \"aws-lc-sys\"", "name = \"h2\"", "git+"] {
        assert!(!lock.contains(banned), "{banned}");
    }
}

#[test]
fn only_the_sources_reach_the_image_build() {
    let ignored = page(".dockerignore");
    let lines: Vec<&str> = ignored.lines().filter(|line| !line.starts_with('#') && !line.trim().is_empty()).collect();
    assert_eq!(lines.first(), Some(&"*"), "the first line must exclude everything");
    for named in &lines[1..] {
        assert!(named.starts_with('!') && !named.contains(".env"), "{named}");
    }
    let image = page("docker/Dockerfile");
    for line in image.lines().filter(|line| line.starts_with("ENV") || line.starts_with("ARG")) {
        assert!(!["KEY", "PASSWORD", "SECRET", "URL"].iter().any(|word| line.contains(word)), "{line}");
    }
    assert!(image.contains("USER 65532:65532"), "the image runs as root");
}
