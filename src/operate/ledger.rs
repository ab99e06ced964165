//! `purse ledger`: recounts what every wallet holds, and names those whose ledger breaks its own laws.

use clap::builder::ValueParser;
use clap::{Arg, ArgMatches, Command};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::infra::config::DatabaseConfig;
use crate::infra::postgres::{Connector, DbError};
use crate::kernel::{Role, UserId};
use crate::operate::failure::Failure;
use crate::operate::list::{Format, List};
use crate::operate::progress::Progress;
use crate::operate::words::count;
use crate::operate::{Outcome, say};
use crate::wallet::domain::{LedgerViolation, WalletAudit};
use crate::wallet::postgres::{AuditCursor, PgLedgerAudit};

/// The subcommand.
pub(super) fn command() -> Command {
    let user = Arg::new("user")
        .long("user")
        .value_name("ID")
        .value_parser(ValueParser::new(|text: &str| {
            text.parse::<UserId>().map_err(|_| "a user's id is a UUID like 0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e")
        }))
        .help("This user's wallet alone");
    Command::new("ledger")
        .about("Verify the ledger")
        .long_about("Works on the wallet database and needs WALLET_DATABASE_URL alone.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .subcommand(
            Command::new("verify")
                .about("Recount every wallet and name those that differ; exit code 1 if there are any")
                .long_about(
                    "Adds up the entries of each wallet in the database and compares: places count 1, 2, 3 without a gap, \
                     each balance is the sum of the entries up to it, none is below zero, and no entry is older than the \
                     one before it. All of it is of one moment; whoever posts meanwhile does not wait.",
                )
                .arg(user),
        )
}

/// What was recounted.
struct Tally {
    /// Wallets, also those without an entry.
    wallets: i64,
    entries: i64,
    differing: u64,
}

/// Runs it.
pub(super) async fn run(arguments: &ArgMatches, config: DatabaseConfig, io: Handle, format: Format) -> Outcome {
    let user = arguments.subcommand().and_then(|(_, verify)| verify.get_one::<UserId>("user").copied());
    let connector = Connector::new(&config, io).map_err(|e| Failure::Own(format!("TLS cannot be set up: {e}")))?;
    let mut audit = PgLedgerAudit::connect(&connector).await.map_err(failed)?;
    let recount = audit.begin(user).await.map_err(failed)?;
    let mut list = List::begin(format, "differing", &["USER", "LAW", "ENTRY", "WHAT DIFFERS"]);
    let tally = work_through(&recount, user, &mut list).await?;
    if let Some(user) = user.filter(|_| tally.wallets == 0 && tally.entries == 0) {
        say(&format!("there is no wallet of user {user}"));
        return Ok(false);
    }
    tell(list, &tally)
}

fn failed(e: DbError) -> Failure {
    Failure::Database(Role::Wallet, e)
}

async fn work_through(recount: &AuditCursor<'_>, user: Option<UserId>, list: &mut List) -> Result<Tally, Failure> {
    let size = recount.size();
    let mut tally = Tally { wallets: size.wallets, entries: 0, differing: 0 };
    // How many entries one wallet has is not known before they are counted.
    let total = if user.is_none() { size.entries_estimate } else { 0 };
    let progress = Progress::begin("recounting entries", u64::try_from(total).unwrap_or(0));
    loop {
        let wallets = recount.next().await.map_err(failed)?;
        if wallets.is_empty() {
            return Ok(tally);
        }
        for wallet in wallets {
            tally.entries = tally.entries.saturating_add(wallet.entries);
            progress.add(u64::try_from(wallet.entries).unwrap_or(0));
            let faults = wallet.violations();
            if !faults.is_empty() {
                tally.differing = tally.differing.saturating_add(1);
                list.item(&json(&wallet, &faults), faults.iter().map(|fault| row(&wallet, fault)));
            }
        }
    }
}

fn tell(list: List, tally: &Tally) -> Outcome {
    let scope = format!(
        "{} with {}",
        count(u64::try_from(tally.wallets).unwrap_or(0), "wallet"),
        if tally.entries == 1 { "1 entry".to_owned() } else { format!("{} entries", tally.entries) }
    );
    let told = match tally.differing {
        0 => format!("{scope}: all of them are right."),
        differing => format!("{scope}: {} by what their own entries say.", count_of_differing(differing)),
    };
    let totals = json!({"wallets": tally.wallets, "entries": tally.entries, "differingWallets": tally.differing});
    list.end(totals, &told)?;
    Ok(tally.differing == 0)
}

fn count_of_differing(differing: u64) -> String {
    if differing == 1 { "1 of them is wrong".to_owned() } else { format!("{differing} of them are wrong") }
}

fn json(wallet: &WalletAudit, faults: &[LedgerViolation]) -> Value {
    let faults: Vec<Value> =
        faults.iter().map(|f| json!({"law": f.rule(), "seq": f.seq(), "message": f.to_string()})).collect();
    json!({
        "userId": wallet.user_id.to_string(), "entries": wallet.entries, "balanceMinor": wallet.stored_balance,
        "recountedMinor": wallet.computed_balance, "faults": faults,
    })
}

fn row(wallet: &WalletAudit, fault: &LedgerViolation) -> Vec<String> {
    let seq = fault.seq().map_or_else(String::new, |seq| seq.to_string());
    vec![wallet.user_id.to_string(), fault.rule().to_owned(), seq, fault.to_string()]
}
