//! The suite with several shards: `WALLET_SHARDS=4 cargo test …` starts each process with that setting.
//!
//! The tests' own SQL names the tables of the ledger without a schema. In a schema that only the superuser of the tests searches,
//! each of these tables is the parent of those of all shards. It reads, locks, changes and deletes their rows; a trigger inserts a
//! row into the shard of its user.

use uuid::Uuid;

use super::{User, World, token_of};

/// The setting of this run; 1 without one.
pub fn shards() -> u8 {
    std::env::var("WALLET_SHARDS").map_or(1, |count| count.parse().expect("WALLET_SHARDS is a number"))
}

/// With a row per user, except the last one.
const TABLES: [&str; 5] = ["wallets", "transactions", "entry_texts", "open_holds", "hash_chain"];

/// The schema of the parents.
const ALL: &str = "all_shards";

fn schemas() -> impl Iterator<Item = String> {
    (0..shards()).map(|number| format!("shard_{number:02}"))
}

/// Makes the superuser's sessions in the wallet database search the parents, which need not exist yet.
pub fn search_path(world: &World) -> String {
    let (user, database) = (world.addresses.postgres_superuser, &world.databases.wallet.database);
    format!("ALTER ROLE {user} IN DATABASE {database} SET search_path = {ALL}, public")
}

/// Creates the parents, once all shards have their tables. Under the lock of the migrations ("purse" in ASCII): another process may
/// grant privileges on these tables.
pub fn unite() -> String {
    let last = schemas().last().expect("a shard");
    let tables = TABLES.map(|table| {
        let inherit = schemas().map(|schema| format!("ALTER TABLE {schema}.{table} INHERIT {ALL}.{table};\n"));
        let inherit = inherit.collect::<Vec<_>>().concat();
        let route = if table == "hash_chain" {
            String::new()
        } else {
            format!(
                "CREATE TRIGGER route BEFORE INSERT ON {ALL}.{table} FOR EACH ROW EXECUTE FUNCTION {ALL}.route();
                 ALTER TABLE {ALL}.{table} ENABLE ALWAYS TRIGGER route;\n"
            )
        };
        format!("CREATE TABLE {ALL}.{table} (LIKE shard_00.{table} INCLUDING DEFAULTS);\n{inherit}{route}")
    });
    format!(
        "DO $unite$ BEGIN
         PERFORM pg_advisory_xact_lock(x'7075727365'::bigint);
         IF to_regclass('{last}.hash_chain') IS NOT NULL AND to_regnamespace('{ALL}') IS NULL THEN
             CREATE SCHEMA {ALL};
             CREATE FUNCTION {ALL}.route() RETURNS trigger LANGUAGE plpgsql AS $$
             BEGIN
                 EXECUTE format('INSERT INTO shard_%s.%I SELECT ($1).*',
                     lpad((get_byte(uuid_send(NEW.user_id), 15) % {count})::text, 2, '0'), TG_TABLE_NAME) USING NEW;
                 RETURN NULL;
             END $$;
             {tables}
         END IF;
         END $unite$;",
        count = shards(),
        tables = tables.concat(),
    )
}

/// Of this run, from 0.
pub fn shard_of(user: &User) -> usize {
    let id: Uuid = user.id.parse().expect("an ID");
    usize::from(id.as_bytes()[15] % shards())
}

/// What the wallets of users are sorted by where a transaction waits for several of them.
pub fn lock_order(user: &User) -> (usize, String) {
    (shard_of(user), user.id.clone())
}

/// A new user without a registration, whose ID ends with this byte.
pub fn user_ending_with(last: u8) -> User {
    let mut id = *Uuid::now_v7().as_bytes();
    id[15] = last;
    let id = Uuid::from_bytes(id).to_string();
    User { token: token_of(&id), email: String::new(), id }
}

/// What `purse ledger verify` printed, without the sentence that it adds about several shards.
pub fn without_moments(printed: &str) -> String {
    printed.replace(&format!(" Each of the {} shards was read at a moment of its own.", shards()), "")
}

/// Copies the tables of all shards into temporary ones of the same names, which this session finds before any other.
pub fn copy() -> String {
    let last = schemas().last().expect("a shard");
    let tables = TABLES.map(|table| {
        let of_each: Vec<String> = schemas().map(|schema| format!("SELECT * FROM {schema}.{table}")).collect();
        format!("CREATE TEMPORARY TABLE {table} AS {};\n", of_each.join(" UNION ALL "))
    });
    format!(
        "DO $copy$ BEGIN IF to_regclass('{last}.hash_chain') IS NOT NULL THEN {} END IF; END $copy$;\n",
        tables.concat()
    )
}

/// Changes of a table are those of each shard: constraints and names are not inherited.
pub fn in_each_shard(script: &str) -> String {
    let statements = script.split_inclusive(';').flat_map(|statement| {
        let of_table = |table: &&str| statement.trim_start().starts_with(&format!("ALTER TABLE {table} "));
        match TABLES.iter().find(|table| of_table(table)) {
            Some(table) => schemas()
                .map(|schema| {
                    let changed = statement.replacen(
                        &format!("ALTER TABLE {table} "),
                        &format!("ALTER TABLE {schema}.{table} "),
                        1,
                    );
                    if changed.ends_with(';') { changed } else { changed + ";" }
                })
                .collect(),
            None => vec![statement.to_owned()],
        }
    });
    statements.collect()
}
