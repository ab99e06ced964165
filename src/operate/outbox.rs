//! `purse outbox`: shows pending events, republishes published ones, and deletes old ones.

use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgGroup, ArgMatches, Command};
use serde_json::json;
use tokio::runtime::Handle;

use crate::infra::config::{OutboxConfig, Section, setting};
use crate::infra::postgres::{Connector, DbError, with_reminders};
use crate::kernel::{EventId, Role, Timestamp, has_leap_second, rfc3339};
use crate::operate::arguments::dry_run_argument;
use crate::operate::failure::{Failure, Outcome};
use crate::operate::help::help_end;
use crate::operate::humanize::{UNKNOWN, cell, count, duration};
use crate::operate::output::{Format, List, print_error, print_sentence};
use crate::operate::progress::Progress;
use crate::users::postgres::{Backlog, PgOutboxBacklog, TimeRange};

/// 0001-01-01T00:00:00Z. PostgreSQL writes earlier years differently.
const EARLIEST_S: i64 = -62_135_596_800;

pub(super) fn command() -> Command {
    let time = |name: &'static str, help: &'static str| {
        Arg::new(name).long(name).value_name("TIME").value_parser(ValueParser::new(read_time)).help(help)
    };
    Command::new("outbox")
        .about("Show pending events, republish published ones, or delete old ones")
        .long_about("Uses the users database. Requires only USERS_DATABASE_URL.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(end(&["purse outbox status", "purse outbox republish --all --dry-run"]))
        .subcommand(
            Command::new("status")
                .about("Show how many events are pending, since when, and why the broker rejected them")
                .after_help(end(&["purse outbox status", "purse outbox status --json"])),
        )
        .subcommand(
            Command::new("republish")
                .about("Republish events that were already published")
                .after_help(end(&[
                    "purse outbox republish --since 2026-01-31T12:00:00Z --dry-run",
                    "purse outbox republish 0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e",
                    "purse outbox republish --all",
                ]))
                .long_about(
                    "Marks published events as pending, so that the running users role publishes them again. Provisioning \
                     is idempotent, so each user still gets exactly one wallet. Use it when the broker has lost \
                     messages, for example because a queue was deleted.",
                )
                .arg(
                    Arg::new("id")
                        .value_name("ID")
                        .num_args(1..)
                        .value_parser(ValueParser::new(|text: &str| {
                            text.parse::<EventId>()
                                .map_err(|_| "an event ID is a UUID such as 0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e")
                        }))
                        .help("Republish these events"),
                )
                .arg(time("since", "Republish events created at or after this time, such as 2026-01-31T12:00:00Z"))
                .arg(time("until", "Republish events created before this time"))
                .arg(Arg::new("all").long("all").action(ArgAction::SetTrue).help("Republish all events"))
                .group(ArgGroup::new("which").args(["id", "all"]))
                .group(ArgGroup::new("when").args(["since", "until"]).multiple(true).conflicts_with("which"))
                .group(ArgGroup::new("selection").args(["id", "since", "until", "all"]).required(true).multiple(true))
                .arg(dry_run_argument()),
        )
        .subcommand(
            Command::new("prune")
                .about("Delete published events that are older than OUTBOX_RETENTION")
                .after_help(end(&["purse outbox prune --dry-run", "purse outbox prune --older-than 7d"]))
                .long_about(
                    "Deletes published events that are older than OUTBOX_RETENTION, as the users role does every minute. \
                     Pending events are never deleted. A deleted event cannot be republished.",
                )
                .arg(
                    Arg::new("older-than")
                        .long("older-than")
                        .value_name("DURATION")
                        .value_parser(ValueParser::new(|text: &str| setting::OUTBOX_RETENTION.read(text)))
                        .help("Delete events published longer ago than this, such as 7d, instead"),
                )
                .arg(dry_run_argument()),
        )
}

fn end(examples: &[&str]) -> String {
    help_end(Some((Section::Outbox, &[Role::Users])), examples)
}

fn read_time(text: &str) -> Result<Timestamp, &'static str> {
    if has_leap_second(text) {
        return Err("a time has seconds from 00 to 59");
    }
    let read = text.parse::<Timestamp>().ok().filter(|at| at.as_second() >= EARLIEST_S);
    read.ok_or("a time has a date and an offset or Z, such as 2026-01-31T12:00:00Z")
}

pub(super) async fn run(arguments: &ArgMatches, config: OutboxConfig, io: Handle, format: Format) -> Outcome {
    let connector =
        Connector::new(&config.database, io).map_err(|e| Failure::Internal(format!("cannot set up TLS: {e}")))?;
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
        Some(("prune", a)) => {
            let retention = a.get_one::<Duration>("older-than").copied().unwrap_or(config.retention);
            prune(&open(&connector).await?, retention, a.get_flag("dry-run"), format).await
        }
        _ => status(&connector, format).await,
    }
}

fn failed(e: DbError) -> Failure {
    Failure::Database(Role::Users, e)
}

/// A commit waits for as long as no synchronous standby confirms it.
async fn committed<T>(change: impl Future<Output = Result<T, DbError>>) -> Result<T, Failure> {
    let remind = || {
        print_error(
            "the users database has not yet confirmed a change, for which this command still waits; `purse doctor` checks \
             whether it confirms commits",
        );
    };
    with_reminders(change, remind).await.map_err(failed)
}

async fn open(connector: &Connector) -> Result<PgOutboxBacklog, Failure> {
    PgOutboxBacklog::connect(connector).await.map_err(failed)
}

async fn status(connector: &Connector, format: Format) -> Outcome {
    let backlog = open(connector).await?.status().await.map_err(failed)?;
    let mut list = List::begin(format, "refusals", &["EVENTS", "ATTEMPTS", "NEXT ATTEMPT", "BROKER ERROR"])?;
    for refusal in &backlog.refusals {
        let json = json!({
            "error": refusal.error, "events": refusal.events, "attemptsMax": refusal.attempts_max,
            "nextAttemptAt": rfc3339(refusal.next_attempt),
        });
        let row = vec![
            refusal.events.to_string(),
            refusal.attempts_max.to_string(),
            rfc3339(refusal.next_attempt),
            cell(&refusal.error),
        ];
        list.item(&json, [row]);
    }
    let totals = json!({
        "pending": backlog.pending, "claimed": backlog.claimed, "refused": backlog.refused,
        "attemptsMax": backlog.attempts_max, "oldestAt": backlog.oldest.map(rfc3339),
        "oldestSeconds": backlog.oldest_seconds,
    });
    list.end(totals, &summary(&backlog))?;
    Ok(true)
}

fn summary(backlog: &Backlog) -> String {
    if backlog.pending == 0 {
        return "Nothing pending: all events are published.".to_owned();
    }
    let age = backlog.oldest_seconds.map_or_else(|| UNKNOWN.to_owned(), duration);
    let oldest = backlog.oldest.map_or_else(|| UNKNOWN.to_owned(), rfc3339);
    format!(
        "pending   {}\noldest    {age} (since {oldest})\nclaimed   {} (being published)\nrefused   {} (most attempts: {})",
        backlog.pending, backlog.claimed, backlog.refused, backlog.attempts_max
    )
}

/// Deletes events page by page, beside the users role, which skips the rows of a page.
async fn prune(backlog: &PgOutboxBacklog, retention: Duration, dry_run: bool, format: Format) -> Outcome {
    let expired = backlog.count_expired(retention).await.map_err(failed)?;
    let mut deleted = 0_i64;
    if !dry_run {
        let progress = Progress::begin("deleting events", u64::try_from(expired).unwrap_or(0));
        loop {
            let (page, is_last) = committed(backlog.delete_expired_page(retention)).await?;
            deleted = deleted.saturating_add(page);
            progress.add(u64::try_from(page).unwrap_or(0));
            if is_last {
                break;
            }
        }
    }
    let seconds = i64::try_from(retention.as_secs()).unwrap_or(i64::MAX);
    let events = |number: i64| count(u64::try_from(number).unwrap_or(0), "published event");
    let age = duration(seconds);
    let result = if dry_run {
        format!("{} older than {age} would be deleted; nothing was changed.", events(expired))
    } else {
        format!("Deleted {} older than {age}.", events(deleted))
    };
    let number = if dry_run { expired } else { deleted };
    print_sentence(format, &json!({"dryRun": dry_run, "deleted": number, "olderThanSeconds": seconds}), &result)?;
    Ok(true)
}

struct Republish {
    format: Format,
    dry_run: bool,
}

impl Republish {
    /// All events created in that time, page by page.
    async fn written(&self, backlog: &mut PgOutboxBacklog, written: TimeRange) -> Outcome {
        if let Some(since) = written.since
            && let Some(deleted) = self.deleted_from(backlog, written).await?
        {
            return Err(Failure::Deleted { since, deleted });
        }
        let estimate = backlog.estimate().await.map_err(failed)?;
        let (mut after, mut reopened) = (None, 0_i64);
        {
            let progress = Progress::begin("scanning the outbox", u64::try_from(estimate).unwrap_or(0));
            loop {
                let page = if self.dry_run {
                    backlog.count_page(after, written).await.map_err(failed)
                } else {
                    committed(backlog.reopen_page(after, written)).await
                }?;
                reopened = reopened.saturating_add(page.reopened);
                progress.add(u64::try_from(page.looked_at).unwrap_or(0));
                after = page.next;
                if after.is_none() {
                    break;
                }
            }
        }
        // Read again: a range without a start is never complete after a deletion, and one may have happened meanwhile.
        let deleted = self.deleted_from(backlog, written).await?;
        let printed = self.print_result(reopened, 0, &[]);
        if let Some(deleted) = deleted {
            print_error(&format!(
                "events created up to {} were deleted when their retention was over; they are not republished",
                rfc3339(deleted)
            ));
        }
        printed
    }

    /// The latest creation time of a deleted event, if it is in the range.
    async fn deleted_from(&self, backlog: &PgOutboxBacklog, written: TimeRange) -> Result<Option<Timestamp>, Failure> {
        let deleted = backlog.deleted_until().await.map_err(failed)?;
        Ok(deleted.filter(|deleted| written.since.is_none_or(|since| since <= *deleted)))
    }

    async fn named(&self, backlog: &mut PgOutboxBacklog, mut ids: Vec<EventId>) -> Outcome {
        ids.sort_unstable();
        ids.dedup();
        let found = if self.dry_run {
            backlog.find_named(&ids).await.map_err(failed)
        } else {
            committed(backlog.reopen_named(&ids)).await
        }?;
        let missing: Vec<EventId> = ids.into_iter().filter(|id| found.iter().all(|named| named.id != *id)).collect();
        let reopened = found.iter().filter(|named| named.was_published).count();
        let pending = found.len().saturating_sub(reopened);
        self.print_result(i64::try_from(reopened).unwrap_or(i64::MAX), pending, &missing)
    }

    fn print_result(&self, reopened: i64, pending: usize, missing: &[EventId]) -> Outcome {
        let events = count(u64::try_from(reopened).unwrap_or(0), "event");
        let result = if self.dry_run {
            format!("{events} would be republished; nothing was changed.")
        } else if reopened == 0 {
            "No event was marked for republishing.".to_owned()
        } else {
            format!("{events} marked for republishing; the users role publishes them at its next poll.")
        };
        let already = match u64::try_from(pending).unwrap_or(0) {
            0 => String::new(),
            pending => format!(" {} already pending.", count(pending, "event")),
        };
        let ids: Vec<String> = missing.iter().map(ToString::to_string).collect();
        let json = json!({"dryRun": self.dry_run, "republished": reopened, "alreadyPending": pending, "notFound": ids});
        print_sentence(self.format, &json, &format!("{result}{already}"))?;
        for id in &ids {
            print_error(&format!("the outbox has no event {id}"));
        }
        Ok(ids.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rejected(arguments: &[&str]) -> bool {
        let all = ["outbox", "republish"].iter().chain(arguments).copied();
        command().try_get_matches_from(all).is_err()
    }

    #[test]
    fn events_are_selected_in_exactly_one_way() {
        let id = "0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e";
        let time = "2026-01-31T12:00:00Z";
        for arguments in
            [&["--all"][..], &[id, id], &["--since", time], &["--until", time], &["--since", time, "--until", time]]
        {
            assert!(!rejected(arguments), "{arguments:?}");
        }
        for arguments in [&[][..], &["--dry-run"], &["--all", id], &["--all", "--since", time], &[id, "--until", time]]
        {
            assert!(rejected(arguments), "{arguments:?}");
        }
        for arguments in [&["x"][..], &["--since", "yesterday"], &["--since", "-009999-01-02T00:00:00Z"]] {
            assert!(rejected(arguments), "{arguments:?}");
        }
    }
}
