//! Writes registrations and reads credentials.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use deadpool_postgres::Transaction;
use tokio_postgres::Error;

use crate::contracts::UserRegistered;
use crate::infra::postgres::{Client, Database, DbError, begin, find_out, violated_constraint};
use crate::kernel::{DependencyError, IdempotencyKey, UserId, fault};
use crate::users::application::ports::{
    AddUserError, Credentials, EarlierRegistration, HashRenewal, PasswordHash, Registration, UserStore,
};
use crate::users::domain::EmailAddress;
use crate::users::postgres::queries::read_user;

/// The unique constraint on `users.email`.
const EMAIL_KEY: &str = "users_email_key";
/// The unique index on `users.registration_key`.
const REGISTRATION_KEY: &str = "users_registration_key";

const REGISTER: &str = "users.register";

pub struct PgUserStore {
    database: Database,
}

impl PgUserStore {
    pub const fn new(database: Database) -> Self {
        Self { database }
    }
}

const INSERT_USER: &str = "-- users.register.user
     INSERT INTO users (id, first_name, last_name, email, password_hash, created_at, registration_key)
     VALUES ($1, $2, $3, $4, $5, $6, $7)";

/// Waits for a transaction that is about to insert the same user, until its outcome is known.
const INSERT_USER_AGAIN: &str = "-- users.register.find_out.insert
     INSERT INTO users (id, first_name, last_name, email, password_hash, created_at, registration_key)
     VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING";

/// Inserts the user of a registration, and returns how many rows that were.
async fn insert_user(tx: &Transaction<'_>, statement: &str, registration: &Registration) -> Result<u64, Error> {
    let Registration { user, password_hash, key, .. } = registration;
    let statement = tx.prepare_cached(statement).await?;
    tx.execute(
        &statement,
        &[
            &user.id.as_uuid(),
            &user.first_name.as_str(),
            &user.last_name.as_str(),
            &user.email.as_str(),
            &password_hash.expose(),
            &user.created_at,
            &key.as_ref().map(IdempotencyKey::as_str),
        ],
    )
    .await
}

/// The constraint that the registration violates, if it does. `commit_sent` is set just before the commit is sent.
async fn store(
    client: &mut Client,
    registration: &Registration,
    commit_sent: &AtomicBool,
) -> Result<Option<&'static str>, DbError> {
    let tx = begin(client).await?;
    match insert_user(&tx, INSERT_USER, registration).await {
        Ok(_) => {}
        // Returning without a commit drops the transaction, which rolls back.
        Err(e) => {
            let violated = violated_constraint(&e);
            let taken = [EMAIL_KEY, REGISTRATION_KEY].into_iter().find(|key| violated == Some(*key));
            return taken.map(Some).ok_or(e.into());
        }
    }
    fault::point("users.S1");
    let Registration { event_id, event, origin, .. } = registration;
    let add_event = tx
        .prepare_cached(
            "-- users.register.event
             INSERT INTO outbox (id, type, payload_json, request_id, traceparent)
             VALUES ($1, $2, $3::text::json, $4, $5)",
        )
        .await?;
    tx.execute(
        &add_event,
        &[
            &event_id.as_uuid(),
            &UserRegistered::TYPE,
            &event.encode(),
            &origin.request_id.as_str(),
            &origin.traceparent.as_str(),
        ],
    )
    .await?;
    fault::point("users.S2");
    commit_sent.store(true, Ordering::SeqCst);
    tx.commit().await.map_err(DbError::InDoubt)?;
    fault::point("users.S4");
    Ok(None)
}

impl PgUserStore {
    /// Whether the registration is stored. An insert of the same user waits for a backend that is still committing it, so
    /// an insert that finds no conflict proves that the commit failed. It is rolled back.
    async fn look_up(&self, registration: Arc<Registration>) -> Result<bool, DbError> {
        let there = self.database.run(move |client| {
            Box::pin(async move {
                let tx = begin(client).await?;
                if insert_user(&tx, INSERT_USER_AGAIN, &registration).await? > 0 {
                    tx.rollback().await?;
                    return Ok(false);
                }
                let by_id = tx
                    .prepare_cached(
                        "-- users.register.find_out
                         SELECT FROM users WHERE id = $1 FOR UPDATE",
                    )
                    .await?;
                let found = tx.query_opt(&by_id, &[&registration.user.id.as_uuid()]).await?;
                tx.commit().await?;
                Ok(found.is_some())
            })
        });
        there.await
    }
}

#[async_trait]
impl UserStore for PgUserStore {
    async fn add(&self, registration: Registration) -> Result<(), AddUserError> {
        let registration = Arc::new(registration);
        let commit_sent = Arc::new(AtomicBool::new(false));
        let (new, sent) = (Arc::clone(&registration), Arc::clone(&commit_sent));
        let stored = self.database.run(move |client| Box::pin(async move { store(client, &new, &sent).await })).await;
        match stored {
            Ok(None) => Ok(()),
            Ok(Some(REGISTRATION_KEY)) => Err(AddUserError::KeyUsed),
            Ok(Some(_)) => Err(AddUserError::EmailExists),
            // Nothing is stored before the commit is sent.
            Err(e) if e.is_definite() || !commit_sent.load(Ordering::SeqCst) => {
                Err(AddUserError::Store(e.at(REGISTER)))
            }
            Err(e) => match find_out(|| self.look_up(Arc::clone(&registration))).await {
                Ok(true) => Ok(()),
                Ok(false) => Err(AddUserError::Store(e.at(REGISTER))),
                Err(unreachable) => Err(AddUserError::OutcomeUnknown(unreachable.at(REGISTER))),
            },
        }
    }

    async fn registered_with(&self, key: &IdempotencyKey) -> Result<Option<EarlierRegistration>, DependencyError> {
        let key = key.clone();
        let found = self.database.run(move |client| {
            Box::pin(async move {
                let by_key = client
                    .prepare_cached(
                        "-- users.register.earlier
                         SELECT id, first_name, last_name, email, created_at, password_hash FROM users
                         WHERE registration_key = $1",
                    )
                    .await?;
                let row = client.query_opt(&by_key, &[&key.as_str()]).await?;
                row.map(|row| {
                    let password_hash = PasswordHash::new(row.try_get("password_hash")?);
                    Ok(EarlierRegistration { user: read_user(&row)?, password_hash })
                })
                .transpose()
            })
        });
        found.await.map_err(|e| e.at("users.register.earlier"))
    }

    async fn credentials(&self, email: &EmailAddress) -> Result<Option<Credentials>, DependencyError> {
        let email = email.clone();
        let found = self.database.run(move |client| {
            Box::pin(async move {
                let by_email = client
                    .prepare_cached(
                        "-- users.credentials
                         SELECT id, password_hash FROM users WHERE email = $1",
                    )
                    .await?;
                let row = client.query_opt(&by_email, &[&email.as_str()]).await?;
                row.map(|row| {
                    Ok(Credentials {
                        user_id: UserId::from_uuid(row.try_get("id")?),
                        password_hash: PasswordHash::new(row.try_get("password_hash")?),
                    })
                })
                .transpose()
            })
        });
        found.await.map_err(|e| e.at("users.credentials"))
    }

    async fn renew_password_hash(&self, renewal: HashRenewal) -> Result<(), DependencyError> {
        let renewed = self.database.run(move |client| {
            Box::pin(async move {
                let renew = client
                    .prepare_cached(
                        "-- users.renew_password_hash
                         UPDATE users SET password_hash = $3 WHERE id = $1 AND password_hash = $2",
                    )
                    .await?;
                let HashRenewal { user_id, old, new } = renewal;
                client.execute(&renew, &[&user_id.as_uuid(), &old.expose(), &new.expose()]).await?;
                Ok(())
            })
        });
        renewed.await.map_err(|e| e.at("users.renew_password_hash"))
    }
}
