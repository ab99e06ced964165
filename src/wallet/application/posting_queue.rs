//! The order in which posts are taken into batches. Pure.
//!
//! The posts of most wallets go into a common batch. A wallet that another process has locked is set aside with all of
//! its posts, and these are written in batches of their own until none is left. Until then none of them may enter a
//! common batch, so posts of one wallet never overtake each other.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::kernel::UserId;

/// Waiting posts, in the order of their arrival.
#[derive(Debug)]
pub struct PostingQueue<T> {
    common: VecDeque<(UserId, T)>,
    set_aside: HashMap<UserId, VecDeque<T>>,
    /// Set-aside wallets without a batch at the moment, oldest first.
    unserved: VecDeque<UserId>,
}

impl<T> Default for PostingQueue<T> {
    fn default() -> Self {
        Self { common: VecDeque::new(), set_aside: HashMap::new(), unserved: VecDeque::new() }
    }
}

impl<T> PostingQueue<T> {
    pub fn push(&mut self, user: UserId, post: T) {
        match self.set_aside.get_mut(&user) {
            Some(posts) => posts.push_back(post),
            None => self.common.push_back((user, post)),
        }
    }

    /// Takes up to `most` posts for a common batch.
    pub fn take_common(&mut self, most: usize) -> Vec<T> {
        let count = self.common.len().min(most);
        self.common.drain(..count).map(|(_, post)| post).collect()
    }

    /// Sets wallets aside whose posts a common batch left undecided. Waiting posts of these wallets follow.
    pub fn set_aside(&mut self, undecided: Vec<(UserId, T)>) {
        let users: HashSet<UserId> = undecided.iter().map(|(user, _)| *user).collect();
        let waiting = std::mem::take(&mut self.common);
        let (later, free): (VecDeque<_>, VecDeque<_>) = waiting.into_iter().partition(|(user, _)| users.contains(user));
        self.common = free;
        for (user, post) in undecided.into_iter().chain(later) {
            if !self.set_aside.contains_key(&user) {
                self.unserved.push_back(user);
            }
            self.set_aside.entry(user).or_default().push_back(post);
        }
    }

    /// Takes up to `most` posts of the set-aside wallet that has waited longest. The wallet has no further batch until
    /// [`served`](Self::served).
    pub fn take_set_aside(&mut self, most: usize) -> Option<(UserId, Vec<T>)> {
        let user = self.unserved.pop_front()?;
        let posts = self.set_aside.get_mut(&user)?;
        let count = posts.len().min(most);
        Some((user, posts.drain(..count).collect()))
    }

    /// The batch of a set-aside wallet is done: with posts left the wallet waits for its next turn, else it is no longer
    /// set aside.
    pub fn served(&mut self, user: UserId) {
        match self.set_aside.get(&user) {
            Some(posts) if posts.is_empty() => {
                self.set_aside.remove(&user);
            }
            Some(_) => self.unserved.push_back(user),
            None => {}
        }
    }

    /// Posts that were taken do not count.
    pub fn is_empty(&self) -> bool {
        self.common.is_empty() && self.set_aside.values().all(VecDeque::is_empty)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn user(n: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(n))
    }

    #[test]
    fn the_common_batch_takes_posts_in_the_order_of_their_arrival() {
        let mut queue = PostingQueue::default();
        (0..5).for_each(|n| queue.push(user(n % 2), n));
        assert_eq!(queue.take_common(3), [0, 1, 2]);
        assert_eq!(queue.take_common(3), [3, 4]);
        assert!(queue.is_empty());
    }

    #[test]
    fn posts_of_a_locked_wallet_never_overtake_each_other() {
        let mut queue = PostingQueue::default();
        queue.push(user(1), 10);
        queue.push(user(2), 20);
        let _in_flight = queue.take_common(2);
        queue.push(user(1), 11);
        queue.push(user(2), 21);
        queue.set_aside(vec![(user(1), 10)]);
        queue.push(user(1), 12);
        assert_eq!(queue.take_common(9), [21], "the other wallet continues");
        assert_eq!(queue.take_set_aside(2), Some((user(1), vec![10, 11])));
        queue.push(user(1), 13);
        assert_eq!(queue.take_common(9), Vec::<i32>::new(), "none of its posts enters a common batch meanwhile");
        assert_eq!(queue.take_set_aside(2), None, "and it has no second batch at the same time");
        queue.served(user(1));
        assert_eq!(queue.take_set_aside(9), Some((user(1), vec![12, 13])));
        queue.served(user(1));
        queue.push(user(1), 14);
        assert_eq!(queue.take_common(9), [14], "then it is no longer set aside");
        assert!(queue.is_empty());
    }

    #[test]
    fn it_is_empty_when_neither_common_nor_set_aside_posts_wait() {
        let mut queue = PostingQueue::default();
        assert!(queue.is_empty());
        queue.push(user(1), 10);
        assert!(!queue.is_empty(), "a post for a common batch waits");
        let batch = queue.take_common(1);
        queue.set_aside(batch.into_iter().map(|post| (user(1), post)).collect());
        assert!(!queue.is_empty(), "a post of a set-aside wallet waits");
        queue.take_set_aside(1);
        assert!(queue.is_empty());
    }

    #[test]
    fn set_aside_wallets_take_turns() {
        let mut queue = PostingQueue::default();
        queue.set_aside(vec![(user(1), 10), (user(2), 20), (user(1), 11)]);
        assert_eq!(queue.take_set_aside(1), Some((user(1), vec![10])));
        queue.served(user(1));
        assert_eq!(queue.take_set_aside(1), Some((user(2), vec![20])));
        assert_eq!(queue.take_set_aside(1), Some((user(1), vec![11])));
    }
}
