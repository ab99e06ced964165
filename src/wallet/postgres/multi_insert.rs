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

/// The texts of the statements, by their number of rows.
pub(super) struct MultiInsert {
    /// Parameters of each row.
    width: usize,
    sizes: Vec<(usize, ShardStatement)>,
}

/// What all rows have in common.
#[derive(Clone, Copy, Default)]
pub(super) struct Common<'a> {
    /// The number of parameters, which come first.
    pub(super) parameters: usize,
    /// Columns with their expressions, such as `created_at` and `$1`.
    pub(super) columns: &'a [(&'a str, &'a str)],
    /// What follows the rows.
    pub(super) end: &'a str,
}

impl MultiInsert {
    /// `name` is the name of the statement. `columns` have a parameter in each row.
    pub(super) fn new(name: &str, table: &str, columns: &[&str], common: Common<'_>) -> Self {
        let Common { parameters: shared, columns: fixed, end } = common;
        let width = columns.len();
        let listed =
            columns.iter().chain(fixed.iter().map(|(column, _)| column)).copied().collect::<Vec<_>>().join(", ");
        let tail = fixed.iter().flat_map(|(_, expression)| [", ", expression]).collect::<String>();
        let text = |rows: usize| {
            let mut text = format!("-- {name} ({rows} rows)\nINSERT INTO {table} ({listed}) VALUES ");
            for row in 0..rows {
                text.push_str(if row == 0 { "(" } else { ", (" });
                for column in 1..=width {
                    let comma = if column == 1 { "" } else { ", " };
                    let number = row.saturating_mul(width).saturating_add(shared).saturating_add(column);
                    // Writing to a String cannot fail.
                    let _ = write!(text, "{comma}${number}");
                }
                text.push_str(&tail);
                text.push(')');
            }
            text.push_str(end);
            ShardStatement::composed(text)
        };
        let sizes = (1..=SMALL_MAX).chain((STEP..=ROWS_MAX).step_by(STEP));
        Self { width, sizes: sizes.map(|rows| (rows, text(rows))).collect() }
    }

    /// The statements for the rows, whose parameters are `values` one row after the other. Each is prepared once per connection.
    pub(super) async fn prepare<'a>(
        &self,
        client: &Client,
        shard: Shard,
        shared: &[Parameter<'a>],
        mut values: &[Parameter<'a>],
    ) -> Result<Vec<(Statement, Vec<Parameter<'a>>)>, DbError> {
        let mut inserts = Vec::new();
        for (rows, text) in self.sizes.iter().rev() {
            while let Some((part, rest)) = values.split_at_checked(rows.saturating_mul(self.width)) {
                let parameters = shared.iter().chain(part).copied().collect();
                inserts.push((client.prepare_cached(text.of(shard)).await?, parameters));
                values = rest;
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
        let alone = MultiInsert::new("a.b", "shard.t", &["x", "y"], Common::default());
        let of = |rows: usize| alone.sizes.iter().find(|(size, _)| *size == rows).expect("a statement").1.of(only);
        assert_eq!(of(1), "-- a.b (1 rows)\nINSERT INTO t (x, y) VALUES ($1, $2)");
        assert_eq!(of(2), "-- a.b (2 rows)\nINSERT INTO t (x, y) VALUES ($1, $2), ($3, $4)");
        assert!(of(128).ends_with(", ($255, $256)"));
        let common = Common { parameters: 1, columns: &[("at", "$1"), ("held", "0")], end: " RETURNING x" };
        let shared = MultiInsert::new("a.b", "shard.t", &["x", "y"], common);
        let two_rows =
            "-- a.b (2 rows)\nINSERT INTO t (x, y, at, held) VALUES ($2, $3, $1, 0), ($4, $5, $1, 0) RETURNING x";
        assert_eq!(shared.sizes[1].1.of(only), two_rows);
    }

    #[test]
    fn up_to_143_rows_take_two_statements() {
        let sizes: Vec<usize> =
            MultiInsert::new("a.b", "shard.t", &["x"], Common::default()).sizes.iter().map(|(rows, _)| *rows).collect();
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
