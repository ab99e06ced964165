//! A statement as CSV (RFC 4180), which people open in a spreadsheet.
//!
//! A spreadsheet takes a field that begins like a formula for one, and quotes do not prevent it. So texts that begin like one are
//! led by an apostrophe, and money has two columns, so that no field of ours begins with a minus sign.

use std::fmt::Write as _;

use crate::kernel::{is_invisible, rfc3339};
use crate::wallet::application::statement::Statement;
use crate::wallet::domain::{Entry, EntryKind};

pub(super) const HEADER: &str = "date,id,type,description,reference,counterparty,money_in,money_out,balance\r\n";

/// What a formula begins with, also in the forms that a spreadsheet may normalize.
const FORMULA_SIGNS: [char; 12] = ['=', '+', '-', '@', '＝', '＋', '－', '＠', '﹦', '﹢', '﹣', '﹫'];

/// The first record.
pub(super) fn opening(statement: &Statement) -> String {
    let (at, balance) = (rfc3339(statement.period.from()), dollars(statement.opening.balance.cents()));
    format!("{at},,opening balance,,,,,,{balance}\r\n")
}

/// The last record. A file without it is incomplete.
pub(super) fn closing(statement: &Statement) -> String {
    let (at, balance) = (rfc3339(statement.period.to()), dollars(statement.closing.balance.cents()));
    format!("{at},,closing balance,,,,,,{balance}\r\n")
}

/// Appends the record of an entry.
pub(super) fn record(to: &mut String, entry: &Entry) {
    let amount = dollars(entry.amount.cents());
    // A statement has credits and debits only.
    let (kind, money_in, money_out) = match entry.kind {
        EntryKind::Credit => ("credit", amount.as_str(), ""),
        _ => ("debit", "", amount.as_str()),
    };
    let (at, id, balance) = (rfc3339(entry.created_at), entry.id, dollars(entry.balance_after.cents()));
    let [description, reference, _] = entry.texts.parts().map(quoted);
    let counterparty = entry.transfer.map(|leg| leg.counterparty.to_string()).unwrap_or_default();
    // Writing to a String cannot fail.
    let _ =
        write!(to, "{at},{id},{kind},{description},{reference},{counterparty},{money_in},{money_out},{balance}\r\n");
}

/// `12.34`.
fn dollars(cents: i64) -> String {
    format!("{}.{:02}", cents / 100, cents % 100)
}

/// A text in quotes, on one line, that no spreadsheet takes for a formula. Nothing without a text.
fn quoted(text: Option<&str>) -> String {
    let Some(text) = text else { return String::new() };
    let is_blank = |c: char| c.is_whitespace() || c.is_control() || is_invisible(c) || c == '"';
    let is_formula = text.trim_start_matches(is_blank).starts_with(FORMULA_SIGNS);
    let guard = if is_formula || text.starts_with(char::is_control) { "'" } else { "" };
    let line = text.replace(|c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}'), " ");
    format!("\"{guard}{}\"", line.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn cents_are_written_as_dollars_with_two_digits() {
        for (cents, text) in
            [(0, "0.00"), (5, "0.05"), (1234, "12.34"), (100, "1.00"), (9_007_199_254_740_991, "90071992547409.91")]
        {
            assert_eq!(dollars(cents), text);
        }
    }

    #[test]
    fn a_text_that_a_spreadsheet_would_take_for_a_formula_is_led_by_an_apostrophe() {
        for (text, field) in [
            ("=HYPERLINK(\"http://x\")", r#""'=HYPERLINK(""http://x"")""#),
            ("+1", r#""'+1""#),
            ("-1+1", r#""'-1+1""#),
            ("@SUM(1)", r#""'@SUM(1)""#),
            ("\t=1", r#""' =1""#),
            ("\tx", r#""' x""#),
            ("\"=1", r#""'""=1""#),
            ("＝1", r#""'＝1""#),
            ("﹢1", r#""'﹢1""#),
            (" =1", r#""' =1""#),
            ("\u{feff}=1", "\"'\u{feff}=1\""),
            ("\u{200b}@x", "\"'\u{200b}@x\""),
        ] {
            assert_eq!(quoted(Some(text)), field, "{text:?}");
        }
    }

    #[test]
    fn every_other_text_is_quoted_as_it_is_on_one_line() {
        for (text, field) in [
            ("", r#""""#),
            ("order 17", r#""order 17""#),
            ("a, \"b\"; c=d", r#""a, ""b""; c=d""#),
            ("a\r\nb\tc\u{2028}d", r#""a  b c d""#),
            ("ü €", r#""ü €""#),
        ] {
            assert_eq!(quoted(Some(text)), field, "{text:?}");
        }
        assert_eq!(quoted(None), "");
    }

    proptest! {
        #[test]
        fn a_field_has_one_line_and_ends_where_its_quotes_end(text in any::<String>()) {
            let field = quoted(Some(&text));
            let inner = field.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).expect("in quotes");
            prop_assert!(!inner.replace("\"\"", "").contains('"'), "{:?}", field);
            prop_assert!(!field.contains(char::is_control), "{:?}", field);
            prop_assert!(!inner.starts_with(FORMULA_SIGNS), "{:?}", field);
        }
    }
}
