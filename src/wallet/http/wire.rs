//! What more than one endpoint of this role reads or returns.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa::openapi::{Object, ObjectBuilder, Type};

use crate::infra::http::openapi::format;
use crate::kernel::rfc3339;
use crate::wallet::application::queries::EntryDetails;
use crate::wallet::domain::{ActsOn, Description, Direction, Entry, EntryKind, Metadata, Reference};

/// The id in a path. By its name, because the path of a service has the id of the user too.
#[derive(Deserialize)]
pub(super) struct EntryPath {
    pub(super) id: String,
}

/// The schema of that id.
pub(super) fn id_schema() -> Object {
    ObjectBuilder::new().schema_type(Type::String).format(Some(format("uuid"))).build()
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

impl TransactionType {
    /// Histories have no other kinds of entries.
    const fn of(kind: EntryKind) -> Self {
        if matches!(kind, EntryKind::Credit) { Self::Credit } else { Self::Debit }
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
    /// Only where it is not null.
    #[serde(skip_serializing_if = "Option::is_none")]
    reference: Option<String>,
    /// Only where it is not null.
    #[serde(skip_serializing_if = "Option::is_none")]
    metadata: Option<BTreeMap<String, String>>,
    /// Only of one leg of a transfer.
    #[serde(skip_serializing_if = "Option::is_none")]
    transfer: Option<TransferBody>,
    /// Only of a capture: the hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    hold: Option<CapturedHoldBody>,
    /// Only of a reversal: the transaction that it undoes.
    #[schema(format = "uuid")]
    #[serde(skip_serializing_if = "Option::is_none")]
    reverses: Option<String>,
    /// US cents of it that have been reversed. Only where a single transaction is read, and only if it is not zero.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    #[serde(skip_serializing_if = "Option::is_none")]
    reversed_minor: Option<i64>,
    /// The service that posted it on behalf of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    posted_by: Option<String>,
}

/// The transfer of which a transaction is one leg.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = Transfer)]
#[serde(rename_all = "camelCase")]
struct TransferBody {
    /// ID of the sender's transaction.
    #[schema(format = "uuid")]
    id: String,
    direction: TransferDirection,
    /// The other user.
    #[schema(format = "uuid")]
    user_id: String,
}

#[derive(Clone, Copy, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
enum TransferDirection {
    In,
    Out,
}

/// The hold that a transaction captures.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = CapturedHold)]
#[serde(rename_all = "camelCase")]
struct CapturedHoldBody {
    #[schema(format = "uuid")]
    id: String,
    /// US cents that this capture left held.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    remaining_minor: i64,
    /// Whether this was the last capture.
    #[serde(rename = "final")]
    is_final: bool,
}

/// The pairs of canonical metadata.
pub(super) fn metadata_body(metadata: &Metadata) -> BTreeMap<String, String> {
    serde_json::from_str(metadata.as_str()).unwrap_or_default()
}

impl EntryBody {
    pub(super) const EXAMPLE_RECIPIENT: &str = "0190a5d4-3c1e-7d2b-8f4a-6e5d4c3b2a19";

    pub(super) fn transfer_example() -> Self {
        let debit = Self::example();
        let transfer = TransferBody {
            id: debit.id.clone(),
            direction: TransferDirection::Out,
            user_id: Self::EXAMPLE_RECIPIENT.to_owned(),
        };
        Self {
            kind: TransactionType::Debit,
            amount_minor: 500,
            balance_after_minor: 1000,
            description: Some("lunch".to_owned()),
            transfer: Some(transfer),
            ..debit
        }
    }

    pub(super) fn example() -> Self {
        Self {
            id: "0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e".to_owned(),
            kind: TransactionType::Credit,
            amount_minor: 1500,
            balance_after_minor: 1500,
            description: Some("first deposit".to_owned()),
            created_at: "2026-01-31T12:00:00.123456Z".to_owned(),
            reference: None,
            metadata: None,
            transfer: None,
            hold: None,
            reverses: None,
            reversed_minor: None,
            posted_by: None,
        }
    }

    pub(super) fn reversed_example() -> Self {
        Self { reversed_minor: Some(500), ..Self::example() }
    }

    /// Of the transaction in [`reversed_example`](Self::reversed_example).
    pub(super) fn reversal_example() -> Self {
        let reversed = Self::example();
        Self {
            id: "0190a5d4-9f00-7c3d-a1b2-4d5e6f708192".to_owned(),
            kind: TransactionType::Debit,
            amount_minor: 500,
            balance_after_minor: 1000,
            description: Some("refund of one item".to_owned()),
            created_at: "2026-02-02T09:30:00.654321Z".to_owned(),
            reverses: Some(reversed.id.clone()),
            ..reversed
        }
    }
}

impl EntryBody {
    /// Of 250 cents of a hold.
    pub(super) fn captured_example() -> Self {
        let hold = CapturedHoldBody {
            id: "0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6f".to_owned(),
            remaining_minor: 0,
            is_final: true,
        };
        Self {
            kind: TransactionType::Debit,
            amount_minor: 250,
            balance_after_minor: 1250,
            description: Some("one night".to_owned()),
            hold: Some(hold),
            ..Self::example()
        }
    }
}

impl From<&Entry> for EntryBody {
    fn from(entry: &Entry) -> Self {
        let texts = &entry.texts;
        let is_capture = |acts_on: &&ActsOn| acts_on.kind == EntryKind::Hold;
        let acts_on = entry.acts_on.as_deref();
        Self {
            id: entry.id.to_string(),
            kind: TransactionType::of(entry.kind),
            amount_minor: entry.amount.cents(),
            balance_after_minor: entry.balance_after.cents(),
            description: texts.description.as_ref().map(Description::as_str).map(str::to_owned),
            created_at: rfc3339(entry.created_at),
            reference: texts.reference.as_ref().map(Reference::as_str).map(str::to_owned),
            metadata: texts.metadata.as_ref().map(metadata_body),
            transfer: entry.transfer.map(|leg| TransferBody {
                id: leg.transfer.to_string(),
                direction: match entry.kind {
                    EntryKind::Credit => TransferDirection::In,
                    _ => TransferDirection::Out,
                },
                user_id: leg.counterparty.to_string(),
            }),
            hold: acts_on.filter(is_capture).map(|hold| CapturedHoldBody {
                id: hold.id.to_string(),
                remaining_minor: hold.origin.left,
                is_final: hold.origin.left == 0,
            }),
            reverses: acts_on.filter(|acts_on| !is_capture(acts_on)).map(|reversed| reversed.id.to_string()),
            reversed_minor: None,
            posted_by: entry.posted_by.as_ref().map(|service| service.as_str().to_owned()),
        }
    }
}

impl From<&EntryDetails> for EntryBody {
    fn from(EntryDetails { entry, reversed }: &EntryDetails) -> Self {
        Self { reversed_minor: Some(reversed.cents()).filter(|cents| *cents > 0), ..entry.into() }
    }
}
