//! What more than one endpoint of this role returns.

use serde::Serialize;
use utoipa::ToSchema;

use crate::kernel::rfc3339;
use crate::users::application::ports::AccessToken;
use crate::users::domain::User;

/// A registered user.
#[derive(Serialize, ToSchema)]
#[schema(as = User)]
#[serde(rename_all = "camelCase")]
pub(super) struct UserBody {
    #[schema(format = "uuid")]
    id: String,
    first_name: String,
    last_name: String,
    /// Lower-cased, in Unicode NFC.
    #[schema(format = "email")]
    email: String,
    #[schema(format = "date-time")]
    created_at: String,
}

impl UserBody {
    pub(super) fn example() -> Self {
        Self {
            id: "0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e".to_owned(),
            first_name: "Ada".to_owned(),
            last_name: "Lovelace".to_owned(),
            email: "ada@example.com".to_owned(),
            created_at: "2026-01-31T12:00:00.123456Z".to_owned(),
        }
    }
}

impl From<&User> for UserBody {
    fn from(user: &User) -> Self {
        Self {
            id: user.id.to_string(),
            first_name: user.first_name.as_str().to_owned(),
            last_name: user.last_name.as_str().to_owned(),
            email: user.email.as_str().to_owned(),
            created_at: rfc3339(user.created_at),
        }
    }
}

/// The scheme of the `Authorization` header.
#[derive(Serialize, ToSchema)]
enum TokenType {
    Bearer,
}

// RFC 6749 §5.1, with names in camelCase.
/// An access token.
#[derive(Serialize, ToSchema)]
#[schema(as = Token)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenBody {
    /// A JWT. Send it as `Authorization: Bearer …` to either role.
    access_token: String,
    token_type: TokenType,
    /// Lifetime in seconds.
    expires_in: i64,
}

impl TokenBody {
    pub(super) fn example() -> Self {
        Self {
            access_token: "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9.e30.…".to_owned(),
            token_type: TokenType::Bearer,
            expires_in: 3600,
        }
    }
}

impl From<&AccessToken> for TokenBody {
    fn from(token: &AccessToken) -> Self {
        let access_token = token.token.expose().to_owned();
        Self { access_token, token_type: TokenType::Bearer, expires_in: token.expires_in_s }
    }
}
