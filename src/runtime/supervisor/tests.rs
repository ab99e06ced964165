//! Children that end in every possible way.

use super::*;
use crate::runtime::child::{Handle, Shutdown};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A child that ends as the message [`Break`] says.
struct Fragile {
    lifeline: Lifeline,
}

impl Actor for Fragile {
    type Context = Context<Self>;
}

#[derive(Clone, Debug, Message)]
#[rtype(result = "()")]
enum Break {
    PanicInHandler,
    PanicInAsyncHandler,
    PanicInSpawnedFuture,
    Stop(Option<EndReason>),
}

impl Handler<Break> for Fragile {
    type Result = actix::ResponseActFuture<Self, ()>;

    fn handle(&mut self, message: Break, ctx: &mut Self::Context) -> Self::Result {
        use actix::ActorContext as _;
        match message {
            Break::PanicInHandler => panic!("in the handler"),
            Break::PanicInAsyncHandler => Box::pin(async { panic!("in the async handler") }.into_actor(self)),
            Break::PanicInSpawnedFuture => {
                ctx.spawn(async { panic!("in a spawned future") }.into_actor(self));
                Box::pin(actix::fut::ready(()))
            }
            Break::Stop(reason) => {
                if let Some(reason) = reason {
                    self.lifeline.end(reason);
                }
                ctx.stop();
                Box::pin(actix::fut::ready(()))
            }
        }
    }
}

impl Handler<Shutdown> for Fragile {
    type Result = ();

    fn handle(&mut self, _: Shutdown, _: &mut Self::Context) {}
}

struct Fixture {
    supervisor: actix::Addr<SupervisorActor>,
    handle: Handle<Fragile>,
    starts: Arc<AtomicUsize>,
    health: HealthBoard,
    escalation: oneshot::Receiver<Escalation>,
}

/// The first `failing_starts` constructors panic.
fn fixture(failing_starts: usize) -> Fixture {
    let (handle, starts) = (Handle::default(), Arc::new(AtomicUsize::new(0)));
    let (current, counter) = (handle.clone(), Arc::clone(&starts));
    let spec = ChildSpec::new("fragile", move |lifeline| {
        let number = counter.fetch_add(1, Ordering::SeqCst);
        assert!(number >= failing_starts, "in the constructor");
        current.point_to(Fragile { lifeline }.start())
    });
    let health = HealthBoard::default();
    let (supervisor, escalation) =
        SupervisorActor::new(vec![spec], health.clone(), Logger::root(slog::Discard, slog::o!()));
    Fixture { supervisor: supervisor.start(), handle, starts, health, escalation }
}

impl Fixture {
    async fn started(&self, times: usize) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.starts.load(Ordering::SeqCst) < times || self.handle.get().is_none() {
            assert!(Instant::now() < deadline, "the child was not started {times} times");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn send(&self, message: Break) {
        let address = self.handle.get().expect("a running child");
        // A panicking child closes its mailbox instead of replying.
        let _ = address.send(message).await;
    }
}

#[actix::test]
async fn a_child_that_panics_is_restarted_by_its_factory() {
    let fixture = fixture(0);
    fixture.started(1).await;
    for (n, message) in
        [Break::PanicInHandler, Break::PanicInAsyncHandler, Break::PanicInSpawnedFuture].into_iter().enumerate()
    {
        fixture.send(message).await;
        fixture.started(n + 2).await;
    }
    assert!(fixture.health.read().is_live());
    assert_eq!(fixture.health.read().restarts.get("fragile"), Some(&3));
}

#[actix::test]
async fn a_constructor_that_panics_is_retried() {
    let fixture = fixture(2);
    fixture.started(3).await;
    fixture.send(Break::Stop(None)).await;
    fixture.started(4).await;
}

#[actix::test]
async fn a_child_that_exceeds_its_restart_budget_is_escalated() {
    let mut fixture = fixture(0);
    for times in 1..=BUDGET {
        fixture.started(times).await;
        fixture.send(Break::PanicInHandler).await;
    }
    fixture.started(BUDGET + 1).await;
    assert!(fixture.health.read().is_live());
    fixture.send(Break::PanicInHandler).await;
    let escalation = tokio::time::timeout(Duration::from_secs(30), &mut fixture.escalation).await;
    assert_eq!(escalation.expect("in time").expect("escalated"), Escalation::GivenUp { child: "fragile" });
    assert!(!fixture.health.read().is_live());
}

#[actix::test]
async fn an_unavailable_dependency_uses_no_restart_budget() {
    let mut fixture = fixture(0);
    for times in 1..=BUDGET + 2 {
        fixture.started(times).await;
        fixture.send(Break::Stop(Some(EndReason::Unavailable("broker".into())))).await;
    }
    fixture.started(BUDGET + 3).await;
    assert_eq!(fixture.escalation.try_recv(), Err(oneshot::error::TryRecvError::Empty));
}

#[actix::test]
async fn a_permanent_rejection_at_the_first_start_is_not_retried() {
    let mut fixture = fixture(0);
    fixture.started(1).await;
    fixture.send(Break::Stop(Some(EndReason::Refused("other arguments".into())))).await;
    let escalation = tokio::time::timeout(Duration::from_secs(30), &mut fixture.escalation).await;
    assert_eq!(
        escalation.expect("in time").expect("escalated"),
        Escalation::Refused { message: "other arguments".into() }
    );
}

#[actix::test]
async fn a_permanent_rejection_of_a_restarted_child_does_not_end_the_process() {
    let mut fixture = fixture(0);
    fixture.started(1).await;
    fixture.send(Break::Stop(Some(EndReason::Unavailable("broker".into())))).await;
    fixture.started(2).await;
    fixture.send(Break::Stop(Some(EndReason::Refused("other arguments".into())))).await;
    fixture.started(3).await;
    assert_eq!(fixture.escalation.try_recv(), Err(oneshot::error::TryRecvError::Empty));
    assert!(fixture.health.read().is_live());
}

#[actix::test]
async fn a_stopping_supervisor_restarts_nothing() {
    let fixture = fixture(0);
    fixture.started(1).await;
    fixture.supervisor.send(Stop { grace: Duration::from_secs(5) }).await.expect("stopped");
    fixture.send(Break::Stop(None)).await;
    tokio::time::sleep(BACKOFF.delay(0, 1.0) * 3).await;
    assert_eq!(fixture.starts.load(Ordering::SeqCst), 1);
}
