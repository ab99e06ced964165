//! The event that says a person has registered.

use serde::Deserialize;

use crate::kernel::UserId;

/// A person has registered and needs a wallet. On the wire exactly `{"userId":"<uuid>"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserRegistered {
    /// Whom the wallet is for.
    pub user_id: UserId,
}

/// Why a body is not a [`UserRegistered`]; no later try can change it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventRefused {
    /// Not a JSON object with a text `userId`.
    #[error("body is not a UserRegistered event")]
    NotTheEvent,
    /// `userId` is a text but no UUID.
    #[error("userId is not a UUID")]
    UserIdNotAUuid,
}

/// The wire form. Unknown fields are let through on purpose: a later version of the other role may add some.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    user_id: String,
}

impl UserRegistered {
    /// The value of the message's `type` property, and of the outbox row's `type`.
    pub const TYPE: &'static str = "UserRegistered";

    /// The body of the message.
    pub fn encode(&self) -> String {
        // A UUID has nothing in it that JSON escapes, so this cannot fail and needs no serializer.
        format!(r#"{{"userId":"{}"}}"#, self.user_id)
    }

    /// Reads a body.
    ///
    /// # Errors
    /// [`EventRefused`] when the body can never become an event, whatever is tried.
    pub fn decode(body: &[u8]) -> Result<Self, EventRefused> {
        // From text: the reader of bytes does not look into fields that nobody asks for, and JSON is UTF-8 throughout.
        let text = std::str::from_utf8(body).map_err(|_| EventRefused::NotTheEvent)?;
        // A derived reader would also take an array for the object.
        if !text.trim_ascii_start().starts_with('{') {
            return Err(EventRefused::NotTheEvent);
        }
        let wire: Wire = serde_json::from_str(text).map_err(|_| EventRefused::NotTheEvent)?;
        let user_id = wire.user_id.parse().map_err(|_| EventRefused::UserIdNotAUuid)?;
        Ok(Self { user_id })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    #[test]
    fn the_body_is_exactly_the_contract() {
        let event = UserRegistered { user_id: UserId::from_uuid(Uuid::nil()) };
        assert_eq!(event.encode(), r#"{"userId":"00000000-0000-0000-0000-000000000000"}"#);
    }

    #[test]
    fn unknown_fields_are_let_through() {
        let body = br#" {"userId":"00000000-0000-0000-0000-000000000000","plan":"gold"} "#;
        assert!(UserRegistered::decode(body).is_ok());
    }

    #[test]
    fn what_can_never_be_an_event_is_refused_with_its_reason() {
        const NOT_UTF8: &[u8] = b"{\"userId\":\"00000000-0000-0000-0000-000000000000\",\"more\":\"\xff\"}";
        for body in [
            &b""[..],
            b"null",
            b"[\"00000000-0000-0000-0000-000000000000\"]",
            b"{}",
            b"{\"userId\":7}",
            b"\xff",
            NOT_UTF8,
        ] {
            assert_eq!(UserRegistered::decode(body), Err(EventRefused::NotTheEvent), "{body:?}");
        }
        assert_eq!(UserRegistered::decode(br#"{"userId":"x"}"#), Err(EventRefused::UserIdNotAUuid));
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded_again(id in any::<u128>()) {
            let event = UserRegistered { user_id: UserId::from_uuid(Uuid::from_u128(id)) };
            prop_assert_eq!(UserRegistered::decode(event.encode().as_bytes()), Ok(event));
        }

        #[test]
        fn no_body_makes_the_decoder_panic(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = UserRegistered::decode(&body);
        }
    }
}
