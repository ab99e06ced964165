//! Characters that a reader does not see.

/// Whether `c` controls a terminal or a text direction, or is not displayed at all. Two texts that differ only in such
/// characters look the same.
///
/// Blanks are not among them, and neither are variation selectors, which decide how an emoji looks.
pub fn is_invisible(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}' // soft hyphen
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}' // zero width, direction marks
                | '\u{2028}'..='\u{202e}' // separators, direction overrides
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}' // byte order mark
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests {
    use super::is_invisible;

    #[test]
    fn what_cannot_be_seen_is_invisible_and_what_can_is_not() {
        for c in ['\0', '\n', '\t', '\u{1b}', '\u{7f}', '\u{85}', '\u{ad}', '\u{200b}', '\u{202e}', '\u{feff}'] {
            assert!(is_invisible(c), "{c:?}");
        }
        for c in [' ', 'a', 'ü', '€', '\u{a0}', '\u{301}', '\u{fe0f}', '字'] {
            assert!(!is_invisible(c), "{c:?}");
        }
    }
}
