//! What is told at the end: targets and whether they are reached, tables, the machine.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::figures::{grouped, rounds, seconds};
use crate::machine;
use crate::support::{Outages, RoleProcess};

/// Where the page and its pictures stand.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks")
}

/// A ratio that has to be reached.
#[derive(Clone, Debug)]
pub struct Target {
    pub measure: String,
    pub figure: f64,
    bound: f64,
    reached: bool,
    sign: &'static str,
}

impl Target {
    pub fn at_least(measure: &str, figure: f64, bound: f64) -> Self {
        Self { measure: measure.to_owned(), figure, bound, reached: figure >= bound, sign: "≥" }
    }

    pub fn at_most(measure: &str, figure: f64, bound: f64) -> Self {
        Self { measure: measure.to_owned(), figure, bound, reached: figure <= bound, sign: "≤" }
    }
}

pub struct Report {
    machine: Vec<String>,
    targets: Vec<Target>,
    tables: String,
}

/// Most memory that a role may hold after a load, in MiB.
const MEMORY_MIB_MAX: f64 = 64.0;

impl Report {
    pub fn new(servers: &Outages) -> Self {
        let on = servers.servers.addresses().clone();
        let machine = std::thread::spawn(move || machine::described(&on)).join().expect("a thread");
        Self { machine, targets: Vec::new(), tables: String::new() }
    }

    pub fn target(&mut self, target: Target) {
        self.targets.push(target);
    }

    pub fn heading(&mut self, title: &str, columns: &[&str]) {
        let _ = write!(self.tables, "\n## {title}\n\n| {} |\n|{}\n", columns.join(" | "), "---|".repeat(columns.len()));
    }

    pub fn row(&mut self, cells: &[String]) {
        let _ = writeln!(self.tables, "| {} |", cells.join(" | "));
    }

    pub fn memory(&mut self, what: &str, process: &RoleProcess) {
        let mib = process.memory_kib() as f64 / 1024.0;
        self.target(Target::at_most(&format!("memory of {what}, in MiB"), mib, MEMORY_MIB_MAX));
    }

    fn page(&self) -> String {
        let mut page = String::from(
            "# Benchmarks\n\nThis page is written by `just bench`: do not edit it. Everything was measured in one run, on private \
             servers with stock settings and fsync on, with the load generators on the same machine.\n\n",
        );
        for fact in &self.machine {
            let _ = writeln!(page, "- {fact}");
        }
        let _ = writeln!(
            page,
            "- {} interleaved rounds of {} s each; medians, with the least and the most\n",
            rounds(),
            seconds()
        );
        page.push_str("| measure | reached | wanted | |\n|---|---|---|---|\n");
        for Target { measure, figure, bound, reached, sign } in &self.targets {
            let verdict = if *reached { "yes" } else { "**no**" };
            let _ = writeln!(page, "| {measure} | {} | {sign} {bound} | {verdict} |", grouped(*figure));
        }
        page.push_str("\n![Credits a second](posts.svg)\n\n![Posts in a transaction](batches.svg)\n\n![Reads a second](reads.svg)\n");
        page.push_str(&self.tables);
        page
    }

    pub fn print(&self) {
        println!("\n{}", self.page());
    }

    pub fn write(&self) {
        std::fs::create_dir_all(folder()).expect("a folder");
        std::fs::write(folder().join("README.md"), self.page()).expect("written");
        println!("written to docs/benchmarks");
    }
}
