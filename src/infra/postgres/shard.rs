//! Shards: the schemas over which the ledger is divided, and the texts of the statements over the tables of one of them.
//!
//! A statement names such a table as `shard.wallets`. There is no schema of this name, so a statement that was not rendered for a
//! shard fails. With one shard the tables are in the schema in use, and `shard.` is left out.

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

use crate::kernel::UserId;

/// Before the name of each table of a shard.
const PLACEHOLDER: &str = "shard.";

/// The schemas of a ledger with several shards, those that it has from the first.
const SCHEMAS: [&str; 32] = [
    "shard_00", "shard_01", "shard_02", "shard_03", "shard_04", "shard_05", "shard_06", "shard_07", "shard_08",
    "shard_09", "shard_10", "shard_11", "shard_12", "shard_13", "shard_14", "shard_15", "shard_16", "shard_17",
    "shard_18", "shard_19", "shard_20", "shard_21", "shard_22", "shard_23", "shard_24", "shard_25", "shard_26",
    "shard_27", "shard_28", "shard_29", "shard_30", "shard_31",
];

/// How many shards a database has: a power of two up to 32, for ever the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shards(u8);

impl Shards {
    /// All tables are in the schema in use.
    pub const ONE: Self = Self(1);

    /// `None` if `count` is not a power of two up to 32.
    pub fn new(count: u8) -> Option<Self> {
        (count.is_power_of_two() && usize::from(count) <= SCHEMAS.len()).then_some(Self(count))
    }

    /// At least 1.
    pub const fn count(self) -> u8 {
        self.0
    }

    /// The shard of a user's wallet, by the last byte of the ID, which is random.
    pub fn of(self, user: UserId) -> Shard {
        self.at(user.last_byte() & self.0.wrapping_sub(1))
    }

    /// In the order in which transactions lock their wallets.
    pub fn all(self) -> impl DoubleEndedIterator<Item = Shard> {
        (0..self.0).map(move |number| self.at(number))
    }

    /// The schemas of all of them; none if all tables are in the schema in use.
    pub(super) fn schemas(self) -> Vec<&'static str> {
        self.all().filter_map(Shard::schema).collect()
    }

    /// The one of `user`; without a user, all of them.
    pub fn to_read(self, user: Option<UserId>) -> Vec<Shard> {
        user.map_or_else(|| self.all().collect(), |user| vec![self.of(user)])
    }

    /// The first of [`Self::all`].
    pub const fn first(self) -> Shard {
        self.at(0)
    }

    const fn at(self, number: u8) -> Shard {
        if self.0 == 1 { Shard(None) } else { Shard(Some(number)) }
    }
}

impl Default for Shards {
    fn default() -> Self {
        Self::ONE
    }
}

impl fmt::Display for Shards {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// One of the [`Shards`]; `None` is the only one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Shard(Option<u8>);

impl Shard {
    /// `None`: the schema in use.
    pub fn schema(self) -> Option<&'static str> {
        self.0.and_then(|number| SCHEMAS.get(usize::from(number)).copied())
    }

    /// One bit of its own in a set of shards; none for the only one.
    pub const fn bit(self) -> u32 {
        match self.0 {
            Some(number) => 1_u32.rotate_left(number as u32),
            None => 0,
        }
    }

    /// `text` with the schema of this shard in place of `shard`.
    pub(super) fn render(self, text: &str) -> String {
        match self.schema() {
            Some(schema) => text.replace(PLACEHOLDER, &format!("{schema}.")),
            None => text.replace(PLACEHOLDER, ""),
        }
    }
}

/// A statement over the tables of one shard, which is rendered once for each.
pub struct ShardStatement {
    text: Cow<'static, str>,
    only: OnceLock<String>,
    rendered: [OnceLock<String>; SCHEMAS.len()],
}

impl ShardStatement {
    pub const fn new(text: &'static str) -> Self {
        Self::of_text(Cow::Borrowed(text))
    }

    /// The same of a text that is put together.
    pub const fn composed(text: String) -> Self {
        Self::of_text(Cow::Owned(text))
    }

    const fn of_text(text: Cow<'static, str>) -> Self {
        Self { text, only: OnceLock::new(), rendered: [const { OnceLock::new() }; SCHEMAS.len()] }
    }

    /// The text for the tables of `shard`.
    pub fn of(&self, shard: Shard) -> &str {
        let rendered = shard.0.and_then(|number| self.rendered.get(usize::from(number))).unwrap_or(&self.only);
        rendered.get_or_init(|| shard.render(&self.text))
    }
}

/// Whether `text` names a table of a shard.
pub(super) fn names_a_shard(text: &str) -> bool {
    text.contains(PLACEHOLDER)
}

#[cfg(test)]
mod tests {
    use super::*;
    use uuid::Uuid;

    fn shards(count: u8) -> Shards {
        Shards::new(count).expect("a power of two")
    }

    #[test]
    fn there_are_as_many_shards_as_a_power_of_two_up_to_32() {
        let valid: Vec<u8> = (0..=u8::MAX).filter(|count| Shards::new(*count).is_some()).collect();
        assert_eq!(valid, [1, 2, 4, 8, 16, 32]);
        for count in valid {
            assert_eq!(shards(count).all().count(), usize::from(count));
        }
    }

    #[test]
    fn the_last_byte_of_the_id_selects_the_shard_of_a_user() {
        let user =
            |last: u8| UserId::from_uuid(Uuid::from_u128(0x0190_a5d4_0000_7000_8000_0000_0000_0000 + u128::from(last)));
        for last in 0..=u8::MAX {
            assert_eq!(
                shards(4).of(user(last)).schema(),
                shards(4).all().nth(usize::from(last % 4)).and_then(Shard::schema)
            );
            assert_eq!(shards(1).of(user(last)).schema(), None);
        }
        assert_eq!(shards(32).of(user(255)).schema(), Some("shard_31"));
    }

    #[test]
    fn a_statement_names_the_tables_of_its_shard() {
        let statement =
            ShardStatement::new("SELECT wallets.id FROM shard.wallets JOIN shard.transactions USING (user_id)");
        let only = "SELECT wallets.id FROM wallets JOIN transactions USING (user_id)";
        assert_eq!(statement.of(Shards::ONE.first()), only);
        let last = shards(2).all().last().expect("a shard");
        assert_eq!(
            statement.of(last),
            "SELECT wallets.id FROM shard_01.wallets JOIN shard_01.transactions USING (user_id)"
        );
    }
}
