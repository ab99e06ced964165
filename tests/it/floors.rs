//! Holds the house to its floors: reads `src/` and says where something is named that may not be named there.
//!
//! It needs no tool and no server. Comments and texts are no code: they may name whatever they like.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::source::{Token, named_paths, tokens};

/// A room, its floor, and what it may import beside itself.
struct Room {
    name: &'static str,
    floor: u8,
    may_import: &'static [&'static str],
}

const fn room(name: &'static str, floor: u8, may_import: &'static [&'static str]) -> Room {
    Room { name, floor, may_import }
}

/// The table of `src/lib.rs`. A longer name stands before a shorter one that it begins with.
const HOUSE: &[Room] = &[
    room("kernel", 0, &[]),
    room("contracts", 0, &["kernel"]),
    room("users::domain", 1, &["kernel"]),
    room("wallet::domain", 1, &["kernel"]),
    room("users::application", 2, &["kernel", "contracts", "users::domain"]),
    room("wallet::application", 2, &["kernel", "contracts", "wallet::domain"]),
    room("infra", 3, &["kernel", "contracts"]),
    room("users::http", 4, &["kernel", "contracts", "infra", "users::domain", "users::application"]),
    room("users::postgres", 4, &["kernel", "contracts", "infra", "users::domain", "users::application"]),
    room("users::amqp", 4, &["kernel", "contracts", "infra", "users::domain", "users::application"]),
    room("wallet::http", 4, &["kernel", "contracts", "infra", "wallet::domain", "wallet::application"]),
    room("wallet::postgres", 4, &["kernel", "contracts", "infra", "wallet::domain", "wallet::application"]),
    room("wallet::amqp", 4, &["kernel", "contracts", "infra", "wallet::domain", "wallet::application"]),
    room("runtime", 5, &["kernel", "infra"]),
    room(
        "users::actors",
        5,
        &["kernel", "contracts", "infra", "runtime", "users::domain", "users::application", "users::amqp"],
    ),
    room(
        "wallet::actors",
        5,
        &["kernel", "contracts", "infra", "runtime", "wallet::domain", "wallet::application", "wallet::amqp"],
    ),
    room("roles", 6, &["kernel", "contracts", "infra", "runtime", "users", "wallet"]),
    room("operate", 6, &["kernel", "contracts", "infra", "users", "wallet"]),
    room("main", 7, &["kernel", "infra", "roles", "operate", "cli"]),
    room("cli", 7, &["kernel", "infra", "roles", "operate"]),
    // Pages with nothing but `mod` lines.
    room("users", 5, &[]),
    room("wallet", 5, &[]),
    room("lib", 7, &[]),
];

/// First floor on which something may be logged.
const LOGGING_FROM: u8 = 3;

/// Something that is named where it may not be.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Broken {
    file: String,
    line: usize,
    /// What is named there.
    named: String,
    rule: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: names `{}`, but {}", self.file, self.line, self.named, self.rule)
    }
}

/// The module that a file of `src/` is: `users/http/mod.rs` is `users::http`.
fn module_of(file: &str) -> Vec<String> {
    let path = file.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.split('/').map(str::to_owned).collect()
}

fn is_inside(module: &str, room: &str) -> bool {
    module.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

fn room_of(module: &str) -> Option<&'static Room> {
    HOUSE.iter().find(|room| is_inside(module, room.name))
}

/// Where a technology may be named, and the rule in words.
fn technology_rule(word: &str, room: &Room, module: &[String]) -> Option<String> {
    let under = |folder: &str| module.iter().any(|segment| segment == folder);
    let (allowed, rule) = match word {
        "lapin" => (under("amqp"), "lapin is named only in amqp"),
        w if w.starts_with("tokio_postgres") || w.starts_with("deadpool") => {
            (under("postgres"), "tokio_postgres and deadpool are named only in postgres")
        }
        "actix_web" => (
            under("http") || module.join("::") == "runtime::http_actor",
            "actix_web is named only in http and in runtime/http_actor.rs",
        ),
        "utoipa" => (under("http"), "utoipa is named only in http"),
        "slog" => (room.floor >= LOGGING_FROM, "nothing below floor 3 logs"),
        _ => return None,
    };
    (!allowed).then(|| rule.to_owned())
}

/// The serde derives of the code.
fn serde_derives(tokens: &[Token]) -> Vec<&Token> {
    let mut derives = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        if token.text == "derive" && tokens.get(index + 1).is_some_and(|next| next.text == "(") {
            let list = tokens.iter().skip(index + 2).take_while(|token| token.text != ")");
            derives.extend(list.filter(|token| matches!(token.text.as_str(), "Serialize" | "Deserialize")));
        }
    }
    derives
}

/// Everything that one file breaks. `file` is its path inside `src/`.
fn check(file: &str, source: &str) -> Vec<Broken> {
    let module = module_of(file);
    let broken =
        |line: usize, named: &str, rule: String| Broken { file: file.to_owned(), line, named: named.to_owned(), rule };
    let Some(room) = room_of(&module.join("::")) else {
        return vec![broken(1, &module.join("::"), "it stands in no room of the house".to_owned())];
    };
    let tokens = tokens(source);
    let mut found = Vec::new();
    for (path, line) in named_paths(&module, &tokens) {
        let at_home = is_inside(&path, room.name);
        // What is in no room is an item of the crate's root, for example a macro.
        if at_home || room_of(&path).is_none() || room.may_import.iter().any(|allowed| is_inside(&path, allowed)) {
            continue;
        }
        let allowed = if room.may_import.is_empty() { "nothing".to_owned() } else { room.may_import.join(", ") };
        found.push(broken(line, &path, format!("{} (floor {}) may import {allowed}", room.name, room.floor)));
    }
    for token in &tokens {
        if let Some(rule) = technology_rule(&token.text, room, &module) {
            found.push(broken(token.line, &token.text, rule));
        }
    }
    let on_the_wire = ["contracts", "infra::config", "infra::security"];
    let may_derive = module.iter().any(|segment| segment == "http")
        || on_the_wire.iter().any(|allowed| is_inside(&module.join("::"), allowed));
    for derive in serde_derives(&tokens).into_iter().filter(|_| !may_derive) {
        let rule = "serde is derived only in contracts, http, infra/config and infra/security";
        found.push(broken(derive.line, &derive.text, rule.to_owned()));
    }
    found
}

fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("src is there") {
        let path = entry.expect("entry").path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Everything that the house breaks.
fn check_all() -> Vec<Broken> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&root, &mut files);
    files.sort();
    assert!(files.len() > 100, "only {} files in {}", files.len(), root.display());
    let read = |path: &PathBuf| {
        let inside = path.strip_prefix(&root).expect("inside").to_string_lossy().into_owned();
        check(&inside, &fs::read_to_string(path).expect("readable"))
    };
    files.iter().flat_map(read).collect()
}

#[test]
fn nothing_is_named_above_its_floor() {
    let all = check_all();
    let told: Vec<String> = all.iter().map(ToString::to_string).collect();
    assert!(told.is_empty(), "{} places break the floors of src/lib.rs:\n{}", told.len(), told.join("\n"));
}

#[test]
fn the_table_of_the_library_page_names_every_room() {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("page");
    for room in HOUSE.iter().filter(|room| !matches!(room.name, "users" | "wallet" | "lib")) {
        let layer = room.name.rsplit("::").next().unwrap_or(room.name);
        let row = page.lines().any(|line| line.starts_with(&format!("//! | {} |", room.floor)) && line.contains(layer));
        assert!(row, "{} (floor {}) is not in the table of src/lib.rs", room.name, room.floor);
    }
}

fn told(file: &str, source: &str) -> Vec<String> {
    check(file, source).iter().map(ToString::to_string).collect()
}

#[test]
fn an_import_upwards_is_told_with_its_file_line_and_rule() {
    let source = "//! A page.\n\nuse crate::kernel::UserId;\nuse crate::infra::http::ApiError;\n";
    assert_eq!(
        told("users/domain/user.rs", source),
        ["src/users/domain/user.rs:4: names `infra::http::ApiError`, but users::domain (floor 1) may import kernel"]
    );
}

#[test]
fn a_group_an_inline_path_and_a_climb_by_super_are_seen_too() {
    let lines = |file, source| check(file, source).iter().map(|b| (b.line, b.named.clone())).collect::<Vec<_>>();
    let group = "use crate::{\n    kernel::Role,\n    wallet::{domain::Entry as E, http},\n};\n";
    assert_eq!(
        lines("users/http/wire.rs", group),
        [(3, "wallet::domain::Entry".to_owned()), (3, "wallet::http".to_owned())]
    );
    let inline = "fn f() -> u8 {\n    crate::roles::number::<u8>()\n}\n";
    assert_eq!(lines("runtime/child.rs", inline), [(2, "roles::number".to_owned())]);
    let climb = "use super::super::postgres::PgJournal;\n";
    assert_eq!(lines("wallet/domain/batch.rs", climb), [(1, "wallet::postgres::PgJournal".to_owned())]);
    let from_a_test = "mod tests {\n    use super::super::Entry;\n    use super::*;\n}\n";
    assert_eq!(lines("wallet/domain/batch.rs", from_a_test), []);
    assert_eq!(lines("main.rs", "use purse::users::domain::User;\n"), [(1, "users::domain::User".to_owned())]);
}

#[test]
fn the_contexts_never_name_each_other_and_infra_and_runtime_name_neither() {
    for (file, source) in [
        ("users/http/mod.rs", "use crate::wallet::application::ports::Ledger;"),
        ("wallet/actors/mod.rs", "use crate::users::amqp::OutboxPublisher;"),
        ("infra/health.rs", "use crate::users::domain::User;"),
        ("runtime/child.rs", "use crate::wallet::domain::Entry;"),
    ] {
        assert_eq!(check(file, source).len(), 1, "{file}");
    }
}

#[test]
fn a_technology_outside_its_folder_is_told() {
    for (file, source, word) in [
        ("users/http/log_in.rs", "use lapin::Channel;", "lapin"),
        ("infra/http/query.rs", "fn f(e: tokio_postgres::Error) {}", "tokio_postgres"),
        ("runtime/database_probe.rs", "use deadpool_postgres::Pool;", "deadpool_postgres"),
        ("users/actors/mod.rs", "use actix_web::web;", "actix_web"),
        ("wallet/domain/entry.rs", "#[derive(utoipa::ToSchema)]\nstruct A;", "utoipa"),
        ("wallet/application/post_batch.rs", "slog::info!(logger, \"x\");", "slog"),
        ("wallet/domain/entry.rs", "#[derive(Clone, serde::Serialize)]\nstruct A;", "Serialize"),
        ("cellar/mod.rs", "", "cellar"),
    ] {
        assert_eq!(check(file, source).iter().map(|b| b.named.as_str()).collect::<Vec<_>>(), [word], "{file}");
    }
    for (file, source) in [
        ("infra/amqp/mod.rs", "use lapin::Channel;"),
        ("users/amqp.rs", "use lapin::Channel;"),
        ("runtime/http_actor.rs", "use actix_web::App;"),
        ("users/http/wire.rs", "#[derive(Serialize)] struct A;"),
    ] {
        assert_eq!(told(file, source), Vec::<String>::new(), "{file}");
    }
}

#[test]
fn comments_and_texts_are_no_code() {
    let source = concat!(
        "//! See [`crate::roles`] and lapin.\n/* crate::roles /* nested */ lapin */\n",
        "const A: &str = \"crate::roles \\\" lapin\"; const B: &str = r#\"crate::roles \" lapin\"#;\n",
        "fn f<'a>(c: &'a char) -> bool { *c == '\"' || *c == '\\'' } // lapin\n",
    );
    assert_eq!(told("kernel/role.rs", source), Vec::<String>::new());
    assert_eq!(check("kernel/role.rs", &format!("{source}use lapin::Channel;")).first().map(|b| b.line), Some(5));
}
