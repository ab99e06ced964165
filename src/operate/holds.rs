//! `purse ledger holds`: lists open holds.

use clap::builder::ValueParser;
use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;
use tokio::runtime::Handle;

use crate::infra::config::{DatabaseConfig, Section};
use crate::infra::postgres::{Connector, DbError};
use crate::kernel::{Role, UserId, rfc3339};
use crate::operate::failure::{Failure, Outcome};
use crate::operate::help::help_end;
use crate::operate::humanize::{count, duration};
use crate::operate::output::{Format, List};
use crate::wallet::postgres::{OpenHold, PgOpenHolds};

pub(super) fn command() -> Command {
    let user = Arg::new("user")
        .long("user")
        .value_name("ID")
        .value_parser(ValueParser::new(|text: &str| {
            text.parse::<UserId>().map_err(|_| "a user ID is a UUID such as 0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e")
        }))
        .help("List only the holds of this user");
    let overdue = Arg::new("overdue")
        .long("overdue")
        .action(ArgAction::SetTrue)
        .help("List only holds whose time is over although their end is not written yet");
    let examples =
        ["purse ledger holds --overdue", "purse ledger holds --user 0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e --json"];
    Command::new("holds")
        .after_help(help_end(Some((Section::Database, &[Role::Wallet])), &examples))
        .about("List open holds, those that expire first at the top")
        .long_about(
            "Lists the open holds of all users or of one, those that expire first at the top: what they still hold, and how \
             long they have been overdue. An overdue hold holds nothing; the wallet role writes its end within a second or \
             two, and before anything else happens to the wallet. Reads one snapshot and does not block posts.",
        )
        .arg(user)
        .arg(overdue)
}

fn failed(e: DbError) -> Failure {
    Failure::Database(Role::Wallet, e)
}

pub(super) async fn run(arguments: &ArgMatches, config: DatabaseConfig, io: Handle, format: Format) -> Outcome {
    let user = arguments.get_one::<UserId>("user").copied();
    let connector = Connector::new(&config, io).map_err(|e| Failure::Internal(format!("cannot set up TLS: {e}")))?;
    let mut holds = PgOpenHolds::connect(&connector).await.map_err(failed)?;
    let mut cursor = holds.begin(user, arguments.get_flag("overdue")).await.map_err(failed)?;
    let mut list = List::begin(format, "holds", &["USER", "HOLD", "REMAINING", "EXPIRES", "OVERDUE", "PLACED BY"])?;
    let (mut number, mut overdue, mut remaining) = (0_u64, 0_u64, 0_i64);
    while let Some(hold) = cursor.next().await.map_err(failed)? {
        number = number.saturating_add(1);
        overdue = overdue.saturating_add(u64::from(hold.overdue_s > 0));
        remaining = remaining.saturating_add(hold.remaining);
        list.item(&json(&hold), [row(&hold)]);
    }
    let sentence = if arguments.get_flag("overdue") {
        format!("{} with {remaining} cents.", count(number, "overdue hold"))
    } else {
        format!("{} with {remaining} cents, {overdue} overdue.", count(number, "open hold"))
    };
    list.end(json!({"open": number, "overdue": overdue, "remainingMinor": remaining}), &sentence)?;
    Ok(true)
}

fn json(hold: &OpenHold) -> serde_json::Value {
    json!({
        "userId": hold.user_id.to_string(), "id": hold.id.to_string(), "amountMinor": hold.amount,
        "remainingMinor": hold.remaining, "captures": hold.captures, "createdAt": rfc3339(hold.created_at),
        "expiresAt": rfc3339(hold.expires_at), "overdueSeconds": hold.overdue_s, "postedBy": hold.posted_by,
    })
}

fn row(hold: &OpenHold) -> Vec<String> {
    let overdue = if hold.overdue_s > 0 { duration(hold.overdue_s) } else { String::new() };
    vec![
        hold.user_id.to_string(),
        hold.id.to_string(),
        hold.remaining.to_string(),
        rfc3339(hold.expires_at),
        overdue,
        hold.posted_by.clone().unwrap_or_else(|| "user".to_owned()),
    ]
}
