//! Counts dead letters by distinct id: an event may be in the queue twice, because delivery is at least once.

use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

use serde_json::Value;

use crate::operate::humanize::count;

/// Messages, and the distinct ids among them.
#[derive(Default)]
pub(super) struct Tally {
    messages: u64,
    /// Hashes of the ids, so that a million of them is a few megabytes. Empty if the ids were not read.
    ids: HashSet<u64>,
    hasher: RandomState,
}

impl Tally {
    /// Messages whose ids were not read.
    pub(super) fn unread(messages: u32) -> Self {
        Self { messages: messages.into(), ..Self::default() }
    }

    pub(super) fn add(&mut self, id: &str) {
        self.messages = self.messages.saturating_add(1);
        self.ids.insert(self.hasher.hash_one(id));
    }

    pub(super) const fn messages(&self) -> u64 {
        self.messages
    }

    /// `None` if the ids were not read.
    pub(super) fn distinct(&self) -> Option<u64> {
        let ids = u64::try_from(self.ids.len()).unwrap_or(u64::MAX);
        (ids > 0 || self.messages == 0).then_some(ids)
    }

    pub(super) fn json(&self) -> Value {
        self.distinct().into()
    }
}

impl std::fmt::Display for Tally {
    /// `2 dead letters`, `1 dead letter (2 copies)`.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let distinct = self.distinct().unwrap_or(self.messages);
        f.write_str(&count(distinct, "dead letter"))?;
        if distinct == self.messages { Ok(()) } else { write!(f, " ({} copies)", self.messages) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn copies_of_one_id_count_once() {
        let mut tally = Tally::default();
        assert_eq!((tally.to_string().as_str(), tally.distinct()), ("0 dead letters", Some(0)));
        tally.add("a");
        assert_eq!(tally.to_string(), "1 dead letter");
        tally.add("a");
        assert_eq!((tally.to_string().as_str(), tally.distinct()), ("1 dead letter (2 copies)", Some(1)));
        tally.add("b");
        assert_eq!((tally.to_string().as_str(), tally.messages()), ("2 dead letters (3 copies)", 3));
        assert_eq!((Tally::unread(9).to_string().as_str(), Tally::unread(9).distinct()), ("9 dead letters", None));
    }
}
