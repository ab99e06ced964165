use std::io::Write as _;
use std::path::PathBuf;
use std::process::Command;

use futures_util::future::join_all;
use purse::kernel::Role;
use uuid::Uuid;

use crate::support::world::PURSE;
use crate::support::{Client, Outages, RoleProcess, User, World, mint, seconds_from_now, token_of};

/// Wallets in a spread load.
pub const WALLETS: usize = 1_000;
/// Enough that no debit of a benchmark is rejected.
const FIRST_CREDIT: i64 = 1_000_000_000;

/// A wallet role with many wallets, and their tokens.
pub struct Fixture {
    pub world: World,
    pub wallet: RoleProcess,
    /// Files with one token per line: of all wallets, and of the first one only.
    pub all: PathBuf,
    pub one: PathBuf,
}

pub fn owner(number: usize) -> Uuid {
    Uuid::from_u128(0x7000_8000_0000_0000_0000 + number as u128)
}

/// Writes a file with a token per user.
pub fn tokens(name: &str, users: impl Iterator<Item = Uuid>) -> PathBuf {
    let path = std::env::temp_dir().join(format!("purse-bench-{}-{name}", std::process::id()));
    let mut file = std::io::BufWriter::new(std::fs::File::create(&path).expect("a file"));
    for user in users {
        let claims = serde_json::json!({"sub": user.to_string(), "exp": seconds_from_now(86_400)});
        writeln!(file, "{}", mint(&serde_json::json!({"alg": "HS256"}), &claims, crate::support::ACCESS_KEY))
            .expect("written");
    }
    file.flush().expect("written");
    path
}

impl Fixture {
    pub async fn start(servers: &Outages) -> Self {
        let world = World::on(servers.servers).await;
        let wallet = world.start(Role::Wallet).await;
        let owners: Vec<String> = (1..=WALLETS).map(|n| format!("'{}'", owner(n))).collect();
        let script = format!(
            "INSERT INTO wallets (user_id, id) SELECT u, gen_random_uuid() FROM unnest(ARRAY[{}]::uuid[]) AS u;
             VACUUM ANALYZE wallets, transactions",
            owners.join(",")
        );
        let (insert, analyze) = script.split_once(';').expect("two statements");
        world.sql(Role::Wallet, insert).await;
        // By the role, which computes the hashes that `verify` recomputes.
        let client = Client::new("", &wallet.url());
        for some in (1..=WALLETS).map(owner).collect::<Vec<_>>().chunks(100) {
            let credits = some.iter().map(|user| {
                let id = user.to_string();
                let user = User { token: token_of(&id), email: String::new(), id };
                let client = &client;
                async move { client.post(&user, "credit", FIRST_CREDIT, None).await }
            });
            assert!(join_all(credits).await.iter().all(|credit| credit.status == 201));
        }
        world.sql(Role::Wallet, analyze).await;
        let all = tokens("all", (1..=WALLETS).map(owner));
        let one = tokens("one", std::iter::once(owner(1)));
        Self { world, wallet, all, one }
    }

    /// Recomputes every balance with `purse ledger verify`.
    pub async fn verify(&self) {
        let settings = self.world.settings(Role::Wallet);
        let output = crate::tools::blocking(move || {
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

    /// Committed database transactions so far.
    pub async fn commits(&self) -> f64 {
        // Sessions report their statistics only from time to time.
        self.world.sql(Role::Wallet, "SELECT pg_stat_force_next_flush()").await;
        let commits = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";
        self.world.sql(Role::Wallet, commits).await.parse().expect("a number")
    }

    pub async fn entries(&self) -> f64 {
        self.world.sql(Role::Wallet, "SELECT count(*) FROM transactions").await.parse().expect("a number")
    }
}
