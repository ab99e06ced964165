//! What the wallet role is made of.

use std::sync::Arc;

use actix::Actor as _;

use crate::contracts::RetryTier;
use crate::infra::amqp::Broker;
use crate::infra::config::WalletConfig;
use crate::infra::http::{BySubject, Limiter, SharedLimit, SharedSweep, Sweep};
use crate::infra::security::access_token::TokenVerifier;
use crate::infra::security::event_signature::EventSignatures;
use crate::infra::system::System;
use crate::kernel::Role;
use crate::roles::boot::{RoleContext, database_probe, docs_page, housekeeper, http, shared_counts};
use crate::runtime::{ChildSpec, Handle};
use crate::wallet::actors::{
    LEDGER_CONNECTIONS, LedgerHandle, LedgerMetrics, LedgerWriterActor, LedgerWriterDeps, ProvisionConsumerActor,
    ProvisionConsumerDeps, ProvisionMetrics, RetryRouterActor, RetryRouterDeps, RouterHandle, RouterMetrics,
};
use crate::wallet::amqp::DeliveryReader;
use crate::wallet::application::announcements::WalletAnnouncements;
use crate::wallet::application::await_wallet::AwaitWallet;
use crate::wallet::application::ports::WalletStore;
use crate::wallet::application::post_batch::PostBatch;
use crate::wallet::application::provision_wallets::ProvisionWallets;
use crate::wallet::application::retry_ladder::RetryLadder;
use crate::wallet::http::{WalletApi, document};
use crate::wallet::postgres::{PgJournal, PgWalletQueries, PgWalletStore};

/// The children of the role, in the order in which they are made; they are stopped in the reverse.
pub(super) fn assemble(config: &WalletConfig, on: RoleContext) -> anyhow::Result<Vec<ChildSpec>> {
    let process = &config.process;
    on.health.expect("wallet-db", true);
    on.health.expect("rabbitmq", false);
    let requests = on.pool("purse wallet", process.database.pool_max)?;
    let probe = on.pool("purse wallet: probe", 1)?;
    // Their own, so that neither a flood of reads nor a held wallet keeps the writer or the provisioning waiting.
    let writing = on.pool("purse wallet: ledger", LEDGER_CONNECTIONS)?;
    let provisioning = on.pool("purse wallet: provisioning", 1)?;

    let (system, announcements) = (Arc::new(System), WalletAnnouncements::default());
    let wallets: Arc<dyn WalletStore> = Arc::new(PgWalletStore::new(requests.clone(), provisioning, system));
    let (writer, router) = (Handle::default(), RouterHandle::default());
    let shared = shared_counts(&on, process, "purse wallet: limits")?;
    let post_limit = Limiter::new(BySubject, config.post_limit, process.rate_limit_enabled)
        .map(|limiter| {
            limiter.sharing(shared.clone().map(|counts| SharedLimit::new(counts, "post", config.post_limit)))
        })
        .ok_or_else(|| anyhow::anyhow!("a rate limit is zero"))?;
    let api = WalletApi {
        ledger: Arc::new(LedgerHandle::new(writer.clone(), config.ledger_queue_max, &on.metrics)),
        queries: Arc::new(PgWalletQueries::new(requests)),
        await_wallet: Arc::new(AwaitWallet { wallets: Arc::clone(&wallets), announcements: announcements.clone() }),
        tokens: Arc::new(TokenVerifier::new(&process.tokens)),
        post_limit,
        health: on.health.clone(),
        docs: docs_page(&document(), Role::Users, process)?,
    };
    let mut chores: Vec<Arc<dyn Sweep>> = vec![Arc::new(api.post_limit.clone())];
    if let Some(counts) = shared {
        chores.push(Arc::new(SharedSweep { counts, logger: on.logger_of("housekeeper") }));
    }

    let broker = Broker::new(&process.amqp, on.io.clone());
    let ladder = Arc::new(RetryLadder::new(config.retry_ttls.map(RetryTier::new)));
    let writer_deps = Arc::new(LedgerWriterDeps {
        post_batch: PostBatch { journal: Arc::new(PgJournal::new(writing)) },
        batch_max: config.ledger_batch_max,
        queue_max: config.ledger_queue_max,
        io: on.io.clone(),
        metrics: LedgerMetrics::new(&on.metrics),
        logger: on.logger_of("ledger_writer"),
    });
    let router_deps = Arc::new(RetryRouterDeps {
        broker: broker.clone(),
        ladder: Arc::clone(&ladder),
        metrics: RouterMetrics::new(&on.metrics),
        logger: on.logger_of("retry_router"),
    });
    let consumer_deps = Arc::new(ProvisionConsumerDeps {
        broker,
        reader: DeliveryReader {
            signatures: Arc::new(EventSignatures::new(&process.tokens.internal_key)),
            require_signed: config.require_signed_events,
            ladder,
        },
        provision: Arc::new(ProvisionWallets { wallets, announcements }),
        router: router.clone(),
        prefetch: config.prefetch,
        health: on.health.clone(),
        metrics: ProvisionMetrics::new(&on.metrics),
        spans: on.spans.clone(),
        logger: on.logger_of("provision_consumer"),
    });
    Ok(vec![
        database_probe(&on, probe, "wallet-db"),
        housekeeper(&on, chores),
        ChildSpec {
            name: "ledger_writer",
            start: Box::new(move |lifeline| {
                let child = LedgerWriterActor::new(Arc::clone(&writer_deps), lifeline).start();
                writer.point_to(child.clone());
                Box::new(child)
            }),
        },
        ChildSpec {
            name: "retry_router",
            start: Box::new(move |lifeline| {
                let child = RetryRouterActor::new(Arc::clone(&router_deps), lifeline).start();
                router.0.point_to(child.clone());
                Box::new(child)
            }),
        },
        ChildSpec {
            name: "provision_consumer",
            start: Box::new(move |lifeline| {
                Box::new(ProvisionConsumerActor::new(Arc::clone(&consumer_deps), lifeline).start())
            }),
        },
        http(on, process, Arc::new(move |routes| api.routes(routes))),
    ])
}
