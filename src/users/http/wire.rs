//! The bodies that more than one endpoint answers with.

use serde::Serialize;

use crate::users::application::ports::AccessToken;
use crate::users::domain::User;

/// A person, as the API shows one.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct UserBody {
    id: String,
    first_name: String,
    last_name: String,
    email: String,
    created_at: String,
}

impl From<&User> for UserBody {
    fn from(user: &User) -> Self {
        Self {
            id: user.id.to_string(),
            first_name: user.first_name.as_str().to_owned(),
            last_name: user.last_name.as_str().to_owned(),
            email: user.email.as_str().to_owned(),
            created_at: user.created_at.to_string(),
        }
    }
}

/// A token, as the API hands one out.
///
/// # Source
/// RFC 6749 §5.1, in the API's own case.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct TokenBody {
    access_token: String,
    token_type: &'static str,
    expires_in: i64,
}

impl From<&AccessToken> for TokenBody {
    fn from(token: &AccessToken) -> Self {
        Self { access_token: token.token.expose().to_owned(), token_type: "Bearer", expires_in: token.expires_in_s }
    }
}
