//! The two roles of `purse`.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Role {
    Users,
    Wallet,
}

impl Role {
    pub(crate) const BOTH: [Self; 2] = [Self::Users, Self::Wallet];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Users => "users",
            Self::Wallet => "wallet",
        }
    }

    pub(crate) fn port_variable(self) -> &'static str {
        match self {
            Self::Users => "USERS_PORT",
            Self::Wallet => "WALLET_PORT",
        }
    }
}
