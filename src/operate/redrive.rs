//! Puts dead letters back to work: copy, confirm, and only then take out.

use std::collections::BTreeSet;

use serde_json::json;

use crate::contracts::{ATTEMPT_HEADER, DEAD_LETTER_QUEUE, ERROR_HEADER, PROVISION_QUEUE};
use crate::infra::amqp::{
    AmqpError, Broker, Browser, ConfirmedPublisher, Forwarding, FrameSize, HeaderValue, Incoming, PublishResult,
};
use crate::operate::dead_letter::id_of;
use crate::operate::dlq::{CONNECTION_NAME, not_found, open};
use crate::operate::failure::Failure;
use crate::operate::list::{Format, sentence};
use crate::operate::progress::Progress;
use crate::operate::words::count;
use crate::operate::{Outcome, say};

/// Dead letters that are in hand at once; what keeps both the memory and the broker's unsettled messages bounded.
const BATCH_MAX: usize = 200;
/// Bytes of bodies that are in hand at once, give or take the last one.
const BATCH_BYTES_MAX: usize = 4 * 1024 * 1024;

/// What is to be redriven.
pub(super) struct Plan {
    /// These alone; `None` is all.
    wanted: Option<BTreeSet<String>>,
    /// How many dead letters are looked at.
    first: u32,
    dry_run: bool,
}

/// What was done.
#[derive(Default)]
struct Done {
    moved: u64,
    /// Those of the wanted that were there.
    found: BTreeSet<String>,
}

impl Plan {
    /// Of all ids that the command line names, each once; none stands for all dead letters.
    pub(super) fn new(ids: Vec<String>, first: u32, dry_run: bool) -> Self {
        Self { wanted: (!ids.is_empty()).then(|| ids.into_iter().collect()), first, dry_run }
    }

    fn wants(&self, id: &str) -> bool {
        self.wanted.as_ref().is_none_or(|wanted| wanted.contains(id))
    }
}

/// Redrives what `plan` says.
///
/// It looks at no more messages than were there when it began: an event that fails again comes back as a new dead
/// letter, and would be redriven for ever.
pub(super) async fn redrive(broker: &Broker, format: Format, plan: Plan) -> Outcome {
    let (browser, total) = open(broker).await?;
    // A connection of its own: a broker short of memory stops reading from those that publish.
    let connection = broker.connect(CONNECTION_NAME, FrameSize::ServerDefault).await?;
    connection.depth(PROVISION_QUEUE).await?;
    let publisher = ConfirmedPublisher::open(connection).await?;
    let mut done = Done::default();
    let outcome = work_through(&browser, &publisher, &plan, total, &mut done).await;
    // What was not moved is back in its place before anything is told.
    let left = browser.return_all().await;
    browser.close().await;
    publisher.connection().close().await;
    match outcome.and(left.map_err(Failure::from)) {
        Ok(left) => tell(format, &plan, &done, total, left),
        Err(by) if done.moved == 0 => Err(by),
        Err(by) => Err(Failure::BrokenOff { moved: done.moved, by: Box::new(by) }),
    }
}

async fn work_through(
    browser: &Browser,
    publisher: &ConfirmedPublisher,
    plan: &Plan,
    total: u32,
    done: &mut Done,
) -> Result<(), Failure> {
    let mut to_look_at = total.min(plan.first);
    if plan.dry_run && plan.wanted.is_none() {
        done.moved = to_look_at.into();
        return Ok(());
    }
    let progress = Progress::begin("redriving dead letters", to_look_at.into());
    while to_look_at > 0 {
        let before = to_look_at;
        let batch = take_batch(browser, plan, &mut to_look_at, &progress).await?;
        if plan.wanted.is_some() {
            done.found.extend(batch.iter().map(id_of));
        }
        if plan.dry_run {
            done.moved = done.moved.saturating_add(u64::try_from(batch.len()).unwrap_or(u64::MAX));
        } else if !batch.is_empty() {
            move_batch(browser, publisher, &batch, done).await?;
        }
        if to_look_at == before {
            break; // somebody else took the rest
        }
    }
    Ok(())
}

/// Takes dead letters until a batch is full; those that nobody wants stay unsettled until the end, so that they keep
/// their place.
async fn take_batch(
    browser: &Browser,
    plan: &Plan,
    to_look_at: &mut u32,
    progress: &Progress,
) -> Result<Vec<Incoming>, AmqpError> {
    let (mut batch, mut bytes) = (Vec::new(), 0_usize);
    while *to_look_at > 0 && batch.len() < BATCH_MAX && bytes < BATCH_BYTES_MAX {
        let Some(incoming) = browser.next().await? else { break };
        *to_look_at = to_look_at.saturating_sub(1);
        progress.add(1);
        if plan.wants(&id_of(&incoming)) {
            bytes = bytes.saturating_add(incoming.body().len());
            batch.push(incoming);
        }
    }
    Ok(batch)
}

/// Publishes the copies, and takes those out of the dead letters that were confirmed.
async fn move_batch(
    browser: &Browser,
    publisher: &ConfirmedPublisher,
    batch: &[Incoming],
    done: &mut Done,
) -> Result<(), Failure> {
    let how = Forwarding {
        queue: PROVISION_QUEUE,
        without: &[ERROR_HEADER],
        with: vec![(ATTEMPT_HEADER, HeaderValue::Int(0))],
    };
    let mut refused = None;
    for (incoming, result) in batch.iter().zip(publisher.forward(batch, &how).await) {
        if result == PublishResult::Confirmed {
            browser.remove(incoming).await?;
            done.moved = done.moved.saturating_add(1);
        } else {
            refused = refused.or_else(|| why(&result));
        }
    }
    refused.map_or(Ok(()), Err)
}

fn why(result: &PublishResult) -> Option<Failure> {
    match result {
        PublishResult::Confirmed => None,
        PublishResult::Unroutable(_) => Some(Failure::Broker(AmqpError::Missing { name: PROVISION_QUEUE.to_owned() })),
        PublishResult::Nacked => Some(Failure::Refused(format!(
            "{PROVISION_QUEUE} refused a dead letter, as a full queue does. Let the wallet role work the queue off, then try again."
        ))),
        PublishResult::Unconfirmed => Some(Failure::Refused(
            "RabbitMQ did not confirm the dead letters in time. See whether it is short of memory or disk (`rabbitmq-diagnostics alarms`), then try again."
                .to_owned(),
        )),
    }
}

fn tell(format: Format, plan: &Plan, done: &Done, total: u32, left: u32) -> Outcome {
    let missing: Vec<&String> = plan.wanted.iter().flatten().filter(|id| !done.found.contains(*id)).collect();
    let letters = count(done.moved, "dead letter");
    let told = if plan.dry_run {
        format!("{letters} would go back into {PROVISION_QUEUE}; nothing was changed.")
    } else {
        format!("{letters} went back into {PROVISION_QUEUE}; {left} left in {DEAD_LETTER_QUEUE}.")
    };
    let json = json!({"dryRun": plan.dry_run, "redriven": done.moved, "notFound": missing, "left": left});
    sentence(format, &json, &told)?;
    for id in &missing {
        say(&not_found(id, total));
    }
    Ok(missing.is_empty())
}
