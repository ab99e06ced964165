//! `purse dlq`: the dead letters of the provisioning, looked at, put back to work, or thrown away.

use clap::{Arg, ArgMatches, Command, value_parser};
use serde_json::json;
use tokio::runtime::Handle;

use crate::contracts::DEAD_LETTER_QUEUE;
use crate::infra::amqp::{Broker, Browser, Frames};
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
/// Dead letters that a list shows.
const LISTED: u32 = 100;
/// Dead letters that are looked through for an id. They are kept from other readers meanwhile.
const LOOKED_THROUGH: u32 = 10_000;
/// The most that `--first` takes: the broker holds so many for us, and a list remembers them.
const FIRST_MAX: u32 = 100_000;

/// The subcommand.
pub(super) fn command() -> Command {
    let first = |help: String| {
        Arg::new("first")
            .long("first")
            .value_name("COUNT")
            .value_parser(value_parser!(u32).range(1..=i64::from(FIRST_MAX)))
            .help(help)
    };
    let look = || first(format!("Look through so many [default: {LOOKED_THROUGH}]"));
    let id = || Arg::new("id").value_name("ID").help("The id that `list` shows");
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
                .arg(first(format!("Show so many [default: {LISTED}]"))),
        )
        .subcommand(
            Command::new("show").about("Show one dead letter, with its body and its headers").arg(id().required(true)).arg(look()),
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
                .arg(first(format!(
                    "Take the first so many; with an ID look through so many [default: all; with an ID {LOOKED_THROUGH}]"
                )))
                .arg(dry_run_argument()),
        )
        .subcommand(Command::new("purge").about("Remove all dead letters for good").arg(dry_run_argument()))
}

/// Runs it.
pub(super) async fn run(arguments: &ArgMatches, config: AmqpConfig, io: Handle, format: Format) -> Outcome {
    let broker = Broker::new(&config, io);
    match arguments.subcommand() {
        Some(("show", a)) => show(&broker, format, text(a, "id"), first_of(a).unwrap_or(LOOKED_THROUGH)).await,
        Some(("redrive", a)) => {
            let ids: Vec<String> = a.get_many::<String>("id").map(|ids| ids.cloned().collect()).unwrap_or_default();
            let first = first_of(a).unwrap_or(if ids.is_empty() { u32::MAX } else { LOOKED_THROUGH });
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
pub(super) async fn open(broker: &Broker) -> Result<(Browser, u32), crate::infra::amqp::AmqpError> {
    // A dead letter may come from anybody, with headers as large as the server takes.
    let connection = broker.connect(CONNECTION_NAME, Frames::OfTheServer).await?;
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
    browser.give_back().await?;
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
            format!("{shown} of {total} dead letters. `--first {}` shows more.", total.min(FIRST_MAX))
        }
        total => format!("{}. `purse dlq show ID` shows one.", count(total.into(), "dead letter")),
    };
    list.end(json!({"total": total.max(shown)}), &told)?;
    Ok(true)
}

async fn show(broker: &Broker, format: Format, id: &str, first: u32) -> Outcome {
    let (browser, total) = open(broker).await?;
    let mut found = None;
    {
        let progress = Progress::begin("looking for it", total.min(first).into());
        for _ in 0..first {
            let Some(incoming) = browser.next().await? else { break };
            progress.add(1);
            if id_of(&incoming) == id {
                found = Some(incoming);
                break;
            }
        }
    }
    browser.give_back().await?;
    browser.close().await;
    let Some(incoming) = found else {
        say(&not_found(id, first, total));
        return Ok(false);
    };
    let (letter, now) = (DeadLetter::read(&incoming), System.now());
    answer(format, &letter.whole_json(&incoming, now), &letter.whole_rows(&incoming, now))?;
    Ok(true)
}

/// The sentence about an id that no dead letter has.
pub(super) fn not_found(id: &str, first: u32, total: u32) -> String {
    let id = harmless(id);
    if total > first {
        format!(
            "none of the first {first} of {total} dead letters is {id}. `--first {}` looks further.",
            total.min(FIRST_MAX)
        )
    } else {
        format!("no dead letter is {id}. `purse dlq list` shows those that are there.")
    }
}

async fn purge(broker: &Broker, format: Format, dry_run: bool) -> Outcome {
    let (browser, total) = open(broker).await?;
    let (purged, left) = if dry_run { (total, total) } else { (browser.purge().await?, browser.give_back().await?) };
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
