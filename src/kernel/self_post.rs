//! What users may do to their own wallets without a service.

use std::fmt;

/// The default is for development: production has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SelfPost {
    /// Everything, which includes to credit them.
    #[default]
    CreditAndDebit,
    /// Whatever adds no money: debit, send, hold, reverse a credit.
    Debit,
    /// Nothing but read.
    None,
}

impl SelfPost {
    /// The value of the setting.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CreditAndDebit => "credit,debit",
            Self::Debit => "debit",
            Self::None => "none",
        }
    }

    /// `None` for any other text.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::CreditAndDebit, Self::Debit, Self::None].into_iter().find(|self_post| self_post.as_str() == text)
    }
}

impl fmt::Display for SelfPost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
