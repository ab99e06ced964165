//! Children that end in every way there is.

use super::*;
use crate::runtime::child::{Handle, Shutdown};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A child that ends in whatever way it is told.
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

    fn handle(&mut self, order: Break, ctx: &mut Self::Context) -> Self::Result {
        use actix::ActorContext as _;
        match order {
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

struct House {
    supervisor: actix::Addr<SupervisorActor>,
    handle: Handle<Fragile>,
    built: Arc<AtomicUsize>,
    health: HealthBoard,
    escalation: oneshot::Receiver<Escalation>,
}

/// `fail_first`: that many constructors panic.
fn house(fail_first: usize) -> House {
    let (handle, built) = (Handle::default(), Arc::new(AtomicUsize::new(0)));
    let (points, counter) = (handle.clone(), Arc::clone(&built));
    let spec = ChildSpec {
        name: "fragile",
        start: Box::new(move |lifeline| {
            let number = counter.fetch_add(1, Ordering::SeqCst);
            assert!(number >= fail_first, "in the constructor");
            let address = Fragile { lifeline }.start();
            points.point_to(address.clone());
            Box::new(address)
        }),
    };
    let health = HealthBoard::default();
    let (supervisor, escalation) =
        SupervisorActor::new(vec![spec], health.clone(), Logger::root(slog::Discard, slog::o!()));
    House { supervisor: supervisor.start(), handle, built, health, escalation }
}

impl House {
    async fn built(&self, times: usize) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while self.built.load(Ordering::SeqCst) < times || self.handle.get().is_none() {
            assert!(Instant::now() < deadline, "child was not built {times} times");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn order(&self, order: Break) {
        let address = self.handle.get().expect("a child that lives");
        // A panicking child closes its mailbox instead of answering.
        let _ = address.send(order).await;
    }
}

#[actix::test]
async fn a_child_that_panics_is_rebuilt_by_its_factory() {
    let house = house(0);
    house.built(1).await;
    for (n, order) in
        [Break::PanicInHandler, Break::PanicInAsyncHandler, Break::PanicInSpawnedFuture].into_iter().enumerate()
    {
        house.order(order).await;
        house.built(n + 2).await;
    }
    assert!(house.health.read().is_live());
    assert_eq!(house.health.read().restarts.get("fragile"), Some(&3));
}

#[actix::test]
async fn a_constructor_that_panics_is_tried_again() {
    let house = house(2);
    house.built(3).await;
    house.order(Break::Stop(None)).await;
    house.built(4).await;
}

#[actix::test]
async fn past_its_budget_a_child_is_given_up_and_the_process_is_told() {
    let mut house = house(0);
    for times in 1..=BUDGET {
        house.built(times).await;
        house.order(Break::PanicInHandler).await;
    }
    house.built(BUDGET + 1).await;
    assert!(house.health.read().is_live());
    house.order(Break::PanicInHandler).await;
    let escalation = tokio::time::timeout(Duration::from_secs(30), &mut house.escalation).await;
    assert_eq!(escalation.expect("in time").expect("told"), Escalation::GivenUp { child: "fragile" });
    assert!(!house.health.read().is_live());
}

#[actix::test]
async fn an_absent_dependency_spends_no_budget() {
    let mut house = house(0);
    for times in 1..=BUDGET + 2 {
        house.built(times).await;
        house.order(Break::Stop(Some(EndReason::Unavailable("broker".into())))).await;
    }
    house.built(BUDGET + 3).await;
    assert_eq!(house.escalation.try_recv(), Err(oneshot::error::TryRecvError::Empty));
}

#[actix::test]
async fn a_refusal_for_good_is_not_tried_again() {
    let mut house = house(0);
    house.built(1).await;
    house.order(Break::Stop(Some(EndReason::Refused("other arguments".into())))).await;
    let escalation = tokio::time::timeout(Duration::from_secs(30), &mut house.escalation).await;
    assert_eq!(escalation.expect("in time").expect("told"), Escalation::Refused { message: "other arguments".into() });
}

#[actix::test]
async fn a_stopping_supervisor_rebuilds_nothing() {
    let house = house(0);
    house.built(1).await;
    house.supervisor.send(Stop { grace: Duration::from_secs(5) }).await.expect("stopped");
    house.order(Break::Stop(None)).await;
    tokio::time::sleep(BACKOFF.delay(0, 1.0) * 3).await;
    assert_eq!(house.built.load(Ordering::SeqCst), 1);
}
