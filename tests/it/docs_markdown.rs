//! The pages are valid Markdown where a mistake is easily made: tables have a head, and the index of decisions is complete.

use crate::support::repository::{files_with, text};

/// The lines of `page` that look like rows of a table without a head, with their numbers.
fn rows_without_head(page: &str) -> Vec<(usize, &str)> {
    let (mut found, mut in_code, mut in_table) = (Vec::new(), false, false);
    let lines: Vec<&str> = page.lines().collect();
    for (index, line) in lines.iter().enumerate() {
        in_code ^= line.starts_with("```");
        let is_row = !in_code && line.starts_with('|');
        let head_ends = lines.get(index + 1).is_some_and(|next| next.starts_with("|---"));
        in_table = is_row && (in_table || head_ends);
        if is_row && !in_table {
            found.push((index + 1, *line));
        }
    }
    found
}

#[test]
fn every_table_has_a_head() {
    let mut pages = files_with("docs", &["md"]);
    pages.extend(["README.md", "CONTRIBUTING.md", "SECURITY.md"].map(str::to_owned));
    let mut found = Vec::new();
    for name in &pages {
        let page = text(name);
        found.extend(rows_without_head(&page).into_iter().map(|(line, row)| format!("{name}:{line}: {row}")));
    }
    assert!(found.is_empty(), "{} rows are not in a table:\n{}", found.len(), found.join("\n"));
}

#[test]
fn a_row_without_a_head_is_found() {
    assert_eq!(rows_without_head("# A\n\n| a |\n|---|\n| b |\n\n```\n| c |\n```\n"), []);
    assert_eq!(rows_without_head("# A\n| b |\n| c |\n"), [(2, "| b |"), (3, "| c |")]);
    assert_eq!(rows_without_head("| a |\n|---|\n| b |\n## C\n| d |\n"), [(5, "| d |")]);
}

#[test]
fn the_index_of_decisions_lists_each_of_them_in_the_order_of_the_page() {
    let page = text("docs/decisions.md");
    let (mut area, mut headings) = ("", Vec::new());
    for line in page.lines() {
        if let Some(title) = line.strip_prefix("## ") {
            area = title;
        } else if let Some((number, title)) = line.strip_prefix("### ").and_then(|heading| heading.split_once(' ')) {
            headings.push((number, title, area));
        }
    }
    let rows: Vec<(&str, &str, &str)> = page
        .lines()
        .filter_map(|line| {
            let (number, rest) = line.strip_prefix("| [")?.split_once(']')?;
            let (title, area) = rest.split_once(" | ")?.1.strip_suffix(" |")?.rsplit_once(" | ")?;
            Some((number, title.split(" (superseded by ").next().unwrap_or(title), area))
        })
        .collect();
    assert_eq!(rows, headings);
    assert!(headings.is_sorted(), "the numbers are not in order");
}
