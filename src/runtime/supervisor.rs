//! The supervisor: makes children, rebuilds those that end, gives up on those that end too often.
//!
//! Owns: the specs in order, and for each child its generation, its failures and its back-off.
//! Receives: the end of a child, the time to build it again, the stop of the process.
//! Sends: `Shutdown` to the children, in the reverse order of their making.
//! Mailbox: control messages alone.
//! Ends: with the process.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use actix::{
    Actor, ActorFutureExt as _, AsyncContext as _, Context, Handler, Message, ResponseFuture, StreamHandler,
    WrapFuture as _,
};
use futures_util::stream;
use slog::{Logger, debug, error, info, warn};
use tokio::sync::{mpsc, oneshot};

use crate::infra::health::HealthBoard;
use crate::infra::system::roll;
use crate::kernel::{Backoff, fault};
use crate::runtime::child::{Child, EndReason, Ended, Lifeline};

/// Waits before a child is built again. The longest is short beside an outage: a try costs next to nothing, and what
/// has gathered meanwhile waits for it.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(5));
/// Failures within [`BUDGET_WINDOW`] that are forgiven. An absent dependency is no failure.
const BUDGET: usize = 5;
/// The window of [`BUDGET`].
const BUDGET_WINDOW: Duration = Duration::from_mins(1);
/// A child that has lived this long begins its back-off anew.
const HEALTHY_AFTER: Duration = Duration::from_secs(30);
/// An absence that goes on is logged again after this long, not at every try.
const REMIND_EVERY: Duration = Duration::from_mins(1);

/// How to make a child.
pub struct ChildSpec {
    /// Its name in logs, health and metrics.
    pub name: &'static str,
    /// Makes it; the lifeline goes into the actor. Called again for each rebuilding.
    pub start: Box<dyn Fn(Lifeline) -> Box<dyn Child>>,
}

/// Why the process has to end by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Escalation {
    /// A child ended more often than its budget allows.
    GivenUp {
        /// Which.
        child: &'static str,
    },
    /// A dependency refuses for good.
    Refused {
        /// What a person has to do.
        message: String,
    },
}

/// Ends all children in order. Answered when they are done.
#[derive(Clone, Copy, Debug, Message)]
#[rtype(result = "()")]
pub struct Stop {
    /// How long it may take altogether.
    pub grace: Duration,
}

#[derive(Message)]
#[rtype(result = "()")]
struct Build {
    index: usize,
}

struct Supervised {
    spec: ChildSpec,
    child: Option<Box<dyn Child>>,
    generation: u64,
    built_at: Instant,
    /// Ends in a row without a healthy life between.
    in_a_row: u32,
    failures: VecDeque<Instant>,
    reminded_at: Option<Instant>,
}

/// The supervisor of a process.
pub struct SupervisorActor {
    children: Vec<Supervised>,
    ended: mpsc::UnboundedSender<Ended>,
    inbox: Option<mpsc::UnboundedReceiver<Ended>>,
    escalation: Option<oneshot::Sender<Escalation>>,
    health: HealthBoard,
    logger: Logger,
    stopping: bool,
}

impl SupervisorActor {
    /// A supervisor of these children, made in this order when it starts. The receiver hears of the one thing that the
    /// supervisor cannot mend.
    pub fn new(specs: Vec<ChildSpec>, health: HealthBoard, logger: Logger) -> (Self, oneshot::Receiver<Escalation>) {
        let (ended, inbox) = mpsc::unbounded_channel();
        let (escalation, heard) = oneshot::channel();
        let children = specs
            .into_iter()
            .map(|spec| Supervised {
                spec,
                child: None,
                generation: 0,
                built_at: Instant::now(),
                in_a_row: 0,
                failures: VecDeque::new(),
                reminded_at: None,
            })
            .collect();
        let supervisor =
            Self { children, ended, inbox: Some(inbox), escalation: Some(escalation), health, logger, stopping: false };
        (supervisor, heard)
    }

    fn build(&mut self, index: usize) {
        let Some(supervised) = self.children.get_mut(index) else { return };
        supervised.generation = supervised.generation.saturating_add(1);
        supervised.built_at = Instant::now();
        let lifeline = Lifeline {
            name: supervised.spec.name,
            generation: supervised.generation,
            reason: None,
            ended: self.ended.clone(),
        };
        // A constructor that panics drops the lifeline on its way out, which is all that is needed.
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
        if supervised.built_at.elapsed() >= HEALTHY_AFTER {
            supervised.in_a_row = 0;
            supervised.reminded_at = None;
        }
        let delay = BACKOFF.delay(supervised.in_a_row, roll());
        supervised.in_a_row = supervised.in_a_row.saturating_add(1);
        let again_in_ms = u64::try_from(delay.as_millis()).unwrap_or(u64::MAX);
        match &ended.reason {
            EndReason::Refused(message) => {
                error!(logger, "a dependency refuses for good"; "error" => message);
                return self.escalate(Escalation::Refused { message: message.clone() });
            }
            EndReason::Unavailable(why) => {
                if supervised.reminded_at.is_none_or(|at| at.elapsed() >= REMIND_EVERY) {
                    supervised.reminded_at = Some(Instant::now());
                    warn!(logger, "a dependency is away; trying again until it is back"; "error" => why, "again_in_ms" => again_in_ms);
                } else {
                    debug!(logger, "a dependency is still away"; "error" => why, "again_in_ms" => again_in_ms);
                }
            }
            EndReason::Failed(_) | EndReason::Panicked | EndReason::Silent => {
                let now = Instant::now();
                supervised.failures.push_back(now);
                supervised.failures.retain(|at| now.duration_since(*at) < BUDGET_WINDOW);
                let why = format!("{:?}", ended.reason);
                if supervised.failures.len() > BUDGET {
                    error!(logger, "actor ended too often and is given up"; "error" => why, "within_s" => BUDGET_WINDOW.as_secs());
                    return self.escalate(Escalation::GivenUp { child: ended.name });
                }
                let failures = supervised.failures.len();
                error!(logger, "actor ended and is built again"; "error" => why, "again_in_ms" => again_in_ms, "failures" => failures, "within_s" => BUDGET_WINDOW.as_secs());
            }
        }
        self.health.change(|health| *health.restarts.entry(ended.name).or_default() += 1);
        ctx.notify_later(Build { index }, delay);
    }

    fn escalate(&mut self, escalation: Escalation) {
        if let Escalation::GivenUp { child } = &escalation {
            let child = *child;
            self.health.change(|health| health.given_up = Some(child));
        }
        if let Some(listener) = self.escalation.take() {
            // The process is ending already if nobody listens.
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
            self.build(index);
        }
    }
}

impl StreamHandler<Ended> for SupervisorActor {
    fn handle(&mut self, ended: Ended, ctx: &mut Self::Context) {
        self.child_ended(&ended, ctx);
    }
}

impl Handler<Build> for SupervisorActor {
    type Result = ();

    fn handle(&mut self, build: Build, _: &mut Self::Context) {
        if !self.stopping {
            self.build(build.index);
        }
    }
}

impl Handler<Stop> for SupervisorActor {
    type Result = actix::ResponseActFuture<Self, ()>;

    fn handle(&mut self, stop: Stop, _: &mut Self::Context) -> Self::Result {
        self.stopping = true;
        let until = Instant::now() + stop.grace;
        let logger = self.logger.clone();
        // Last made, first stopped: the listener before what answers its requests.
        let children: Vec<_> =
            self.children.iter_mut().rev().filter_map(|c| Some((c.spec.name, c.child.take()?))).collect();
        let stopped: ResponseFuture<()> = Box::pin(async move {
            for (name, child) in children {
                let began = Instant::now();
                child.shut_down(until.saturating_duration_since(began)).await;
                let took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
                info!(logger, "actor stopped"; "actor" => name, "duration_ms" => took_ms);
            }
        });
        Box::pin(stopped.into_actor(self).map(|(), _, _| ()))
    }
}

#[cfg(test)]
mod tests;
