//! Audits the ledger: PostgreSQL adds up the entries of each wallet, and only the results are fetched.
//!
//! Each shard is read in a snapshot of its own. The other legs of transfers to another shard are looked up there afterwards, by a
//! second session: what the snapshot has of a transfer is committed, and so is the other leg.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio_postgres::{Portal, Row, Transaction};
use uuid::Uuid;

use crate::infra::postgres::{Connector, DbError, Session, Shard, ShardStatement, Shards};
use crate::kernel::UserId;
use crate::wallet::domain::{Difference, WalletAudit};

/// Shown in `pg_stat_activity`.
const APPLICATION_NAME: &str = "purse ledger verify";
/// Bounds the memory of this process.
const ROWS_PER_FETCH: i32 = 1_000;
/// How long a shard is read again for legs that are missing. A worker of Citus that lost the second phase of a commit shows what
/// it has written only after the coordinator has noticed.
const TWIN_WAIT_MAX: Duration = Duration::from_secs(6);
const TWIN_INTERVAL: Duration = Duration::from_secs(1);
/// Services that [`Posters`] names.
const SERVICES_MAX: usize = 20;

static SIZE: ShardStatement = ShardStatement::new(
    "-- wallet.audit.size ($1 user or null)
    SELECT (SELECT count(*) FROM shard.wallets WHERE $1::uuid IS NULL OR user_id = $1) AS wallets,
           (SELECT unhashed_entries FROM shard.hash_chain) AS unhashed,
           (SELECT greatest(reltuples, 0)::bigint FROM pg_class WHERE oid = 'shard.transactions'::regclass) AS entries",
);

static RECOUNT: ShardStatement = ShardStatement::new(include_str!("recount.sql"));

static POSTERS: ShardStatement = ShardStatement::new(
    "-- wallet.audit.posters ($1 user or null)
    SELECT posted_by, count(*) AS entries FROM shard.transactions
    WHERE type <> 'expire' AND ($1::uuid IS NULL OR user_id = $1) GROUP BY posted_by",
);

static CROSSING: ShardStatement = ShardStatement::new(
    "-- wallet.audit.crossing ($1 user or null, $2 shards)
    SELECT user_id, seq, transfer_id, counterparty_user_id, type, amount_minor FROM shard.transactions
    WHERE transfer_id IS NOT NULL AND ($1::uuid IS NULL OR user_id = $1)
      AND get_byte(uuid_send(counterparty_user_id), 15) % $2 <> get_byte(uuid_send(user_id), 15) % $2",
);

static TWINS: ShardStatement = ShardStatement::new(
    "-- wallet.audit.twins ($1 places, $2 users, $3 transfers, $4 counterparties, $5 types, $6 amounts)
    SELECT leg.place FROM unnest($1::bigint[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[], $6::bigint[])
                          AS leg (place, user_id, transfer_id, counterparty_user_id, type, amount_minor)
    JOIN shard.transactions AS twin
      ON twin.user_id = leg.counterparty_user_id AND twin.transfer_id = leg.transfer_id
     AND twin.counterparty_user_id = leg.user_id AND twin.amount_minor = leg.amount_minor
     AND (twin.type, leg.type) IN (('credit', 'debit'), ('debit', 'credit'))",
);

pub struct PgLedgerAudit {
    session: Session,
    /// For the other legs of transfers between shards.
    lookups: Option<Session>,
    shards: Shards,
}

/// The size of an audit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LedgerSize {
    /// Includes wallets without entries.
    pub wallets: i64,
    /// By the statistics of PostgreSQL; 0 before it has collected any.
    pub entries_estimate: i64,
    /// Entries of the whole shard that are older than the hash chain.
    pub unhashed_entries: i64,
}

impl PgLedgerAudit {
    /// The runtime user may read all tables.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn connect(connector: &Connector) -> Result<Self, DbError> {
        let shards = connector.shards();
        let session = Session::open_sharded(connector, APPLICATION_NAME).await?;
        let lookups = match shards {
            Shards::ONE => None,
            _ => Some(Session::open_sharded(connector, APPLICATION_NAME).await?),
        };
        Ok(Self { session, lookups, shards })
    }

    /// How many there are.
    pub const fn shards(&self) -> Shards {
        self.shards
    }

    /// Audits every wallet of a shard with an entry, or only that of `user`, in one snapshot.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn begin(&mut self, shard: Shard, user: Option<UserId>) -> Result<AuditCursor<'_>, DbError> {
        let (user, shards) = (user.map(UserId::as_uuid), self.shards);
        let tx = self.session.snapshot().await?;
        let size = tx.query_one(SIZE.of(shard), &[&user]).await?;
        let size = LedgerSize {
            wallets: size.try_get("wallets")?,
            entries_estimate: size.try_get("entries")?,
            unhashed_entries: size.try_get("unhashed")?,
        };
        let without_twin = match &mut self.lookups {
            Some(lookups) => legs_without_twin(&tx, lookups, shards, shard, user).await?,
            None => HashMap::new(),
        };
        let recount = tx.prepare(RECOUNT.of(shard)).await?;
        let portal = tx.bind(&recount, &[&user, &i32::from(shards.count())]).await?;
        Ok(AuditCursor { tx, portal, size, user, shard, shards, without_twin })
    }
}

/// By user, the first leg of a transfer to another shard which that shard does not have the other leg of.
async fn legs_without_twin(
    tx: &Transaction<'_>,
    lookups: &mut Session,
    shards: Shards,
    shard: Shard,
    user: Option<Uuid>,
) -> Result<HashMap<Uuid, i64>, DbError> {
    let crossing = tx.prepare(CROSSING.of(shard)).await?;
    let portal = tx.bind(&crossing, &[&user, &i32::from(shards.count())]).await?;
    let (mut without, mut patience) = (HashMap::new(), TWIN_WAIT_MAX);
    loop {
        let rows = tx.query_portal(&portal, ROWS_PER_FETCH).await?;
        if rows.is_empty() {
            return Ok(without);
        }
        let mut legs = BTreeMap::<Shard, Legs<'_>>::new();
        for row in &rows {
            let counterparty = row.try_get("counterparty_user_id")?;
            legs.entry(shards.of(UserId::from_uuid(counterparty))).or_default().add(row, counterparty)?;
        }
        for (shard, legs) in legs {
            let mut missing = legs.without_twin(lookups, shard).await?;
            while !missing.is_empty() && patience > Duration::ZERO {
                tokio::time::sleep(TWIN_INTERVAL).await;
                patience = patience.saturating_sub(TWIN_INTERVAL);
                missing = legs.without_twin(lookups, shard).await?;
            }
            for (user, seq) in missing {
                let first = without.entry(user).or_insert(seq);
                *first = seq.min(*first);
            }
        }
    }
}

/// Legs whose twins are in the same shard, in columns.
#[derive(Default)]
struct Legs<'r> {
    places: Vec<i64>,
    users: Vec<Uuid>,
    seqs: Vec<i64>,
    transfers: Vec<Uuid>,
    counterparties: Vec<Uuid>,
    types: Vec<&'r str>,
    amounts: Vec<i64>,
}

impl<'r> Legs<'r> {
    fn add(&mut self, row: &'r Row, counterparty: Uuid) -> Result<(), DbError> {
        self.places.push(i64::try_from(self.places.len()).unwrap_or(i64::MAX));
        self.users.push(row.try_get("user_id")?);
        self.seqs.push(row.try_get("seq")?);
        self.transfers.push(row.try_get("transfer_id")?);
        self.counterparties.push(counterparty);
        self.types.push(row.try_get("type")?);
        self.amounts.push(row.try_get("amount_minor")?);
        Ok(())
    }

    /// The users and sequence numbers of the legs whose twin is missing in `shard` or different.
    async fn without_twin(&self, lookups: &mut Session, shard: Shard) -> Result<Vec<(Uuid, i64)>, DbError> {
        let Self { places, users, seqs, transfers, counterparties, types, amounts } = self;
        let tx = lookups.snapshot().await?;
        let found = tx.query(TWINS.of(shard), &[places, users, transfers, counterparties, types, amounts]).await?;
        tx.commit().await?;
        let mut has_twin = vec![false; places.len()];
        for row in &found {
            let place = usize::try_from(row.try_get::<_, i64>("place")?).unwrap_or(usize::MAX);
            if let Some(has_twin) = has_twin.get_mut(place) {
                *has_twin = true;
            }
        }
        let legs = users.iter().zip(seqs).zip(has_twin);
        Ok(legs.filter(|(_, has_twin)| !has_twin).map(|((user, seq), _)| (*user, *seq)).collect())
    }
}

/// Who posted how many entries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Posters {
    /// Entries that users posted themselves. Expiries are nobody's.
    pub by_users: i64,
    by_service: BTreeMap<String, i64>,
}

impl Posters {
    /// Those with the most entries, at most [`SERVICES_MAX`] of them; and the number of other services, and that of their entries.
    pub fn ranked(&self) -> (Vec<(&str, i64)>, (i64, i64)) {
        let mut services: Vec<_> = self.by_service.iter().map(|(name, entries)| (name.as_str(), *entries)).collect();
        services.sort_by_key(|(name, entries)| (std::cmp::Reverse(*entries), *name));
        let others = services.split_off(services.len().min(SERVICES_MAX));
        let entries = others.iter().map(|(_, entries)| *entries).fold(0, i64::saturating_add);
        (services, (i64::try_from(others.len()).unwrap_or(i64::MAX), entries))
    }
}

/// A running audit of a shard. PostgreSQL computes only what is fetched, so neither side ever holds all of it.
pub struct AuditCursor<'session> {
    tx: Transaction<'session>,
    portal: Portal,
    size: LedgerSize,
    user: Option<Uuid>,
    shard: Shard,
    shards: Shards,
    without_twin: HashMap<Uuid, i64>,
}

impl AuditCursor<'_> {
    pub const fn size(&self) -> LedgerSize {
        self.size
    }

    /// Adds who posted the entries that are audited.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn add_posters(&self, posters: &mut Posters) -> Result<(), DbError> {
        for row in self.tx.query(POSTERS.of(self.shard), &[&self.user]).await? {
            let entries: i64 = row.try_get("entries")?;
            let count = match row.try_get::<_, Option<String>>("posted_by")? {
                Some(service) => posters.by_service.entry(service).or_default(),
                None => &mut posters.by_users,
            };
            *count = count.saturating_add(entries);
        }
        Ok(())
    }

    /// The next wallets; empty after the last.
    ///
    /// # Errors
    /// [`DbError`].
    pub async fn next(&self) -> Result<Vec<WalletAudit>, DbError> {
        let rows = self.tx.query_portal(&self.portal, ROWS_PER_FETCH).await?;
        let mut wallets = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        for wallet in &mut wallets {
            let without_twin = self.without_twin.get(&wallet.user_id.as_uuid()).copied();
            wallet.transfer = wallet.transfer.into_iter().chain(without_twin).min();
            // Requests do not find it here.
            wallet.has_wallet &= self.shards.of(wallet.user_id) == self.shard;
        }
        Ok(wallets)
    }
}

fn read(row: &Row) -> Result<WalletAudit, DbError> {
    let user_id: Uuid = row.try_get("user_id")?;
    Ok(WalletAudit {
        user_id: UserId::from_uuid(user_id),
        entries: row.try_get("entries")?,
        chained: row.try_get("chained")?,
        has_wallet: row.try_get("has_wallet")?,
        stored_balance: row.try_get("stored")?,
        computed_balance: row.try_get("recounted")?,
        sequence: difference(row, "place")?,
        balance: difference(row, "balance")?,
        negative: row.try_get("negative")?,
        time: row.try_get("time")?,
        held: difference(row, "held")?,
        chain: row.try_get("chain")?,
        texts: row.try_get("texts")?,
        origin: row.try_get("origin")?,
        transfer: row.try_get("transfer")?,
        group: row.try_get("group_place")?,
        closed: row.try_get("closed")?,
        open_holds: row.try_get("open_holds")?,
    })
}

fn difference(row: &Row, column: &str) -> Result<Option<Difference>, DbError> {
    let found: Option<Vec<i64>> = row.try_get(column)?;
    match found.as_deref() {
        None => Ok(None),
        Some(&[seq, stored, computed]) => Ok(Some(Difference { seq, stored, computed })),
        Some(_) => Err(DbError::Corrupt("wallet.audit.recount")),
    }
}
