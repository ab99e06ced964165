/// The type of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Into the wallet.
    Credit,
    /// Out of the wallet.
    Debit,
}

impl Direction {
    /// The value in the API and in the `type` column of the ledger.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Credit => "credit",
            Self::Debit => "debit",
        }
    }

    /// The reverse of [`Self::as_str`]; case matters.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Credit, Self::Debit].into_iter().find(|d| d.as_str() == text)
    }
}
