//! Writes registrations and reads credentials.

use async_trait::async_trait;

use crate::contracts::UserRegistered;
use crate::infra::postgres::{Database, begin, violated_constraint};
use crate::kernel::{DependencyError, UserId, fault};
use crate::users::application::ports::{AddUserError, Credentials, HashRenewal, PasswordHash, Registration, UserStore};
use crate::users::domain::EmailAddress;

/// The unique constraint on `users.email`.
const EMAIL_KEY: &str = "users_email_key";

pub struct PgUserStore {
    database: Database,
}

impl PgUserStore {
    pub const fn new(database: Database) -> Self {
        Self { database }
    }
}

#[async_trait]
impl UserStore for PgUserStore {
    async fn add(&self, registration: Registration) -> Result<(), AddUserError> {
        const STEP: &str = "users.register";
        let stored = self.database.run(move |client| {
            Box::pin(async move {
                let Registration { user, password_hash, event_id, event, origin } = registration;
                let tx = begin(client).await?;
                let add_user = tx
                    .prepare_cached(
                        "-- users.register.user
                         INSERT INTO users (id, first_name, last_name, email, password_hash, created_at)
                         VALUES ($1, $2, $3, $4, $5, $6)",
                    )
                    .await?;
                let inserted = tx
                    .execute(
                        &add_user,
                        &[
                            &user.id.as_uuid(),
                            &user.first_name.as_str(),
                            &user.last_name.as_str(),
                            &user.email.as_str(),
                            &password_hash.expose(),
                            &user.created_at,
                        ],
                    )
                    .await;
                match inserted {
                    Ok(_) => {}
                    // Returning without a commit drops the transaction, which rolls back.
                    Err(e) if violated_constraint(&e) == Some(EMAIL_KEY) => return Ok(false),
                    Err(e) => return Err(e.into()),
                }
                fault::point("users.S1");
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
                tx.commit().await?;
                fault::point("users.S4");
                Ok(true)
            })
        });
        match stored.await {
            Ok(true) => Ok(()),
            Ok(false) => Err(AddUserError::EmailExists),
            Err(e) => Err(AddUserError::Store(e.at(STEP))),
        }
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
