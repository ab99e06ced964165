//! `purse dlq`: list, show, redrive or purge the dead letters of provisioning.

use clap::{Arg, ArgMatches, Command, value_parser};
use serde_json::json;
use tokio::runtime::Handle;

use crate::contracts::DEAD_LETTER_QUEUE;
use crate::infra::amqp::Broker;
use crate::infra::config::AmqpConfig;
use crate::infra::system::System;
use crate::kernel::Clock as _;
use crate::operate::dead_letter::{DeadLetter, READ_MAX, id_of, not_found, open};
use crate::operate::humanize::count;
use crate::operate::output::{Format, List, print_record, print_sentence};
use crate::operate::progress::Progress;
use crate::operate::redrive::{RedriveOptions, redrive};
use crate::operate::{Outcome, dry_run_argument, print_error};

/// Dead letters that `list` shows by default.
const LIST_DEFAULT: u32 = 100;

pub(super) fn command() -> Command {
    let first = |most: u32, help: String| {
        let count = value_parser!(u32).range(1..=i64::from(most));
        Arg::new("first").long("first").value_name("COUNT").value_parser(count).help(help)
    };
    let id = || Arg::new("id").value_name("ID").help(format!("As shown by `list`; among the first {READ_MAX}"));
    Command::new("dlq")
        .about("List, show, redrive or purge dead letters")
        .long_about(format!(
            "Works on the queue {DEAD_LETTER_QUEUE}, which holds events that cannot succeed or have failed four times. \
             Needs only RABBITMQ_URL."
        ))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("list")
                .about("List dead letters, oldest first, with reason, attempts and age")
                .arg(first(READ_MAX, format!("Number to show, at most {READ_MAX} [default: {LIST_DEFAULT}]"))),
        )
        .subcommand(Command::new("show").about("Show one dead letter with its body and headers").arg(id().required(true)))
        .subcommand(
            Command::new("redrive")
                .about("Requeue dead letters and reset their attempt count")
                .long_about(
                    "Publishes each dead letter to the provisioning queue, and removes it from the dead letters when the \
                     broker has confirmed the copy. Without an ID it redrives all that exist when it starts. It is safe \
                     to interrupt: at worst an event is processed twice, which creates no second wallet.",
                )
                .arg(id().num_args(0..))
                .arg(first(u32::MAX, "Maximum number to redrive [default: all]".to_owned()).conflicts_with("id"))
                .arg(dry_run_argument()),
        )
        .subcommand(Command::new("purge").about("Remove all dead letters for good").arg(dry_run_argument()))
}

pub(super) async fn run(arguments: &ArgMatches, config: AmqpConfig, io: Handle, format: Format) -> Outcome {
    let broker = Broker::new(&config, io);
    match arguments.subcommand() {
        Some(("show", a)) => show(&broker, format, text(a, "id")).await,
        Some(("redrive", a)) => {
            let ids: Vec<String> = a.get_many::<String>("id").map(|ids| ids.cloned().collect()).unwrap_or_default();
            let first = first_of(a).unwrap_or(if ids.is_empty() { u32::MAX } else { READ_MAX });
            redrive(&broker, format, RedriveOptions::new(ids, first, a.get_flag("dry-run"))).await
        }
        Some(("purge", a)) => purge(&broker, format, a.get_flag("dry-run")).await,
        Some((_, a)) => list(&broker, format, first_of(a).unwrap_or(LIST_DEFAULT)).await,
        None => list(&broker, format, LIST_DEFAULT).await,
    }
}

fn text<'a>(arguments: &'a ArgMatches, id: &str) -> &'a str {
    arguments.get_one::<String>(id).map(String::as_str).unwrap_or_default()
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
    let mut list = List::begin(format, "deadLetters", &["ID", "ATTEMPTS", "AGE", "REASON"])?;
    for letter in &letters {
        list.item(&letter.json(now), [letter.row(now)]);
    }
    let shown = u32::try_from(letters.len()).unwrap_or(u32::MAX);
    let summary = match total.max(shown) {
        0 => "No dead letters.".to_owned(),
        total if total > shown => {
            format!("Showing {shown} of {total} dead letters; `--first {}` shows more.", total.min(READ_MAX))
        }
        total => format!("{}. See `purse dlq show ID` for details.", count(total.into(), "dead letter")),
    };
    list.end(json!({"total": total.max(shown)}), &summary)?;
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

async fn purge(broker: &Broker, format: Format, dry_run: bool) -> Outcome {
    let (browser, total) = open(broker).await?;
    let (purged, left) = if dry_run { (total, total) } else { (browser.purge().await?, browser.return_all().await?) };
    browser.close().await;
    let letters = count(purged.into(), "dead letter");
    let summary = if dry_run {
        format!("Would remove {letters} for good. Nothing was changed.")
    } else {
        format!("Removed {letters} for good; {left} left.")
    };
    print_sentence(format, &json!({"dryRun": dry_run, "purged": purged, "left": left}), &summary)?;
    Ok(true)
}
