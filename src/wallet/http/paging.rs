//! The parameters of every endpoint that returns pages.

use utoipa::openapi::Type;
use uuid::Uuid;

use crate::infra::http::Fields;
use crate::kernel::UserId;
use crate::wallet::application::history::{HistoryCursor, ListKind, PagedList};

/// How long a page may be, and how long it is without the parameter `limit`.
#[derive(Clone, Copy)]
pub(super) struct PageLimit {
    pub(super) default: u16,
    pub(super) max: u16,
}

impl PageLimit {
    /// Of pages with whole transactions or holds.
    pub(super) const OF_ITEMS: Self = Self { default: 20, max: 100 };

    /// The parameter `limit`; `what` is on the page.
    pub(super) fn read(self, query: &mut Fields, what: &str) -> Option<u16> {
        let Self { default, max } = self;
        let limit = query.optional_text(
            "limit",
            |text| {
                let limit = text.parse::<u16>().ok().filter(|limit| (1..=max).contains(limit));
                limit.ok_or_else(|| format!("must be a whole number from 1 to {max}"))
            },
            |limit| {
                limit
                    .description(Some(format!("Maximum number of {what} per page.")))
                    .schema_type(Type::Integer)
                    .minimum(Some(1))
                    .maximum(Some(max))
                    .default(Some(default.into()))
            },
        );
        Some(limit?.unwrap_or(default))
    }
}

/// The parameter `cursor` of `list`. The outer `None` means that it is invalid.
#[expect(clippy::option_option, reason = "as every reader of an optional parameter")]
pub(super) fn cursor(query: &mut Fields, list: PagedList) -> Option<Option<HistoryCursor>> {
    query.optional_text(
        "cursor",
        |text| list.decode(text),
        |cursor| cursor.description(Some("The `nextCursor` of the previous page, unchanged.")).min_length(Some(1)),
    )
}

/// A list as the document needs it, which has no wallet.
pub(super) const fn example_list(kind: ListKind) -> PagedList {
    PagedList { kind, user: UserId::from_uuid(Uuid::from_u128(0x0190_a5d4_3c1e_7d2b_8f4a_6e5d_4c3b_2a19)) }
}

/// A `nextCursor` of that list.
pub(super) fn example_cursor(kind: ListKind) -> String {
    example_list(kind).encode(HistoryCursor { before_seq: 12 })
}
