//! The event `UserRegistered`.

use serde::Deserialize;

use crate::kernel::UserId;

/// A user has registered and needs a wallet. On the wire exactly `{"userId":"<uuid>"}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UserRegistered {
    /// The owner of the wallet to create.
    pub user_id: UserId,
}

/// Why a body is not a [`UserRegistered`]. Permanent: a retry fails too.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventRefused {
    /// Not a JSON object with a string `userId`.
    #[error("body is not a UserRegistered event")]
    NotTheEvent,
    /// `userId` is a string but not a UUID.
    #[error("userId is not a UUID")]
    UserIdNotAUuid,
}

/// The wire format. Unknown fields are accepted on purpose: a later version of the users role may add some.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    user_id: String,
}

impl UserRegistered {
    /// The `type` of both the message and the outbox row.
    pub const TYPE: &'static str = "UserRegistered";

    /// The message body.
    pub fn encode(&self) -> String {
        // A UUID contains nothing that JSON escapes, so this needs no serializer and cannot fail.
        format!(r#"{{"userId":"{}"}}"#, self.user_id)
    }

    /// Parses a message body.
    ///
    /// # Errors
    /// [`EventRefused`] for a body that is not the event.
    pub fn decode(body: &[u8]) -> Result<Self, EventRefused> {
        // From a string: the byte parser does not check skipped fields for UTF-8.
        let text = std::str::from_utf8(body).map_err(|_| EventRefused::NotTheEvent)?;
        // The derived parser would also accept an array.
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
    fn unknown_fields_are_accepted() {
        let body = br#" {"userId":"00000000-0000-0000-0000-000000000000","plan":"gold"} "#;
        assert!(UserRegistered::decode(body).is_ok());
    }

    #[test]
    fn a_body_that_is_not_the_event_is_refused_with_its_reason() {
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
        fn decoding_reverses_encoding(id in any::<u128>()) {
            let event = UserRegistered { user_id: UserId::from_uuid(Uuid::from_u128(id)) };
            prop_assert_eq!(UserRegistered::decode(event.encode().as_bytes()), Ok(event));
        }

        #[test]
        fn no_body_panics_the_decoder(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = UserRegistered::decode(&body);
        }
    }
}
