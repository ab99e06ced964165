//! A list on standard output, as a table or as one JSON document, written while it grows.

use std::io::{self, ErrorKind, Stdout, Write};

use clap::ArgMatches;
use serde_json::{Map, Value};

/// Rows that are lined up with each other; what keeps a long list out of memory.
const ROWS_LINED_UP: usize = 1_000;

/// How a command answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// For a person.
    Table,
    /// For a program.
    Json,
}

impl Format {
    /// What `--format` says.
    pub(super) fn of(arguments: &ArgMatches) -> Self {
        match arguments.get_one::<String>("format").map(String::as_str) {
            Some("json") => Self::Json,
            _ => Self::Table,
        }
    }
}

/// A document that is one list with some totals behind it.
pub(super) struct List<W: Write = Stdout> {
    format: Format,
    key: &'static str,
    columns: &'static [&'static str],
    rows: Vec<Vec<String>>,
    /// How many there were so far.
    items: u64,
    out: Out<W>,
}

/// Where it is written to. A reader that has seen enough (`| head`) is no error: what follows is left out.
struct Out<W> {
    to: W,
    broken: Option<io::Error>,
}

impl<W: Write> Out<W> {
    fn write(&mut self, text: &str) {
        if self.broken.is_none() {
            self.broken = self.to.write_all(text.as_bytes()).err();
        }
    }

    fn end(mut self) -> io::Result<()> {
        let flushed = if self.broken.is_none() { self.to.flush().err() } else { None };
        match self.broken.or(flushed) {
            Some(e) if e.kind() != ErrorKind::BrokenPipe => Err(e),
            _ => Ok(()),
        }
    }
}

impl List {
    /// On standard output. `key` names the list in JSON, `columns` are the heads of the table.
    pub(super) fn begin(format: Format, key: &'static str, columns: &'static [&'static str]) -> Self {
        Self::on(io::stdout(), format, key, columns)
    }
}

impl<W: Write> List<W> {
    fn on(to: W, format: Format, key: &'static str, columns: &'static [&'static str]) -> Self {
        Self { format, key, columns, rows: Vec::new(), items: 0, out: Out { to, broken: None } }
    }

    /// Adds an item, which may have several rows in the table.
    pub(super) fn item(&mut self, json: &Value, rows: impl IntoIterator<Item = Vec<String>>) {
        match self.format {
            Format::Json => {
                let lead =
                    if self.items == 0 { format!("{{\n  {}: [\n    ", quoted(self.key)) } else { ",\n    ".to_owned() };
                self.out.write(&format!("{lead}{json}"));
            }
            Format::Table => {
                self.rows.extend(rows);
                if self.rows.len() >= ROWS_LINED_UP {
                    self.write_rows();
                }
            }
        }
        self.items = self.items.saturating_add(1);
    }

    /// Ends it: `totals` stand behind the list in JSON, `sentence` under the table.
    ///
    /// # Errors
    /// When it could not be written, unless nobody reads any more.
    pub(super) fn end(mut self, totals: Value, sentence: &str) -> io::Result<()> {
        match self.format {
            Format::Json => {
                let lead = if self.items == 0 { format!("{{\n  {}: [", quoted(self.key)) } else { "\n  ".to_owned() };
                let totals: Map<String, Value> = if let Value::Object(totals) = totals { totals } else { Map::new() };
                self.out.write(&format!("{lead}]"));
                for (name, value) in totals {
                    self.out.write(&format!(",\n  {}: {value}", quoted(&name)));
                }
                self.out.write("\n}\n");
            }
            Format::Table => {
                let gap = if self.items == 0 { "" } else { "\n" };
                self.write_rows();
                self.out.write(&format!("{gap}{sentence}\n"));
            }
        }
        self.out.end()
    }

    fn write_rows(&mut self) {
        let heads = (!self.columns.is_empty()).then(|| self.columns.iter().map(|c| (*c).to_owned()).collect());
        let rows: Vec<Vec<String>> = heads.into_iter().chain(self.rows.drain(..)).collect();
        // The heads alone are no table.
        if rows.len() > usize::from(!self.columns.is_empty()) {
            self.out.write(&lined_up(&rows));
        }
        self.columns = &[];
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Rows with their cells under each other, two spaces apart.
fn lined_up(rows: &[Vec<String>]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        for (index, cell) in row.iter().enumerate() {
            let width = cell.chars().count();
            match widths.get_mut(index) {
                Some(widest) => *widest = width.max(*widest),
                None => widths.push(width),
            }
        }
    }
    let line = |row: &Vec<String>| {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

/// One answer without a list: `rows` under each other, or a JSON object.
///
/// # Errors
/// When it could not be written, unless nobody reads any more.
pub(super) fn answer(format: Format, json: &Value, rows: &[Vec<String>]) -> io::Result<()> {
    let mut out = Out { to: io::stdout(), broken: None };
    out.write(&match format {
        Format::Json => format!("{json:#}\n"),
        Format::Table => lined_up(rows),
    });
    out.end()
}

/// One answer that is a sentence, or a JSON object.
///
/// # Errors
/// When it could not be written, unless nobody reads any more.
pub(super) fn sentence(format: Format, json: &Value, sentence: &str) -> io::Result<()> {
    answer(format, json, &[vec![sentence.to_owned()]])
}

/// A text as it is, on standard output.
///
/// # Errors
/// When it could not be written, unless nobody reads any more.
pub(super) fn text(text: &str) -> io::Result<()> {
    let mut out = Out { to: io::stdout(), broken: None };
    out.write(text);
    out.end()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn listed(format: Format, names: &[&str]) -> String {
        let mut written = Vec::new();
        let mut list = List::on(&mut written, format, "things", &["NAME", "LETTERS"]);
        for name in names {
            list.item(&json!({"name": name}), [vec![(*name).to_owned(), name.len().to_string()]]);
        }
        list.end(json!({"total": names.len()}), "That is all.").expect("written");
        String::from_utf8(written).expect("text")
    }

    #[test]
    fn a_list_is_one_json_document_also_when_it_is_empty() {
        for names in [&[][..], &["a"], &["a", "b\""]] {
            let read: Value = serde_json::from_str(&listed(Format::Json, names)).expect("JSON");
            let things: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
            assert_eq!(read, json!({"things": things, "total": names.len()}));
        }
    }

    #[test]
    fn a_table_lines_its_cells_up_and_has_no_heads_without_rows() {
        assert_eq!(
            listed(Format::Table, &["long name", "b"]),
            "NAME       LETTERS\nlong name  9\nb          1\n\nThat is all.\n"
        );
        assert_eq!(listed(Format::Table, &[]), "That is all.\n");
    }

    #[test]
    fn a_long_table_has_its_heads_once() {
        let names = vec!["x"; 2 * ROWS_LINED_UP + 1];
        let table = listed(Format::Table, &names);
        assert_eq!(table.matches("NAME").count(), 1);
        assert_eq!(table.lines().count(), names.len() + 3);
    }

    struct Refusing(ErrorKind);

    impl Write for Refusing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_has_seen_enough_is_no_error_and_a_full_disk_is() {
        for (kind, told) in [(ErrorKind::BrokenPipe, None), (ErrorKind::StorageFull, Some(ErrorKind::StorageFull))] {
            let mut list = List::on(Refusing(kind), Format::Json, "things", &[]);
            list.item(&json!(1), []);
            list.item(&json!(2), []);
            assert_eq!(list.end(json!({}), "").err().map(|e| e.kind()), told);
        }
    }
}
