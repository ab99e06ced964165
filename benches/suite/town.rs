//! A wallet role with many wallets and their tokens, and its check after each round.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use purse::kernel::Role;
use uuid::Uuid;

use crate::support::world::PURSE;
use crate::support::{Outages, RoleProcess, World, mint, seconds_from_now};

/// Wallets over which a load is spread.
pub const WALLETS: usize = 1_000;
/// Enough that no debit of a benchmark is refused.
const FIRST_CREDIT: i64 = 1_000_000_000;

pub struct Town {
    pub world: World,
    pub wallet: RoleProcess,
    /// A file with a token a line, for all wallets and for the first one alone.
    pub all: PathBuf,
    pub one: PathBuf,
}

pub fn owner(number: usize) -> Uuid {
    Uuid::from_u128(0x7000_8000_0000_0000_0000 + number as u128)
}

/// A file of tokens of these people.
pub fn tokens(name: &str, people: impl Iterator<Item = Uuid>) -> PathBuf {
    let path = std::env::temp_dir().join(format!("purse-bench-{}-{name}", std::process::id()));
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).expect("a file"));
    for person in people {
        let claims = serde_json::json!({"sub": person.to_string(), "exp": seconds_from_now(86_400)});
        writeln!(file, "{}", mint(&serde_json::json!({"alg": "HS256"}), &claims, crate::support::ACCESS_KEY))
            .expect("written");
    }
    file.flush().expect("written");
    path
}

impl Town {
    pub async fn begin(servers: &Outages) -> Self {
        let world = World::on(servers.servers).await;
        let wallet = world.start(Role::Wallet).await;
        let people: Vec<String> = (1..=WALLETS).map(|n| format!("'{}'", owner(n))).collect();
        let script = format!(
            "INSERT INTO wallets (user_id, id) SELECT u, gen_random_uuid() FROM unnest(ARRAY[{}]::uuid[]) AS u;
             INSERT INTO transactions (user_id, seq, id, type, amount_minor, balance_after_minor, created_at)
             SELECT user_id, 1, gen_random_uuid(), 'credit', {FIRST_CREDIT}, {FIRST_CREDIT}, clock_timestamp() FROM wallets;
             VACUUM ANALYZE wallets, transactions",
            people.join(",")
        );
        for statement in script.split(';') {
            world.sql(Role::Wallet, statement).await;
        }
        let all = tokens("all", (1..=WALLETS).map(owner));
        let one = tokens("one", std::iter::once(owner(1)));
        Self { world, wallet, all, one }
    }

    /// Recounts every balance, as an operator would.
    pub async fn verify(&self) {
        let settings = self.world.settings(Role::Wallet);
        let output = crate::tools::beside(move || {
            Command::new(PURSE).args(["ledger", "verify"]).env_clear().envs(settings).output().expect("started")
        });
        let output = output.await;
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }

    /// Database transactions so far.
    pub async fn commits(&self) -> f64 {
        // Sessions tell the statistics what they did only now and then.
        self.world.sql(Role::Wallet, "SELECT pg_stat_force_next_flush()").await;
        let commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
        self.world.sql(Role::Wallet, commits).await.parse().expect("a number")
    }

    pub async fn entries(&self) -> f64 {
        self.world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await.parse().expect("a number")
    }
}
