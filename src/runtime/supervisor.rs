//! Starts the actors of a process, restarts those that end, and gives up on one that exceeds its restart budget.
//!
//! Owns: the specs in start order; for each child its generation, failures and back-off.
//! Receives: the end of a child, the restart of a child, the stop of the process.
//! Sends: `Shutdown` to the children, in reverse start order.
//! Mailbox: control messages only.
//! Ends: with the process.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, ResponseFuture, StreamHandler,
    WrapFuture as _,
};
use futures_util::stream;
use slog::{Logger, debug, error, warn};
use tokio::sync::{mpsc, oneshot};

use crate::infra::health::HealthBoard;
use crate::infra::system::random_fraction;
use crate::kernel::{Backoff, Reminder, fault};
use crate::runtime::child::{Child, EndReason, Ended, FIRST_GENERATION, Lifeline};

/// Delays before a restart. The longest is short compared with an outage: an attempt is cheap, and work piles up until it
/// succeeds.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
/// Failures within [`BUDGET_WINDOW`] that lead to a restart. An unavailable dependency does not count.
const BUDGET: usize = 5;
const BUDGET_WINDOW: Duration = Duration::from_mins(1);
/// Delays before a child that a dependency rejects is restarted: only an operator can change that.
const REJECTED_BACKOFF: Backoff = Backoff::new(Duration::from_secs(5), Duration::from_secs(30));
/// A child that ran this long starts again with the shortest delay.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);

/// How to start a child.
pub struct ChildSpec {
    /// In logs, health and metrics.
    pub name: &'static str,
    start: Box<dyn Fn(Lifeline) -> Box<dyn Child>>,
    is_early: bool,
}

impl ChildSpec {
    /// `start` is called for each start and restart; the actor takes the lifeline.
    pub fn new<C: Child + 'static>(name: &'static str, start: impl Fn(Lifeline) -> C + 'static) -> Self {
        Self { name, start: Box::new(move |lifeline| Box::new(start(lifeline))), is_early: false }
    }

    /// Starts even while the others are held back.
    #[must_use]
    pub const fn early(mut self) -> Self {
        self.is_early = true;
        self
    }
}

/// Why the process has to end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Escalation {
    /// A child exceeded its restart budget.
    GivenUp { child: &'static str },
    /// A dependency rejects the process permanently, at its start.
    Refused {
        /// For the operator.
        message: String,
    },
}

/// Stops all children in order. The reply comes when they are done.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Stop {
    /// Time limit for all children together.
    pub grace: Duration,
}

/// Starts the children that are held back.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Release;

#[derive(Message)]
#[rtype(result = "()")]
struct Restart {
    index: usize,
}

struct Supervised {
    spec: ChildSpec,
    child: Option<Box<dyn Child>>,
    generation: u64,
    started_at: Instant,
    /// Ends since the child last ran for [`HEALTHY_AFTER`].
    ends_in_a_row: u32,
    failures: VecDeque<Instant>,
    outages: Reminder,
    /// The reason that was logged last.
    rejection_logged: Option<String>,
}

pub struct SupervisorActor {
    children: Vec<Supervised>,
    ended: mpsc::UnboundedSender<Ended>,
    inbox: Option<mpsc::UnboundedReceiver<Ended>>,
    escalation: Option<oneshot::Sender<Escalation>>,
    health: HealthBoard,
    logger: Logger,
    holding_back: bool,
    stopping: bool,
}

impl SupervisorActor {
    /// Starts the children in this order when it is started itself. The receiver gets the failure that the supervisor
    /// cannot handle.
    pub fn new(specs: Vec<ChildSpec>, health: HealthBoard, logger: Logger) -> (Self, oneshot::Receiver<Escalation>) {
        let (ended, inbox) = mpsc::unbounded_channel();
        let (escalation, escalated) = oneshot::channel();
        let children = specs
            .into_iter()
            .map(|spec| Supervised {
                spec,
                child: None,
                generation: 0,
                started_at: Instant::now(),
                ends_in_a_row: 0,
                failures: VecDeque::new(),
                outages: Reminder::default(),
                rejection_logged: None,
            })
            .collect();
        let supervisor = Self {
            children,
            ended,
            inbox: Some(inbox),
            escalation: Some(escalation),
            health,
            logger,
            holding_back: false,
            stopping: false,
        };
        (supervisor, escalated)
    }

    /// Starts only the early children, until [`Release`].
    #[must_use]
    pub const fn holding_back(mut self) -> Self {
        self.holding_back = true;
        self
    }

    fn start_child(&mut self, index: usize) {
        let Some(supervised) = self.children.get_mut(index) else { return };
        supervised.generation = supervised.generation.saturating_add(1);
        supervised.started_at = Instant::now();
        let lifeline = Lifeline {
            name: supervised.spec.name,
            generation: supervised.generation,
            reason: None,
            ended: self.ended.clone(),
        };
        // A constructor that panics drops the lifeline, which schedules the restart.
        supervised.child = catch_unwind(AssertUnwindSafe(|| {
            fault::point(supervised.spec.name);
            (supervised.spec.start)(lifeline)
        }))
        .ok();
    }

    fn child_ended(&mut self, ended: &Ended, ctx: &mut Context<Self>) {
        let found = self.children.iter().position(|c| c.spec.name == ended.name && c.generation == ended.generation);
        let (Some(index), false) = (found, self.stopping) else { return };
        let Some(supervised) = self.children.get_mut(index) else { return };
        supervised.child = None;
        let logger = self.logger.new(slog::o!("actor" => ended.name));
        if supervised.started_at.elapsed() >= HEALTHY_AFTER {
            supervised.ends_in_a_row = 0;
            supervised.outages.reset();
            supervised.rejection_logged = None;
        }
        let backoff = if matches!(ended.reason, EndReason::Refused(_)) { REJECTED_BACKOFF } else { BACKOFF };
        let delay = backoff.delay(supervised.ends_in_a_row, random_fraction());
        supervised.ends_in_a_row = supervised.ends_in_a_row.saturating_add(1);
        let again_in_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        match &ended.reason {
            EndReason::Refused(message) if ended.generation == FIRST_GENERATION => {
                error!(logger, "a dependency rejects this actor permanently"; "error" => message);
                return self.escalate(Escalation::Refused { message: message.clone() });
            }
            // Logged once, and again when the reason changes; health and metrics show that it lasts.
            EndReason::Refused(message) => {
                if supervised.rejection_logged.as_ref() == Some(message) {
                    debug!(logger, "a dependency still rejects this actor"; "error" => message, "again_in_ms" => again_in_ms);
                } else {
                    supervised.rejection_logged = Some(message.clone());
                    error!(logger, "a dependency rejects this actor; retrying while the rest of the process keeps running"; "error" => message, "again_in_ms" => again_in_ms);
                }
            }
            EndReason::Unavailable(why) => {
                if supervised.outages.is_due() {
                    warn!(logger, "a dependency is unavailable; retrying until it is back"; "error" => why, "again_in_ms" => again_in_ms);
                } else {
                    debug!(logger, "a dependency is still unavailable"; "error" => why, "again_in_ms" => again_in_ms);
                }
            }
            EndReason::Failed(_) | EndReason::Panicked | EndReason::Unexplained => {
                let now = Instant::now();
                supervised.failures.push_back(now);
                supervised.failures.retain(|at| now.duration_since(*at) < BUDGET_WINDOW);
                let why = format!("{:?}", ended.reason);
                if supervised.failures.len() > BUDGET {
                    error!(logger, "actor exceeded its restart budget; giving up"; "error" => why, "within_s" => BUDGET_WINDOW.as_secs());
                    return self.escalate(Escalation::GivenUp { child: ended.name });
                }
                let failures = supervised.failures.len();
                error!(logger, "actor ended; restarting it"; "error" => why, "again_in_ms" => again_in_ms, "failures" => failures, "within_s" => BUDGET_WINDOW.as_secs());
            }
        }
        self.health.change(|health| *health.restarts.entry(ended.name).or_default() += 1);
        ctx.notify_later(Restart { index }, delay);
    }

    fn escalate(&mut self, escalation: Escalation) {
        if let Escalation::GivenUp { child } = &escalation {
            let child = *child;
            self.health.change(|health| health.given_up = Some(child));
        }
        if let Some(listener) = self.escalation.take() {
            // Without a receiver the process is already ending.
            let _ = listener.send(escalation);
        }
    }
}

impl Actor for SupervisorActor {
    type Context = Context<Self>;

    fn started(&mut self, ctx: &mut Self::Context) {
        if let Some(inbox) = self.inbox.take() {
            ctx.add_stream(stream::unfold(inbox, |mut inbox| async move { inbox.recv().await.map(|e| (e, inbox)) }));
        }
        for index in 0..self.children.len() {
            if !self.holding_back || self.children.get(index).is_some_and(|child| child.spec.is_early) {
                self.start_child(index);
            }
        }
    }
}

impl StreamHandler<Ended> for SupervisorActor {
    fn handle(&mut self, ended: Ended, ctx: &mut Self::Context) {
        self.child_ended(&ended, ctx);
    }
}

impl Handler<Release> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, _: Release, _: &mut Self::Context) {
        if self.stopping || !std::mem::take(&mut self.holding_back) {
            return;
        }
        for index in 0..self.children.len() {
            if self.children.get(index).is_some_and(|child| !child.spec.is_early) {
                self.start_child(index);
            }
        }
    }
}

impl Handler<Restart> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, restart: Restart, _: &mut Self::Context) {
        if !self.stopping {
            self.start_child(restart.index);
        }
    }
}

impl Handler<Stop> for SupervisorActor {
    type Result = actix::ResponseActFuture<Self, ()>;

    fn handle(&mut self, stop: Stop, _: &mut Self::Context) -> Self::Result {
        self.stopping = true;
        let until = Instant::now() + stop.grace;
        let logger = self.logger.clone();
        // Last started, first stopped: the listener before the actors that serve its requests.
        let children: Vec<_> =
            self.children.iter_mut().rev().filter_map(|c| Some((c.spec.name, c.child.take()?))).collect();
        let stopped: ResponseFuture<()> = Box::pin(async move {
            for (name, child) in children {
                let began = Instant::now();
                child.shut_down(until.saturating_duration_since(began)).await;
                let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                debug!(logger, "actor stopped"; "actor" => name, "duration_ms" => took_ms);
            }
        });
        Box::pin(stopped.into_actor(self).map(|(), _, _| ()))
    }
}

#[cfg(test)]
mod tests;
