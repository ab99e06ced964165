//! The wallet role.

use std::sync::Arc;

use actix::Actor as _;

use crate::contracts::RetryTier;
use crate::infra::amqp::Broker;
use crate::infra::config::{DatabaseConfig, WalletConfig};
use crate::infra::http::{ByService, BySubject, Sweep};
use crate::infra::postgres::Database;
use crate::infra::security::access_token::TokenVerifier;
use crate::infra::security::service_token::ServiceVerifier;
use crate::infra::system::System;
use crate::kernel::{Reminder, Role};
use crate::roles::parts::{Limits, RoleContext, database_probe, docs_page, event_signatures, housekeeper, http};
use crate::runtime::{ChildSpec, Handle};
use crate::wallet::actors::{
    HoldMetrics, HoldSweeperActor, HoldSweeperDeps, LedgerHandle, LedgerInboxes, LedgerMetrics, LedgerWriterActor,
    LedgerWriterDeps, ProvisionConsumerActor, ProvisionConsumerDeps, ProvisionMetrics, RetryRouterActor,
    RetryRouterDeps, RouterHandle, RouterMetrics, TopologyHandle, TopologyKeeperActor, TopologyKeeperDeps,
    TopologyMetrics, ledger_connections,
};
use crate::wallet::amqp::DeliveryReader;
use crate::wallet::application::announcements::WalletAnnouncements;
use crate::wallet::application::await_wallet::AwaitWallet;
use crate::wallet::application::holds::ExpireHolds;
use crate::wallet::application::ports::WalletStore;
use crate::wallet::application::post_batch::PostBatch;
use crate::wallet::application::provision_wallets::ProvisionWallets;
use crate::wallet::application::queries::WalletQueries;
use crate::wallet::application::receipts::ReceiptQueries;
use crate::wallet::application::retry_ladder::RetryLadder;
use crate::wallet::http::{Gate, StatementSlots, WalletApi, document, routes};
use crate::wallet::postgres::{
    Breakers, PgHoldQueries, PgJournal, PgReceipts, PgWalletQueries, PgWalletStore, ShardedDatabase, readiness_probe,
};

/// The children of the role in start order.
pub(super) fn assemble(config: &WalletConfig, context: RoleContext) -> anyhow::Result<Vec<ChildSpec>> {
    context.health.add_check("wallet-db", true);
    context.health.add_check_of("rabbitmq", false, &["provisioning", "retries", "topology"]);
    let stores = Stores::open(config, &context)?;
    let (writer, router, topology) = (Handle::default(), RouterHandle::default(), TopologyHandle::default());
    let limits = Limits::new(&context, &config.process, "purse wallet: limits")?;
    let inboxes = LedgerInboxes::new(config.ledger_lanes);
    let queue_max = config.ledger_queue_max;
    let ledger = Arc::new(LedgerHandle::new(writer.clone(), inboxes.clone(), queue_max, &context.metrics));
    let expire_holds = ExpireHolds { holds: stores.due_holds.clone(), ledger: ledger.clone() };
    let api = api(config, &context, &stores, ledger, &limits)?;
    let mut sweeps: Vec<Arc<dyn Sweep>> =
        vec![Arc::new(api.post_limit.clone()), Arc::new(api.bulk_limit.clone()), Arc::new(api.export_limit.clone())];
    sweeps.extend(api.service_limit.clone().map(|limit| Arc::new(limit) as Arc<dyn Sweep>));
    let broker = Broker::new(&config.process.amqp, context.io.clone());
    let ladder = Arc::new(RetryLadder::new(config.retry_ttls.map(RetryTier::new)));
    let provision = ProvisionWallets { wallets: stores.wallets, announcements: stores.announcements };
    Ok(vec![
        database_probe(&context, stores.probe, readiness_probe(config.process.database.shards), "wallet-db"),
        housekeeper(&context, sweeps.into_iter().chain(limits.shared_sweep()).collect()),
        ledger_writer(config, &context, stores.journal, inboxes, writer),
        hold_sweeper(&context, expire_holds),
        topology_keeper(&context, broker.clone(), Arc::clone(&ladder), topology.clone()),
        retry_router(&context, broker.clone(), topology.clone(), router.clone()),
        provision_consumer(config, &context, ProvisionParts { broker, ladder, provision, router, topology }),
        http(context, &config.process, Arc::new(move |app| routes(&api, app))),
    ])
}

/// The wallet database, over pools that are separate so that neither many reads nor a locked wallet delay the writer,
/// the provisioning or the probe.
struct Stores {
    wallets: Arc<dyn WalletStore>,
    queries: Arc<dyn WalletQueries>,
    holds: Arc<PgHoldQueries>,
    /// Beside the writer, so that no request finds its session taken.
    due_holds: Arc<PgHoldQueries>,
    receipts: Arc<dyn ReceiptQueries>,
    journal: PgJournal,
    probe: Database,
    /// Wallets created while a request waits for them.
    announcements: WalletAnnouncements,
}

impl Stores {
    fn open(config: &WalletConfig, context: &RoleContext) -> anyhow::Result<Self> {
        let DatabaseConfig { shards, pool_max, acquire_timeout, .. } = config.process.database;
        let breakers = Breakers::new(shards);
        breakers.show(&context.metrics);
        let sharded = |pool| ShardedDatabase::new(pool, breakers.clone());
        let requests = context.pool("purse wallet", pool_max)?;
        let requests = ShardedDatabase::divided(requests, breakers.clone(), pool_max, acquire_timeout);
        let probe = context.probe_pool("purse wallet: probe")?;
        let writing = sharded(context.pool("purse wallet: ledger", ledger_connections(config.ledger_lanes))?);
        let provisioning = sharded(context.pool("purse wallet: provisioning", 1)?);
        Ok(Self {
            wallets: Arc::new(PgWalletStore::new(requests.clone(), provisioning, Arc::new(System))),
            queries: Arc::new(PgWalletQueries::new(requests.clone())),
            holds: Arc::new(PgHoldQueries::new(requests.clone())),
            due_holds: Arc::new(PgHoldQueries::new(writing.clone())),
            receipts: Arc::new(PgReceipts::new(requests)),
            journal: PgJournal::new(writing),
            probe,
            announcements: WalletAnnouncements::default(),
        })
    }
}

fn api(
    config: &WalletConfig,
    context: &RoleContext,
    stores: &Stores,
    ledger: Arc<LedgerHandle>,
    limits: &Limits,
) -> anyhow::Result<WalletApi> {
    let process = &config.process;
    Ok(WalletApi {
        ledger,
        queries: Arc::clone(&stores.queries),
        holds: stores.holds.clone(),
        receipts: Arc::clone(&stores.receipts),
        signing_keys: Arc::new(config.signing_keys.clone()),
        gate: Arc::new(Gate::new(
            AwaitWallet { wallets: Arc::clone(&stores.wallets), announcements: stores.announcements.clone() },
            config.self_post,
            &context.metrics,
        )),
        tokens: Arc::new(TokenVerifier::new(&process.tokens)),
        services: Arc::new(ServiceVerifier::new(&process.tokens)),
        service_limit: config.service_limit.map(|limit| limits.of_requests(ByService, "service", limit)).transpose()?,
        post_limit: limits.of_requests(BySubject, "transactions", config.post_limit)?,
        bulk_limit: limits.of_requests(BySubject, "bulk", config.bulk_limit)?,
        export_limit: limits.of_requests(BySubject, "statements", config.export_limit)?,
        statements: StatementSlots::new(&context.metrics),
        health: context.health.clone(),
        docs: docs_page(&document().build(), Role::Users, process)?,
    })
}

fn ledger_writer(
    config: &WalletConfig,
    context: &RoleContext,
    journal: PgJournal,
    inboxes: LedgerInboxes,
    handle: Handle<LedgerWriterActor>,
) -> ChildSpec {
    let deps = Arc::new(LedgerWriterDeps {
        post_batch: PostBatch { journal: Arc::new(journal) },
        batch_max: config.ledger_batch_max,
        inboxes,
        io: context.io.clone(),
        shards: config.process.database.shards.count().into(),
        metrics: (0..config.ledger_lanes).map(|lane| LedgerMetrics::new(&context.metrics, lane)).collect(),
        logger: context.actor_logger("ledger_writer"),
        outages: Reminder::default(),
    });
    ChildSpec::new("ledger_writer", move |lifeline| {
        handle.point_to(LedgerWriterActor::new(Arc::clone(&deps), lifeline).start())
    })
}

fn hold_sweeper(context: &RoleContext, expire_holds: ExpireHolds) -> ChildSpec {
    let (metrics, logger) = (HoldMetrics::new(&context.metrics), context.actor_logger("hold_sweeper"));
    let deps = Arc::new(HoldSweeperDeps { expire_holds, metrics, logger, unread: Reminder::default() });
    ChildSpec::new("hold_sweeper", move |lifeline| HoldSweeperActor::new(Arc::clone(&deps), lifeline).start())
}

fn topology_keeper(
    context: &RoleContext,
    broker: Broker,
    ladder: Arc<RetryLadder>,
    handle: TopologyHandle,
) -> ChildSpec {
    let (metrics, logger) = (TopologyMetrics::new(&context.metrics), context.actor_logger("topology_keeper"));
    let deps = Arc::new(TopologyKeeperDeps { broker, ladder, health: context.health.clone(), metrics, logger });
    ChildSpec::new("topology_keeper", move |lifeline| {
        handle.0.point_to(TopologyKeeperActor::new(Arc::clone(&deps), lifeline).start())
    })
}

fn retry_router(context: &RoleContext, broker: Broker, topology: TopologyHandle, handle: RouterHandle) -> ChildSpec {
    let (metrics, logger) = (RouterMetrics::new(&context.metrics), context.actor_logger("retry_router"));
    let deps = Arc::new(RetryRouterDeps { broker, topology, health: context.health.clone(), metrics, logger });
    ChildSpec::new("retry_router", move |lifeline| {
        handle.0.point_to(RetryRouterActor::new(Arc::clone(&deps), lifeline).start())
    })
}

struct ProvisionParts {
    broker: Broker,
    ladder: Arc<RetryLadder>,
    provision: ProvisionWallets,
    router: RouterHandle,
    topology: TopologyHandle,
}

fn provision_consumer(config: &WalletConfig, context: &RoleContext, parts: ProvisionParts) -> ChildSpec {
    let ProvisionParts { broker, ladder, provision, router, topology } = parts;
    let deps = Arc::new(ProvisionConsumerDeps {
        broker,
        reader: DeliveryReader {
            signatures: Arc::new(event_signatures(&config.process)),
            require_signed: config.require_signed_events,
            ladder,
        },
        provision: Arc::new(provision),
        router,
        topology,
        prefetch: config.prefetch,
        health: context.health.clone(),
        metrics: ProvisionMetrics::new(&context.metrics),
        spans: context.spans.clone(),
        logger: context.actor_logger("provision_consumer"),
    });
    ChildSpec::new("provision_consumer", move |lifeline| {
        ProvisionConsumerActor::new(Arc::clone(&deps), lifeline).start()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infra::config::setting::{DB_POOL_MAX, Fallback, default_lanes};
    use crate::infra::postgres::Shards;
    use crate::roles::parts::COUNTING_CONNECTIONS;

    /// The fault tests count the connections of a process, and compare them with this page.
    #[test]
    fn the_page_about_scaling_has_the_connections_of_both_roles() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/scaling.md")).expect("the page");
        let default = |default: Fallback| match default {
            Fallback::Text(text) => text.parse::<usize>().expect("a number"),
            _ => panic!("no default"),
        };
        let ledger = ledger_connections(default_lanes(Shards::ONE));
        // Beside those for requests: the probe, the counts of shared limits, and a session that replaces another.
        let common = default(DB_POOL_MAX.default) + 1 + COUNTING_CONNECTIONS + 1;
        let (users, wallet) = (common + 1, common + ledger + 1);
        for row in [
            format!("| dedicated | probe 1, outbox 1 | probe 1, ledger {ledger}, provisioning 1 |"),
            format!("| sum | {users} | {wallet} |"),
        ] {
            assert!(page.lines().any(|line| line == row), "docs/scaling.md lacks: {row}");
        }
        let shards = Shards::new(16).expect("a power of two");
        let of_shards =
            format!("16 shards need {} connections for the ledger", ledger_connections(default_lanes(shards)));
        assert!(page.contains(&of_shards), "docs/scaling.md lacks: {of_shards}");
    }
}
