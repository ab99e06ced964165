//! The bodies that more than one endpoint answers with.

use serde::Serialize;

use crate::wallet::domain::{Description, Entry};

/// An entry, as the API shows one.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EntryBody {
    id: String,
    #[serde(rename = "type")]
    kind: &'static str,
    amount_minor: i64,
    balance_after_minor: i64,
    description: Option<String>,
    created_at: String,
}

impl From<&Entry> for EntryBody {
    fn from(entry: &Entry) -> Self {
        Self {
            id: entry.id.to_string(),
            kind: entry.direction.as_str(),
            amount_minor: entry.amount.cents(),
            balance_after_minor: entry.balance_after.cents(),
            description: entry.description.as_ref().map(Description::as_str).map(str::to_owned),
            created_at: entry.created_at.to_string(),
        }
    }
}
