//! The texts that a request may put on what it posts.

use utoipa::openapi::schema::AdditionalProperties;
use utoipa::openapi::{ObjectBuilder, Schema, Type};

use crate::infra::http::Fields;
use crate::wallet::domain::{Description, Metadata, Reference, Texts};

/// What has no control characters.
pub(super) const NO_CONTROL: &str = r"^[^\u0000-\u001f\u007f-\u009f]*$";

/// The fields `description`, `reference` and `metadata`. `about` says who reads the description.
pub(super) fn texts(body: &mut Fields, about: &str) -> Option<Texts> {
    let description = body.optional_text("description", Description::parse, |text| {
        text.description(Some(about)).max_length(Some(255)).pattern(Some(r"^[^\x00]*$"))
    });
    let reference = body.optional_text("reference", Reference::parse, |text| {
        text.description(Some("Your own reference, such as an order number. Several transactions may share one."))
            .min_length(Some(1))
            .max_length(Some(64))
            .pattern(Some(NO_CONTROL))
    });
    let metadata = body.optional_texts("metadata", Metadata::new, |pairs| {
        let text = || ObjectBuilder::new().schema_type(Type::String);
        let key: Schema = text().pattern(Some("^[A-Za-z0-9_.-]{1,40}$")).build().into();
        let value: Schema = text().max_length(Some(255)).pattern(Some(NO_CONTROL)).build().into();
        pairs
            .description(Some("Your own key-value pairs: strings only, at most 4,096 bytes as JSON."))
            .min_properties(Some(1))
            .max_properties(Some(20))
            .property_names(Some(key))
            .additional_properties(Some(AdditionalProperties::RefOr(value.into())))
    });
    Some(Texts { description: description?, reference: reference?, metadata: metadata? })
}
