//! Writes dead letters with body and headers to standard output, one JSON object per line. They stay in the queue.

use std::collections::BTreeSet;

use crate::infra::amqp::{Broker, Browser};
use crate::infra::system::System;
use crate::kernel::Clock as _;
use crate::operate::dead_letter::{DeadLetter, READ_MAX, id_of, not_found, open};
use crate::operate::failure::{Failure, Outcome};
use crate::operate::output::{Lines, print_error};
use crate::operate::progress::Progress;

/// Exports the dead letters with these ids, or all without ids.
///
/// Each line is written while its message is held, so that memory is bounded by one message. Only the first
/// [`READ_MAX`] can be read; if there are more, the exit code says that the export is incomplete.
pub(super) async fn export(broker: &Broker, ids: BTreeSet<String>) -> Outcome {
    let (browser, total) = open(broker).await?;
    let mut found = BTreeSet::new();
    let outcome = write_all(&browser, &ids, total, &mut found).await;
    let returned = browser.return_all().await;
    browser.close().await;
    outcome?;
    returned?;
    for id in ids.difference(&found) {
        print_error(&not_found(id, total));
    }
    let is_complete = total <= READ_MAX || !ids.is_empty();
    if !is_complete {
        print_error(&format!(
            "exported the first {READ_MAX} of {total} dead letters. Redrive or purge those by their IDs, then export the others."
        ));
    }
    Ok(is_complete && ids.is_subset(&found))
}

async fn write_all(
    browser: &Browser,
    ids: &BTreeSet<String>,
    total: u32,
    found: &mut BTreeSet<String>,
) -> Result<(), Failure> {
    let (mut lines, now) = (Lines::begin()?, System.now());
    let to_read = total.min(READ_MAX);
    let progress = Progress::begin("exporting dead letters", to_read.into());
    for _ in 0..to_read {
        let Some(incoming) = browser.next().await? else { break };
        progress.add(1);
        let id = id_of(&incoming);
        if ids.is_empty() || ids.contains(&id) {
            let is_written = lines.write(&DeadLetter::read(&incoming).full_json(&incoming, now));
            if !is_written {
                break;
            }
            if !ids.is_empty() {
                found.insert(id);
            }
        }
    }
    Ok(lines.end()?)
}
