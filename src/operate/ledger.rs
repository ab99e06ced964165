//! `purse ledger`: recomputes every wallet and lists those whose entries break a rule of the ledger.

use clap::builder::ValueParser;
use clap::{Arg, ArgMatches, Command};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::infra::config::{DatabaseConfig, Section};
use crate::infra::postgres::{Connector, DbError};
use crate::kernel::{Role, UserId};
use crate::operate::failure::{Failure, Outcome};
use crate::operate::help::help_end;
use crate::operate::humanize::count;
use crate::operate::output::{Format, List, print_error};
use crate::operate::progress::Progress;
use crate::wallet::domain::{LedgerViolation, WalletAudit};
use crate::wallet::postgres::{AuditCursor, PgLedgerAudit};

pub(super) fn command() -> Command {
    let user = Arg::new("user")
        .long("user")
        .value_name("ID")
        .value_parser(ValueParser::new(|text: &str| {
            text.parse::<UserId>().map_err(|_| "a user ID is a UUID such as 0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e")
        }))
        .help("Verify only the wallet of this user");
    Command::new("ledger")
        .about("Verify the ledger")
        .long_about("Reads the wallet database. Requires only WALLET_DATABASE_URL.")
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(end(&["purse ledger verify"]))
        .subcommand(
            Command::new("verify")
                .after_help(end(&[
                    "purse ledger verify",
                    "purse ledger verify --user 0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e --json",
                ]))
                .about("Recompute every wallet and list the inconsistent ones; exit code 1 if there are any")
                .long_about(
                    "Adds up the entries of each wallet in the database and checks that sequence numbers have no gap, that \
                     each balance is the sum of the entries up to it, that no balance is negative, and that no entry is \
                     older than the one before it. Reads one snapshot and does not block posts.",
                )
                .arg(user),
        )
}

fn end(examples: &[&str]) -> String {
    help_end(Some((Section::Database, &[Role::Wallet])), examples)
}

struct Tally {
    /// Including those without an entry.
    wallets: i64,
    entries: i64,
    differing: u64,
}

pub(super) async fn run(arguments: &ArgMatches, config: DatabaseConfig, io: Handle, format: Format) -> Outcome {
    let user = arguments.subcommand().and_then(|(_, verify)| verify.get_one::<UserId>("user").copied());
    let connector = Connector::new(&config, io).map_err(|e| Failure::Internal(format!("cannot set up TLS: {e}")))?;
    let mut audit = PgLedgerAudit::connect(&connector).await.map_err(failed)?;
    let recount = audit.begin(user).await.map_err(failed)?;
    let mut list = List::begin(format, "differing", &["USER", "RULE", "ENTRY", "PROBLEM"])?;
    let tally = verify(&recount, user, &mut list).await?;
    if let Some(user) = user.filter(|_| tally.wallets == 0 && tally.entries == 0) {
        print_error(&format!("user {user} has no wallet"));
        return Ok(false);
    }
    print_result(list, &tally)
}

fn failed(e: DbError) -> Failure {
    Failure::Database(Role::Wallet, e)
}

async fn verify(recount: &AuditCursor<'_>, user: Option<UserId>, list: &mut List) -> Result<Tally, Failure> {
    let size = recount.size();
    let mut tally = Tally { wallets: size.wallets, entries: 0, differing: 0 };
    // The number of entries of one wallet is not known before they are counted.
    let total = if user.is_none() { size.entries_estimate } else { 0 };
    let progress = Progress::begin("verifying entries", u64::try_from(total).unwrap_or(0));
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

fn print_result(list: List, tally: &Tally) -> Outcome {
    let scope = format!(
        "{} with {}",
        count(u64::try_from(tally.wallets).unwrap_or(0), "wallet"),
        if tally.entries == 1 { "1 entry".to_owned() } else { format!("{} entries", tally.entries) }
    );
    let result = match tally.differing {
        0 => format!("{scope}: all consistent."),
        differing => format!("{scope}: {differing} inconsistent."),
    };
    let totals = json!({"wallets": tally.wallets, "entries": tally.entries, "differingWallets": tally.differing});
    list.end(totals, &result)?;
    Ok(tally.differing == 0)
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
