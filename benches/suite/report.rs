//! What is told at the end: targets and whether they are reached, tables, the machine.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::figures::{grouped, rounds, seconds};
use crate::machine;
use crate::plot;
use crate::support::{Outages, RoleProcess};

/// Where the page and its pictures stand.
fn folder() -> PathBuf {
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

/// A file beside the page.
struct Picture {
    file: &'static str,
    title: &'static str,
    svg: String,
}

pub struct Report {
    machine: Vec<String>,
    targets: Vec<Target>,
    tables: String,
    pictures: Vec<Picture>,
}

/// Most memory that a role may hold after a load, in MiB.
const MEMORY_MIB_MAX: f64 = 64.0;

impl Report {
    pub fn new(servers: &Outages) -> Self {
        let on = servers.servers.addresses().clone();
        let machine = std::thread::spawn(move || machine::described(&on)).join().expect("a thread");
        Self { machine, targets: Vec::new(), tables: String::new(), pictures: Vec::new() }
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

    /// One line a series.
    pub fn lines(&mut self, file: &'static str, title: &'static str, series: &[(&str, Vec<(f64, f64)>)]) {
        self.pictures.push(Picture { file, title, svg: plot::lines(title, series) });
    }

    /// How long one request in so many takes at least, a line a series of sorted times.
    pub fn tails(&mut self, file: &'static str, title: &'static str, series: &[(&str, &[f64])]) {
        const ONE_IN: [f64; 9] = [1.0, 2.0, 3.0, 5.0, 10.0, 20.0, 33.0, 50.0, 100.0];
        let tail = |times: &[f64]| {
            let at = |one_in: f64| times[((times.len() - 1) as f64 * (1.0 - 1.0 / one_in)) as usize];
            ONE_IN.map(|one_in| (one_in, at(one_in))).to_vec()
        };
        let series: Vec<_> = series.iter().map(|(name, times)| (*name, tail(times))).collect();
        self.lines(file, title, &series);
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
        for Picture { file, title, .. } in &self.pictures {
            let _ = write!(page, "\n![{title}]({file})\n");
        }
        page.push_str(&self.tables);
        page
    }

    pub fn print(&self) {
        println!("\n{}", self.page());
    }

    pub fn write(&self) {
        std::fs::create_dir_all(folder()).expect("a folder");
        std::fs::write(folder().join("README.md"), self.page()).expect("written");
        for Picture { file, svg, .. } in &self.pictures {
            std::fs::write(folder().join(file), svg).expect("written");
        }
        println!("written to docs/benchmarks");
    }
}
