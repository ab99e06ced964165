//! The order in which postings are taken into batches. Pure.
//!
//! Most postings go into a common batch, which skips every wallet that another transaction has locked. Initiators share it
//! fairly. A posting that needs a locked wallet is tried again in the next common batches. After a few in vain, or at once if
//! others wait for that wallet, its initiator is set aside: its postings wait in a line of their own, and the line waits for the
//! wallet. A set-aside batch waits for one wallet and takes the lines that wait for it. While an initiator is set aside none of its
//! postings enters a common batch, so they never overtake each other. Nothing is promised to a user who is only named by a posting
//! of another user.
//!
//! Several queues of a process, its lanes, may have a common batch in flight each. A posting whose wallet is in that of another
//! lane stays where it is, with all later ones of its initiator, until that batch has ended: the process need not ask the
//! database what it knows. After a few batches without it, it is taken nevertheless, and set aside if need be.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet, VecDeque};

use crate::kernel::UserId;
use crate::wallet::application::fair_queue::{FairQueue, Waiting};

/// Set-aside batches that leave a posting undecided, each because of another wallet, before it waits for all of its wallets.
const VAIN_TRIES_MAX: u8 = 3;
/// Common batches that leave a posting behind because of another lane, before one takes it nevertheless.
const LEFT_BEHIND_MAX: u8 = 3;
/// Common batches that leave a posting undecided before it is set aside. A set-aside batch costs a transaction, and another process
/// seldom has the same wallet for that long.
const COMMON_TRIES_MAX: u8 = 4;

/// What the queue has to know of a posting.
pub trait Queued {
    /// Whose postings keep their order.
    fn initiator(&self) -> UserId;
    /// The number of entries that it may become.
    fn rows(&self) -> usize;
}

/// A posting that its batch could not decide.
#[derive(Debug)]
pub struct Undecided<T> {
    pub posting: T,
    /// A wallet of this posting, or of an earlier one of its initiator, that another transaction had locked.
    pub contested: UserId,
}

/// A batch that waits for a lock.
#[derive(Debug, PartialEq, Eq)]
pub struct SetAsideBatch<T> {
    pub postings: Vec<T>,
    pub turn: Turn,
}

/// The turn of a wallet, which ends when its batch has ended.
#[derive(Debug, PartialEq, Eq)]
pub struct Turn {
    /// The wallet to wait for.
    pub wallet: UserId,
    /// Whether to wait for every wallet of the batch, which then is a single posting.
    pub last_resort: bool,
    /// The initiators of the postings, with the number of postings of each.
    taken: Vec<(UserId, usize)>,
}

#[derive(Debug)]
struct Common<T> {
    posting: T,
    /// Common batches that left it behind.
    left_behind: u8,
    /// Common batches that left it undecided.
    vain_tries: u8,
}

/// The postings of a set-aside initiator, in the order of their arrival.
#[derive(Debug)]
struct Line<T> {
    postings: VecDeque<T>,
    /// Set-aside batches that left the first posting undecided.
    vain_tries: u8,
}

/// Waiting postings.
#[derive(Debug)]
pub struct PostingQueue<T> {
    common_tries_max: u8,
    common: FairQueue<Common<T>>,
    /// The initiators in the common batch whose postings an earlier one has left undecided, with the number of those batches.
    tried_again: HashMap<UserId, u8>,
    /// One per set-aside initiator. It is empty while all postings of the initiator are in a batch.
    lines: HashMap<UserId, Line<T>>,
    /// The wallets that have to be waited for, with the initiators whose first posting needs them. Each set-aside initiator is
    /// either here, once, or in a batch.
    contested: HashMap<UserId, VecDeque<UserId>>,
    /// The wallets of `contested` without a batch in flight, the one that has waited longest first.
    turns: VecDeque<UserId>,
}

impl<T> Default for PostingQueue<T> {
    fn default() -> Self {
        Self {
            common_tries_max: COMMON_TRIES_MAX,
            common: FairQueue::default(),
            tried_again: HashMap::new(),
            lines: HashMap::new(),
            contested: HashMap::new(),
            turns: VecDeque::new(),
        }
    }
}

impl<T: Queued> PostingQueue<T> {
    pub fn push(&mut self, posting: T) {
        let (initiator, rows) = (posting.initiator(), posting.rows());
        match self.lines.get_mut(&initiator) {
            Some(line) => line.postings.push_back(posting),
            None => self.common.push(initiator, rows, Common { posting, left_behind: 0, vain_tries: 0 }),
        }
    }

    /// Takes postings for a common batch until they have `rows_max` entries; the last one may pass that bound. The next common
    /// batch may be taken only after [`common_ended`](Self::common_ended). `is_busy` is whether a wallet of a posting is in the
    /// common batch of another lane.
    pub fn take_common(&mut self, rows_max: usize, is_busy: impl Fn(&T) -> bool) -> Vec<T> {
        let mut batch = BatchInMaking::new(rows_max);
        let (mut left, mut initiators_left) = (Vec::new(), HashSet::new());
        let initiators = self.common.initiators();
        while !batch.is_full() {
            let Some(mut waiting) = self.common.pop() else { break };
            let Common { posting, left_behind, vain_tries } = &mut waiting.posting;
            if initiators_left.contains(&waiting.initiator) || (*left_behind < LEFT_BEHIND_MAX && is_busy(posting)) {
                initiators_left.insert(waiting.initiator);
                *left_behind = left_behind.saturating_add(1);
                left.push(waiting);
            } else {
                if *vain_tries > 0 {
                    self.tried_again.insert(waiting.initiator, *vain_tries);
                }
                batch.take(waiting.posting.posting);
            }
        }
        for waiting in left {
            self.common.put_back(waiting);
        }
        self.common.served(batch.rows, initiators);
        batch.postings
    }

    /// Whether anything waits for a common batch.
    pub fn has_common(&self) -> bool {
        !self.common.is_empty()
    }

    /// A common batch has ended. `undecided` are those of its postings, in their order, and all later ones of the same
    /// initiators. The next batch tries them again; or their initiators are set aside, with all of their waiting postings. Returns how
    /// many of them are set aside.
    pub fn common_ended(&mut self, undecided: Vec<Undecided<T>>) -> usize {
        let tried_again = std::mem::take(&mut self.tried_again);
        let count = undecided.len();
        let (mut again, mut goes_again) = (Vec::new(), HashMap::new());
        for Undecided { posting, contested } in undecided {
            let initiator = posting.initiator();
            let vain_tries = tried_again.get(&initiator).unwrap_or(&0).saturating_add(1);
            // A wallet that others wait for would be locked again. The first posting decides for all of its initiator.
            let is_tried_again = *goes_again
                .entry(initiator)
                .or_insert_with(|| vain_tries < self.common_tries_max && !self.contested.contains_key(&contested));
            if is_tried_again {
                again.push((initiator, Common { posting, left_behind: 0, vain_tries }));
                continue;
            }
            if let Entry::Vacant(line) = self.lines.entry(initiator) {
                line.insert(Line { postings: VecDeque::new(), vain_tries: 0 });
                self.wait_for(contested, initiator);
            }
            self.push(posting);
        }
        let count = count.saturating_sub(again.len());
        for (initiator, posting) in again.into_iter().rev() {
            self.common.give_back(initiator, posting);
        }
        if count == 0 {
            return 0;
        }
        for Waiting { posting: Common { posting, .. }, .. } in
            self.common.take_of(|initiator| self.lines.contains_key(&initiator))
        {
            self.push(posting);
        }
        count
    }

    /// Takes postings for a batch of the contested wallet that has waited longest, in the same way. The wallet has no further
    /// batch until [`set_aside_ended`](Self::set_aside_ended).
    pub fn take_set_aside(&mut self, rows_max: usize) -> Option<SetAsideBatch<T>> {
        let wallet = self.turns.pop_front()?;
        let waiting = self.contested.get_mut(&wallet)?;
        let mut batch = BatchInMaking::new(rows_max);
        let mut turn = Turn { wallet, last_resort: false, taken: Vec::new() };
        while !batch.is_full() {
            let Some(initiator) = waiting.pop_front() else { break };
            let Some(line) = self.lines.get_mut(&initiator) else { continue };
            if line.vain_tries >= VAIN_TRIES_MAX {
                if batch.postings.is_empty() {
                    turn.last_resort = true;
                    turn.taken.push((initiator, 1));
                    batch.postings.extend(line.postings.pop_front());
                } else {
                    waiting.push_front(initiator);
                }
                break;
            }
            turn.taken.push((initiator, batch.take_from(&mut line.postings)));
        }
        Some(SetAsideBatch { postings: batch.postings, turn })
    }

    /// The batch of `turn` has ended. `undecided` are as for [`common_ended`](Self::common_ended). An initiator without further
    /// postings is no longer set aside.
    pub fn set_aside_ended(&mut self, turn: &Turn, undecided: Vec<Undecided<T>>) {
        let mut undecided_of: HashMap<UserId, VecDeque<Undecided<T>>> = HashMap::new();
        for posting in undecided {
            undecided_of.entry(posting.posting.initiator()).or_default().push_back(posting);
        }
        for (initiator, taken) in &turn.taken {
            let undecided = undecided_of.remove(initiator).unwrap_or_default();
            let Some(line) = self.lines.get_mut(initiator) else { continue };
            let was_in_vain = undecided.len() == *taken;
            line.vain_tries = match undecided.is_empty() {
                true => 0,
                false if was_in_vain => line.vain_tries.saturating_add(1),
                false => 1,
            };
            let contested = undecided.front().map(|first| first.contested);
            for Undecided { posting, .. } in undecided.into_iter().rev() {
                line.postings.push_front(posting);
            }
            if line.postings.is_empty() {
                self.lines.remove(initiator);
            } else {
                // What has arrived meanwhile waits for the initiator's own wallet, which it needs in any case.
                self.wait_for(contested.unwrap_or(*initiator), *initiator);
            }
        }
        match self.contested.get(&turn.wallet) {
            Some(waiting) if waiting.is_empty() => {
                self.contested.remove(&turn.wallet);
            }
            Some(_) => self.turns.push_back(turn.wallet),
            None => {}
        }
    }

    /// Postings that were taken do not count.
    pub fn is_empty(&self) -> bool {
        self.common.is_empty() && self.lines.values().all(|line| line.postings.is_empty())
    }

    /// At the end, also after a try in vain: nobody who waits for the wallet is overtaken.
    fn wait_for(&mut self, wallet: UserId, initiator: UserId) {
        let waiting = self.contested.entry(wallet).or_insert_with(|| {
            self.turns.push_back(wallet);
            VecDeque::new()
        });
        waiting.push_back(initiator);
    }
}

struct BatchInMaking<T> {
    postings: Vec<T>,
    rows: usize,
    rows_max: usize,
}

impl<T: Queued> BatchInMaking<T> {
    const fn new(rows_max: usize) -> Self {
        Self { postings: Vec::new(), rows: 0, rows_max }
    }

    const fn is_full(&self) -> bool {
        self.rows >= self.rows_max
    }

    /// Returns how many were taken.
    fn take_from(&mut self, waiting: &mut VecDeque<T>) -> usize {
        let mut taken = 0_usize;
        while !self.is_full() {
            let Some(posting) = waiting.pop_front() else { break };
            self.take(posting);
            taken = taken.saturating_add(1);
        }
        taken
    }

    fn take(&mut self, posting: T) {
        self.rows = self.rows.saturating_add(posting.rows());
        self.postings.push(posting);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;
    use uuid::Uuid;

    fn user(n: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(n))
    }

    #[derive(Clone, Debug, PartialEq, Eq)]
    struct Post {
        number: usize,
        initiator: u128,
        /// Whom it names.
        other: Option<u128>,
        rows: usize,
    }

    impl Queued for Post {
        fn initiator(&self) -> UserId {
            user(self.initiator)
        }

        fn rows(&self) -> usize {
            self.rows
        }
    }

    impl Post {
        fn wallets(&self) -> impl Iterator<Item = UserId> {
            std::iter::once(self.initiator).chain(self.other).map(user)
        }
    }

    fn own(number: usize, initiator: u128) -> Post {
        Post { number, initiator, other: None, rows: 1 }
    }

    fn transfer(number: usize, initiator: u128, other: u128) -> Post {
        Post { number, initiator, other: Some(other), rows: 2 }
    }

    fn numbers(posts: &[Post]) -> Vec<usize> {
        posts.iter().map(|post| post.number).collect()
    }

    fn undecided(contested: u128, posts: impl IntoIterator<Item = Post>) -> Vec<Undecided<Post>> {
        posts.into_iter().map(|posting| Undecided { posting, contested: user(contested) }).collect()
    }

    /// A queue that tries nothing again in a common batch.
    fn setting_aside_at_once() -> PostingQueue<Post> {
        PostingQueue { common_tries_max: 1, ..PostingQueue::default() }
    }

    /// A queue whose postings have all been set aside because of `contested`.
    fn all_set_aside(contested: u128, posts: impl IntoIterator<Item = Post>) -> PostingQueue<Post> {
        let mut queue = setting_aside_at_once();
        posts.into_iter().for_each(|post| queue.push(post));
        let batch = queue.take_common(usize::MAX, |_| false);
        queue.common_ended(undecided(contested, batch));
        queue
    }

    /// Takes a set-aside batch: the wallet that it waits for, whether for all of them, and its postings.
    fn take(queue: &mut PostingQueue<Post>, rows_max: usize) -> (Turn, Vec<usize>) {
        let batch = queue.take_set_aside(rows_max).expect("a batch");
        (batch.turn, numbers(&batch.postings))
    }

    #[test]
    fn a_common_batch_takes_postings_in_the_order_of_their_arrival() {
        let mut queue = PostingQueue::default();
        (0..5).for_each(|n| queue.push(own(n, n as u128 % 2)));
        assert_eq!(numbers(&queue.take_common(3, |_| false)), [0, 1, 2]);
        assert_eq!(numbers(&queue.take_common(3, |_| false)), [3, 4]);
        assert!(queue.is_empty());
    }

    #[test]
    fn a_batch_is_full_when_its_rows_reach_the_bound_and_no_group_is_split() {
        let posts = || (0..3).map(|n| Post { rows: 3, ..own(n, 7) });
        let mut queue = PostingQueue::default();
        posts().for_each(|post| queue.push(post));
        assert_eq!(numbers(&queue.take_common(4, |_| false)), [0, 1], "six rows");
        assert_eq!(numbers(&queue.take_common(3, |_| false)), [2], "three rows");
        assert_eq!(take(&mut all_set_aside(7, posts()), 4).1, [0, 1]);
        assert_eq!(take(&mut all_set_aside(7, posts()), 3).1, [0]);
    }

    #[test]
    fn a_single_posting_is_in_the_next_common_batch_however_many_groups_wait() {
        let mut queue = PostingQueue::default();
        let group = |n: usize| Post { rows: 100, ..own(n, n as u128) };
        (0..32).for_each(|n| queue.push(group(n)));
        for round in 1..=40 {
            let singles: Vec<_> = (0..64).map(|n| 1_000 * round + n).collect();
            for n in &singles {
                queue.push(own(*n, *n as u128));
            }
            let batch = queue.take_common(512, |_| false);
            let (groups, taken): (Vec<_>, Vec<_>) = batch.into_iter().partition(|post| post.rows == 100);
            assert_eq!((numbers(&taken), groups.len()), (singles, 5), "the groups have the rest of the batch");
            for group in groups {
                queue.push(group);
            }
        }
    }

    #[test]
    fn an_undecided_posting_is_tried_again_before_all_others_and_then_set_aside_with_its_initiator() {
        let mut queue = PostingQueue::default();
        for post in [own(10, 1), transfer(11, 1, 9)] {
            queue.push(post);
        }
        for tried in 1..=COMMON_TRIES_MAX {
            let batch = queue.take_common(3, |_| false);
            assert_eq!(numbers(&batch), [10, 11], "try {tried}");
            queue.push(own(20 + usize::from(tried), 2));
            queue.push(own(30 + usize::from(tried), 1));
            queue.common_ended(undecided(9, batch));
        }
        assert_eq!(numbers(&queue.take_common(9, |_| false)), [21, 22, 23, 24]);
        let (turn, posts) = take(&mut queue, 9);
        assert_eq!((turn.wallet, posts), (user(9), vec![10, 11, 31, 32, 33, 34]));
    }

    #[test]
    fn a_posting_whose_wallet_is_waited_for_already_is_set_aside_at_once() {
        let mut queue = PostingQueue::default();
        queue.push(transfer(10, 1, 9));
        for _ in 0..COMMON_TRIES_MAX {
            let batch = queue.take_common(9, |_| false);
            queue.common_ended(undecided(9, batch));
        }
        for post in [transfer(20, 2, 9), own(30, 3)] {
            queue.push(post);
        }
        let mut batch = queue.take_common(9, |_| false);
        let other = batch.remove(0);
        assert_eq!(queue.common_ended([undecided(9, batch), undecided(3, [other])].into_iter().flatten().collect()), 1);
        assert_eq!(numbers(&queue.take_common(9, |_| false)), [30], "nobody waits for this wallet");
        assert_eq!(take(&mut queue, 9).1, [10, 20]);
    }

    #[test]
    fn what_is_tried_again_comes_before_the_rest_of_what_was_given_back_with_it() {
        let mut queue = PostingQueue::default();
        for n in 10..13 {
            queue.push(own(n, 1));
        }
        let batch = queue.take_common(9, |_| false);
        queue.common_ended(undecided(1, batch));
        let batch = queue.take_common(1, |_| false);
        assert_eq!(numbers(&batch), [10]);
        queue.common_ended(undecided(1, batch));
        assert_eq!(numbers(&queue.take_common(9, |_| false)), [10, 11, 12]);
    }

    #[test]
    fn tries_of_an_earlier_posting_do_not_count_for_a_later_one() {
        let mut queue = PostingQueue::default();
        queue.push(own(10, 1));
        for _ in 1..COMMON_TRIES_MAX {
            let batch = queue.take_common(9, |_| false);
            queue.common_ended(undecided(1, batch));
        }
        assert_eq!(numbers(&queue.take_common(9, |_| false)), [10]);
        queue.push(own(11, 1));
        queue.common_ended(Vec::new());
        let batch = queue.take_common(9, |_| false);
        queue.common_ended(undecided(1, batch));
        assert_eq!(numbers(&queue.take_common(9, |_| false)), [11], "it is not set aside");
    }

    #[test]
    fn postings_of_a_set_aside_initiator_never_overtake_each_other() {
        let mut queue = setting_aside_at_once();
        queue.push(own(10, 1));
        queue.push(own(20, 2));
        let mut in_flight = queue.take_common(2, |_| false);
        queue.push(own(11, 1));
        queue.push(own(21, 2));
        queue.common_ended(undecided(1, in_flight.drain(..1)));
        queue.push(own(12, 1));
        assert_eq!(numbers(&queue.take_common(9, |_| false)), [21], "the other initiator continues");
        let (turn, posts) = take(&mut queue, 2);
        assert_eq!(posts, [10, 11]);
        queue.push(own(13, 1));
        assert_eq!(queue.take_common(9, |_| false), [], "none of its postings enters a common batch meanwhile");
        assert_eq!(queue.take_set_aside(9), None, "and it has no second batch at the same time");
        queue.set_aside_ended(&turn, Vec::new());
        let (turn, posts) = take(&mut queue, 9);
        assert_eq!((posts, turn.wallet), (vec![12, 13], user(1)));
        queue.set_aside_ended(&turn, Vec::new());
        queue.push(own(14, 1));
        assert_eq!(numbers(&queue.take_common(9, |_| false)), [14], "then it is no longer set aside");
        assert!(queue.is_empty());
    }

    #[test]
    fn a_user_who_is_only_named_by_a_set_aside_posting_is_not_set_aside() {
        let mut queue = all_set_aside(2, [transfer(10, 1, 2)]);
        queue.push(own(20, 2));
        queue.push(own(11, 1));
        assert_eq!(numbers(&queue.take_common(9, |_| false)), [20]);
        assert_eq!(take(&mut queue, 9).1, [10, 11]);
    }

    #[test]
    fn one_batch_of_a_contested_wallet_takes_the_lines_of_many_senders() {
        let senders = 1..=40;
        let mut queue = all_set_aside(0, senders.clone().map(|n| transfer(n, n as u128, 0)));
        let (turn, posts) = take(&mut queue, 100);
        assert_eq!((turn.wallet, turn.last_resort, posts), (user(0), false, senders.collect::<Vec<_>>()));
        assert_eq!(queue.take_set_aside(100), None);
        queue.set_aside_ended(&turn, Vec::new());
        queue.push(own(41, 40));
        assert_eq!(numbers(&queue.take_common(9, |_| false)), [41], "no sender is set aside any more");
    }

    #[test]
    fn contested_wallets_take_turns_and_so_do_the_initiators_who_wait_for_one() {
        let mut queue = all_set_aside(1, [own(10, 1), own(11, 1), transfer(30, 3, 1), transfer(40, 4, 1)]);
        queue.push(own(20, 2));
        let batch = queue.take_common(1, |_| false);
        queue.common_ended(undecided(2, batch));
        let (first, posts) = take(&mut queue, 1);
        assert_eq!((first.wallet, posts), (user(1), vec![10]));
        queue.set_aside_ended(&first, Vec::new());
        let (second, posts) = take(&mut queue, 1);
        assert_eq!((second.wallet, posts), (user(2), vec![20]));
        let (third, posts) = take(&mut queue, 1);
        assert_eq!((third.wallet, posts), (user(1), vec![30]));
        queue.set_aside_ended(&third, Vec::new());
        queue.set_aside_ended(&second, Vec::new());
        let (fourth, posts) = take(&mut queue, 1);
        assert_eq!(posts, [40], "before what was left of the first initiator");
        queue.set_aside_ended(&fourth, Vec::new());
        assert_eq!(take(&mut queue, 1).1, [11]);
    }

    #[test]
    fn a_sender_is_not_starved_by_others_who_keep_naming_the_same_wallet() {
        let mut queue = all_set_aside(0, (1..=6).map(|n| transfer(n, n as u128, 0)));
        for served in 1..=3 {
            // As many arrive as are served, and those who were served in vain wait again.
            let SetAsideBatch { postings, turn } = queue.take_set_aside(4).expect("a batch");
            assert_eq!(numbers(&postings), [2 * served - 1, 2 * served]);
            for n in [10 * served, 10 * served + 1] {
                queue.push(transfer(n, n as u128, 0));
            }
            let batch = queue.take_common(9, |_| false);
            queue.common_ended(undecided(0, batch));
            queue.set_aside_ended(&turn, undecided(0, postings));
        }
    }

    /// Tries a transfer of user 1 to user 2 in vain once per contested wallet.
    fn tried_in_vain(queue: &mut PostingQueue<Post>, contested: &[u128]) {
        for (contested, waited_for) in contested.iter().zip([2, 1, 2]) {
            let SetAsideBatch { postings, turn } = queue.take_set_aside(9).expect("a batch");
            assert_eq!((turn.wallet, turn.last_resort), (user(waited_for), false));
            queue.set_aside_ended(&turn, undecided(*contested, postings));
        }
    }

    #[test]
    fn after_three_tries_in_vain_a_posting_alone_waits_for_all_of_its_wallets() {
        let mut queue = all_set_aside(2, [transfer(10, 1, 2), own(11, 1)]);
        tried_in_vain(&mut queue, &[1, 2, 1]);
        let (turn, posts) = take(&mut queue, 9);
        assert_eq!((turn.last_resort, turn.wallet, posts), (true, user(1), vec![10]));
        queue.set_aside_ended(&turn, Vec::new());
        let (turn, posts) = take(&mut queue, 9);
        assert_eq!((turn.last_resort, posts), (false, vec![11]), "the next one has not been tried in vain");
    }

    #[test]
    fn a_try_that_decides_an_earlier_posting_of_the_initiator_is_the_first_one_in_vain() {
        let mut queue = all_set_aside(2, [transfer(10, 1, 2), transfer(11, 1, 2)]);
        tried_in_vain(&mut queue, &[1, 2]);
        let SetAsideBatch { mut postings, turn } = queue.take_set_aside(9).expect("a batch");
        queue.set_aside_ended(&turn, undecided(1, postings.drain(1..)));
        for (waited_for, last_resort) in [(1, false), (2, false), (1, true)] {
            let SetAsideBatch { postings, turn } = queue.take_set_aside(9).expect("a batch");
            assert_eq!((turn.wallet, turn.last_resort, numbers(&postings)), (user(waited_for), last_resort, vec![11]));
            queue.set_aside_ended(&turn, undecided(3 - waited_for, postings));
        }
    }

    #[test]
    fn a_posting_of_last_resort_shares_its_batch_with_no_other() {
        let others_set_aside = |queue: &mut PostingQueue<Post>| {
            queue.push(transfer(30, 3, 1));
            let batch = queue.take_common(9, |_| false);
            queue.common_ended(undecided(1, batch));
        };
        let mut queue = all_set_aside(2, [transfer(10, 1, 2)]);
        tried_in_vain(&mut queue, &[1, 2, 1]);
        others_set_aside(&mut queue);
        let (turn, posts) = take(&mut queue, 9);
        assert_eq!((turn.last_resort, posts), (true, vec![10]), "before the other one");
        queue.set_aside_ended(&turn, Vec::new());
        assert_eq!(take(&mut queue, 9).1, [30]);

        let mut queue = all_set_aside(2, [transfer(10, 1, 2)]);
        tried_in_vain(&mut queue, &[1, 2]);
        let SetAsideBatch { postings, turn } = queue.take_set_aside(9).expect("a batch");
        others_set_aside(&mut queue);
        queue.set_aside_ended(&turn, undecided(1, postings));
        let (turn, posts) = take(&mut queue, 9);
        assert_eq!((turn.last_resort, posts), (false, vec![30]), "after the other one");
        queue.set_aside_ended(&turn, Vec::new());
        let (turn, posts) = take(&mut queue, 9);
        assert_eq!((turn.last_resort, posts), (true, vec![10]));
    }

    #[test]
    fn a_posting_whose_wallet_is_in_the_batch_of_another_lane_stays_with_the_later_ones_of_its_initiator() {
        let is_busy = |post: &Post| post.wallets().any(|wallet| wallet == user(9));
        let mut queue = PostingQueue::default();
        for post in [own(10, 1), transfer(11, 1, 9), own(12, 1), own(20, 2), own(21, 9)] {
            queue.push(post);
        }
        assert_eq!(numbers(&queue.take_common(9, is_busy)), [10, 20]);
        queue.push(own(13, 1));
        assert_eq!(numbers(&queue.take_common(9, |_| false)), [21, 11, 12, 13], "once that batch has ended");
    }

    #[test]
    fn a_posting_that_is_left_behind_again_and_again_is_taken_nevertheless() {
        let mut queue = PostingQueue::default();
        queue.push(own(10, 1));
        queue.push(own(11, 1));
        for _ in 0..LEFT_BEHIND_MAX {
            assert_eq!(queue.take_common(9, |_| true), []);
            assert!(queue.has_common());
        }
        queue.push(own(12, 1));
        queue.push(own(20, 2));
        assert_eq!(numbers(&queue.take_common(9, |_| true)), [10, 11], "the later ones have their own turn");
        assert_eq!(numbers(&queue.take_common(9, |_| false)), [20, 12]);
    }

    #[test]
    fn a_posting_that_was_left_behind_is_set_aside_with_its_initiator() {
        let mut queue = setting_aside_at_once();
        for post in [own(10, 1), transfer(11, 1, 9)] {
            queue.push(post);
        }
        let batch = queue.take_common(9, |post| post.other.is_some());
        queue.common_ended(undecided(1, batch));
        assert_eq!(queue.take_common(9, |_| false), []);
        assert_eq!(take(&mut queue, 9).1, [10, 11]);
    }

    #[test]
    fn it_is_empty_when_neither_common_nor_set_aside_postings_wait() {
        let mut queue = setting_aside_at_once();
        assert!(queue.is_empty());
        queue.push(own(10, 1));
        assert!(!queue.is_empty(), "a posting for a common batch waits");
        let batch = queue.take_common(1, |_| false);
        assert!(queue.is_empty());
        queue.common_ended(undecided(1, batch));
        assert!(!queue.is_empty(), "a posting of a set-aside initiator waits");
        queue.take_set_aside(1);
        assert!(queue.is_empty());
    }

    const USERS: u128 = 6;
    const PROCESSES: usize = 2;
    const SET_ASIDE_IN_FLIGHT_MAX: usize = 2;

    /// A batch as the database sees it.
    struct Batch {
        process: usize,
        posts: Vec<Post>,
        wallets: BTreeSet<UserId>,
        /// `None` for a common batch.
        turn: Option<Turn>,
        /// The wallets that it has still to wait for, in this order.
        to_wait_for: VecDeque<UserId>,
        locked: BTreeSet<UserId>,
        /// Set when it has all the locks that it gets.
        undecided: Option<Vec<Undecided<Post>>>,
    }

    /// Two processes, or two lanes of one, over the same wallets, with an interleaving that is given step by step, and somebody
    /// else who locks wallets for a while, one at a time.
    struct Model {
        are_lanes: bool,
        rows_max: usize,
        queues: [PostingQueue<Post>; PROCESSES],
        batches: Vec<Batch>,
        elsewhere: Option<UserId>,
        pushed: usize,
        /// With the process, in the order in which they were decided.
        decided: Vec<(usize, Post)>,
        vain_tries: HashMap<usize, u8>,
    }

    impl Model {
        fn new(are_lanes: bool, rows_max: usize, common_tries_max: u8) -> Self {
            let queue = || PostingQueue { common_tries_max, ..PostingQueue::default() };
            Self {
                are_lanes,
                rows_max,
                queues: [queue(), queue()],
                batches: Vec::new(),
                elsewhere: None,
                pushed: 0,
                decided: Vec::new(),
                vain_tries: HashMap::new(),
            }
        }

        fn is_locked(&self, wallet: UserId) -> bool {
            self.elsewhere == Some(wallet) || self.batches.iter().any(|batch| batch.locked.contains(&wallet))
        }

        fn push(&mut self, process: usize, choice: usize) {
            let initiator = choice as u128 % USERS;
            // Half of the postings name somebody, and half of these the same user.
            let other = match choice / 7 % 4 {
                0 | 1 => None,
                2 => Some(0),
                _ => Some(choice as u128 / 28 % USERS),
            };
            let rows = if choice.is_multiple_of(11) { 5 } else { 1 };
            let other = other.filter(|other| *other != initiator);
            self.queues[process].push(Post { number: self.pushed, initiator, other, rows });
            self.pushed += 1;
        }

        fn begin(&mut self, process: usize, set_aside: bool) {
            let in_flight = |batch: &&Batch| batch.process == process && batch.turn.is_some() == set_aside;
            let in_flight = self.batches.iter().filter(in_flight).count();
            if in_flight >= if set_aside { SET_ASIDE_IN_FLIGHT_MAX } else { 1 } {
                return;
            }
            let (posts, turn) = if set_aside {
                let Some(batch) = self.queues[process].take_set_aside(self.rows_max) else { return };
                (batch.postings, Some(batch.turn))
            } else {
                let others = self.batches.iter().filter(|batch| batch.process != process && batch.turn.is_none());
                let busy: HashSet<_> =
                    others.filter(|_| self.are_lanes).flat_map(|batch| batch.wallets.clone()).collect();
                let is_busy = |post: &Post| post.wallets().any(|wallet| busy.contains(&wallet));
                (self.queues[process].take_common(self.rows_max, is_busy), None)
            };
            let Some((last, others)) = posts.split_last() else {
                assert!(!set_aside, "a set-aside batch is never empty");
                return;
            };
            let rows: usize = others.iter().map(|post| post.rows).sum();
            assert!(rows < self.rows_max, "{rows} rows were enough before {last:?}");
            let to_wait_for = match &turn {
                None => VecDeque::new(),
                Some(turn) if turn.last_resort => {
                    assert_eq!(posts.len(), 1);
                    last.wallets().collect::<BTreeSet<_>>().into_iter().collect()
                }
                Some(turn) => VecDeque::from([turn.wallet]),
            };
            let (wallets, locked) = (posts.iter().flat_map(Post::wallets).collect(), BTreeSet::new());
            self.batches.push(Batch { process, posts, wallets, turn, to_wait_for, locked, undecided: None });
        }

        /// Takes the batch one step further, unless it has to wait.
        fn advance(&mut self, index: usize) {
            let Some(batch) = self.batches.get(index) else { return };
            if batch.undecided.is_some() {
                return self.end(index);
            }
            if let Some(wallet) = batch.to_wait_for.front().copied() {
                if !self.is_locked(wallet) {
                    let batch = &mut self.batches[index];
                    batch.locked.extend(batch.to_wait_for.pop_front());
                }
                return;
            }
            let free: Vec<_> = batch.wallets.iter().copied().filter(|wallet| !self.is_locked(*wallet)).collect();
            let batch = &mut self.batches[index];
            batch.locked.extend(free);
            let mut blocked = HashMap::new();
            let mut undecided = Vec::new();
            for post in batch.posts.drain(..) {
                let missing = post.wallets().find(|wallet| !batch.locked.contains(wallet));
                match blocked.get(&post.initiator).copied().or(missing) {
                    None => self.decided.push((batch.process, post)),
                    Some(contested) => {
                        blocked.insert(post.initiator, contested);
                        undecided.push(Undecided { posting: post, contested });
                    }
                }
            }
            batch.undecided = Some(undecided);
        }

        fn end(&mut self, index: usize) {
            let Batch { process, turn, undecided, .. } = self.batches.swap_remove(index);
            let undecided = undecided.expect("it was decided");
            let Some(turn) = turn else {
                self.queues[process].common_ended(undecided);
                return;
            };
            let mut first_of = HashSet::new();
            for Undecided { posting, .. } in &undecided {
                if first_of.insert(posting.initiator) {
                    let tries = self.vain_tries.entry(posting.number).or_default();
                    *tries += 1;
                    assert!(*tries <= 3, "{posting:?} was tried in vain {tries} times");
                }
            }
            self.queues[process].set_aside_ended(&turn, undecided);
        }

        fn step(&mut self, choice: usize) {
            let (action, choice) = (choice % 9, choice / 9);
            let process = choice % PROCESSES;
            match action {
                0..=2 => self.push(process, choice / PROCESSES),
                3 => self.begin(process, false),
                4 => self.begin(process, true),
                8 => {
                    let wallet = user(choice as u128 % (2 * USERS));
                    self.elsewhere = Some(wallet).filter(|wallet| !self.is_locked(*wallet));
                }
                _ => self.advance(choice % self.batches.len().max(1)),
            }
        }

        /// Ends when nothing waits any more.
        fn drain(&mut self) {
            self.elsewhere = None;
            let mut rounds = 0;
            while !self.batches.is_empty() || self.queues.iter().any(|queue| !queue.is_empty()) {
                for process in 0..PROCESSES {
                    self.begin(process, true);
                    self.begin(process, false);
                }
                for index in (0..self.batches.len()).rev() {
                    self.advance(index);
                }
                rounds += 1;
                assert!(rounds <= 100 + 20 * self.pushed, "{} of {} decided", self.decided.len(), self.pushed);
            }
        }
    }

    proptest! {
        #[test]
        fn every_posting_is_decided_once_in_the_order_of_its_initiator_and_none_waits_for_ever(
            choices in proptest::collection::vec(0_usize..100_000, 0..600),
            are_lanes: bool,
            rows_max in 1_usize..12,
            common_tries_max in 1..=COMMON_TRIES_MAX,
        ) {
            let mut model = Model::new(are_lanes, rows_max, common_tries_max);
            for choice in choices {
                model.step(choice);
            }
            model.drain();
            let decided: BTreeSet<_> = model.decided.iter().map(|(_, post)| post.number).collect();
            prop_assert_eq!((decided.len(), model.decided.len()), (model.pushed, model.pushed));
            let mut last = HashMap::new();
            for (process, post) in &model.decided {
                let before = last.insert((process, post.initiator), post.number);
                prop_assert!(before < Some(post.number), "{:?} was decided after {:?}", post, before);
            }
            for queue in &model.queues {
                prop_assert!(queue.lines.is_empty() && queue.contested.is_empty() && queue.turns.is_empty());
            }
        }
    }
}
