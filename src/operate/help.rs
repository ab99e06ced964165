//! What the help of a command ends with: the environment that it requires, and examples.

use std::fmt::Write as _;

use crate::infra::config::setting::ALL;
use crate::infra::config::{Section, Setting};
use crate::kernel::Role;

/// Where lines break, so that clap, which knows of no indentation here, does not have to break them.
const LINE_CHARS_MAX: usize = 98;

/// The required variables of a section for any of `roles`, and examples, each a whole command line. A test parses them.
pub fn help_end(reads: Option<(Section, &[Role])>, examples: &[&str]) -> String {
    let mut text = String::new();
    if let Some((section, roles)) = reads {
        let required: Vec<&Setting> = roles.iter().flat_map(|role| section.required(*role)).collect();
        let required: Vec<&Setting> = ALL.iter().filter(|setting| required.contains(setting)).collect();
        if !required.is_empty() {
            text.push_str("Required environment (from the variable, or from a file whose path is in <NAME>_FILE):\n");
        }
        let width = required.iter().map(|setting| setting.env.len()).max().unwrap_or(0);
        for setting in required {
            let role = setting.role.filter(|_| roles.len() > 1).map(|role| format!("({role}) ")).unwrap_or_default();
            let about = wrapped(&format!("{role}{}", setting.help), LINE_CHARS_MAX.saturating_sub(width + 4));
            let hanging = format!("\n{:indent$}", "", indent = width + 4);
            // Writing to a string cannot fail.
            let _ = writeln!(text, "  {:width$}  {}", setting.env, about.join(&hanging));
        }
    }
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str("Examples:");
    for example in examples {
        let _ = write!(text, "\n  {example}");
    }
    text
}

/// Lines of at most `most` characters, as far as the words allow.
fn wrapped(text: &str, most: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut().filter(|line| line.len().saturating_add(word.len()) < most) {
            Some(line) => {
                line.push(' ');
                line.push_str(word);
            }
            None => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_only_where_they_are_too_long() {
        assert_eq!(wrapped("one two three four", 9), ["one two", "three", "four"]);
        assert_eq!(wrapped("extraordinary", 4), ["extraordinary"]);
        assert_eq!(wrapped("one two", 7), ["one two"]);
    }
}
