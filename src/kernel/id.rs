//! Typed ids, so that a user's id cannot be passed where an entry's is expected.

use std::fmt;
use std::str::FromStr;

use uuid::Uuid;

/// Defines a newtype over [`Uuid`] with only the conversions that adapters need.
macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// The caller guarantees that `id` identifies this kind of entity.
            pub const fn from_uuid(id: Uuid) -> Self {
                Self(id)
            }

            /// For a database parameter or a message.
            pub const fn as_uuid(self) -> Uuid {
                self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            /// Accepts only the hyphenated form (36 characters), which the API writes.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                text.parse::<uuid::fmt::Hyphenated>().map(|id| Self(id.into_uuid()))
            }
        }
    };
}

typed_id! {
    /// A registered user, who owns one wallet.
    UserId
}
typed_id! {
    /// A row of the ledger, called a transaction in the API.
    EntryId
}
typed_id! {
    /// A row of the outbox, and the `message_id` of its message.
    EventId
}

impl UserId {
    /// A random one in every ID that the users role creates, so that users are spread evenly by it.
    pub const fn last_byte(self) -> u8 {
        let [.., last] = self.0.into_bytes();
        last
    }
}

/// The source of new ids: UUID version 7, which sorts by creation time.
pub trait IdSource: Send + Sync {
    /// Unique across calls and processes.
    fn next_id(&self) -> Uuid;
}

/// Longest client-supplied request id that is kept.
const REQUEST_ID_CHARS_MAX: usize = 64;

/// Identifies a request in the responses, messages and logs of both roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(String);

impl RequestId {
    /// Accepts 1 to 64 of `A-Z a-z 0-9 . _ -`; anything else could forge a log line or a header.
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        (!text.is_empty() && text.len() <= REQUEST_ID_CHARS_MAX && text.bytes().all(allowed))
            .then(|| Self(text.to_owned()))
    }

    /// For a request without a valid id of its own.
    pub fn from_uuid(id: Uuid) -> Self {
        Self(id.to_string())
    }

    /// As it appears in headers and logs.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A W3C trace context: `00-<32 hex: trace>-<16 hex: parent>-<2 hex: flags>`.
///
/// # Source
/// W3C Trace Context, §3.2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TraceParent(String);

/// Length of a version-00 `traceparent`, in characters.
const TRACEPARENT_CHARS: usize = 55;

impl TraceParent {
    /// Accepts a well-formed version-00 value whose trace and parent ids are not all zeros.
    pub fn parse(text: &str) -> Option<Self> {
        let lower_hex = |s: &str| s.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let not_zero = |s: &str| s.bytes().any(|b| b != b'0');
        let mut parts = text.split('-');
        let (version, trace, parent, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let shaped = text.len() == TRACEPARENT_CHARS
            && version == "00"
            && trace.len() == 32
            && parent.len() == 16
            && flags.len() == 2
            && parts.next().is_none();
        (shaped && [trace, parent, flags].into_iter().all(lower_hex) && not_zero(trace) && not_zero(parent))
            .then(|| Self(text.to_owned()))
    }

    /// A new, sampled trace for a request without one. The ids are taken from two new UUIDs.
    pub fn begin(ids: &dyn IdSource) -> Self {
        let [mut trace, mut parent] = [Uuid::encode_buffer(); 2];
        let trace = ids.next_id().simple().encode_lower(&mut trace);
        // The last 16 digits of a v7 UUID are random; the first ones are the time.
        let (_, parent) = ids.next_id().simple().encode_lower(&mut parent).split_at(16);
        Self(["00-", trace, "-", parent, "-01"].concat())
    }

    /// The header value.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// 32 hex digits.
    pub fn trace_id(&self) -> &str {
        self.0.split('-').nth(1).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Uuid);
    impl IdSource for Fixed {
        fn next_id(&self) -> Uuid {
            self.0
        }
    }

    #[test]
    fn only_the_hyphenated_form_is_a_user_id() {
        let text = "0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e";
        assert_eq!(text.parse::<UserId>().map(|id| id.to_string()).as_deref(), Ok(text));
        for invalid in ["", "0190a5d43c1e7a619d7b3f2a1b4c5d6e", "{0190a5d4-3c1e-7a61-9d7b-3f2a1b4c5d6e}", "../../x"] {
            assert!(invalid.parse::<UserId>().is_err(), "{invalid:?}");
        }
    }

    #[test]
    fn a_request_id_with_other_characters_or_over_64_is_rejected() {
        assert_eq!(RequestId::parse("aZ9._-").map(|id| id.to_string()).as_deref(), Some("aZ9._-"));
        assert!(RequestId::parse(&"a".repeat(64)).is_some());
        for invalid in ["", "a b", "a\nb", "ü", "a\"b", &"a".repeat(65)] {
            assert_eq!(RequestId::parse(invalid), None, "{invalid:?}");
        }
    }

    #[test]
    fn only_a_well_formed_traceparent_is_accepted() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert_eq!(
            TraceParent::parse(good).as_ref().map(TraceParent::trace_id),
            Some("4bf92f3577b34da6a3ce929d0e0e4736")
        );
        for invalid in [
            "",
            "01-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
            "00-4bf92f3577b34da6a3ce929d0e0e47361-0f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceParent::parse(invalid), None, "{invalid:?}");
        }
    }

    #[test]
    fn a_new_trace_is_well_formed() {
        let new = TraceParent::begin(&Fixed(Uuid::from_u128(0x0190_a5d4_3c1e_7a61_9d7b_3f2a_1b4c_5d6e)));
        assert_eq!(TraceParent::parse(new.as_str()), Some(new));
    }
}
