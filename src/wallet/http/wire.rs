//! What more than one endpoint of this role reads or returns.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::ObjectBuilder;

use crate::kernel::rfc3339;
use crate::wallet::domain::{Description, Direction, Entry};

/// The id in a path. By its name, because the path of a service has the id of the user too.
#[derive(Deserialize)]
pub(super) struct EntryPath {
    pub(super) id: String,
}

pub(super) fn direction_of(text: &str) -> Result<Direction, &'static str> {
    Direction::parse(text).ok_or("must be \"credit\" or \"debit\"")
}

/// A credit adds to the balance, a debit subtracts from it.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum TransactionType {
    Credit,
    Debit,
}

impl From<Direction> for TransactionType {
    fn from(direction: Direction) -> Self {
        match direction {
            Direction::Credit => Self::Credit,
            Direction::Debit => Self::Debit,
        }
    }
}

/// What [`direction_of`] takes, as it is in responses.
pub(super) fn direction_schema(text: ObjectBuilder) -> ObjectBuilder {
    text.enum_values(Some([Direction::Credit, Direction::Debit].map(Direction::as_str)))
}

/// A credit or debit.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = Transaction)]
#[serde(rename_all = "camelCase")]
pub(super) struct EntryBody {
    #[schema(format = "uuid")]
    id: String,
    #[serde(rename = "type")]
    kind: TransactionType,
    /// US cents.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    amount_minor: i64,
    /// US cents.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    balance_after_minor: i64,
    #[schema(required = true)]
    description: Option<String>,
    #[schema(format = "date-time")]
    created_at: String,
}

impl EntryBody {
    pub(super) fn example() -> Self {
        Self {
            id: "0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e".to_owned(),
            kind: TransactionType::Credit,
            amount_minor: 1500,
            balance_after_minor: 1500,
            description: Some("first deposit".to_owned()),
            created_at: "2026-01-31T12:00:00.123456Z".to_owned(),
        }
    }
}

impl From<&Entry> for EntryBody {
    fn from(entry: &Entry) -> Self {
        Self {
            id: entry.id.to_string(),
            kind: entry.direction.into(),
            amount_minor: entry.amount.cents(),
            balance_after_minor: entry.balance_after.cents(),
            description: entry.description.as_ref().map(Description::as_str).map(str::to_owned),
            created_at: rfc3339(entry.created_at),
        }
    }
}
