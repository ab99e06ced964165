//! What a command prints: its result on standard output, as a table or as one JSON document, and errors on standard error.
//! Long lists are streamed.

use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, IsTerminal as _, Write};
use std::os::fd::AsFd as _;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::ArgMatches;
use serde_json::{Map, Value};

use crate::kernel::{ExitError, ExitStatus};
use crate::operate::failure::Failure;

/// Rows that are aligned with each other, which bounds the memory that a long list needs.
const ROWS_ALIGNED: usize = 1_000;
/// Longest wait for a reader of standard error.
const STDERR_WAIT: Duration = Duration::from_secs(5);

/// Standard output, without the layer of the standard library that takes a descriptor which cannot be written for a
/// working one.
type Stdout = BufWriter<File>;

fn stdout() -> io::Result<Stdout> {
    Ok(BufWriter::new(File::from(io::stdout().as_fd().try_clone_to_owned()?)))
}

/// Output format of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Table,
    Json,
}

impl Format {
    /// The value of `--format`, or of `--json`.
    pub(super) fn of(arguments: &ArgMatches) -> Self {
        if arguments.get_flag("json") {
            return Self::Json;
        }
        match arguments.get_one::<String>("format").map(String::as_str) {
            Some("json") => Self::Json,
            _ => Self::Table,
        }
    }
}

/// A document with one list, followed by totals.
pub(super) struct List<W: Write = Stdout> {
    format: Format,
    key: &'static str,
    columns: &'static [&'static str],
    rows: Vec<Vec<String>>,
    items: u64,
    out: Out<W>,
}

/// A writer that keeps its first error. A reader that closes the pipe early (`| head`) is not an error.
struct Out<W> {
    to: W,
    error: Option<io::Error>,
}

impl Out<Stdout> {
    fn stdout() -> io::Result<Self> {
        Ok(Self { to: stdout()?, error: None })
    }
}

impl<W: Write> Out<W> {
    fn write(&mut self, text: &str) {
        if self.error.is_none() {
            self.error = self.to.write_all(text.as_bytes()).err();
        }
    }

    fn end(mut self) -> io::Result<()> {
        let flushed = if self.error.is_none() { self.to.flush().err() } else { None };
        match self.error.or(flushed) {
            Some(e) if e.kind() != ErrorKind::BrokenPipe => Err(e),
            _ => Ok(()),
        }
    }
}

impl List {
    /// `key` names the list in JSON; `columns` are the headers of the table.
    pub(super) fn begin(format: Format, key: &'static str, columns: &'static [&'static str]) -> io::Result<Self> {
        Ok(Self::on(stdout()?, format, key, columns))
    }
}

impl<W: Write> List<W> {
    fn on(to: W, format: Format, key: &'static str, columns: &'static [&'static str]) -> Self {
        Self { format, key, columns, rows: Vec::new(), items: 0, out: Out { to, error: None } }
    }

    /// Adds an item, which may be several rows of the table.
    pub(super) fn item(&mut self, json: &Value, rows: impl IntoIterator<Item = Vec<String>>) {
        match self.format {
            Format::Json => {
                let lead =
                    if self.items == 0 { format!("{{\n  {}: [\n    ", quoted(self.key)) } else { ",\n    ".to_owned() };
                self.out.write(&format!("{lead}{json}"));
            }
            Format::Table => {
                self.rows.extend(rows);
                if self.rows.len() >= ROWS_ALIGNED {
                    self.write_rows();
                }
            }
        }
        self.items = self.items.saturating_add(1);
    }

    /// Ends the document with `totals` after the list in JSON, or with `sentence` below the table.
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
        let header = (!self.columns.is_empty()).then(|| self.columns.iter().map(|c| (*c).to_owned()).collect());
        let rows: Vec<Vec<String>> = header.into_iter().chain(self.rows.drain(..)).collect();
        // No rows, no header.
        if rows.len() > usize::from(!self.columns.is_empty()) {
            self.out.write(&aligned(&rows));
        }
        self.columns = &[];
    }
}

/// JSON objects, one per line.
pub(super) struct Lines(Out<Stdout>);

impl Lines {
    pub(super) fn begin() -> io::Result<Self> {
        Ok(Self(Out::stdout()?))
    }

    /// Whether more can be written.
    pub(super) fn write(&mut self, object: &Value) -> bool {
        self.0.write(&format!("{object}\n"));
        self.0.error.is_none()
    }

    pub(super) fn end(self) -> io::Result<()> {
        self.0.end()
    }
}

fn quoted(text: &str) -> String {
    Value::from(text).to_string()
}

/// Columns two spaces apart. The last cell of a row is not padded: it may be as long as a message.
fn aligned(rows: &[Vec<String>]) -> String {
    let width = |cell: &String| cell.chars().count();
    let mut widths: Vec<usize> = Vec::new();
    for row in rows {
        let padded = row.split_last().map_or(&[][..], |(_, padded)| padded);
        for (index, cell) in padded.iter().enumerate() {
            match widths.get_mut(index) {
                Some(widest) => *widest = width(cell).max(*widest),
                None => widths.push(width(cell)),
            }
        }
    }
    let mut text = String::new();
    for row in rows {
        let begin = text.len();
        for (index, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if index.saturating_add(1) < row.len() {
                // Not by `{:width$}`, which panics from 65,536 on.
                let missing = widths.get(index).map_or(0, |widest| widest.saturating_sub(width(cell)));
                text.extend(std::iter::repeat_n(' ', missing.saturating_add(2)));
            }
        }
        let line = text.get(begin..).map_or(0, |line| line.trim_end().len());
        text.truncate(begin.saturating_add(line));
        text.push('\n');
    }
    text
}

/// Prints one record, as `rows` or as a JSON object.
pub(super) fn print_record(format: Format, json: &Value, rows: &[Vec<String>]) -> io::Result<()> {
    let mut out = Out::stdout()?;
    out.write(&match format {
        Format::Json => format!("{json:#}\n"),
        Format::Table => aligned(rows),
    });
    out.end()
}

/// Prints a sentence or a JSON object.
pub(super) fn print_sentence(format: Format, json: &Value, sentence: &str) -> io::Result<()> {
    print_record(format, json, &[vec![sentence.to_owned()]])
}

fn print_text(text: &str) -> io::Result<()> {
    let mut out = Out::stdout()?;
    out.write(text);
    out.end()
}

/// Prints `text` to standard output. A reader that closes it early, as `head` does, is not an error.
pub fn print(text: &str) -> Result<ExitStatus, ExitError> {
    print_text(text).map_err(Failure::Output)?;
    Ok(ExitStatus::Success)
}

/// Prints the help or the version that clap has rendered, in colour on a terminal.
pub fn print_styled(rendered: &clap::Error) -> Result<ExitStatus, ExitError> {
    let printed =
        if io::stdout().is_terminal() { rendered.print() } else { print_text(&rendered.render().to_string()) };
    printed.map_err(Failure::Output)?;
    Ok(ExitStatus::Success)
}

/// Prints an error or a warning to standard error, as [`to_stderr`] does.
pub fn print_error(message: &str) {
    let line = format!("purse: {message}\n");
    to_stderr(move || io::stderr().write_all(line.as_bytes()));
}

/// Prints what clap reports about a command line, in colour on a terminal, as [`to_stderr`] does.
pub fn print_usage_error(error: clap::Error) {
    to_stderr(move || error.print());
}

/// Writes to standard error, and gives up on a reader that reads nothing: a process that cannot report why it ends has to
/// end all the same.
fn to_stderr(write: impl FnOnce() -> io::Result<()> + Send + 'static) {
    let (done, written) = mpsc::channel();
    let writer = thread::Builder::new().name("stderr".into()).spawn(move || {
        // Without standard error there is nowhere left to report to.
        let _ = write();
        let _ = done.send(());
    });
    if writer.is_ok() {
        let _ = written.recv_timeout(STDERR_WAIT);
    }
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
    fn a_list_is_one_json_document_even_when_it_is_empty() {
        for names in [&[][..], &["a"], &["a", "b\""]] {
            let read: Value = serde_json::from_str(&listed(Format::Json, names)).expect("JSON");
            let things: Vec<Value> = names.iter().map(|name| json!({"name": name})).collect();
            assert_eq!(read, json!({"things": things, "total": names.len()}));
        }
    }

    #[test]
    fn a_table_aligns_its_cells_and_has_no_header_without_rows() {
        assert_eq!(
            listed(Format::Table, &["long name", "b"]),
            "NAME       LETTERS\nlong name  9\nb          1\n\nThat is all.\n"
        );
        assert_eq!(listed(Format::Table, &[]), "That is all.\n");
    }

    #[test]
    fn a_cell_of_any_length_is_printed_whole() {
        let long = "x".repeat(70_000);
        let rows = [vec![long.clone(), "b".to_owned()], vec!["a".to_owned(), long.clone()]];
        assert_eq!(aligned(&rows), format!("{long}  b\na{}  {long}\n", " ".repeat(69_999)));
    }

    #[test]
    fn a_long_table_has_one_header() {
        let names = vec!["x"; 2 * ROWS_ALIGNED + 1];
        let table = listed(Format::Table, &names);
        assert_eq!(table.matches("NAME").count(), 1);
        assert_eq!(table.lines().count(), names.len() + 3);
    }

    struct Failing(ErrorKind);

    impl Write for Failing {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(self.0.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_closed_pipe_is_not_an_error_and_a_full_disk_is() {
        for (kind, reported) in [(ErrorKind::BrokenPipe, None), (ErrorKind::StorageFull, Some(ErrorKind::StorageFull))]
        {
            let mut list = List::on(Failing(kind), Format::Json, "things", &[]);
            list.item(&json!(1), []);
            list.item(&json!(2), []);
            assert_eq!(list.end(json!({}), "").err().map(|e| e.kind()), reported);
        }
    }
}
