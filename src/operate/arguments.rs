//! Arguments that several commands have.

use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgAction};

pub(super) fn format_arguments() -> [Arg; 2] {
    [
        Arg::new("format")
            .long("format")
            .value_name("FORMAT")
            .global(true)
            .default_value("table")
            .value_parser(PossibleValuesParser::new(["table", "json"]))
            .help("Output format"),
        Arg::new("json")
            .long("json")
            .global(true)
            .action(ArgAction::SetTrue)
            .conflicts_with("format")
            .help("Short for --format json"),
    ]
}

pub(super) fn dry_run_argument() -> Arg {
    Arg::new("dry-run")
        .long("dry-run")
        .action(ArgAction::SetTrue)
        .help("Print what would change without changing anything")
}
