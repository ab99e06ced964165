//! What every value must be before its kind reads it, wherever it comes from, and the reading of files.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{ErrorKind, Read as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;

use crate::kernel::is_invisible;

/// Longest value, in bytes.
const VALUE_BYTES_MAX: usize = 64 * 1024;
/// Longest configuration file.
pub(super) const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// Characters of a value that an error message shows.
const SHOWN_CHARS_MAX: usize = 100;
/// Shown instead of a key or a password.
pub(super) const MASK: &str = "********";

/// The value, or the end of a sentence that begins with it.
///
/// One line break at the end is not part of the value: editors and `echo` add it. Anything else that a reader cannot see
/// is rejected, because a key or a password that differs by it from the intended one fails far from its cause.
pub(super) fn clean(raw: &OsStr) -> Result<&str, String> {
    if raw.len() > VALUE_BYTES_MAX {
        return Err(format!("has {} bytes; at most {VALUE_BYTES_MAX} are allowed", raw.len()));
    }
    let text = raw.to_str().ok_or("is not valid UTF-8")?;
    let line = text.strip_suffix('\n').map_or(text, |line| line.strip_suffix('\r').unwrap_or(line));
    if line.trim().is_empty() && !text.is_empty() {
        return Err("is blank".to_owned());
    }
    if let Some((index, c)) = line.chars().enumerate().find(|(_, c)| is_invisible(*c)) {
        let (code, position) = (u32::from(c), index.saturating_add(1));
        return Err(format!("contains the control or invisible character U+{code:04X} (character {position})"));
    }
    if line.starts_with(char::is_whitespace) {
        return Err("begins with a blank".to_owned());
    }
    if line.ends_with(char::is_whitespace) {
        return Err("ends with a blank".to_owned());
    }
    Ok(line)
}

/// A value for an error message: on one line, short, harmless to a terminal, and without the passwords of URLs.
pub(super) fn shown(raw: &OsStr) -> String {
    let text = without_passwords(&raw.to_string_lossy());
    let mut safe = String::new();
    for c in text.chars().take(SHOWN_CHARS_MAX) {
        if is_invisible(c) { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    if text.chars().nth(SHOWN_CHARS_MAX).is_some() {
        safe.push('…');
    }
    safe
}

/// Masks what stands between `://user:` and the last `@` before the next `://`. In a malformed URL that is more than the
/// password, never less.
fn without_passwords(text: &str) -> String {
    let mask = |part: &str| {
        let (user_info, host) = part.rsplit_once('@')?;
        let (user, _) = user_info.split_once(':')?;
        Some(format!("{user}:{MASK}@{host}"))
    };
    let mut parts = text.split("://");
    let scheme = parts.next().unwrap_or_default().to_owned();
    parts.fold(scheme, |shown, part| shown + "://" + &mask(part).unwrap_or_else(|| part.to_owned()))
}

/// The content of a secret's file. The error is the end of a sentence that begins with the variable that names the file.
pub(super) fn read_secret(path: &Path) -> Result<OsString, String> {
    // Longer ones are rejected by `clean`, which says how long a value may be.
    let bytes_max = u64::try_from(VALUE_BYTES_MAX).unwrap_or(u64::MAX).saturating_add(1);
    let place = shown(path.as_os_str());
    match read_file(path, bytes_max) {
        Ok(Some(content)) if content.is_empty() => Err(format!("names the file {place}, which is empty")),
        Ok(Some(content)) => Ok(OsString::from_vec(content)),
        Ok(None) => Err(format!("names the file {place}, which does not exist")),
        Err(why) => Err(format!("names the file {place}, which {why}")),
    }
}

/// At most `bytes_max` bytes of a regular file; `None` if nothing has that name. The error is the end of a sentence that
/// begins with the path.
///
/// Opening a pipe could wait forever, and a device may have no end.
pub(super) fn read_file(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, String> {
    let failed = |e: std::io::Error| format!("cannot be read: {e}");
    match fs::metadata(path) {
        Ok(found) if !found.is_file() => return Err("is not a regular file".to_owned()),
        Ok(_) => {}
        Err(e) if e.kind() == ErrorKind::NotFound => {
            let dangling = fs::symlink_metadata(path).is_ok();
            return if dangling {
                Err("is a symbolic link to a file that does not exist".to_owned())
            } else {
                Ok(None)
            };
        }
        Err(e) => return Err(failed(e)),
    }
    let mut content = Vec::new();
    File::open(path).map_err(failed)?.take(bytes_max).read_to_end(&mut content).map_err(failed)?;
    Ok(Some(content))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cleaned(text: &str) -> Result<&str, String> {
        clean(OsStr::new(text))
    }

    #[test]
    fn one_line_break_at_the_end_is_not_part_of_a_value() {
        for text in ["a key", "a key\n", "a key\r\n"] {
            assert_eq!(cleaned(text), Ok("a key"), "{text:?}");
        }
        assert_eq!(cleaned(""), Ok(""));
        for text in ["a key\n\n", "a key\r", "\na key", "a\nkey", " a key", "a key ", "a key\u{a0}", "\n", " ", "\r\n"]
        {
            assert!(cleaned(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_value_is_shown_in_one_short_line() {
        let text = format!("a\n\u{1b}[2J{}", "x".repeat(200_000));
        let shown = shown(OsStr::new(&text));
        assert!(shown.starts_with("a\\n\\u{1b}[2Jx") && shown.ends_with("x…"), "{shown}");
        assert!(shown.chars().count() < 120, "{shown}");
    }

    #[test]
    fn a_value_is_shown_without_the_passwords_of_its_urls() {
        for (value, expected) in [
            ("http://u:secret@h:4318", "http://u:********@h:4318"),
            ("https://a.example,https://u:se@cr/et@b.example/c", "https://a.example,https://u:********@b.example/c"),
            ("http://u:se,cret@h,x", "http://u:********@h,x"),
            ("http://:secret@h", "http://:********@h"),
            ("https://u@h:1/a", "https://u@h:1/a"),
            ("https://h:1/a", "https://h:1/a"),
            ("10.0.0.0/8,::1", "10.0.0.0/8,::1"),
        ] {
            assert_eq!(shown(OsStr::new(value)), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_clean_is_visible_from_its_first_character_to_its_last(text in any::<String>()) {
            if let Ok(value) = cleaned(&text) {
                prop_assert_eq!(value.trim(), value);
                prop_assert!(!value.chars().any(is_invisible));
                prop_assert!(text.starts_with(value));
            }
        }
    }
}
