//! Weighted fair queuing (Demers, Keshav and Shenker, 1989): users with few rows are served soon, however many rows others
//! queue.
//!
//! Each initiator has the same share of the rows that are written. The queue is in the order in which its postings would end if
//! all initiators were served at once, row by row: a virtual clock counts the rows that each of them would have got. So a
//! posting of one row comes before a group of a hundred that has just arrived, and the group comes when its initiator has waited
//! for as many turns. Postings of one initiator keep their order.

use std::collections::{BTreeMap, HashMap};

use crate::kernel::UserId;

/// A row on the virtual clock, which advances by a part of it while several initiators wait.
const ROW: u64 = 1 << 20;

/// When a posting would end, then its number in the order of arrival.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place(u64, u64);

/// A waiting posting.
#[derive(Debug)]
pub struct Waiting<T> {
    pub place: Place,
    pub initiator: UserId,
    pub posting: T,
}

/// Of one initiator.
#[derive(Debug)]
struct Share {
    /// When the last posting would end.
    ends_at: u64,
    postings: usize,
}

#[derive(Debug)]
pub struct FairQueue<T> {
    waiting: BTreeMap<Place, Waiting<T>>,
    /// Of those who wait.
    shares: HashMap<UserId, Share>,
    clock: u64,
    arrived: u64,
    /// The number of the first one of those that were given back.
    first: u64,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { waiting: BTreeMap::new(), shares: HashMap::new(), clock: 0, arrived: 0, first: u64::MAX }
    }
}

impl<T> FairQueue<T> {
    /// `rows` is what the posting takes of the initiator's share.
    pub fn push(&mut self, initiator: UserId, rows: usize, posting: T) {
        let clock = self.clock;
        let share = self.joins(initiator);
        share.ends_at = share.ends_at.max(clock).saturating_add(virtual_time(rows));
        let place = Place(share.ends_at, self.arrived);
        self.arrived = self.arrived.saturating_add(1);
        self.waiting.insert(place, Waiting { place, initiator, posting });
    }

    pub fn pop(&mut self) -> Option<Waiting<T>> {
        let (_, waiting) = self.waiting.pop_first()?;
        self.has_left(waiting.initiator);
        Some(waiting)
    }

    /// Puts a posting that has had its turn before all others. Of several, the last one has to be given back first.
    pub fn give_back(&mut self, initiator: UserId, posting: T) {
        self.joins(initiator);
        self.first = self.first.saturating_sub(1);
        let place = Place(0, self.first);
        self.waiting.insert(place, Waiting { place, initiator, posting });
    }

    /// To where it was. Nothing may have been pushed meanwhile.
    pub fn put_back(&mut self, waiting: Waiting<T>) {
        let share = self.joins(waiting.initiator);
        share.ends_at = share.ends_at.max(waiting.place.0);
        self.waiting.insert(waiting.place, waiting);
    }

    /// Takes out all postings of the initiators for which `is_meant` is true, in their order.
    pub fn take_of(&mut self, is_meant: impl Fn(UserId) -> bool) -> Vec<Waiting<T>> {
        let taken: Vec<_> = self.waiting.extract_if(.., |_, waiting| is_meant(waiting.initiator)).collect();
        taken.into_iter().map(|(_, waiting)| waiting).inspect(|waiting| self.has_left(waiting.initiator)).collect()
    }

    /// Advances the clock by each initiator's part of `rows` that were written. `initiators` is the number of those who waited
    /// for a part.
    pub fn served(&mut self, rows: usize, initiators: usize) {
        if self.waiting.is_empty() {
            self.clock = 0;
            return;
        }
        let each = virtual_time(rows).checked_div(initiators.try_into().unwrap_or(u64::MAX)).unwrap_or(0);
        self.clock = self.clock.saturating_add(each.max(1));
    }

    /// The number of those who wait.
    pub fn initiators(&self) -> usize {
        self.shares.len()
    }

    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    fn joins(&mut self, initiator: UserId) -> &mut Share {
        let share = self.shares.entry(initiator).or_insert(Share { ends_at: 0, postings: 0 });
        share.postings = share.postings.saturating_add(1);
        share
    }

    fn has_left(&mut self, initiator: UserId) {
        let Some(share) = self.shares.get_mut(&initiator) else { return };
        share.postings = share.postings.saturating_sub(1);
        if share.postings == 0 {
            self.shares.remove(&initiator);
        }
    }
}

fn virtual_time(rows: usize) -> u64 {
    u64::try_from(rows).unwrap_or(u64::MAX).saturating_mul(ROW)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;
    use uuid::Uuid;

    fn user(n: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(n))
    }

    fn pop(queue: &mut FairQueue<u32>) -> Option<u32> {
        queue.pop().map(|waiting| waiting.posting)
    }

    fn pop_all(queue: &mut FairQueue<u32>) -> Vec<u32> {
        std::iter::from_fn(|| pop(queue)).collect()
    }

    #[test]
    fn equal_postings_come_in_the_order_of_their_arrival_and_small_ones_before_large_ones() {
        let mut queue = FairQueue::default();
        for (initiator, rows, posting) in [(1, 100, 10), (2, 100, 20), (3, 1, 30), (4, 2, 40), (5, 1, 50)] {
            queue.push(user(initiator), rows, posting);
        }
        assert_eq!(pop_all(&mut queue), [30, 50, 40, 10, 20]);
    }

    #[test]
    fn initiators_take_turns_and_each_keeps_its_order() {
        let mut queue = FairQueue::default();
        (10..15).for_each(|posting| queue.push(user(1), 1, posting));
        queue.push(user(2), 100, 20);
        queue.push(user(2), 1, 21);
        queue.push(user(3), 1, 30);
        queue.push(user(3), 1, 31);
        assert_eq!(pop_all(&mut queue), [10, 30, 11, 31, 12, 13, 14, 20, 21]);
    }

    #[test]
    fn an_initiator_who_comes_later_has_no_claim_to_what_was_written_before() {
        let mut queue = FairQueue::default();
        (10..30).for_each(|posting| queue.push(user(1), 1, posting));
        assert_eq!((0..10).filter_map(|_| pop(&mut queue)).collect::<Vec<_>>(), (10..20).collect::<Vec<_>>());
        queue.served(10, 1);
        (40..43).for_each(|posting| queue.push(user(2), 1, posting));
        assert_eq!(pop_all(&mut queue)[..6], [20, 40, 21, 41, 22, 42]);
    }

    #[test]
    fn a_group_comes_when_everybody_else_has_had_as_many_rows() {
        let mut queue = FairQueue::default();
        queue.push(user(1), 100, 7);
        let mut rounds = 0;
        loop {
            rounds += 1;
            (10..20).for_each(|n| queue.push(user(n), 1, 0));
            let initiators = queue.initiators();
            let taken: Vec<_> = (0..10).filter_map(|_| pop(&mut queue)).collect();
            queue.served(10, initiators);
            if taken.contains(&7) {
                break;
            }
            assert!(rounds < 200, "it waits for ever");
        }
        assert!((100..=110).contains(&rounds), "{rounds} rounds of one row for each of the others");
    }

    #[test]
    fn postings_that_are_given_back_come_first() {
        let mut queue = FairQueue::default();
        (10..13).for_each(|posting| queue.push(user(1), 100, posting));
        let taken: Vec<_> = (0..2).filter_map(|_| queue.pop()).collect();
        queue.served(200, 1);
        queue.push(user(1), 1, 13);
        queue.push(user(2), 1, 20);
        for waiting in taken.into_iter().rev() {
            queue.give_back(waiting.initiator, waiting.posting);
        }
        let first = queue.pop().expect("a posting");
        assert_eq!(first.posting, 10);
        queue.give_back(first.initiator, first.posting);
        assert_eq!(pop_all(&mut queue)[..2], [10, 11], "also before what was given back earlier");
    }

    #[test]
    fn a_posting_that_is_put_back_has_its_place_again() {
        let mut queue = FairQueue::default();
        (10..13).for_each(|posting| queue.push(user(1), 1, posting));
        let first = queue.pop().expect("a posting");
        let second = queue.pop().expect("a posting");
        queue.put_back(second);
        queue.put_back(first);
        queue.push(user(1), 1, 13);
        assert_eq!(pop_all(&mut queue), [10, 11, 12, 13]);
    }

    #[derive(Clone, Copy, Debug)]
    enum Step {
        Push {
            initiator: u128,
            rows: usize,
        },
        /// Pops, and puts back every second one.
        Take {
            postings: usize,
        },
        TakeOf {
            initiator: u128,
        },
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u128..5, 1_usize..20).prop_map(|(initiator, rows)| Step::Push { initiator, rows }),
            2 => (1_usize..10).prop_map(|postings| Step::Take { postings }),
            1 => (0_u128..5).prop_map(|initiator| Step::TakeOf { initiator }),
        ]
    }

    proptest! {
        #[test]
        fn every_posting_comes_once_in_the_order_of_its_initiator(steps in proptest::collection::vec(step(), 0..200)) {
            let mut queue = FairQueue::default();
            let (mut pushed, mut came) = (0_u32, Vec::new());
            for step in steps {
                match step {
                    Step::Push { initiator, rows } => {
                        queue.push(user(initiator), rows, pushed);
                        pushed += 1;
                    }
                    Step::Take { postings } => {
                        let initiators = queue.initiators();
                        let mut back = Vec::new();
                        let mut back_of = HashSet::new();
                        for n in 0..postings {
                            let Some(waiting) = queue.pop() else { break };
                            if n % 2 == 1 || back_of.contains(&waiting.initiator) {
                                back_of.insert(waiting.initiator);
                                back.push(waiting);
                            } else {
                                came.push((waiting.initiator, waiting.posting));
                            }
                        }
                        for waiting in back {
                            queue.put_back(waiting);
                        }
                        queue.served(postings, initiators);
                    }
                    Step::TakeOf { initiator } => {
                        let taken = queue.take_of(|of| of == user(initiator));
                        prop_assert!(taken.iter().all(|waiting| waiting.initiator == user(initiator)));
                        came.extend(taken.into_iter().map(|waiting| (waiting.initiator, waiting.posting)));
                    }
                }
                let waiting: HashSet<_> = queue.waiting.values().map(|waiting| waiting.initiator).collect();
                prop_assert_eq!(waiting.len(), queue.initiators());
            }
            came.extend(std::iter::from_fn(|| queue.pop()).map(|waiting| (waiting.initiator, waiting.posting)));
            prop_assert!(queue.is_empty() && queue.initiators() == 0);
            let mut last = HashMap::new();
            for (initiator, posting) in &came {
                let before = last.insert(*initiator, *posting);
                prop_assert!(before < Some(*posting), "{} came after {:?}", posting, before);
            }
            prop_assert_eq!(came.len(), pushed as usize);
        }
    }
}
