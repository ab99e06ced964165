//! `purse dlq`: the dead letters of the provisioning, looked at, put back to work, or thrown away.

use clap::{Arg, ArgMatches, Command, value_parser};
use serde_json::json;
use tokio::runtime::Handle;

use crate::contracts::DEAD_LETTER_QUEUE;
use crate::infra::amqp::{AmqpError, Broker, Browser, FrameSize};
use crate::infra::config::AmqpConfig;
use crate::infra::system::System;
use crate::kernel::Clock as _;
use crate::operate::dead_letter::{DeadLetter, id_of};
use crate::operate::list::{Format, List, answer, sentence};
use crate::operate::progress::Progress;
use crate::operate::redrive::{Plan, redrive};
use crate::operate::words::{count, harmless};
use crate::operate::{Outcome, dry_run_argument, say};

/// Name of the connection in the broker's listings.
pub(super) const CONNECTION_NAME: &str = "purse dlq";
/// Dead letters that a list shows unless told otherwise.
const LISTED: u32 = 100;
/// The most that are held at once, by a list or in search of an id. A classic queue takes the longer the more it gets
/// back: half a second for so many, ten and more for five times as many, and meanwhile nobody else gets an answer of it.
pub(super) const HELD_MAX: u32 = 2_000;

/// The subcommand.
pub(super) fn command() -> Command {
    let first = |most: u32, help: String| {
        let count = value_parser!(u32).range(1..=i64::from(most));
        Arg::new("first").long("first").value_name("COUNT").value_parser(count).help(help)
    };
    let id = || Arg::new("id").value_name("ID").help(format!("What `list` shows; among the first {HELD_MAX}"));
    Command::new("dlq")
        .about("List, show, redrive or purge the dead letters")
        .long_about(format!(
            "Works on the queue {DEAD_LETTER_QUEUE}, where events lie that can never succeed or have failed four times. \
             Needs RABBITMQ_URL alone."
        ))
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("list")
                .about("Show the dead letters, oldest first, with reason, attempts and age")
                .arg(first(HELD_MAX, format!("Show so many, at most {HELD_MAX} [default: {LISTED}]"))),
        )
        .subcommand(
            Command::new("show").about("Show one dead letter, with its body and its headers").arg(id().required(true)),
        )
        .subcommand(
            Command::new("redrive")
                .about("Put dead letters back to work, with their attempts counted anew")
                .long_about(
                    "Publishes each dead letter to the provisioning queue and takes it out of the dead letters when the \
                     broker has confirmed the copy. Without an ID it does so with all that are there when it begins. It \
                     may be broken off at any time: at worst an event is handled twice, which makes no second wallet.",
                )
                .arg(id().num_args(0..))
                .arg(first(u32::MAX, "Take the first so many [default: all]".to_owned()).conflicts_with("id"))
                .arg(dry_run_argument()),
        )
        .subcommand(Command::new("purge").about("Remove all dead letters for good").arg(dry_run_argument()))
}

/// Runs it.
pub(super) async fn run(arguments: &ArgMatches, config: AmqpConfig, io: Handle, format: Format) -> Outcome {
    let broker = Broker::new(&config, io);
    match arguments.subcommand() {
        Some(("show", a)) => show(&broker, format, text(a, "id")).await,
        Some(("redrive", a)) => {
            let ids: Vec<String> = a.get_many::<String>("id").map(|ids| ids.cloned().collect()).unwrap_or_default();
            let first = first_of(a).unwrap_or(if ids.is_empty() { u32::MAX } else { HELD_MAX });
            redrive(&broker, format, Plan::new(ids, first, a.get_flag("dry-run"))).await
        }
        Some(("purge", a)) => purge(&broker, format, a.get_flag("dry-run")).await,
        Some((_, a)) => list(&broker, format, first_of(a).unwrap_or(LISTED)).await,
        None => list(&broker, format, LISTED).await,
    }
}

fn text<'a>(arguments: &'a ArgMatches, id: &str) -> &'a str {
    arguments.get_one::<String>(id).map(String::as_str).unwrap_or_default()
}

fn first_of(arguments: &ArgMatches) -> Option<u32> {
    arguments.try_get_one::<u32>("first").ok().flatten().copied()
}

/// Opens the dead letters; how many there are comes along.
pub(super) async fn open(broker: &Broker) -> Result<(Browser, u32), AmqpError> {
    // A dead letter may come from anybody, with headers as large as the server takes.
    let connection = broker.connect(CONNECTION_NAME, FrameSize::ServerDefault).await?;
    Browser::open(connection, DEAD_LETTER_QUEUE).await
}

async fn list(broker: &Broker, format: Format, first: u32) -> Outcome {
    let (browser, total) = open(broker).await?;
    // Read, given back, and only then shown: whoever pages through the list holds no message.
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
    let mut list = List::begin(format, "deadLetters", &["ID", "ATTEMPTS", "AGE", "REASON"]);
    for letter in &letters {
        list.item(&letter.json(now), [letter.row(now)]);
    }
    let shown = u32::try_from(letters.len()).unwrap_or(u32::MAX);
    let told = match total.max(shown) {
        0 => "There are no dead letters.".to_owned(),
        total if total > shown => {
            format!("{shown} of {total} dead letters. `--first {}` shows more.", total.min(HELD_MAX))
        }
        total => format!("{}. `purse dlq show ID` shows one.", count(total.into(), "dead letter")),
    };
    list.end(json!({"total": total.max(shown)}), &told)?;
    Ok(true)
}

async fn show(broker: &Broker, format: Format, id: &str) -> Outcome {
    let (browser, total) = open(broker).await?;
    let mut found = None;
    {
        let progress = Progress::begin("looking for it", total.min(HELD_MAX).into());
        for _ in 0..HELD_MAX {
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
        say(&not_found(id, total));
        return Ok(false);
    };
    let (letter, now) = (DeadLetter::read(&incoming), System.now());
    answer(format, &letter.whole_json(&incoming, now), &letter.whole_rows(&incoming, now))?;
    Ok(true)
}

/// The sentence about an id that no dead letter has.
pub(super) fn not_found(id: &str, total: u32) -> String {
    let id = harmless(id);
    if total > HELD_MAX {
        format!(
            "none of the first {HELD_MAX} of {total} dead letters is {id}. `purse dlq redrive --first {HELD_MAX}` puts those back to work; then look again."
        )
    } else {
        format!("no dead letter is {id}. `purse dlq list` shows those that are there.")
    }
}

async fn purge(broker: &Broker, format: Format, dry_run: bool) -> Outcome {
    let (browser, total) = open(broker).await?;
    let (purged, left) = if dry_run { (total, total) } else { (browser.purge().await?, browser.return_all().await?) };
    browser.close().await;
    let letters = count(purged.into(), "dead letter");
    let told = if dry_run {
        format!("{letters} would be removed for good; nothing was changed.")
    } else {
        format!("{letters} removed for good; {left} left.")
    };
    sentence(format, &json!({"dryRun": dry_run, "purged": purged, "left": left}), &told)?;
    Ok(true)
}
