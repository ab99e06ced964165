//! Families of processes. A server is more than one process: PostgreSQL gives each connection a process in a group of
//! its own, and RabbitMQ runs behind a shell. A signal to one process id or one group is not enough.

use std::fs;
use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

#[derive(Clone, Debug, PartialEq, Eq)]
struct Process {
    pid: i32,
    parent: i32,
    group: i32,
}

/// Every process that has not ended.
fn table() -> Vec<Process> {
    // Not every slim Linux image has `ps`.
    if fs::exists("/proc/self/stat").unwrap_or(false) {
        let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
        return entries
            .filter(|entry| entry.file_name().as_encoded_bytes().first().is_some_and(u8::is_ascii_digit))
            .filter_map(|entry| from_stat(&fs::read_to_string(entry.path().join("stat")).ok()?))
            .collect();
    }
    let listed = Command::new("ps").args(["-A", "-o", "pid=,stat=,ppid=,pgid="]).output();
    let text = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    text.lines().filter_map(from_fields).collect()
}

/// `/proc/<pid>/stat`: the name in parentheses may contain spaces and parentheses.
fn from_stat(stat: &str) -> Option<Process> {
    let (pid, rest) = stat.split_once(" (")?;
    from_fields(&format!("{pid} {}", rest.rsplit_once(") ")?.1))
}

/// Process id, state, parent and group. `None` for a process that has ended and is not reaped yet.
fn from_fields(line: &str) -> Option<Process> {
    let mut fields = line.split_whitespace();
    let pid = fields.next()?.parse().ok()?;
    if has_ended(fields.next()?) {
        return None;
    }
    Some(Process { pid, parent: fields.next()?.parse().ok()?, group: fields.next()?.parse().ok()? })
}

/// When a process that has not ended started, in the system's own unit. With the process id it identifies a process.
pub(crate) fn start_of(pid: &str) -> Option<String> {
    if let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) {
        let (state, rest) = stat.rsplit_once(") ")?.1.split_once(' ')?;
        // Field 22 of proc(5), counted from the fourth.
        return rest.split(' ').nth(18).filter(|_| !has_ended(state)).map(str::to_owned);
    }
    let listed = Command::new("ps").args(["-o", "stat=,lstart=", "-p", pid]).env("LC_ALL", "C").output().ok()?;
    let text = String::from_utf8_lossy(&listed.stdout).into_owned();
    let (state, started) = text.trim().split_once(' ')?;
    (!has_ended(state)).then(|| started.trim().to_owned())
}

/// Of a process that its parent has not reaped yet.
fn has_ended(state: &str) -> bool {
    state.starts_with(['Z', 'X'])
}

/// Those of the process, its group and all their descendants that have not ended.
pub(crate) fn family(root: Pid) -> Vec<Pid> {
    family_in(&table(), root.as_raw_nonzero().get()).into_iter().filter_map(Pid::from_raw).collect()
}

fn family_in(table: &[Process], root: i32) -> Vec<i32> {
    let mut members = vec![root];
    loop {
        let before = members.len();
        for process in table {
            let belongs = process.group == root || members.contains(&process.parent);
            if belongs && !members.contains(&process.pid) {
                members.push(process.pid);
            }
        }
        if members.len() == before {
            break;
        }
    }
    members.retain(|pid| table.iter().any(|process| process.pid == *pid));
    members
}

/// A process that has ended meanwhile is no error.
pub(crate) fn signal_all(pids: &[Pid], signal: Signal) {
    for pid in pids {
        let _ended = kill_process(*pid, signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_family_includes_descendants_in_other_groups() {
        let table = [(10, 1, 10), (11, 10, 11), (12, 11, 12), (13, 1, 10), (20, 1, 20)]
            .map(|(pid, parent, group)| Process { pid, parent, group });
        let mut members = family_in(&table, 10);
        members.sort_unstable();
        assert_eq!(members, [10, 11, 12, 13]);
        assert_eq!(family_in(&table, 99), [0; 0]);
    }

    #[test]
    fn this_test_is_in_the_table_with_its_parent() {
        let own = i32::try_from(std::process::id()).unwrap();
        assert!(table().iter().any(|process| process.pid == own && process.parent > 0));
    }

    #[test]
    fn only_a_process_that_exists_has_a_start() {
        let own = std::process::id().to_string();
        assert!(start_of(&own).is_some_and(|started| started == start_of(&own).unwrap()));
        // Process ids end at 4194304 on Linux and at 99998 on macOS.
        assert_eq!(start_of("2000000000"), None);
        let mut child = Command::new("true").spawn().unwrap();
        let pid = child.id().to_string();
        while start_of(&pid).is_some() {
            std::thread::yield_now();
        }
        child.wait().unwrap();
    }

    #[test]
    fn a_name_with_parentheses_is_skipped_and_a_process_that_has_ended_is_left_out() {
        let expected = Some(Process { pid: 501, parent: 1, group: 500 });
        assert_eq!(from_stat("501 (a) b (c) S 1 500 501 0 -1"), expected);
        assert_eq!(from_fields("  501 Ss+   1   500"), expected);
        assert_eq!(from_fields("  501 Z     1   500"), None);
        assert_eq!(from_fields("nonsense"), None);
    }
}
