//! Removes dead letters for good: those that are named, or all after a confirmation.

use std::collections::BTreeSet;
use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use serde_json::json;

use crate::infra::amqp::{Broker, Browser};
use crate::operate::dead_letter::{READ_MAX, id_of, not_found, open};
use crate::operate::failure::{Failure, Outcome};
use crate::operate::humanize::count;
use crate::operate::output::{Format, print_error, print_sentence};
use crate::operate::progress::Progress;
use crate::operate::tally::Tally;

pub(super) struct PurgeOptions {
    /// Empty for all.
    pub(super) ids: BTreeSet<String>,
    /// Does not ask.
    pub(super) confirmed: bool,
    pub(super) dry_run: bool,
}

impl PurgeOptions {
    fn selects(&self, id: &str) -> bool {
        self.ids.is_empty() || self.ids.contains(id)
    }

    /// Names were typed one by one; "all" is one word, and one of them may have arrived a second ago.
    fn asks(&self) -> bool {
        self.ids.is_empty() && !self.confirmed && !self.dry_run
    }
}

#[derive(Default)]
struct Removed {
    tally: Tally,
    found: BTreeSet<String>,
}

/// Removes the selected dead letters, and never one that arrived after the question.
pub(super) async fn purge(broker: &Broker, format: Format, options: PurgeOptions) -> Outcome {
    if options.asks() && !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        let why =
            "`purge --all` asks for confirmation, and this is not a terminal. Add --yes to remove all dead letters.";
        return Err(Failure::Usage(why.to_owned()));
    }
    let (browser, total) = open(broker).await?;
    if options.asks() && total > 0 && !confirm(total).await? {
        browser.close().await;
        print_sentence(format, &result(false, &Tally::default(), &[], total), "Nothing was removed.")?;
        return Ok(false);
    }
    let mut removed = Removed::default();
    let outcome = remove(&browser, &options, total, &mut removed).await;
    let left = browser.return_all().await;
    browser.close().await;
    match outcome.and(left.map_err(Failure::from)) {
        Ok(left) => report(format, &options, &removed, total, left),
        Err(by) if options.dry_run || removed.tally.messages() == 0 => Err(by),
        Err(by) => {
            let done = format!("{} had been removed", count(removed.tally.messages(), "dead letter"));
            Err(Failure::Interrupted { done, by: Box::new(by) })
        }
    }
}

async fn confirm(total: u32) -> Result<bool, Failure> {
    let question = format!("Remove {} for good? Type yes: ", count(total.into(), "dead letter"));
    let answer = tokio::task::spawn_blocking(move || -> io::Result<String> {
        write!(io::stderr(), "{question}")?;
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line)?;
        Ok(line)
    });
    let answer = answer.await.map_err(|e| Failure::Internal(format!("cannot ask: {e}")))?;
    let answer = answer.map_err(|e| Failure::Usage(format!("cannot read the confirmation: {e}. Add --yes.")))?;
    Ok(answer.trim().eq_ignore_ascii_case("yes"))
}

async fn remove(browser: &Browser, options: &PurgeOptions, total: u32, removed: &mut Removed) -> Result<(), Failure> {
    // What is not removed stays unacknowledged until the end, so that it keeps its place; its number is bounded.
    let keeps_some = options.dry_run || !options.ids.is_empty();
    let to_read = if keeps_some { total.min(READ_MAX) } else { total };
    if options.dry_run && options.ids.is_empty() && total > READ_MAX {
        removed.tally = Tally::unread(total);
        return Ok(());
    }
    let progress = Progress::begin("removing dead letters", to_read.into());
    for _ in 0..to_read {
        let Some(incoming) = browser.next().await? else { break };
        progress.add(1);
        let id = id_of(&incoming);
        if !options.selects(&id) {
            continue;
        }
        if !options.dry_run {
            browser.remove(&incoming).await?;
        }
        removed.tally.add(&id);
        if !options.ids.is_empty() {
            removed.found.insert(id);
        }
    }
    Ok(())
}

fn result(dry_run: bool, purged: &Tally, missing: &[&String], left: u32) -> serde_json::Value {
    json!({
        "dryRun": dry_run, "purged": purged.json(), "messages": purged.messages(), "notFound": missing, "left": left,
    })
}

fn report(format: Format, options: &PurgeOptions, removed: &Removed, total: u32, left: u32) -> Outcome {
    let missing: Vec<&String> = options.ids.difference(&removed.found).collect();
    let tally = &removed.tally;
    let summary = if options.dry_run {
        format!("Would remove {tally} for good. Nothing was changed.")
    } else {
        format!("Removed {tally} for good; {left} left.")
    };
    print_sentence(format, &result(options.dry_run, tally, &missing, left), &summary)?;
    for id in &missing {
        print_error(&not_found(id, total));
    }
    Ok(missing.is_empty())
}
