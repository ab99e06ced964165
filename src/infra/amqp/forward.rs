//! Publishes copies of messages that were taken out of a queue into another queue.

use std::time::Duration;

use lapin::options::BasicPublishOptions;
use lapin::types::{AMQPValue, FieldTable, ShortString};
use lapin::{BasicProperties, Confirmation, PublisherConfirm};
use tokio::time::{Instant, timeout_at};

use crate::infra::amqp::consumer::Incoming;
use crate::infra::amqp::publisher::{ConfirmedPublisher, HeaderValue, PublishResult};

/// Longest wait for the confirms of one batch.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);
/// AMQP's number for "keep on disk".
const PERSISTENT: u8 = 2;
/// Headers that no copy may have: the broker's own record, by which it would take a copy for one that goes round in
/// circles and drop it, and the two that would send the copy elsewhere as well.
const NOT_COPIED: [&str; 10] = [
    "x-death",
    "x-first-death-exchange",
    "x-first-death-queue",
    "x-first-death-reason",
    "x-last-death-exchange",
    "x-last-death-queue",
    "x-last-death-reason",
    "x-delivery-count",
    "CC",
    "BCC",
];

/// Where copies go, and how they differ from their originals.
#[derive(Clone, Debug)]
pub struct Forwarding {
    /// The queue, by its name, through the default exchange.
    pub queue: &'static str,
    /// Headers that are left out.
    pub without: &'static [&'static str],
    /// Headers that are set.
    pub with: Vec<(&'static str, HeaderValue)>,
}

impl ConfirmedPublisher {
    /// Publishes a copy of each, `mandatory` and persistent, and waits for all answers; the results stand in the order
    /// of `originals`, whose own state does not change. One batch at a time.
    ///
    /// All copies go to one queue. If one of them is sent back, the queue is not there and none counts as confirmed: an
    /// original without a `message_id` could not be told from the others.
    pub async fn forward(&self, originals: &[Incoming], how: &Forwarding) -> Vec<PublishResult> {
        let deadline = Instant::now() + CONFIRM_TIMEOUT;
        let mut sent = Vec::with_capacity(originals.len());
        for original in originals {
            match timeout_at(deadline, self.send_copy(original, how)).await {
                Ok(Ok(confirm)) => sent.push(confirm),
                Ok(Err(_)) | Err(_) => break,
            }
        }
        let mut sent_back = None;
        let mut results = Vec::with_capacity(originals.len());
        for confirm in sent {
            let (returned, result) = match timeout_at(deadline, confirm).await {
                Ok(Ok(Confirmation::Ack(returned))) => (returned, PublishResult::Confirmed),
                Ok(Ok(Confirmation::Nack(returned))) => (returned, PublishResult::Nacked),
                // Without confirm mode, a dead channel, or no answer: nothing is known.
                Ok(Ok(Confirmation::NotRequested) | Err(_)) | Err(_) => (None, PublishResult::Unanswered),
            };
            if let Some(message) = returned {
                sent_back.get_or_insert(format!("{} {}", message.reply_code, message.reply_text));
            }
            results.push(result);
        }
        results.resize(originals.len(), PublishResult::Unanswered);
        match sent_back {
            Some(words) => vec![PublishResult::Unroutable(words); originals.len()],
            // A return precedes its own confirm, so with one confirm missing it may still be under way.
            None if results.contains(&PublishResult::Unanswered) => {
                vec![PublishResult::Unanswered; originals.len()]
            }
            None => results,
        }
    }

    async fn send_copy(&self, original: &Incoming, how: &Forwarding) -> lapin::Result<PublisherConfirm> {
        let options = BasicPublishOptions { mandatory: true, immediate: false };
        let properties = copied(&original.delivery.properties, how);
        self.connection()
            .channel()
            .basic_publish("".into(), how.queue.into(), options, original.body(), properties)
            .await
    }
}

/// Sets one property that is a text.
type SetText = fn(BasicProperties, ShortString) -> BasicProperties;

/// The properties of a copy. `expiration` stays behind, or the copy could die of it again; so does `user_id`, which the
/// broker compares with the login of this connection.
fn copied(original: &BasicProperties, how: &Forwarding) -> BasicProperties {
    let mut headers = FieldTable::default();
    let dropped = |name: &str| {
        NOT_COPIED.contains(&name) || how.without.contains(&name) || how.with.iter().any(|(set, _)| *set == name)
    };
    let kept = original.headers().iter().flat_map(FieldTable::inner).filter(|(name, _)| !dropped(name.as_str()));
    for (name, value) in kept {
        headers.insert(name.clone(), value.clone());
    }
    for (name, value) in &how.with {
        let value = match value {
            HeaderValue::Text(text) => AMQPValue::LongString(text.as_str().into()),
            HeaderValue::Int(number) => AMQPValue::LongInt(*number),
        };
        headers.insert((*name).into(), value);
    }
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

    #[test]
    fn a_copy_keeps_what_is_the_senders_and_nothing_that_would_lead_it_astray() {
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
            .with_user_id("somebody".into())
            .with_reply_to("elsewhere".into());
        let how = Forwarding {
            queue: "q",
            without: &["x-error"],
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
