//! The order in which posts are taken into batches. Pure.
//!
//! Posts of free wallets go into the common batch. A wallet that another process holds is set aside with all of its
//! posts, and served alone until none is left; meanwhile nothing of it may enter the common batch, so posts of one
//! wallet never overtake each other.

use std::collections::{HashMap, HashSet, VecDeque};

use crate::kernel::UserId;

/// Posts that wait, in the order of their arrival.
#[derive(Debug)]
pub struct PostingQueue<T> {
    common: VecDeque<(UserId, T)>,
    set_aside: HashMap<UserId, VecDeque<T>>,
    /// Set-aside wallets that nobody serves at the moment, oldest first.
    unserved: VecDeque<UserId>,
}

impl<T> Default for PostingQueue<T> {
    fn default() -> Self {
        Self { common: VecDeque::new(), set_aside: HashMap::new(), unserved: VecDeque::new() }
    }
}

impl<T> PostingQueue<T> {
    /// Appends a post.
    pub fn push(&mut self, user: UserId, post: T) {
        match self.set_aside.get_mut(&user) {
            Some(posts) => posts.push_back(post),
            None => self.common.push_back((user, post)),
        }
    }

    /// Takes the next posts of free wallets, at most `most`.
    pub fn take_common(&mut self, most: usize) -> Vec<T> {
        let count = self.common.len().min(most);
        self.common.drain(..count).map(|(_, post)| post).collect()
    }

    /// Sets wallets aside whose posts came back undecided from a common batch, in their order. Later posts of these
    /// wallets that wait already follow them.
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

    /// Takes up to `most` posts of the set-aside wallet that has waited longest. It counts as served until
    /// [`served`](Self::served) is called for it.
    pub fn take_set_aside(&mut self, most: usize) -> Option<(UserId, Vec<T>)> {
        let user = self.unserved.pop_front()?;
        let posts = self.set_aside.get_mut(&user)?;
        let count = posts.len().min(most);
        Some((user, posts.drain(..count).collect()))
    }

    /// Ends the service of a set-aside wallet: with posts left it waits for its next turn, without any it is free.
    pub fn served(&mut self, user: UserId) {
        match self.set_aside.get(&user) {
            Some(posts) if posts.is_empty() => {
                self.set_aside.remove(&user);
            }
            Some(_) => self.unserved.push_back(user),
            None => {}
        }
    }

    /// Whether nothing waits. Posts that were taken do not count.
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
    fn posts_of_a_held_wallet_never_overtake_each_other() {
        let mut queue = PostingQueue::default();
        queue.push(user(1), 10);
        queue.push(user(2), 20);
        let _in_flight = queue.take_common(2);
        queue.push(user(1), 11);
        queue.push(user(2), 21);
        queue.set_aside(vec![(user(1), 10)]);
        queue.push(user(1), 12);
        assert_eq!(queue.take_common(9), [21], "the free wallet goes on");
        assert_eq!(queue.take_set_aside(2), Some((user(1), vec![10, 11])));
        queue.push(user(1), 13);
        assert_eq!(queue.take_common(9), Vec::<i32>::new(), "while it is served nothing of it enters a common batch");
        assert_eq!(queue.take_set_aside(2), None, "and it is not served twice at once");
        queue.served(user(1));
        assert_eq!(queue.take_set_aside(9), Some((user(1), vec![12, 13])));
        queue.served(user(1));
        queue.push(user(1), 14);
        assert_eq!(queue.take_common(9), [14], "then it is free again");
        assert!(queue.is_empty());
    }

    #[test]
    fn it_is_empty_when_neither_common_nor_set_aside_posts_wait() {
        let mut queue = PostingQueue::default();
        assert!(queue.is_empty());
        queue.push(user(1), 10);
        assert!(!queue.is_empty(), "one of a free wallet waits");
        let taken = queue.take_common(1);
        queue.set_aside(taken.into_iter().map(|post| (user(1), post)).collect());
        assert!(!queue.is_empty(), "one of a held wallet waits");
        queue.take_set_aside(1);
        assert!(queue.is_empty());
    }

    #[test]
    fn held_wallets_take_turns() {
        let mut queue = PostingQueue::default();
        queue.set_aside(vec![(user(1), 10), (user(2), 20), (user(1), 11)]);
        assert_eq!(queue.take_set_aside(1), Some((user(1), vec![10])));
        queue.served(user(1));
        assert_eq!(queue.take_set_aside(1), Some((user(2), vec![20])));
        assert_eq!(queue.take_set_aside(1), Some((user(1), vec![11])));
    }
}
