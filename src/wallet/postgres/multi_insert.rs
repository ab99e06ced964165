//! `INSERT … VALUES` of many rows, as one prepared statement per power of two.
//!
//! Not `INSERT … SELECT FROM unnest(…)`: a distributed PostgreSQL runs that as a COPY, which does not count as a write of the
//! transaction, so that an acknowledged commit may be lost.

use std::fmt::Write as _;

use tokio_postgres::Statement;
use tokio_postgres::types::ToSql;

use crate::infra::postgres::{Client, DbError};

/// Powers of two up to 128 rows.
const SIZES: usize = 8;

/// The parameters of one row.
pub(super) type RowParameters<'a> = Vec<&'a (dyn ToSql + Sync)>;

/// The texts of the statements: of 1, 2, 4, … rows.
pub(super) struct MultiInsert([String; SIZES]);

/// The statements, prepared on one connection.
pub(super) struct PreparedInsert(Vec<Statement>);

impl MultiInsert {
    /// `name` is the name of the statement, `target` the table with the `columns` in parentheses.
    pub(super) fn new(name: &str, target: &str, columns: usize) -> Self {
        Self(std::array::from_fn(|size| {
            let rows = 1_usize << size;
            let mut text = format!("-- {name} ({rows} rows)\nINSERT INTO {target} VALUES ");
            for row in 0..rows {
                text.push_str(if row == 0 { "(" } else { ", (" });
                for column in 1..=columns {
                    let comma = if column == 1 { "" } else { ", " };
                    // Writing to a String cannot fail.
                    let _ = write!(text, "{comma}${}", row.saturating_mul(columns).saturating_add(column));
                }
                text.push(')');
            }
            text
        }))
    }

    /// Prepares what up to `rows` rows need.
    pub(super) async fn prepare(&self, client: &Client, rows: usize) -> Result<PreparedInsert, DbError> {
        let mut prepared = Vec::with_capacity(SIZES);
        for (size, text) in self.0.iter().enumerate() {
            if 1_usize << size <= rows {
                prepared.push(client.prepare_cached(text).await?);
            }
        }
        Ok(PreparedInsert(prepared))
    }
}

impl PreparedInsert {
    /// Splits rows into as few statements as possible, with their parameters.
    pub(super) fn split<'a, 'r>(
        &'a self,
        mut rows: &'a [RowParameters<'r>],
    ) -> Vec<(&'a Statement, Vec<&'r (dyn ToSql + Sync)>)> {
        let mut parts = Vec::new();
        for (size, statement) in self.0.iter().enumerate().rev() {
            while let Some((part, rest)) = rows.split_at_checked(1_usize << size) {
                parts.push((statement, part.iter().flatten().copied().collect()));
                rows = rest;
            }
        }
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_row_has_its_own_parameters() {
        let insert = MultiInsert::new("a.b", "t (x, y)", 2);
        let of = |size: usize| insert.0[size].as_str();
        assert_eq!(of(0), "-- a.b (1 rows)\nINSERT INTO t (x, y) VALUES ($1, $2)");
        assert_eq!(of(1), "-- a.b (2 rows)\nINSERT INTO t (x, y) VALUES ($1, $2), ($3, $4)");
        assert!(of(7).ends_with(", ($255, $256)"));
    }
}
