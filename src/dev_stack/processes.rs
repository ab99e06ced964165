//! The processes of this machine: who descends from whom, and which ones an earlier run left behind.
//!
//! A server is a family (PostgreSQL gives each connection a process in a group of its own, RabbitMQ stands behind a
//! shell), so a signal to one process id is not enough. A recorded process id alone proves nothing either, because the
//! system hands the number out again: the command line must still hold the mark that we gave it.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use super::interrupt::Interrupt;

const POLL: Duration = Duration::from_millis(50);

/// One running process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub pid: i32,
    pub parent: i32,
    pub group: i32,
    pub command: String,
}

/// A line of the record of what was started, so that a later run can end it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub pid: i32,
    pub name: String,
    /// What the command line of the process holds.
    pub mark: String,
}

impl Record {
    pub(super) fn to_line(&self) -> String {
        format!("{}\t{}\t{}\n", self.pid, self.name, self.mark)
    }

    pub(super) fn from_line(line: &str) -> Option<Self> {
        let mut fields = line.splitn(3, '\t');
        let pid = fields.next()?.parse().ok().filter(|pid| *pid > 1)?;
        let (name, mark) = (fields.next()?.to_owned(), fields.next()?.to_owned());
        (!mark.is_empty()).then_some(Self { pid, name, mark })
    }

    /// Asks for the orderly end that this server understands.
    fn orderly_signal(&self) -> Signal {
        if self.name == "postgres" { Signal::INT } else { Signal::TERM }
    }
}

/// Every process that can be seen and has not ended.
pub(super) fn all() -> Vec<Process> {
    // Linux tells without a program, and `ps` is not on every slim image; elsewhere `ps` is part of the system.
    if fs::exists("/proc/self/stat").unwrap_or(false) {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        return entries.filter_map(|entry| from_proc(entry.file_name().to_str()?)).collect();
    }
    let listed = Command::new("ps").args(["-A", "-ww", "-o", "pid=,ppid=,pgid=,stat=,command="]).output();
    listed
        .map(|output| String::from_utf8_lossy(&output.stdout).lines().filter_map(from_ps_line).collect())
        .unwrap_or_default()
}

fn from_proc(pid: &str) -> Option<Process> {
    let pid: i32 = pid.parse().ok()?;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    // The name in parentheses may hold spaces; state, parent and group follow it.
    let mut after_name = stat.rsplit_once(") ")?.1.split(' ');
    has_not_ended(after_name.next()?)?;
    let parent = after_name.next()?.parse().ok()?;
    let group = after_name.next()?.parse().ok()?;
    Some(Process { pid, parent, group, command: String::from_utf8_lossy(&command).replace('\0', " ") })
}

fn from_ps_line(line: &str) -> Option<Process> {
    let (pid, rest) = line.trim_start().split_once(char::is_whitespace)?;
    let (parent, rest) = rest.trim_start().split_once(char::is_whitespace)?;
    let (group, rest) = rest.trim_start().split_once(char::is_whitespace)?;
    let (state, command) = rest.trim_start().split_once(char::is_whitespace)?;
    has_not_ended(state)?;
    Some(Process {
        pid: pid.parse().ok()?,
        parent: parent.parse().ok()?,
        group: group.parse().ok()?,
        command: command.trim_start().to_owned(),
    })
}

/// `None` for a process that only waits for its parent to notice the end.
fn has_not_ended(state: &str) -> Option<()> {
    (!state.starts_with(['Z', 'X'])).then_some(())
}

/// The process, its group and everything that descends from them.
pub(super) fn family(root: i32, table: &[Process]) -> Vec<i32> {
    let mut members: Vec<i32> = vec![root];
    loop {
        let before = members.len();
        for process in table {
            let belongs = process.group == root || members.contains(&process.parent);
            if belongs && !members.contains(&process.pid) {
                members.push(process.pid);
            }
        }
        if members.len() == before {
            return members;
        }
    }
}

/// Sends the signal to each; one that has gone already is no error.
pub(super) fn signal_all(pids: &[i32], signal: Signal) {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        let _gone = kill_process(pid, signal);
    }
}

/// The records whose process still runs under the mark we gave it.
pub(super) fn left_over(records: &[Record], table: &[Process]) -> Vec<Record> {
    let runs = |record: &&Record| {
        table.iter().any(|process| {
            (process.pid == record.pid || process.group == record.pid) && process.command.contains(&record.mark)
        })
    };
    records.iter().filter(runs).cloned().collect()
}

/// Ends what an earlier run left: in an orderly way within the bound, then at once.
pub(super) fn end_left_over(records: &[Record], bound: Duration, interrupt: &Interrupt) {
    let found = left_over(records, &all());
    // The port mapper goes last: a node that leaves in an orderly way says so to it.
    let (mappers, servers): (Vec<Record>, Vec<Record>) =
        found.iter().cloned().partition(|record| record.name == "epmd");
    for record in &servers {
        signal_all(&[record.pid], record.orderly_signal());
    }
    let begun = Instant::now();
    let mut running = servers;
    while !running.is_empty() && begun.elapsed() < bound && !interrupt.is_raised() {
        std::thread::sleep(POLL);
        running = left_over(&running, &all());
    }
    let table = all();
    for record in running.iter().chain(&mappers) {
        signal_all(&family(record.pid, &table), Signal::KILL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process(pid: i32, parent: i32, group: i32, command: &str) -> Process {
        Process { pid, parent, group, command: command.into() }
    }

    fn record(pid: i32, mark: &str) -> Record {
        Record { pid, name: "postgres".into(), mark: mark.into() }
    }

    #[test]
    fn a_process_id_that_another_program_got_is_not_left_over() {
        let table =
            [process(700, 1, 700, "/usr/bin/vim notes"), process(800, 1, 800, "postgres -D /var/tmp/purse-0/pg")];
        let records =
            [record(700, "/var/tmp/purse-0/"), record(800, "/var/tmp/purse-0/"), record(900, "/var/tmp/purse-0/")];
        assert_eq!(left_over(&records, &table), vec![record(800, "/var/tmp/purse-0/")]);
    }

    #[test]
    fn a_group_whose_leader_has_gone_is_left_over() {
        let table = [process(701, 1, 700, "beam -purse /var/tmp/purse-0/rabbitmq")];
        assert_eq!(left_over(&[record(700, "/var/tmp/purse-0/")], &table).len(), 1);
    }

    #[test]
    fn a_family_holds_descendants_in_other_groups() {
        let table = [
            process(10, 1, 10, "a"),
            process(11, 10, 11, "b"),
            process(12, 11, 12, "c"),
            process(13, 1, 10, "d"),
            process(20, 1, 20, "e"),
        ];
        let mut members = family(10, &table);
        members.sort_unstable();
        assert_eq!(members, vec![10, 11, 12, 13]);
    }

    #[test]
    fn this_test_is_in_the_table_with_its_parent() {
        let own = i32::try_from(std::process::id()).unwrap();
        let found = all().into_iter().find(|process| process.pid == own).unwrap();
        assert!(found.parent > 0);
        assert!(!found.command.is_empty());
    }

    #[test]
    fn a_line_of_ps_is_read_with_its_spaces() {
        assert_eq!(
            from_ps_line("  501     1   501 Ss+ /bin/sh -c  x y"),
            Some(process(501, 1, 501, "/bin/sh -c  x y"))
        );
        assert_eq!(from_ps_line("  501     1   501 Z    (sh)"), None);
        assert_eq!(from_ps_line("nonsense"), None);
    }

    #[test]
    fn a_record_survives_its_line_and_a_damaged_line_is_dropped() {
        let kept = record(4711, "/var/tmp/with space/");
        assert_eq!(Record::from_line(kept.to_line().trim_end_matches('\n')), Some(kept));
        assert_eq!(Record::from_line("1\tinit\t/"), None);
        assert_eq!(Record::from_line("42\tpostgres\t"), None);
        assert_eq!(Record::from_line(""), None);
    }
}
