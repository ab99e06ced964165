//! Configuration files: each value with its position.

use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::infra::config::raw::{self, FILE_BYTES_MAX};

/// The value of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FileValue {
    /// Where the key is: `config/base.toml:3:1`.
    pub(super) key_at: String,
    /// Where the value is.
    pub(super) at: String,
    /// One of the wrong type is an error message: a problem only where no later layer has a value.
    pub(super) text: Result<String, String>,
}

/// The keys and values of a file in the order of their keys; none if the file does not exist. The error is a place, and the
/// end of a sentence that begins with it.
pub(super) fn read(path: &Path) -> Result<Vec<(String, FileValue)>, (String, String)> {
    let place = raw::shown(path.as_os_str());
    let whole = |why: String| (place.clone(), why);
    let Some(content) = raw::read_file(path, FILE_BYTES_MAX.saturating_add(1)).map_err(whole)? else {
        return Ok(Vec::new());
    };
    if u64::try_from(content.len()).is_ok_and(|length| length > FILE_BYTES_MAX) {
        return Err(whole(format!("has more than {FILE_BYTES_MAX} bytes")));
    }
    let text = String::from_utf8(content).map_err(|_| whole("is not valid UTF-8".to_owned()))?;
    let at = |offset: usize| format!("{place}:{}", position(&text, offset));
    // Without the text around the error, which may be a secret that was put into the wrong file.
    let table = DeTable::parse(&text).map_err(|e| {
        let at = e.span().map_or_else(|| place.clone(), |span| at(span.start));
        (at, format!("is not valid TOML: {}", e.message()))
    })?;
    let entries = table.get_ref().iter().map(|(key, value)| {
        let text = scalar(value.get_ref());
        (key.get_ref().to_string(), FileValue { key_at: at(key.span().start), at: at(value.span().start), text })
    });
    Ok(entries.collect())
}

/// `3:14`: line and column, both from 1; the column counts characters.
fn position(text: &str, offset: usize) -> String {
    let before = text.get(..offset).unwrap_or(text);
    let line = before.matches('\n').count().saturating_add(1);
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count().saturating_add(1);
    format!("{line}:{column}")
}

fn scalar(value: &DeValue<'_>) -> Result<String, String> {
    match value {
        DeValue::String(text) => Ok(text.to_string()),
        DeValue::Integer(number) => i64::from_str_radix(&number.as_str().replace('_', ""), number.radix())
            .map(|number| number.to_string())
            .map_err(|_| "is out of range".to_owned()),
        DeValue::Boolean(yes) => Ok(yes.to_string()),
        _ => Err("must be a string, a whole number or a boolean".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_counts_lines_and_characters_from_one() {
        let text = "a\r\nbü c\n";
        let at = |offset| position(text, offset);
        assert_eq!([at(0), at(3), at(6), at(7)], ["1:1", "2:1", "2:3", "2:4"]);
        assert_eq!((at(text.len()), at(1_000)), ("3:1".to_owned(), "3:1".to_owned()));
        assert_eq!(position("", 0), "1:1");
    }

    #[test]
    fn integers_are_read_as_toml_writes_them() {
        let table = DeTable::parse("a = 1_000\nb = 0x1F\nc = +7\nd = -3\ne = 99999999999999999999\n").expect("TOML");
        let values: Vec<_> = table.get_ref().iter().map(|(_, value)| scalar(value.get_ref()).ok()).collect();
        let expected = [Some("1000"), Some("31"), Some("7"), Some("-3"), None];
        assert_eq!(values, expected.map(|text| text.map(str::to_owned)));
    }
}
