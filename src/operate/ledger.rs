//! `purse ledger`: recomputes every wallet and lists those whose entries break a rule of the ledger.

use std::collections::BTreeMap;

use clap::builder::ValueParser;
use clap::{Arg, ArgMatches, Command};
use serde_json::{Value, json};
use tokio::runtime::Handle;

use crate::infra::config::{DatabaseConfig, Section};
use crate::infra::postgres::{Connector, DbError, Shards};
use crate::kernel::{Role, UserId};
use crate::operate::failure::{Failure, Outcome};
use crate::operate::help::help_end;
use crate::operate::humanize::{count, count_entries};
use crate::operate::output::{Format, List, print_error};
use crate::operate::progress::Progress;
use crate::operate::{holds, receipts};
use crate::wallet::domain::{LedgerViolation, WalletAudit};
use crate::wallet::postgres::{AuditCursor, PgLedgerAudit, Posters};

pub(super) fn command() -> Command {
    let user = Arg::new("user")
        .long("user")
        .value_name("ID")
        .value_parser(ValueParser::new(|text: &str| {
            text.parse::<UserId>().map_err(|_| "a user ID is a UUID such as 0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e")
        }))
        .help("Verify only the wallet of this user");
    Command::new("ledger")
        .about("Verify the ledger and receipts of it, and list open holds")
        .long_about(
            "`verify` and `holds` read the wallet database and require only WALLET_DATABASE_URL, and WALLET_SHARDS if it \
             was set up with it; `verify-receipt` requires nothing.",
        )
        .subcommand_required(true)
        .arg_required_else_help(true)
        .after_help(end(&["purse ledger verify", "purse ledger verify-receipt receipt.json"]))
        .subcommand(receipts::command())
        .subcommand(holds::command())
        .subcommand(
            Command::new("verify")
                .after_help(end(&[
                    "purse ledger verify",
                    "purse ledger verify --user 0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e --json",
                ]))
                .about("Recompute every wallet and list the inconsistent ones; exit code 1 if there are any")
                .long_about(
                    "Recomputes every entry of each wallet in the database from the entries before it: its sequence number, \
                     balance, held amount and time, its hash, the digest of its texts, and what it acts on. Counts the \
                     entries by how the hash chain covers them: chained ones have a hash, sealed ones are older and covered \
                     by the first hash after them, unchained ones are older and not covered. Also counts them by who \
                     posted them: users, and each of the 20 services with the most. Reads one snapshot of each shard and \
                     does not block posts.",
                )
                .arg(user),
        )
}

fn end(examples: &[&str]) -> String {
    help_end(Some((Section::Database, &[Role::Wallet])), examples)
}

#[derive(Default)]
struct Tally {
    /// Including those without an entry.
    wallets: i64,
    entries: i64,
    /// Entries with a hash.
    chained: i64,
    /// Entries without one, which the first hash after them covers.
    sealed: i64,
    /// Entries without one in wallets that have no hash yet.
    unchained: i64,
    /// Entries that are older than the hash chain. `None` if only one wallet was verified.
    older_than_the_chain: Option<i64>,
    differing: u64,
}

impl Tally {
    fn add(&mut self, wallet: &WalletAudit) {
        let without = wallet.entries.saturating_sub(wallet.chained);
        self.entries = self.entries.saturating_add(wallet.entries);
        self.chained = self.chained.saturating_add(wallet.chained);
        let kind = if wallet.chained > 0 { &mut self.sealed } else { &mut self.unchained };
        *kind = kind.saturating_add(without);
    }

    /// The entries without a hash and how many there should be, if that differs: then hashes or old entries were removed.
    fn miscounted(&self) -> Option<(i64, i64)> {
        let without = self.sealed.saturating_add(self.unchained);
        self.older_than_the_chain.filter(|expected| *expected != without).map(|expected| (without, expected))
    }
}

pub(super) async fn run(arguments: &ArgMatches, config: DatabaseConfig, io: Handle, format: Format) -> Outcome {
    if let Some(("holds", arguments)) = arguments.subcommand() {
        return holds::run(arguments, config, io, format).await;
    }
    let user = arguments.subcommand().and_then(|(_, verify)| verify.get_one::<UserId>("user").copied());
    let connector = Connector::new(&config, io).map_err(|e| Failure::Internal(format!("cannot set up TLS: {e}")))?;
    let mut audit = PgLedgerAudit::connect(&connector).await.map_err(failed)?;
    let shards = audit.shards();
    let mut list = List::begin(format, "differing", &["USER", "RULE", "ENTRY", "PROBLEM"])?;
    let (mut tally, mut posters) = (Tally::default(), Posters::default());
    for shard in shards.to_read(user) {
        let recount = audit.begin(shard, user).await.map_err(failed)?;
        verify(&recount, user, &mut tally, &mut list).await?;
        recount.add_posters(&mut posters).await.map_err(failed)?;
    }
    if let Some(user) = user.filter(|_| tally.wallets == 0 && tally.entries == 0) {
        print_error(&format!("user {user} has no wallet"));
        return Ok(false);
    }
    let moments = match shards {
        Shards::ONE => String::new(),
        _ if user.is_some() => String::new(),
        shards => format!(" Each of the {shards} shards was read at a moment of its own."),
    };
    print_result(list, &tally, &posters, &moments)
}

fn failed(e: DbError) -> Failure {
    Failure::Database(Role::Wallet, e)
}

/// Adds the wallets of one shard.
async fn verify(
    recount: &AuditCursor<'_>,
    user: Option<UserId>,
    tally: &mut Tally,
    list: &mut List,
) -> Result<(), Failure> {
    let size = recount.size();
    tally.wallets = tally.wallets.saturating_add(size.wallets);
    if user.is_none() {
        let older = tally.older_than_the_chain.get_or_insert(0);
        *older = older.saturating_add(size.unhashed_entries);
    }
    // The number of entries of one wallet is not known before they are counted.
    let total = if user.is_none() { size.entries_estimate } else { 0 };
    let progress = Progress::begin("verifying entries", u64::try_from(total).unwrap_or(0));
    loop {
        let wallets = recount.next().await.map_err(failed)?;
        if wallets.is_empty() {
            return Ok(());
        }
        for wallet in wallets {
            tally.add(&wallet);
            progress.add(u64::try_from(wallet.entries).unwrap_or(0));
            let faults = wallet.violations();
            if !faults.is_empty() {
                tally.differing = tally.differing.saturating_add(1);
                list.item(&json(&wallet, &faults), faults.iter().map(|fault| row(&wallet, fault)));
            }
        }
    }
}

/// `10 posted by users, 4 by service payments, 9 by 3 other services`.
fn posted_by(posters: &Posters) -> String {
    let by_users = posters.by_users;
    let (services, (others, of_others)) = posters.ranked();
    let services = services.iter().map(|(service, entries)| format!(", {entries} by service {service}"));
    let others = (others > 0)
        .then(|| format!(", {of_others} by {}", count(u64::try_from(others).unwrap_or(0), "other service")));
    format!("{by_users} posted by users{}", services.chain(others).collect::<String>())
}

/// `moments` says when the shards were read, after a space.
fn print_result(list: List, tally: &Tally, posters: &Posters, moments: &str) -> Outcome {
    let scope = format!(
        "{} with {}",
        count(u64::try_from(tally.wallets).unwrap_or(0), "wallet"),
        count_entries(u64::try_from(tally.entries).unwrap_or(0))
    );
    let Tally { chained, sealed, unchained, .. } = tally;
    let scope = format!("{scope} ({chained} chained, {sealed} sealed, {unchained} unchained; {})", posted_by(posters));
    let miscounted = tally.miscounted();
    let result = match (tally.differing, miscounted) {
        (0, None) => format!("{scope}: all consistent."),
        (differing, None) => format!("{scope}: {differing} inconsistent."),
        (differing, Some((without, expected))) => format!(
            "{scope}: {differing} inconsistent; {without} entries have no hash, but {expected} are older than the hash chain."
        ),
    };
    let (services, (others, of_others)) = posters.ranked();
    let services: BTreeMap<_, _> = services.into_iter().collect();
    let totals = json!({
        "postedBy": {
            "users": posters.by_users, "services": services, "otherServices": {"count": others, "entries": of_others},
        },
        "wallets": tally.wallets, "entries": tally.entries, "chained": tally.chained, "sealed": tally.sealed,
        "unchained": tally.unchained, "beforeChain": tally.older_than_the_chain, "differingWallets": tally.differing,
    });
    list.end(totals, &format!("{result}{moments}"))?;
    Ok(tally.differing == 0 && miscounted.is_none())
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
