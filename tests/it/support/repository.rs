//! The files of the repository, for tests that compare them with each other.

use std::fs;
use std::path::Path;

pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The text of a file, by its path in the repository.
pub fn text(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// The paths of all files in a folder and its subfolders, sorted. Hidden folders, build output and fuzz corpora are
/// skipped.
pub fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(root().join(folder)).unwrap_or_else(|e| panic!("{folder}: {e}")) {
        let entry = entry.expect("entry");
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if !entry.path().is_dir() {
            found.push(path);
        } else if !name.starts_with('.') && !matches!(name.as_str(), "target" | "corpus") {
            found.extend(files(&path));
        }
    }
    found.sort();
    found
}

/// The same, but only files with one of these extensions.
pub fn files_with(folder: &str, extensions: &[&str]) -> Vec<String> {
    let fits = |path: &String| path.rsplit_once('.').is_some_and(|(_, extension)| extensions.contains(&extension));
    files(folder).into_iter().filter(fits).collect()
}

/// The Rust sources in a folder and its subfolders.
pub fn sources(folder: &str) -> Vec<String> {
    files_with(folder, &["rs"])
}

/// A source without its unit tests, which come last in a file.
pub fn without_tests(source: &str) -> &str {
    source.split("#[cfg(test)]").next().unwrap_or_default()
}

/// A source without its comments and tests, which may name anything.
pub fn production(source: &str) -> String {
    let code = without_tests(source).lines();
    code.filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n")
}

/// The text between the marks `<!-- mark:begin -->` and `<!-- mark:end -->` of a page.
pub fn between<'a>(page: &'a str, mark: &str) -> &'a str {
    let (begin, end) = (format!("<!-- {mark}:begin -->"), format!("<!-- {mark}:end -->"));
    let inside = page.split_once(&begin).and_then(|(_, rest)| rest.split_once(&end));
    inside.unwrap_or_else(|| panic!("the page has no marks {begin} and {end}")).0.trim()
}
