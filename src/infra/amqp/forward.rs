//! Publishes copies of received messages to another queue.

use lapin::BasicProperties;
use lapin::types::{FieldTable, ShortString};

use crate::infra::amqp::incoming::Incoming;
use crate::infra::amqp::publisher::{
    ConfirmedPublisher, Confirms, HeaderValue, PERSISTENT, PublishResult, RawMessage, reason, set_headers,
};

/// Headers that no copy may have: those that count deliveries, and the two that would route the copy elsewhere as well.
const NOT_COPIED: [&str; 4] = ["x-delivery-count", "x-acquired-count", "CC", "BCC"];
/// The broker's own record. With it, the broker may take a copy that it dead-letters again for a message in a dead-letter
/// cycle, and drop it.
pub(crate) const DEATHS: [&str; 7] = [
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
];

/// Where copies go, and how they differ from their originals.
#[derive(Clone, Debug)]
pub(crate) struct Forwarding<'a> {
    /// Addressed through the default exchange.
    pub(crate) queue: &'static str,
    /// Headers to leave out.
    pub(crate) without: &'a [&'static str],
    /// Headers to set.
    pub(crate) with: Vec<(&'static str, HeaderValue)>,
}

impl ConfirmedPublisher {
    /// Publishes a copy of each, `mandatory` and persistent, and waits for all confirms; the results are in the order of
    /// `originals`, which stay unsettled. One batch at a time.
    ///
    /// All copies go to one queue. If one of them is returned, the queue is missing and none counts as confirmed: an
    /// original without a `message_id` could not be distinguished from the others.
    pub(crate) async fn forward(&self, originals: &[Incoming], how: &Forwarding<'_>) -> Vec<PublishResult> {
        let copies = originals.iter().map(|original| RawMessage {
            exchange: "",
            routing_key: how.queue,
            properties: copied(&original.delivery.properties, how),
            body: original.body(),
        });
        let Confirms { results, returned } = self.publish_raw(copies.collect()).await;
        match returned.first() {
            Some(message) => vec![PublishResult::Unroutable(reason(message)); originals.len()],
            // A return precedes its own confirm, so while a confirm is missing a return may be missing too.
            None if results.contains(&PublishResult::Unconfirmed) => {
                vec![PublishResult::Unconfirmed; originals.len()]
            }
            None => results,
        }
    }
}

type SetText = fn(BasicProperties, ShortString) -> BasicProperties;

/// The properties of a copy. `expiration` is dropped, or the copy could expire again; so is `user_id`, which the broker
/// compares with the login of this connection.
fn copied(original: &BasicProperties, how: &Forwarding<'_>) -> BasicProperties {
    let mut headers = FieldTable::default();
    let dropped = |name: &str| {
        NOT_COPIED.contains(&name) || how.without.contains(&name) || how.with.iter().any(|(set, _)| *set == name)
    };
    let kept = original.headers().iter().flat_map(FieldTable::inner).filter(|(name, _)| !dropped(name.as_str()));
    for (name, value) in kept {
        headers.insert(name.clone(), value.clone());
    }
    set_headers(&mut headers, &how.with);
    let mut copy = BasicProperties::default().with_delivery_mode(PERSISTENT).with_headers(headers);
    let texts: [(&Option<ShortString>, SetText); 6] = [
        (original.content_type(), BasicProperties::with_content_type),
        (original.content_encoding(), BasicProperties::with_content_encoding),
        (original.correlation_id(), BasicProperties::with_correlation_id),
        (original.message_id(), BasicProperties::with_message_id),
        (original.kind(), BasicProperties::with_type),
        (original.app_id(), BasicProperties::with_app_id),
    ];
    for (text, set) in texts {
        if let Some(text) = text {
            copy = set(copy, text.clone());
        }
    }
    if let Some(at) = original.timestamp() {
        copy = copy.with_timestamp(*at);
    }
    copy
}

#[cfg(test)]
mod tests {
    use super::*;
    use lapin::types::AMQPValue;

    #[test]
    fn a_copy_keeps_what_the_sender_set_and_nothing_that_would_misroute_it() {
        let mut headers = FieldTable::default();
        for name in ["x-request-id", "x-error", "x-death", "CC", "BCC", "x-delivery-count", "tracestate"] {
            headers.insert(name.into(), AMQPValue::LongString(name.into()));
        }
        headers.insert("x-attempt".into(), AMQPValue::LongInt(3));
        let original = BasicProperties::default()
            .with_headers(headers)
            .with_message_id("m".into())
            .with_type("UserRegistered".into())
            .with_content_type("application/json".into())
            .with_timestamp(7)
            .with_expiration("1".into())
            .with_user_id("another-user".into())
            .with_reply_to("elsewhere".into());
        let how = Forwarding {
            queue: "q",
            without: &[&DEATHS[..], &["x-error"]].concat(),
            with: vec![("x-attempt", HeaderValue::Int(0)), ("x-by", HeaderValue::Text("hand".to_owned()))],
        };
        let copy = copied(&original, &how);
        let names: Vec<&str> = copy.headers().iter().flat_map(|t| t.inner().keys()).map(ShortString::as_str).collect();
        assert_eq!(names, ["tracestate", "x-attempt", "x-by", "x-request-id"]);
        assert_eq!(copy.headers().as_ref().and_then(|t| t.inner().get("x-attempt")), Some(&AMQPValue::LongInt(0)));
        assert_eq!(copy.message_id().as_ref().map(ToString::to_string).as_deref(), Some("m"));
        assert_eq!(copy.kind().as_ref().map(ToString::to_string).as_deref(), Some("UserRegistered"));
        assert_eq!((*copy.timestamp(), *copy.delivery_mode()), (Some(7), Some(PERSISTENT)));
        assert_eq!((copy.expiration(), copy.user_id(), copy.reply_to()), (&None, &None, &None));
    }
}
