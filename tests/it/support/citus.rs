use std::fs;

use purse::kernel::Role;

use super::private_postgres::append_settings;
use super::shards::shards;
use super::{PrivatePostgres, World};

/// How long a worker keeps a transaction that its coordinator left prepared.
const RECOVERY: &str = "citus.recover_2pc_interval = '2s'";

/// A coordinator of Citus and two workers, of which each is a PostgreSQL server of its own. The databases of the world move there.
pub struct Citus {
    pub coordinator: PrivatePostgres,
    pub workers: [PrivatePostgres; 2],
}

impl Citus {
    /// Starts the servers with these settings, and creates the accounts and databases on each.
    ///
    /// # Panics
    /// If this PostgreSQL has no Citus.
    pub async fn start(world: &mut World, settings: &[&str]) -> Self {
        assert!(shards() >= 4, "the tests of Citus need WALLET_SHARDS=4: run `just test-citus`");
        let available = "SELECT count(*) FROM pg_available_extensions WHERE name = 'citus'";
        assert_eq!(
            world.sql(Role::Users, available).await,
            "1",
            "the PostgreSQL in {} has no extension citus; set PG_BIN_DIR to one that has it",
            world.addresses.postgres_bin_dir.display()
        );
        world.copies_shards = true;
        let (coordinator, first, second) = tokio::join!(server(settings), server(settings), server(settings));
        // On the coordinator last, so that the world is there.
        for node in [&first, &second, &coordinator] {
            world.move_to(node).await;
            world.sql(Role::Wallet, "CREATE EXTENSION citus").await;
        }
        Self { coordinator, workers: [first, second] }
    }

    /// Runs SQL in the wallet database on the coordinator.
    pub async fn sql(&self, world: &World, script: &str) -> String {
        self.sql_on(&self.coordinator, world, script).await
    }

    /// Runs SQL in the wallet database on one of the servers.
    pub async fn sql_on(&self, server: &PrivatePostgres, world: &World, script: &str) -> String {
        self.try_sql_on(server, world, script).await.unwrap_or_else(|e| panic!("{script}: {e}"))
    }

    /// The same; the error is that of the server.
    pub async fn try_sql_on(&self, server: &PrivatePostgres, world: &World, script: &str) -> Result<String, String> {
        let (mut addresses, database) = (world.addresses.clone(), world.databases.wallet.database.clone());
        addresses.postgres_port = server.port();
        let script = script.to_owned();
        let printed = tokio::task::spawn_blocking(move || addresses.psql(&database, &script)).await.expect("thread");
        printed.map(|printed| printed.trim().to_owned()).map_err(|e| e.to_string())
    }

    /// Adds the workers, which the coordinator reaches by these ports.
    pub async fn add_workers(&self, world: &World, ports: [u16; 2]) {
        let nodes = ports.map(|port| format!("SELECT citus_add_node('127.0.0.1', {port});"));
        let app = format!("{}_app", world.databases.wallet.database);
        // What purse sets for its sessions on the coordinator does not reach those on the workers.
        let settings = [
            "lock_timeout = '1000ms'",
            "statement_timeout = '3000ms'",
            "idle_in_transaction_session_timeout = '5000ms'",
            "enable_seqscan = off",
            "enable_bitmapscan = off",
            "enable_hashjoin = off",
            "enable_mergejoin = off",
            "jit = off",
        ]
        .map(|setting| format!("ALTER ROLE {app} SET {setting};"));
        let port = self.coordinator.port();
        let set_up =
            format!("SELECT citus_set_coordinator_host('127.0.0.1', {port}); {} {}", nodes.concat(), settings.concat());
        self.sql(world, &set_up).await;
    }
}

async fn server(settings: &[&str]) -> PrivatePostgres {
    let mut configuration = vec![
        "shared_preload_libraries = 'citus'",
        "max_prepared_transactions = 100",
        "max_connections = 300",
        // For moves of a shard.
        "wal_level = logical",
        "citus.node_conninfo = 'sslmode=disable'",
        RECOVERY,
    ];
    configuration.extend(settings);
    let write = |folder: &std::path::Path| {
        // In the file, so that they are there after a restart.
        append_settings(folder, &configuration);
        // The nodes have no passwords for each other.
        fs::write(
            folder.join("data/pg_hba.conf"),
            "host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n",
        )
        .expect("pg_hba");
    };
    PrivatePostgres::start_prepared(|_| Vec::new(), write).await
}
