//! Holds as the API shows them.

use std::collections::BTreeMap;

use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::path::ParameterIn;

use crate::infra::http::ApiError;
use crate::infra::http::openapi::Endpoint;
use crate::kernel::{EntryId, ServiceName, rfc3339};
use crate::wallet::domain::{Description, EntryRefused, Hold, HoldStatus, Reference};
use crate::wallet::http::api::WalletApi;
use crate::wallet::http::posting::refused;
use crate::wallet::http::wire::{id_schema, metadata_body};

/// A part of the balance that is reserved.
#[derive(Clone, Serialize, ToSchema)]
#[schema(as = Hold)]
#[serde(rename_all = "camelCase")]
pub(super) struct HoldBody {
    #[schema(format = "uuid")]
    id: String,
    status: Status,
    /// US cents that were held at first.
    #[schema(minimum = 1, maximum = 9_007_199_254_740_991_i64)]
    amount_minor: i64,
    /// US cents that were captured so far.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    captured_minor: i64,
    /// US cents that are still held.
    #[schema(minimum = 0, maximum = 9_007_199_254_740_991_i64)]
    remaining_minor: i64,
    /// From then on nothing is held.
    #[schema(format = "date-time")]
    expires_at: String,
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
    /// The service that placed it on behalf of the user.
    #[serde(skip_serializing_if = "Option::is_none")]
    posted_by: Option<String>,
}

/// Whether something is still held, or else how the rest of the hold ended.
#[derive(Clone, Copy, Serialize, ToSchema)]
#[schema(as = HoldStatus)]
#[serde(rename_all = "lowercase")]
enum Status {
    Open,
    Captured,
    Voided,
    Expired,
}

impl From<HoldStatus> for Status {
    fn from(status: HoldStatus) -> Self {
        match status {
            HoldStatus::Open => Self::Open,
            HoldStatus::Captured => Self::Captured,
            HoldStatus::Voided => Self::Voided,
            HoldStatus::Expired => Self::Expired,
        }
    }
}

impl HoldBody {
    /// Of 400 cents, with what was captured of them.
    pub(super) fn example(status: HoldStatus, captured_minor: i64, remaining_minor: i64) -> Self {
        Self {
            id: "0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6f".to_owned(),
            status: status.into(),
            amount_minor: 400,
            captured_minor,
            remaining_minor,
            expires_at: "2026-02-07T12:00:00.123456Z".to_owned(),
            description: Some("hotel room".to_owned()),
            created_at: "2026-01-31T12:00:00.123456Z".to_owned(),
            reference: None,
            metadata: None,
            posted_by: None,
        }
    }
}

impl From<&Hold> for HoldBody {
    fn from(hold: &Hold) -> Self {
        let texts = &hold.texts;
        Self {
            id: hold.id.to_string(),
            status: hold.status.into(),
            amount_minor: hold.amount.cents(),
            captured_minor: hold.captured.cents(),
            remaining_minor: hold.remaining.cents(),
            expires_at: rfc3339(hold.expires_at),
            description: texts.description.as_ref().map(Description::as_str).map(str::to_owned),
            created_at: rfc3339(hold.created_at),
            reference: texts.reference.as_ref().map(Reference::as_str).map(str::to_owned),
            metadata: texts.metadata.as_ref().map(metadata_body),
            posted_by: hold.posted_by.as_ref().map(ServiceName::as_str).map(str::to_owned),
        }
    }
}

/// The ID of a hold in a path. No hold has one that is not a UUID.
///
/// # Errors
/// 404.
pub(super) fn hold_id(text: &str) -> Result<EntryId, ApiError> {
    text.parse().map_err(|_| not_found())
}

pub(super) fn not_found() -> ApiError {
    refused(EntryRefused::HoldNotFound)
}

/// Documents an endpoint with the ID of a hold in its path.
pub(super) fn of_one_hold(endpoint: Endpoint<WalletApi>) -> Endpoint<WalletApi> {
    endpoint.parameter(ParameterIn::Path, "id", "ID of the hold.", id_schema()).errors([not_found()])
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::ResponseError as _;
    use actix_web::http::StatusCode;

    #[test]
    fn the_status_in_the_api_is_that_of_the_domain() {
        for status in [HoldStatus::Open, HoldStatus::Captured, HoldStatus::Voided, HoldStatus::Expired] {
            assert_eq!(serde_json::to_value(Status::from(status)).expect("a text"), status.as_str());
        }
    }

    #[test]
    fn an_id_that_is_not_a_uuid_is_of_no_hold() {
        assert_eq!(hold_id("7").map_err(|e| e.status_code()), Err(StatusCode::NOT_FOUND));
        assert!(hold_id("0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6f").is_ok());
    }
}
