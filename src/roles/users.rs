//! The users role.

use std::num::NonZero;
use std::sync::Arc;
use std::thread::available_parallelism;

use actix::Actor as _;

use crate::infra::amqp::Broker;
use crate::infra::config::UsersConfig;
use crate::infra::http::{ByClient, Sweep};
use crate::infra::postgres::Database;
use crate::infra::security::access_token::{TokenSigner, TokenVerifier};
use crate::infra::security::password_hash::Argon2id;
use crate::infra::system::System;
use crate::kernel::{Role, Timestamp, UserId};
use crate::roles::parts::{Limits, RoleContext, database_probe, docs_page, event_signatures, housekeeper, http};
use crate::runtime::{ChildSpec, Handle};
use crate::users::actors::{
    DepthMetrics, HashMetrics, HasherHandle, OutboxPollerActor, OutboxPollerDeps, OutboxPrunerActor, OutboxWatchActor,
    PRUNE_INTERVAL, PasswordHasherActor, RelayMetrics, RelayWaker, pruned_counter, start_hashers,
};
use crate::users::application::log_in::LogIn;
use crate::users::application::ports::{
    AccessToken, PasswordHasher, PublishedEvents, TokenError, TokenIssuer, UserStore,
};
use crate::users::application::queries::UserQueries;
use crate::users::application::register_user::RegisterUser;
use crate::users::http::{UsersApi, document, routes};
use crate::users::postgres::{MIGRATIONS, PgOutbox, PgPublishedEvents, PgUserQueries, PgUserStore};

/// The children of the role in start order.
pub(super) fn assemble(config: &UsersConfig, context: RoleContext) -> anyhow::Result<Vec<ChildSpec>> {
    context.health.add_check("users-db", true);
    context.health.add_check_of("rabbitmq", false, &["outbox"]);
    let pools = Pools::open(config, &context)?;
    let actors = ActorHandles::default();
    let limits = Limits::new(&context, &config.process, "purse users: limits")?;
    let api = api(config, &context, &pools, &actors, &limits)?;
    Ok(vec![
        database_probe(&context, pools.probe, MIGRATIONS.probe.to_owned(), "users-db"),
        housekeeper(&context, sweeps(&api, limits)),
        // Both use the pool for requests, so that slow statements delay neither the relay nor the probe.
        outbox_watch(&context, Arc::clone(&api.queries)),
        outbox_pruner(config, &context, pools.requests),
        password_hasher(&context, actors.hashers)?,
        outbox_poller(config, &context, pools.relay, actors.poller),
        http(context, &config.process, Arc::new(move |app| routes(&api, app))),
    ])
}

/// Connection pools, separate so that load on one does not starve the others.
struct Pools {
    requests: Database,
    probe: Database,
    relay: Database,
}

impl Pools {
    fn open(config: &UsersConfig, context: &RoleContext) -> anyhow::Result<Self> {
        Ok(Self {
            requests: context.pool("purse users", config.process.database.pool_max)?,
            probe: context.probe_pool("purse users: probe")?,
            relay: context.pool("purse users: outbox", 1)?,
        })
    }
}

/// The actors that the API sends to.
#[derive(Default)]
struct ActorHandles {
    poller: Handle<OutboxPollerActor>,
    hashers: Handle<PasswordHasherActor>,
}

fn api(
    config: &UsersConfig,
    context: &RoleContext,
    pools: &Pools,
    actors: &ActorHandles,
    limits: &Limits,
) -> anyhow::Result<UsersApi> {
    let process = &config.process;
    let users: Arc<dyn UserStore> = Arc::new(PgUserStore::new(pools.requests.clone()));
    let hasher: Arc<dyn PasswordHasher> =
        Arc::new(HasherHandle::new(actors.hashers.clone(), config.hash_queue_max, &context.metrics));
    let tokens: Arc<dyn TokenIssuer> = Arc::new(Issuer(TokenSigner::new(&process.tokens, config.access_token_ttl)));
    let by_client = ByClient::new(&process.http.trusted_proxies, &context.metrics, context.actor_logger("http"));
    Ok(UsersApi {
        register_user: Arc::new(RegisterUser {
            users: Arc::clone(&users),
            hasher: Arc::clone(&hasher),
            tokens: Arc::clone(&tokens),
            relay: Arc::new(RelayWaker(actors.poller.clone())),
            clock: Arc::new(System),
            ids: Arc::new(System),
        }),
        log_in: Arc::new(LogIn { users, hasher, tokens, clock: Arc::new(System) }),
        queries: Arc::new(PgUserQueries::new(pools.requests.clone())),
        tokens: Arc::new(TokenVerifier::new(&process.tokens)),
        register_limit: limits.of_requests(by_client.clone(), "register", config.register_limit)?,
        login_limit: limits.of_requests(by_client, "login", config.login_limit)?,
        account_limit: Arc::new(limits.of_texts("account", config.account_limit)?),
        health: context.health.clone(),
        docs: docs_page(&document().build(), Role::Wallet, process)?,
    })
}

/// Issues tokens with the keys of the process.
struct Issuer(TokenSigner);

impl TokenIssuer for Issuer {
    fn issue(&self, user: UserId, now: Timestamp) -> Result<AccessToken, TokenError> {
        let token = self.0.sign(user, now).map_err(|e| TokenError(Box::new(e)))?;
        Ok(AccessToken { token, expires_in_s: self.0.ttl_s() })
    }
}

fn sweeps(api: &UsersApi, limits: Limits) -> Vec<Arc<dyn Sweep>> {
    let own: [Arc<dyn Sweep>; 3] =
        [Arc::new(api.register_limit.clone()), Arc::new(api.login_limit.clone()), api.account_limit.clone()];
    own.into_iter().chain(limits.shared_sweep()).collect()
}

fn outbox_watch(context: &RoleContext, queries: Arc<dyn UserQueries>) -> ChildSpec {
    let (metrics, logger) = (DepthMetrics::new(&context.metrics), context.actor_logger("outbox_watch"));
    ChildSpec::new("outbox_watch", move |lifeline| {
        let (queries, metrics, logger) = (Arc::clone(&queries), metrics.clone(), logger.clone());
        OutboxWatchActor { queries, metrics, logger, lifeline }.start()
    })
}

fn outbox_pruner(config: &UsersConfig, context: &RoleContext, database: Database) -> ChildSpec {
    let events: Arc<dyn PublishedEvents> = Arc::new(PgPublishedEvents::new(database));
    let (retention, pruned) = (config.outbox_retention, pruned_counter(&context.metrics));
    let logger = context.actor_logger("outbox_pruner");
    ChildSpec::new("outbox_pruner", move |lifeline| {
        let (events, pruned, logger) = (Arc::clone(&events), pruned.clone(), logger.clone());
        OutboxPrunerActor { events, retention, interval: PRUNE_INTERVAL, pruned, logger, lifeline }.start()
    })
}

fn password_hasher(context: &RoleContext, handle: Handle<PasswordHasherActor>) -> anyhow::Result<ChildSpec> {
    let (argon2, metrics) = (Argon2id::try_new()?, HashMetrics::new(&context.metrics));
    let threads = available_parallelism().map_or(1, NonZero::get);
    Ok(ChildSpec::new("password_hasher", move |lifeline| {
        handle.point_to(start_hashers(&argon2, threads, &metrics, lifeline))
    }))
}

fn outbox_poller(
    config: &UsersConfig,
    context: &RoleContext,
    relay: Database,
    handle: Handle<OutboxPollerActor>,
) -> ChildSpec {
    let process = &config.process;
    let deps = Arc::new(OutboxPollerDeps {
        broker: Broker::new(&process.amqp, context.io.clone()),
        signatures: Arc::new(event_signatures(process)),
        outbox: Arc::new(PgOutbox::new(relay, Arc::new(System))),
        poll_interval: config.outbox_poll_interval,
        batch_max: config.outbox_batch_max,
        lease: config.outbox_lease,
        health: context.health.clone(),
        metrics: RelayMetrics::new(&context.metrics),
        spans: context.spans.clone(),
        logger: context.actor_logger("outbox_poller"),
    });
    ChildSpec::new("outbox_poller", move |lifeline| {
        handle.point_to(OutboxPollerActor::new(Arc::clone(&deps), lifeline).start())
    })
}
