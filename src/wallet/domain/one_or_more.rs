//! A list that is never empty: the drafts of a posting, and their entries.

/// One item or several. One alone needs no allocation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OneOrMore<T> {
    first: T,
    rest: Vec<T>,
}

impl<T> OneOrMore<T> {
    /// `rest` may be empty.
    pub const fn new(first: T, rest: Vec<T>) -> Self {
        Self { first, rest }
    }

    /// A single item.
    pub const fn one(item: T) -> Self {
        Self::new(item, Vec::new())
    }

    /// `None` if there is no item.
    pub fn collect(items: impl IntoIterator<Item = T>) -> Option<Self> {
        let mut items = items.into_iter();
        let first = items.next()?;
        Some(Self::new(first, items.collect()))
    }

    /// There always is one.
    pub const fn first(&self) -> &T {
        &self.first
    }

    /// The first one, if it is alone.
    pub fn last(&self) -> &T {
        self.rest.last().unwrap_or(&self.first)
    }

    /// In order, at least one.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        std::iter::once(&self.first).chain(&self.rest)
    }

    /// In order, at least one.
    pub fn into_vec(self) -> Vec<T> {
        std::iter::once(self.first).chain(self.rest).collect()
    }

    /// As many others, in the same order.
    pub fn map<U>(&self, mut to: impl FnMut(&T) -> U) -> OneOrMore<U> {
        OneOrMore::new(to(&self.first), self.rest.iter().map(to).collect())
    }

    /// At least 1.
    pub const fn count(&self) -> usize {
        self.rest.len().saturating_add(1)
    }
}

impl<T> From<T> for OneOrMore<T> {
    fn from(item: T) -> Self {
        Self::one(item)
    }
}
