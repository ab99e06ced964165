//! What the users role is made of.

use std::sync::Arc;

use crate::infra::amqp::Broker;
use crate::infra::config::UsersConfig;
use crate::infra::http::{ByClient, Limiter, SharedLimit, SharedSweep, Sweep, TextLimiter};
use crate::infra::security::access_token::{TokenSigner, TokenVerifier};
use crate::infra::security::event_signature::EventSignatures;
use crate::infra::security::password_hash::Argon2id;
use crate::infra::system::System;
use crate::kernel::{Role, Timestamp, UserId};
use crate::roles::boot::{RoleContext, database_probe, docs_page, housekeeper, http, shared_counts};
use crate::runtime::{ChildSpec, Handle};
use crate::users::actors::{
    DepthMetrics, HashMetrics, HasherHandle, OutboxPollerActor, OutboxPollerDeps, OutboxWatchActor, RelayMetrics,
    RelayWaker, start_hashers,
};
use crate::users::application::log_in::LogIn;
use crate::users::application::ports::{AccessToken, PasswordHasher, TokenError, TokenIssuer, UserStore};
use crate::users::application::queries::UserQueries;
use crate::users::application::register_user::RegisterUser;
use crate::users::http::{UsersApi, document};
use crate::users::postgres::{PgOutbox, PgUserQueries, PgUserStore};
use actix::Actor as _;

/// [`TokenIssuer`] by the process's keys.
struct Issuer(TokenSigner);

impl TokenIssuer for Issuer {
    fn issue(&self, user: UserId, now: Timestamp) -> Result<AccessToken, TokenError> {
        let token = self.0.sign(user, now).map_err(|e| TokenError(Box::new(e)))?;
        Ok(AccessToken { token, expires_in_s: self.0.ttl_s() })
    }
}

/// The children of the role, in the order in which they are made; they are stopped in the reverse.
pub(super) fn assemble(config: &UsersConfig, on: RoleContext) -> anyhow::Result<Vec<ChildSpec>> {
    let process = &config.process;
    on.health.expect("users-db", true);
    on.health.expect("rabbitmq", false);
    let requests = on.pool("purse users", process.database.pool_max)?;
    let probe = on.pool("purse users: probe", 1)?;
    // Its own, so that a flood of requests never keeps events from leaving.
    let relay = on.pool("purse users: outbox", 1)?;

    let (poller, hashers) = (Handle::default(), Handle::default());
    let users: Arc<dyn UserStore> = Arc::new(PgUserStore::new(requests.clone()));
    // The outbox watch reads over the same pool: a slow count must not delay the relay or the probe.
    let queries: Arc<dyn UserQueries> = Arc::new(PgUserQueries::new(requests));
    let hasher: Arc<dyn PasswordHasher> =
        Arc::new(HasherHandle::new(hashers.clone(), config.hash_queue_max, &on.metrics));
    let tokens: Arc<dyn TokenIssuer> = Arc::new(Issuer(TokenSigner::new(&process.tokens, config.access_token_ttl)));
    let (system, clock) = (Arc::new(System), Arc::new(System));
    let shared = shared_counts(&on, process, "purse users: limits")?;
    let limiter = |name, limit| {
        let shared = shared.clone().map(|counts| SharedLimit::new(counts, name, limit));
        Limiter::new(ByClient::new(&process.http.trusted_proxies), limit, process.rate_limit_enabled)
            .map(|limiter| limiter.sharing(shared))
            .ok_or_else(|| anyhow::anyhow!("a rate limit is zero"))
    };
    let by_account = shared.clone().map(|counts| SharedLimit::new(counts, "account", config.account_limit));
    let account_limit = TextLimiter::new(config.account_limit, process.rate_limit_enabled)
        .map(|limiter| limiter.sharing(by_account))
        .ok_or_else(|| anyhow::anyhow!("the rate limit of accounts is zero"))?;
    let api = UsersApi {
        register_user: Arc::new(RegisterUser {
            users: Arc::clone(&users),
            hasher: Arc::clone(&hasher),
            tokens: Arc::clone(&tokens),
            relay: Arc::new(RelayWaker(poller.clone())),
            clock: clock.clone(),
            ids: system.clone(),
        }),
        log_in: Arc::new(LogIn { users, hasher, tokens, clock }),
        queries: Arc::clone(&queries),
        tokens: Arc::new(TokenVerifier::new(&process.tokens)),
        register_limit: limiter("register", config.register_limit)?,
        login_limit: limiter("login", config.login_limit)?,
        account_limit: Arc::new(account_limit),
        health: on.health.clone(),
        docs: docs_page(&document(), Role::Wallet, process)?,
    };
    let mut chores: Vec<Arc<dyn Sweep>> =
        vec![Arc::new(api.register_limit.clone()), Arc::new(api.login_limit.clone()), api.account_limit.clone()];
    if let Some(counts) = shared {
        chores.push(Arc::new(SharedSweep { counts, logger: on.logger_of("housekeeper") }));
    }

    let poller_deps = Arc::new(OutboxPollerDeps {
        broker: Broker::new(&process.amqp, on.io.clone()),
        signatures: Arc::new(EventSignatures::new(&process.tokens.internal_key)),
        outbox: Arc::new(PgOutbox::new(relay, system)),
        poll_interval: config.outbox_poll_interval,
        batch_max: config.outbox_batch_max,
        lease: config.outbox_lease,
        health: on.health.clone(),
        metrics: RelayMetrics::new(&on.metrics),
        spans: on.spans.clone(),
        logger: on.logger_of("outbox_poller"),
    });
    let (depth_metrics, watch_logger) = (DepthMetrics::new(&on.metrics), on.logger_of("outbox_watch"));
    let hash_metrics = HashMetrics::new(&on.metrics);
    let argon2 = Argon2id::try_new()?;
    let hash_threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Ok(vec![
        database_probe(&on, probe, "users-db"),
        housekeeper(&on, chores),
        ChildSpec {
            name: "outbox_watch",
            start: Box::new(move |lifeline| {
                let (queries, metrics, logger) = (Arc::clone(&queries), depth_metrics.clone(), watch_logger.clone());
                Box::new(OutboxWatchActor { queries, metrics, logger, lifeline }.start())
            }),
        },
        ChildSpec {
            name: "password_hasher",
            start: Box::new(move |lifeline| {
                let threads = start_hashers(&argon2, hash_threads, &hash_metrics, lifeline);
                hashers.point_to(threads.clone());
                Box::new(threads)
            }),
        },
        ChildSpec {
            name: "outbox_poller",
            start: Box::new(move |lifeline| {
                let child = OutboxPollerActor::new(Arc::clone(&poller_deps), lifeline).start();
                poller.point_to(child.clone());
                Box::new(child)
            }),
        },
        http(on, process, Arc::new(move |routes| api.routes(routes))),
    ])
}
