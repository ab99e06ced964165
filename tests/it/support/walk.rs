//! Walk-throughs: pages with commands that a test runs, and the output that they must print.

use super::repository::between;

/// Marks a value that changes, in an output shown on a page.
pub const ELLIPSIS: char = '…';

/// A block of commands, and the output that the page shows below it.
pub struct WalkStep {
    pub commands: String,
    pub output: Option<String>,
}

/// The fenced blocks of a text, with their language.
pub fn blocks(text: &str) -> Vec<(String, String)> {
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

/// The steps between two marks of a page: `sh` blocks, each optionally followed by its output in this language.
pub fn walk_steps(page: &str, mark: &str, output_language: &str) -> Vec<WalkStep> {
    let mut steps: Vec<WalkStep> = Vec::new();
    for (language, body) in blocks(between(page, mark)) {
        match (language.as_str(), steps.last_mut()) {
            ("sh", _) => steps.push(WalkStep { commands: body, output: None }),
            (language, Some(step)) if language == output_language && step.output.is_none() => step.output = Some(body),
            (other, _) => panic!("unexpected block `{other}` of {mark}:\n{body}"),
        }
    }
    steps
}
