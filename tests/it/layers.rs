//! Enforces the table of layers in `docs/architecture.md`: reads `src/` and reports every import that the table does not
//! allow. Reports every import cycle in `src/` and `dev/src/`.
//!
//! Needs no server. Comments and literals may name anything.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::support::repository::{between, sources, text};
use crate::support::source::{Token, child_paths, named_paths, reexports, tokens};

/// First layer in which code may log.
const LOGGING_FROM: u8 = 3;

/// A module of the table. It may also import itself.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Module {
    name: String,
    layer: u8,
    may_import: Vec<String>,
}

#[derive(Debug)]
struct Layers(Vec<Module>);

impl Layers {
    fn of_architecture() -> Self {
        Self::parse(between(&text("docs/architecture.md"), "layers"))
    }

    /// The columns are layer, module, responsibility, may import. `<context>` stands for `users` and for `wallet`.
    fn parse(table: &str) -> Self {
        let mut modules = Vec::new();
        for row in table.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| layer ")) {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            let [layer, names, _, imports] = cells[..] else { panic!("not four cells: {row}") };
            let contexts: &[&str] = if names.contains("<context>") { &["users", "wallet"] } else { &[""] };
            for context in contexts {
                let in_code = |cell: &str| -> Vec<String> {
                    cell.split('`').skip(1).step_by(2).map(|name| name.replace("<context>", context)).collect()
                };
                let layer = layer.parse().unwrap_or_else(|e| panic!("{e}: {row}"));
                let may_import = in_code(imports);
                modules.extend(in_code(names).into_iter().map(|name| Module {
                    name,
                    layer,
                    may_import: may_import.clone(),
                }));
            }
        }
        Self(modules)
    }

    /// The module of the table that contains `path`.
    fn module_of(&self, path: &str) -> Option<&Module> {
        self.0.iter().find(|module| is_inside(path, &module.name))
    }

    /// Whether `path` is the crate root or a context, whose files contain only `mod` lines.
    fn is_above_the_table(&self, path: &str) -> bool {
        path == "lib" || self.0.iter().any(|module| is_inside(&module.name, path))
    }
}

fn is_inside(path: &str, module: &str) -> bool {
    path.strip_prefix(module).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The module of a file in `src/`: `users/http/mod.rs` is `users::http`.
fn path_of(file: &str) -> Vec<String> {
    let path = file.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    path.split('/').map(str::to_owned).collect()
}

/// Something in the code that a rule forbids.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Violation {
    file: String,
    line: usize,
    found: String,
    rule: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "src/{}:{}: found `{}`, but {}", self.file, self.line, self.found, self.rule)
    }
}

/// The rule that `word` violates, if it is a technology that this module may not use.
fn technology_rule(word: &str, layer: u8, path: &[String]) -> Option<String> {
    let under = |folder: &str| path.iter().any(|segment| segment == folder);
    let (allowed, rule) = match word {
        "lapin" => (under("amqp"), "lapin is used only in amqp"),
        w if w.starts_with("tokio_postgres") || w.starts_with("deadpool") => {
            (under("postgres"), "tokio_postgres and deadpool are used only in postgres")
        }
        "actix_web" => (
            under("http") || path.join("::") == "runtime::http_actor",
            "actix_web is used only in http and in runtime/http_actor.rs",
        ),
        "utoipa" => (under("http"), "utoipa is used only in http"),
        "slog" => (layer >= LOGGING_FROM, "no layer below 3 logs"),
        _ => return None,
    };
    (!allowed).then(|| rule.to_owned())
}

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

/// Every violation in one file; `file` is its path inside `src/`.
fn violations(layers: &Layers, file: &str, source: &str) -> Vec<Violation> {
    let path = path_of(file);
    let name = path.join("::");
    let violation = |line: usize, found: &str, rule: String| Violation {
        file: file.to_owned(),
        line,
        found: found.to_owned(),
        rule,
    };
    let own = match layers.module_of(&name) {
        Some(own) => own.clone(),
        None if layers.is_above_the_table(&name) => Module { name: name.clone(), layer: 0, may_import: Vec::new() },
        None => return vec![violation(1, &name, "the table of layers has no such module".to_owned())],
    };
    let tokens = tokens(source);
    let mut all = Vec::new();
    for (import, line) in named_paths(&path, &tokens) {
        // What is in no module of the table is an item of the crate root, for example a macro.
        let is_item = layers.module_of(&import).is_none();
        if is_item || is_inside(&import, &own.name) || own.may_import.iter().any(|module| is_inside(&import, module)) {
            continue;
        }
        let allowed = if own.may_import.is_empty() { "nothing".to_owned() } else { own.may_import.join(", ") };
        all.push(violation(line, &import, format!("{} (layer {}) may import {allowed}", own.name, own.layer)));
    }
    for token in &tokens {
        if let Some(rule) = technology_rule(&token.text, own.layer, &path) {
            all.push(violation(token.line, &token.text, rule));
        }
    }
    let may_derive = path.iter().any(|segment| segment == "http")
        || ["contracts", "infra::config", "infra::security"].iter().any(|module| is_inside(&name, module));
    for derive in serde_derives(&tokens).into_iter().filter(|_| !may_derive) {
        let rule = "serde is derived only in contracts, http, infra/config and infra/security";
        all.push(violation(derive.line, &derive.text, rule.to_owned()));
    }
    all
}

/// The text of every file in a folder, by its path inside.
fn files_in(folder: &str) -> BTreeMap<String, String> {
    let inside = |path: &str| path.strip_prefix(folder).and_then(|path| path.strip_prefix('/')).map(str::to_owned);
    sources(folder).iter().map(|path| (inside(path).unwrap_or_else(|| panic!("{path}")), text(path))).collect()
}

fn source_files() -> BTreeMap<String, String> {
    let files = files_in("src");
    assert!(files.len() > 100, "only {} files in src", files.len());
    files
}

/// Which file imports which, by module. An import of a re-export counts as one of the file that defines it. Declaring a
/// child module and re-exporting its items is not an import; using them is.
fn file_imports(files: &BTreeMap<String, String>) -> BTreeMap<String, BTreeSet<String>> {
    let read: BTreeMap<String, (Vec<String>, Vec<Token>)> =
        files.iter().map(|(file, source)| (path_of(file).join("::"), (path_of(file), tokens(source)))).collect();
    let reexported: BTreeMap<String, String> = read
        .iter()
        .flat_map(|(module, (path, tokens))| reexports(path, tokens).into_iter().map(move |to| (module, to)))
        .filter_map(|(module, to)| Some((format!("{module}::{}", to.rsplit("::").next()?), to)))
        .collect();
    let file_of = |import: &str| {
        let mut import = import;
        while let Some(to) = reexported.get(import) {
            import = to;
        }
        let prefixes = std::iter::successors(Some(import), |path| path.rsplit_once("::").map(|(parent, _)| parent));
        prefixes.into_iter().find(|path| read.contains_key(*path)).map(str::to_owned)
    };
    let imports = |module: &String, path: &[String], tokens: &[Token]| {
        let named = named_paths(path, tokens).into_iter().chain(child_paths(path, tokens));
        named.filter_map(|(import, _)| file_of(&import)).filter(|other| other != module).collect()
    };
    read.iter().map(|(module, (path, tokens))| (module.clone(), imports(module, path, tokens))).collect()
}

/// Groups of files that import each other, directly or through others.
fn cycles(imports: &BTreeMap<String, BTreeSet<String>>) -> BTreeSet<Vec<&str>> {
    let reachable = |from: &str| {
        let (mut reached, mut open) = (BTreeSet::new(), vec![from.to_owned()]);
        while let Some(module) = open.pop() {
            open.extend(
                imports.get(&module).into_iter().flatten().filter(|next| reached.insert((*next).clone())).cloned(),
            );
        }
        reached
    };
    let reached: BTreeMap<&str, BTreeSet<String>> =
        imports.keys().map(|module| (module.as_str(), reachable(module))).collect();
    let in_a_cycle = reached.iter().filter(|(module, to)| to.contains(**module));
    in_a_cycle
        .map(|(module, to)| {
            reached
                .iter()
                .filter(|(other, back)| to.contains(**other) && back.contains(*module))
                .map(|(o, _)| *o)
                .collect()
        })
        .collect()
}

#[test]
fn every_import_and_every_technology_is_in_an_allowed_layer() {
    let layers = Layers::of_architecture();
    let all: Vec<String> = source_files()
        .iter()
        .flat_map(|(file, source)| violations(&layers, file, source))
        .map(|violation| violation.to_string())
        .collect();
    assert!(all.is_empty(), "{} violations of the layers in docs/architecture.md:\n{}", all.len(), all.join("\n"));
}

#[test]
fn no_two_files_import_each_other() {
    for (folder, files) in [("src", source_files()), ("dev/src", files_in("dev/src"))] {
        let imports = file_imports(&files);
        assert!(imports.values().map(BTreeSet::len).sum::<usize>() > files.len(), "few imports are seen in {folder}");
        let cycles: Vec<String> = cycles(&imports).into_iter().map(|files| files.join(" <-> ")).collect();
        assert!(cycles.is_empty(), "{} import cycles in {folder}:\n{}", cycles.len(), cycles.join("\n"));
    }
}

#[test]
fn every_module_of_the_table_exists_and_may_import_only_modules_above_it() {
    let Layers(modules) = Layers::of_architecture();
    let files: BTreeSet<String> = source_files().keys().map(|file| path_of(file).join("::")).collect();
    for (index, module) in modules.iter().enumerate() {
        assert!(files.contains(&module.name), "src/ has no module {}", module.name);
        let above = &modules[..index];
        for import in &module.may_import {
            let mut imported = above.iter().filter(|other| is_inside(&other.name, import)).peekable();
            assert!(imported.peek().is_some(), "{} is above {import} in the table", module.name);
            assert!(
                imported.all(|other| other.layer <= module.layer),
                "{import} is in a higher layer than {}",
                module.name
            );
        }
    }
}

fn found(file: &str, source: &str) -> Vec<String> {
    violations(&Layers::of_architecture(), file, source).into_iter().map(|violation| violation.found).collect()
}

#[test]
fn an_upward_import_is_reported_with_its_file_line_and_rule() {
    let source = "//! A page.\n\nuse crate::kernel::UserId;\nuse crate::infra::http::ApiError;\n";
    let all = violations(&Layers::of_architecture(), "users/domain/user.rs", source);
    assert_eq!(
        all.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["src/users/domain/user.rs:4: found `infra::http::ApiError`, but users::domain (layer 1) may import kernel"]
    );
}

#[test]
fn groups_inline_paths_and_super_are_followed() {
    let lines = |file, source| {
        let all = violations(&Layers::of_architecture(), file, source);
        all.into_iter().map(|violation| (violation.line, violation.found)).collect::<Vec<_>>()
    };
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
fn the_contexts_never_import_each_other_and_infra_and_runtime_import_neither() {
    for (file, source) in [
        ("users/http/mod.rs", "use crate::wallet::application::ports::Ledger;"),
        ("wallet/actors/mod.rs", "use crate::users::amqp::OutboxPublisher;"),
        ("infra/health.rs", "use crate::users::domain::User;"),
        ("runtime/child.rs", "use crate::wallet::domain::Entry;"),
        ("users/mod.rs", "use crate::wallet::domain::Entry;"),
        ("lib.rs", "use crate::wallet::domain::Entry;"),
    ] {
        assert_eq!(found(file, source).len(), 1, "{file}");
    }
}

#[test]
fn a_technology_outside_its_folder_and_a_module_outside_the_table_are_reported() {
    for (file, source, word) in [
        ("users/http/log_in.rs", "use lapin::Channel;", "lapin"),
        ("infra/http/query.rs", "fn f(e: tokio_postgres::Error) {}", "tokio_postgres"),
        ("runtime/database_probe.rs", "use deadpool_postgres::Pool;", "deadpool_postgres"),
        ("users/actors/mod.rs", "use actix_web::web;", "actix_web"),
        ("wallet/domain/entry.rs", "#[derive(utoipa::ToSchema)]\nstruct A;", "utoipa"),
        ("wallet/application/post_batch.rs", "slog::info!(logger, \"x\");", "slog"),
        ("wallet/domain/entry.rs", "#[derive(Clone, serde::Serialize)]\nstruct A;", "Serialize"),
        ("helpers/mod.rs", "", "helpers"),
    ] {
        assert_eq!(found(file, source), [word], "{file}");
    }
    for (file, source) in [
        ("infra/amqp/mod.rs", "use lapin::Channel;"),
        ("users/amqp.rs", "use lapin::Channel;"),
        ("runtime/http_actor.rs", "use actix_web::App;"),
        ("users/http/wire.rs", "#[derive(Serialize)] struct A;"),
    ] {
        assert_eq!(found(file, source), Vec::<String>::new(), "{file}");
    }
}

#[test]
fn comments_and_literals_are_not_code() {
    let source = concat!(
        "//! See [`crate::roles`] and lapin.\n/* crate::roles /* nested */ lapin */\n",
        "const A: &str = \"crate::roles \\\" lapin\"; const B: &str = r#\"crate::roles \" lapin\"#;\n",
        "fn f<'a>(c: &'a char) -> bool { *c == '\"' || *c == '\\'' } // lapin\n",
    );
    assert_eq!(found("kernel/role.rs", source), Vec::<String>::new());
    let all = violations(&Layers::of_architecture(), "kernel/role.rs", &format!("{source}use lapin::Channel;"));
    assert_eq!(all.first().map(|violation| violation.line), Some(5));
}

#[test]
fn a_cycle_is_found_through_re_exports_and_over_several_files() {
    let files = |files: &[(&str, &str)]| {
        let files: BTreeMap<String, String> = files.iter().map(|(f, s)| ((*f).to_owned(), (*s).to_owned())).collect();
        cycles(&file_imports(&files)).into_iter().map(|files| files.join(" <-> ")).collect::<Vec<_>>()
    };
    let page = ("a/mod.rs", "mod one;\nmod two;\npub use two::{Second, Other};\nfn helper() {}");
    let one = ("a/one.rs", "use crate::a::{Second, helper};");
    assert_eq!(
        files(&[page, one, ("a/two.rs", "use crate::b::Third;"), ("b.rs", "struct Third;")]),
        Vec::<String>::new()
    );
    assert_eq!(files(&[page, one, ("a/two.rs", "use super::one::First;")]), ["a::one <-> a::two"]);
    let far = ("b.rs", "use crate::a::one::First;");
    assert_eq!(files(&[page, one, ("a/two.rs", "use crate::b::Third;"), far]), ["a::one <-> a::two <-> b"]);
}

#[test]
fn a_parent_that_uses_a_child_which_imports_from_the_parent_is_a_cycle() {
    let cycles = |parent: &str, child: &str| {
        let files = [("a/mod.rs", parent), ("a/one.rs", child), ("a/two.rs", "pub struct Second;")];
        let files: BTreeMap<String, String> = files.iter().map(|(f, s)| ((*f).to_owned(), (*s).to_owned())).collect();
        cycles(&file_imports(&files)).into_iter().map(|files| files.join(" <-> ")).collect::<Vec<_>>()
    };
    let imports_the_parent = "use crate::a::helper;\npub fn run() {}";
    for parent in
        ["one::run()", "self::one::run()", "use one::run; run()", "use self::one::{run}; run()", "crate::a::one::run()"]
    {
        let parent = format!("mod one;\nmod two;\npub fn helper() {{}}\nfn f() {{ {parent} }}");
        for child in [imports_the_parent, "use super::helper;", "fn g() { super::helper() }"] {
            assert_eq!(cycles(&parent, child), ["a <-> a::one"], "{parent} {child}");
        }
        let through_a_reexport = format!("pub use two::Second;\n{parent}");
        assert_eq!(cycles(&through_a_reexport, "use super::Second;"), Vec::<String>::new(), "{parent}");
    }
    for reexport in ["pub use one::run;", "pub(crate) use one::{run as start};", "pub use self::one::run;"] {
        let parent = format!("mod one;\n{reexport}\npub fn helper() {{}}");
        assert_eq!(cycles(&parent, imports_the_parent), Vec::<String>::new(), "{reexport}");
    }
    let function_of_the_same_name = "mod one;\npub fn helper() { one::<u8>(); other::one::run() }";
    assert_eq!(cycles(function_of_the_same_name, imports_the_parent), Vec::<String>::new());
}
