//! `purse outbox`: what waits in the outbox, and published events published again.

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};
use serde_json::json;
use tokio::runtime::Handle;

use crate::infra::config::DatabaseConfig;
use crate::infra::postgres::{Connector, DbError};
use crate::kernel::{EventId, Role, Timestamp};
use crate::operate::failure::Failure;
use crate::operate::list::{Format, List, sentence};
use crate::operate::progress::Progress;
use crate::operate::words::{UNKNOWN, cell, count, duration};
use crate::operate::{Outcome, dry_run_argument, say};
use crate::users::postgres::{Backlog, PgOutboxBacklog, TimeRange};

/// 0001-01-01T00:00:00Z: a database keeps no earlier year by that name.
const EARLIEST_S: i64 = -62_135_596_800;

/// The subcommand.
pub(super) fn command() -> Command {
    let time = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("TIME").value_parser(ValueParser::new(read_time)).help(help)
    };
    Command::new("outbox")
        .about("Show what waits in the outbox, or publish events again")
        .long_about("Works on the users database and needs USERS_DATABASE_URL alone.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(Command::new("status").about("Show how much waits, since when, and what the broker said to it"))
        .subcommand(
            Command::new("republish")
                .about("Publish events again that were published before")
                .long_about(
                    "Puts published events back, so that the users role that runs publishes them again as if they were \
                     new. The wallet role makes one wallet a user however often it is told. Needed when messages were \
                     lost at the broker, for example with a queue that was deleted.",
                )
                .arg(
                    Arg::new("id")
                        .value_name("ID")
                        .num_args(1..)
                        .value_parser(ValueParser::new(|text: &str| {
                            text.parse::<EventId>()
                                .map_err(|_| "an event's id is a UUID like 0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e")
                        }))
                        .help("These events"),
                )
                .arg(time("since", "Events written at this time or later, like 2026-01-31T12:00:00Z"))
                .arg(time("until", "Events written before this time"))
                .arg(Arg::new("all").long("all").action(ArgAction::SetTrue).help("Every event there is"))
                .group(ArgGroup::new("which").args(["id", "all"]))
                .group(ArgGroup::new("when").args(["since", "until"]).multiple(true).conflicts_with("which"))
                .group(ArgGroup::new("selection").args(["id", "since", "until", "all"]).required(true).multiple(true))
                .arg(dry_run_argument()),
        )
}

fn read_time(text: &str) -> Result<Timestamp, &'static str> {
    let read = text.parse::<Timestamp>().ok().filter(|at| at.as_second() >= EARLIEST_S);
    read.ok_or("a time is written like 2026-01-31T12:00:00Z, with an offset or Z")
}

/// Runs it.
pub(super) async fn run(arguments: &ArgMatches, config: DatabaseConfig, io: Handle, format: Format) -> Outcome {
    let connector = Connector::new(&config, io).map_err(|e| Failure::Own(format!("TLS cannot be set up: {e}")))?;
    match arguments.subcommand() {
        Some(("republish", a)) => {
            let written = TimeRange {
                since: a.get_one::<Timestamp>("since").copied(),
                until: a.get_one::<Timestamp>("until").copied(),
            };
            if let (Some(since), Some(until)) = (written.since, written.until)
                && since >= until
            {
                return Err(Failure::Usage(format!("--since {since} must be earlier than --until {until}")));
            }
            let ids: Vec<EventId> = a.get_many::<EventId>("id").map(|ids| ids.copied().collect()).unwrap_or_default();
            let mut backlog = open(&connector).await?;
            let republish = Republish { format, dry_run: a.get_flag("dry-run") };
            if ids.is_empty() {
                republish.written(&mut backlog, written).await
            } else {
                republish.named(&mut backlog, ids).await
            }
        }
        _ => status(&connector, format).await,
    }
}

fn failed(e: DbError) -> Failure {
    Failure::Database(Role::Users, e)
}

async fn open(connector: &Connector) -> Result<PgOutboxBacklog, Failure> {
    PgOutboxBacklog::connect(connector).await.map_err(failed)
}

async fn status(connector: &Connector, format: Format) -> Outcome {
    let backlog = open(connector).await?.status().await.map_err(failed)?;
    let mut list = List::begin(format, "refusals", &["EVENTS", "ATTEMPTS", "NEXT ATTEMPT", "THE BROKER SAID"]);
    for refusal in &backlog.refusals {
        let json = json!({
            "error": refusal.error, "events": refusal.events, "attemptsMax": refusal.attempts_max,
            "nextAttemptAt": refusal.next_attempt.to_string(),
        });
        let row = vec![
            refusal.events.to_string(),
            refusal.attempts_max.to_string(),
            refusal.next_attempt.to_string(),
            cell(&refusal.error),
        ];
        list.item(&json, [row]);
    }
    let totals = json!({
        "pending": backlog.pending, "claimed": backlog.claimed, "refused": backlog.refused,
        "attemptsMax": backlog.attempts_max, "oldestAt": backlog.oldest.map(|at| at.to_string()),
        "oldestSeconds": backlog.oldest_seconds,
    });
    list.end(totals, &told(&backlog))?;
    Ok(true)
}

fn told(backlog: &Backlog) -> String {
    if backlog.pending == 0 {
        return "Nothing waits: every event is published.".to_owned();
    }
    let age = backlog.oldest_seconds.map_or_else(|| UNKNOWN.to_owned(), duration);
    let oldest = backlog.oldest.map_or_else(|| UNKNOWN.to_owned(), |at| at.to_string());
    format!(
        "pending   {}\noldest    {age} (since {oldest})\nclaimed   {} by a relay just now\nrefused   {} at least once, {} times at most",
        backlog.pending, backlog.claimed, backlog.refused, backlog.attempts_max
    )
}

/// How events are put back.
struct Republish {
    format: Format,
    dry_run: bool,
}

impl Republish {
    /// All that were written in that time, page by page.
    async fn written(&self, backlog: &mut PgOutboxBacklog, written: TimeRange) -> Outcome {
        let estimate = backlog.estimate().await.map_err(failed)?;
        let (mut after, mut reopened) = (None, 0_i64);
        {
            let progress = Progress::begin("going through the outbox", u64::try_from(estimate).unwrap_or(0));
            loop {
                let page = if self.dry_run {
                    backlog.count_page(after, written).await
                } else {
                    backlog.reopen_page(after, written).await
                };
                let page = page.map_err(failed)?;
                reopened = reopened.saturating_add(page.reopened);
                progress.add(u64::try_from(page.looked_at).unwrap_or(0));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        self.tell(reopened, 0, &[])
    }

    /// Those with these ids.
    async fn named(&self, backlog: &mut PgOutboxBacklog, mut ids: Vec<EventId>) -> Outcome {
        ids.sort_unstable();
        ids.dedup();
        let found = if self.dry_run { backlog.find_named(&ids).await } else { backlog.reopen_named(&ids).await };
        let found = found.map_err(failed)?;
        let missing: Vec<EventId> = ids.into_iter().filter(|id| found.iter().all(|named| named.id != *id)).collect();
        let reopened = found.iter().filter(|named| named.was_published).count();
        let waiting = found.len().saturating_sub(reopened);
        self.tell(i64::try_from(reopened).unwrap_or(i64::MAX), waiting, &missing)
    }

    fn tell(&self, reopened: i64, waiting: usize, missing: &[EventId]) -> Outcome {
        let events = count(u64::try_from(reopened).unwrap_or(0), "event");
        let told = if self.dry_run {
            format!("{events} would be published again; nothing was changed.")
        } else if reopened == 0 {
            "No event was put back.".to_owned()
        } else {
            format!("{events} put back; the users role publishes them at its next poll.")
        };
        let also = match u64::try_from(waiting).unwrap_or(0) {
            0 => String::new(),
            waiting => format!(" {} still waiting to be published.", count(waiting, "event")),
        };
        let ids: Vec<String> = missing.iter().map(ToString::to_string).collect();
        let json = json!({"dryRun": self.dry_run, "republished": reopened, "alreadyPending": waiting, "notFound": ids});
        sentence(self.format, &json, &format!("{told}{also}"))?;
        for id in &ids {
            say(&format!("the outbox has no event {id}"));
        }
        Ok(ids.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(arguments: &[&str]) -> bool {
        let all = ["outbox", "republish"].iter().chain(arguments).copied();
        command().try_get_matches_from(all).is_err()
    }

    #[test]
    fn events_are_chosen_in_exactly_one_way() {
        let id = "0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e";
        let time = "2026-01-31T12:00:00Z";
        for arguments in
            [&["--all"][..], &[id, id], &["--since", time], &["--until", time], &["--since", time, "--until", time]]
        {
            assert!(!refused(arguments), "{arguments:?}");
        }
        for arguments in [&[][..], &["--dry-run"], &["--all", id], &["--all", "--since", time], &[id, "--until", time]]
        {
            assert!(refused(arguments), "{arguments:?}");
        }
        for arguments in [&["x"][..], &["--since", "yesterday"], &["--since", "-009999-01-02T00:00:00Z"]] {
            assert!(refused(arguments), "{arguments:?}");
        }
    }
}
