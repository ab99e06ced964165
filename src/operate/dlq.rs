//! `purse dlq`: list, show, export, redrive or purge the dead letters of provisioning.

use std::collections::BTreeSet;

use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command, value_parser};
use serde_json::json;
use tokio::runtime::Handle;

use crate::contracts::DEAD_LETTER_QUEUE;
use crate::infra::amqp::Broker;
use crate::infra::config::{AmqpConfig, Section};
use crate::infra::system::System;
use crate::kernel::{Clock as _, Role};
use crate::operate::arguments::dry_run_argument;
use crate::operate::dead_letter::{DeadLetter, READ_MAX, id_of, not_found, open};
use crate::operate::export::export;
use crate::operate::failure::Outcome;
use crate::operate::help::help_end;
use crate::operate::output::{Format, List, print_error, print_record};
use crate::operate::progress::Progress;
use crate::operate::purge::{PurgeOptions, purge};
use crate::operate::redrive::{RedriveOptions, redrive};
use crate::operate::tally::Tally;

/// Dead letters that `list` shows by default.
const LIST_DEFAULT: u32 = 100;

pub(super) fn command() -> Command {
    let first = |most: u32, help: String| {
        let count = value_parser!(u32).range(1..=i64::from(most));
        Arg::new("first").long("first").value_name("COUNT").value_parser(count).help(help)
    };
    let flag = |name: &'static str, help: &'static str| Arg::new(name).long(name).action(ArgAction::SetTrue).help(help);
    let id = || Arg::new("id").value_name("ID").help(format!("As shown by `list`; among the first {READ_MAX}"));
    Command::new("dlq")
        .about("List, show, export, redrive or purge dead letters")
        .long_about(format!(
            "Works on the queue {DEAD_LETTER_QUEUE}, which holds events that cannot succeed or have failed four times. \
             Needs only RABBITMQ_URL."
        ))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(end(&["purse dlq list", "purse dlq redrive"]))
        .subcommand(
            Command::new("list")
                .about("List dead letters, oldest first, with reason, failed attempts before the last one, and age")
                .after_help(end(&["purse dlq list --first 20", "purse dlq list --json"]))
                .arg(first(READ_MAX, format!("Number to show, at most {READ_MAX} [default: {LIST_DEFAULT}]"))),
        )
        .subcommand(Command::new("show").about("Show one dead letter with its body and headers").arg(id().required(true)).after_help(end(&["purse dlq show 01a206c3-0b00-7000-8000-0000000000e1"])))
        .subcommand(
            Command::new("redrive")
                .about("Requeue dead letters and reset their attempt count")
                .after_help(end(&[
                    "purse dlq redrive --dry-run",
                    "purse dlq redrive 01a206c3-0b00-7000-8000-0000000000e1",
                ]))
                .long_about(
                    "Publishes each dead letter to the provisioning queue, and removes it from the dead letters when the \
                     broker has confirmed the copy. Without an ID it redrives all that exist when it starts. It is safe \
                     to interrupt: at worst an event is processed twice, which creates no second wallet.",
                )
                .arg(id().num_args(0..))
                .arg(first(u32::MAX, "Maximum number to redrive [default: all]".to_owned()).conflicts_with("id"))
                .arg(dry_run_argument()),
        )
        .subcommand(
            Command::new("export")
                .about("Print dead letters with body and headers, one JSON object per line")
                .after_help(end(&["purse dlq export > dead-letters.jsonl"]))
                .long_about(format!(
                    "Without an ID it exports all, at most the first {READ_MAX}: exit code 1 if there are more. The dead \
                     letters stay in the queue."
                ))
                .arg(id().num_args(0..)),
        )
        .subcommand(
            Command::new("purge")
                .about("Remove dead letters for good, by ID or all")
                .after_help(end(&[
                    "purse dlq purge 01a206c3-0b00-7000-8000-0000000000e1",
                    "purse dlq purge --all --yes",
                ]))
                .long_about(
                    "Removes dead letters for good; `export` saves them first. With --all it removes those that exist when it \
                     starts. It is safe to interrupt: the others stay.",
                )
                .arg(id().num_args(0..))
                .arg(flag("all", "Remove all dead letters, after a confirmation"))
                .arg(flag("yes", "Do not ask for confirmation; required with --all where there is no terminal"))
                .group(ArgGroup::new("which").args(["id", "all"]).required(true))
                .arg(dry_run_argument()),
        )
}

fn end(examples: &[&str]) -> String {
    help_end(Some((Section::Amqp, &[Role::Wallet])), examples)
}

pub(super) async fn run(arguments: &ArgMatches, config: AmqpConfig, io: Handle, format: Format) -> Outcome {
    let broker = Broker::new(&config, io);
    match arguments.subcommand() {
        Some(("show", a)) => show(&broker, format, text(a, "id")).await,
        Some(("redrive", a)) => {
            let ids = ids(a);
            let first = first_of(a).unwrap_or(if ids.is_empty() { u32::MAX } else { READ_MAX });
            redrive(&broker, format, RedriveOptions::new(ids, first, a.get_flag("dry-run"))).await
        }
        Some(("export", a)) => export(&broker, ids(a)).await,
        Some(("purge", a)) => {
            let (confirmed, dry_run) = (a.get_flag("yes"), a.get_flag("dry-run"));
            purge(&broker, format, PurgeOptions { ids: ids(a), confirmed, dry_run }).await
        }
        Some((_, a)) => list(&broker, format, first_of(a).unwrap_or(LIST_DEFAULT)).await,
        None => list(&broker, format, LIST_DEFAULT).await,
    }
}

fn text<'a>(arguments: &'a ArgMatches, id: &str) -> &'a str {
    arguments.get_one::<String>(id).map(String::as_str).unwrap_or_default()
}

fn ids(arguments: &ArgMatches) -> BTreeSet<String> {
    arguments.get_many::<String>("id").map(|ids| ids.cloned().collect()).unwrap_or_default()
}

fn first_of(arguments: &ArgMatches) -> Option<u32> {
    arguments.try_get_one::<u32>("first").ok().flatten().copied()
}

async fn list(broker: &Broker, format: Format, first: u32) -> Outcome {
    let (browser, total) = open(broker).await?;
    // Everything is read and returned before it is printed, so that a pager keeps no message from other readers.
    let mut letters = Vec::new();
    {
        let progress = Progress::begin("reading dead letters", total.min(first).into());
        for _ in 0..first {
            let Some(incoming) = browser.next().await? else { break };
            letters.push(DeadLetter::read(&incoming));
            progress.add(1);
        }
    }
    browser.return_all().await?;
    browser.close().await;
    let now = System.now();
    let mut list = List::begin(format, "deadLetters", &["ID", "USER", "ATTEMPTS", "AGE", "REASON"])?;
    let mut tally = Tally::default();
    for letter in &letters {
        list.item(&letter.json(now), [letter.row(now)]);
        tally.add(letter.id());
    }
    // A copy that was returned by another reader meanwhile may not be in the depth yet.
    let messages = u64::from(total).max(tally.messages());
    let unread = messages.saturating_sub(tally.messages());
    let shown = tally.distinct().unwrap_or_default();
    // Copies of one event count once, as far as they were read.
    let total = shown.saturating_add(unread);
    let summary = match total {
        0 => "No dead letters.".to_owned(),
        total if unread > 0 => {
            let more = messages.min(READ_MAX.into());
            format!("Showing {shown} of {total} dead letters; `--first {more}` shows more.")
        }
        _ => format!("{tally}. See `purse dlq show ID` for details."),
    };
    list.end(json!({"total": total, "messages": messages}), &summary)?;
    Ok(true)
}

async fn show(broker: &Broker, format: Format, id: &str) -> Outcome {
    let (browser, total) = open(broker).await?;
    let mut found = None;
    {
        let progress = Progress::begin("searching the dead letters", total.min(READ_MAX).into());
        for _ in 0..READ_MAX {
            let Some(incoming) = browser.next().await? else { break };
            progress.add(1);
            if id_of(&incoming) == id {
                found = Some(incoming);
                break;
            }
        }
    }
    browser.return_all().await?;
    browser.close().await;
    let Some(incoming) = found else {
        print_error(&not_found(id, total));
        return Ok(false);
    };
    let (letter, now) = (DeadLetter::read(&incoming), System.now());
    print_record(format, &letter.full_json(&incoming, now), &letter.full_rows(&incoming, now))?;
    Ok(true)
}
