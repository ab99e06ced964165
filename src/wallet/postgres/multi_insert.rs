//! `INSERT … VALUES` of many rows, as prepared statements of a few sizes.
//!
//! Not `INSERT … SELECT FROM unnest(…)`: a distributed PostgreSQL runs that as a COPY, which does not count as a write of the
//! transaction, so that an acknowledged commit may be lost.

use std::fmt::Write as _;

use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use crate::infra::postgres::{Client, DbError, Shard, ShardStatement};

/// PostgreSQL parses all constraints of the table again for each statement, so there are few per batch: up to 143 rows take two.
/// Each size costs memory in every session, so there are no more of them.
const SMALL_MAX: usize = 15;
const STEP: usize = 16;
const ROWS_MAX: usize = 128;

/// A parameter of a statement.
pub(super) type Parameter<'a> = &'a (dyn ToSql + Sync);

/// The texts of the statements for rows with `N` parameters each.
pub(super) struct MultiInsert<const N: usize>(Vec<(usize, ShardStatement)>);

impl<const N: usize> MultiInsert<N> {
    /// `name` is the name of the statement, `target` the table with its columns in parentheses. The first `shared` parameters
    /// are the same for all rows; `tail` has the values that follow those of each row, such as `, $1, 0`. `end` follows the rows.
    pub(super) fn new(name: &str, target: &str, shared: usize, tail: &str, end: &str) -> Self {
        let sizes = (1..=SMALL_MAX).chain((STEP..=ROWS_MAX).step_by(STEP));
        let text = |rows: usize| {
            let mut text = format!("-- {name} ({rows} rows)\nINSERT INTO {target} VALUES ");
            for row in 0..rows {
                text.push_str(if row == 0 { "(" } else { ", (" });
                for column in 1..=N {
                    let comma = if column == 1 { "" } else { ", " };
                    let number = row.saturating_mul(N).saturating_add(shared).saturating_add(column);
                    // Writing to a String cannot fail.
                    let _ = write!(text, "{comma}${number}");
                }
                text.push_str(tail);
                text.push(')');
            }
            text.push_str(end);
            ShardStatement::composed(text)
        };
        Self(sizes.map(|rows| (rows, text(rows))).collect())
    }

    /// The statements for `rows`, with their parameters. Each is prepared once per connection.
    pub(super) async fn prepare<'a>(
        &self,
        client: &Client,
        shard: Shard,
        shared: &[Parameter<'a>],
        mut rows: &[[Parameter<'a>; N]],
    ) -> Result<Vec<(Statement, Vec<Parameter<'a>>)>, DbError> {
        let mut inserts = Vec::new();
        for (size, text) in self.0.iter().rev() {
            while let Some((part, rest)) = rows.split_at_checked(*size) {
                let parameters = shared.iter().chain(part.iter().flatten()).copied().collect();
                inserts.push((client.prepare_cached(text.of(shard)).await?, parameters));
                rows = rest;
            }
        }
        Ok(inserts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::infra::postgres::Shards;

    #[test]
    fn each_row_has_its_own_parameters_after_the_shared_ones() {
        let only = Shards::ONE.first();
        let alone = MultiInsert::<2>::new("a.b", "shard.t (x, y)", 0, "", "");
        let of = |rows: usize| alone.0.iter().find(|(size, _)| *size == rows).expect("a statement").1.of(only);
        assert_eq!(of(1), "-- a.b (1 rows)\nINSERT INTO t (x, y) VALUES ($1, $2)");
        assert_eq!(of(2), "-- a.b (2 rows)\nINSERT INTO t (x, y) VALUES ($1, $2), ($3, $4)");
        assert!(of(128).ends_with(", ($255, $256)"));
        let shared = MultiInsert::<2>::new("a.b", "shard.t (x, y, at, held)", 1, ", $1, 0", " RETURNING x");
        assert!(shared.0[1].1.of(only).ends_with("VALUES ($2, $3, $1, 0), ($4, $5, $1, 0) RETURNING x"));
    }

    #[test]
    fn up_to_143_rows_take_two_statements() {
        let sizes: Vec<usize> =
            MultiInsert::<1>::new("a.b", "shard.t (x)", 0, "", "").0.iter().map(|(rows, _)| *rows).collect();
        for rows in 1..=143_usize {
            let (mut left, mut statements) = (rows, 0);
            for size in sizes.iter().rev() {
                while left >= *size {
                    left -= size;
                    statements += 1;
                }
            }
            assert!(left == 0 && statements <= 2, "{rows} rows take {statements} statements");
        }
    }
}
