//! Redrives dead letters: publish a copy, wait for the confirm, and only then remove the original.

use std::collections::BTreeSet;

use serde_json::json;

use crate::contracts::{ATTEMPT_HEADER, DEAD_LETTER_QUEUE, ERROR_HEADER, PROVISION_QUEUE};
use crate::infra::amqp::{
    AmqpError, Broker, Browser, ConfirmedPublisher, DEATHS, Forwarding, FrameSize, HeaderValue, Incoming, PublishResult,
};
use crate::operate::dead_letter::{CONNECTION_NAME, READ_MAX, id_of, not_found, open};
use crate::operate::failure::{Failure, Outcome};
use crate::operate::humanize::count;
use crate::operate::output::{Format, print_error, print_sentence};
use crate::operate::progress::Progress;
use crate::operate::tally::Tally;

/// Dead letters per batch: bounds the memory of this process and the unacknowledged messages of the broker.
const BATCH_MAX: usize = 200;
/// Bytes of bodies per batch; the last one may exceed it.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

pub(super) struct RedriveOptions {
    /// `None` for all.
    ids: Option<BTreeSet<String>>,
    /// Most dead letters to read.
    first: u32,
    dry_run: bool,
}

#[derive(Default)]
struct Done {
    /// In a dry run, those that would be moved.
    moved: Tally,
    found: BTreeSet<String>,
}

impl RedriveOptions {
    /// Without ids it selects all dead letters.
    pub(super) fn new(ids: BTreeSet<String>, first: u32, dry_run: bool) -> Self {
        Self { ids: (!ids.is_empty()).then_some(ids), first, dry_run }
    }

    fn selects(&self, id: &str) -> bool {
        self.ids.as_ref().is_none_or(|ids| ids.contains(id))
    }
}

/// Redrives the selected dead letters.
///
/// It reads no more messages than existed when it started: an event that fails again becomes a new dead letter, and
/// would be redriven forever.
pub(super) async fn redrive(broker: &Broker, format: Format, options: RedriveOptions) -> Outcome {
    let (browser, total) = open(broker).await?;
    // Its own connection, because a memory or disk alarm blocks connections that publish.
    let connection = broker.connect(CONNECTION_NAME, FrameSize::ServerDefault).await?;
    connection.depth(PROVISION_QUEUE).await?;
    let publisher = ConfirmedPublisher::open(connection).await?;
    let mut done = Done::default();
    let outcome = move_all(&browser, &publisher, &options, total, &mut done).await;
    // Before anything is reported, what was not moved is back in its place.
    let left = browser.return_all().await;
    browser.close().await;
    publisher.connection().close().await;
    match outcome.and(left.map_err(Failure::from)) {
        Ok(left) => report(format, &options, &done, total, left),
        Err(by) if options.dry_run || done.moved.messages() == 0 => Err(by),
        Err(by) => {
            let done = format!("{} had been requeued", count(done.moved.messages(), "dead letter"));
            Err(Failure::Interrupted { done, by: Box::new(by) })
        }
    }
}

async fn move_all(
    browser: &Browser,
    publisher: &ConfirmedPublisher,
    options: &RedriveOptions,
    total: u32,
    done: &mut Done,
) -> Result<(), Failure> {
    let mut to_read = total.min(options.first);
    if options.dry_run && options.ids.is_none() && to_read > READ_MAX {
        done.moved = Tally::unread(to_read);
        return Ok(());
    }
    let progress = Progress::begin("redriving dead letters", to_read.into());
    while to_read > 0 {
        let before = to_read;
        let batch = take_batch(browser, options, &mut to_read, &progress).await?;
        if options.ids.is_some() {
            done.found.extend(batch.iter().map(id_of));
        }
        if options.dry_run {
            for incoming in &batch {
                done.moved.add(&id_of(incoming));
            }
        } else if !batch.is_empty() {
            move_batch(browser, publisher, &batch, done).await?;
        }
        if to_read == before {
            break; // another reader took the rest
        }
    }
    Ok(())
}

/// Takes dead letters until a batch is full. Those that are not selected stay unacknowledged until the end, so that
/// they keep their place.
async fn take_batch(
    browser: &Browser,
    options: &RedriveOptions,
    to_read: &mut u32,
    progress: &Progress,
) -> Result<Vec<Incoming>, AmqpError> {
    let (mut batch, mut bytes) = (Vec::new(), 0_usize);
    while *to_read > 0 && batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
        let Some(incoming) = browser.next().await? else { break };
        *to_read = to_read.saturating_sub(1);
        progress.add(1);
        if options.selects(&id_of(&incoming)) {
            bytes = bytes.saturating_add(incoming.body().len());
            batch.push(incoming);
        }
    }
    Ok(batch)
}

/// Publishes the copies, and removes the dead letters whose copy was confirmed.
async fn move_batch(
    browser: &Browser,
    publisher: &ConfirmedPublisher,
    batch: &[Incoming],
    done: &mut Done,
) -> Result<(), Failure> {
    let how = Forwarding {
        queue: PROVISION_QUEUE,
        without: &[&DEATHS[..], &[ERROR_HEADER]].concat(),
        with: vec![(ATTEMPT_HEADER, HeaderValue::Int(0))],
    };
    let mut failure = None;
    for (incoming, result) in batch.iter().zip(publisher.forward(batch, &how).await) {
        if result == PublishResult::Confirmed {
            browser.remove(incoming).await?;
            done.moved.add(&id_of(incoming));
        } else {
            failure = failure.or_else(|| failure_of(&result));
        }
    }
    failure.map_or(Ok(()), Err)
}

fn failure_of(result: &PublishResult) -> Option<Failure> {
    match result {
        PublishResult::Confirmed => None,
        PublishResult::Unroutable(_) => Some(Failure::Broker(AmqpError::Missing { name: PROVISION_QUEUE.to_owned() })),
        PublishResult::Nacked => Some(Failure::Refused(format!(
            "{PROVISION_QUEUE} rejected a dead letter because it is full. Wait until the wallet role has drained it, then try again."
        ))),
        PublishResult::Unconfirmed => Some(Failure::Refused(
            "RabbitMQ did not confirm the dead letters in time. Check it for a memory or disk alarm (`rabbitmq-diagnostics alarms`), then try again."
                .to_owned(),
        )),
    }
}

fn report(format: Format, options: &RedriveOptions, done: &Done, total: u32, left: u32) -> Outcome {
    let missing: Vec<&String> = options.ids.iter().flatten().filter(|id| !done.found.contains(*id)).collect();
    let letters = &done.moved;
    let summary = if options.dry_run {
        format!("Would requeue {letters} to {PROVISION_QUEUE}. Nothing was changed.")
    } else {
        format!("Requeued {letters} to {PROVISION_QUEUE}; {left} left in {DEAD_LETTER_QUEUE}.")
    };
    let json = json!({
        "dryRun": options.dry_run, "redriven": letters.json(), "messages": letters.messages(), "notFound": missing,
        "left": left,
    });
    print_sentence(format, &json, &summary)?;
    for id in &missing {
        print_error(&not_found(id, total));
    }
    Ok(missing.is_empty())
}
