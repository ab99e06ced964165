//! The privileges of a runtime user, compared with those that the migrations grant it.

use std::collections::BTreeSet;
use std::fmt;

/// Before the name of a function in a grant.
const FUNCTION: &str = "FUNCTION ";

/// A privilege on a table, on one of its columns, or on a function.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    /// A table, or `FUNCTION name(types)`.
    pub(super) table: String,
    pub(super) privilege: String,
    /// `None` for the whole table.
    pub(super) column: Option<String>,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.column {
            Some(column) => write!(f, "{} ({column}) ON {}", self.privilege, self.table),
            None => write!(f, "{} ON {}", self.privilege, self.table),
        }
    }
}

/// What a runtime user may do, compared with what requests need.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rights {
    /// Needed and not granted.
    pub missing: Vec<Right>,
    /// Granted on the tables of the role and not needed.
    pub excess: Vec<Right>,
    /// Attributes of the user that let it do more than any grant: `SUPERUSER`, `CREATEROLE`, …
    pub attributes: Vec<String>,
    /// Whether it owns a table of the role, so that it has every privilege and may change the table.
    pub owns_tables: bool,
    /// Triggers of these tables that do not fire, each `name ON table`.
    pub disabled_triggers: Vec<String>,
}

impl Rights {
    /// `held` are the privileges that the user has on the tables of `grants`; one on a table includes its columns.
    pub(super) fn compare(
        grants: &[String],
        held: BTreeSet<Right>,
        attributes: Vec<String>,
        owns_tables: bool,
        disabled_triggers: Vec<String>,
    ) -> Self {
        let needed = listed(grants);
        let covers = |right: &Right| held.contains(right) || held.contains(&Right { column: None, ..right.clone() });
        let missing = needed.iter().filter(|right| !covers(right)).cloned().collect();
        let excess = held.into_iter().filter(|right| !needed.contains(right)).collect();
        Self { missing, excess, attributes, owns_tables, disabled_triggers }
    }
}

/// The tables of a list of grants.
pub(super) fn tables(grants: &[String]) -> Vec<String> {
    let tables: BTreeSet<String> = listed(grants).into_iter().map(|right| right.table).collect();
    tables.into_iter().filter(|table| !table.starts_with(FUNCTION)).collect()
}

/// The functions of a list of grants, each `name(types)`.
pub(super) fn functions(grants: &[String]) -> Vec<String> {
    listed(grants).iter().filter_map(|right| Some(right.table.strip_prefix(FUNCTION)?.to_owned())).collect()
}

/// The privilege of calling a function.
pub(super) fn execute(function: &str) -> Right {
    Right { table: format!("{FUNCTION}{function}"), privilege: "EXECUTE".to_owned(), column: None }
}

/// The privileges in a list of grants, each `GRANT SELECT, UPDATE (a, b) ON table`.
fn listed(grants: &[String]) -> BTreeSet<Right> {
    let mut rights = BTreeSet::new();
    for grant in grants {
        let Some((privileges, table)) = grant.trim_start_matches("GRANT ").split_once(" ON ") else { continue };
        for privilege in split_outside_parentheses(privileges) {
            let (name, columns) = match privilege.split_once('(') {
                Some((name, columns)) => (name, columns.trim_end_matches(')').split(',').map(Some).collect()),
                None => (privilege, vec![None]),
            };
            rights.extend(columns.into_iter().map(|column: Option<&str>| Right {
                table: table.trim().to_owned(),
                privilege: name.trim().to_owned(),
                column: column.map(|column| column.trim().to_owned()),
            }));
        }
    }
    rights
}

fn split_outside_parentheses(text: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut inside) = (Vec::new(), 0, false);
    for (at, c) in text.char_indices() {
        match c {
            '(' => inside = true,
            ')' => inside = false,
            ',' if !inside => {
                parts.extend(text.get(begin..at));
                begin = at.saturating_add(1);
            }
            _ => {}
        }
    }
    parts.extend(text.get(begin..));
    parts.into_iter().map(str::trim).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn grants() -> Vec<String> {
        texts(&[
            "GRANT SELECT, INSERT, UPDATE (a, b) ON one",
            "GRANT EXECUTE ON FUNCTION f(text, bigint)",
            "GRANT SELECT ON two",
        ])
    }

    fn texts(grants: &[&str]) -> Vec<String> {
        grants.iter().map(|grant| (*grant).to_owned()).collect()
    }

    fn shown(rights: impl IntoIterator<Item = Right>) -> Vec<String> {
        rights.into_iter().map(|right| right.to_string()).collect()
    }

    #[test]
    fn a_list_of_grants_is_read_privilege_by_privilege() {
        let expected = [
            "EXECUTE ON FUNCTION f(text, bigint)",
            "INSERT ON one",
            "SELECT ON one",
            "UPDATE (a) ON one",
            "UPDATE (b) ON one",
            "SELECT ON two",
        ];
        assert_eq!(shown(listed(&grants())), expected);
        assert_eq!(functions(&grants()), ["f(text, bigint)"]);
        assert_eq!(tables(&grants()), ["one", "two"]);
    }

    #[test]
    fn what_is_missing_and_what_is_too_much_are_found() {
        let exact = Rights::compare(&grants(), listed(&grants()), Vec::new(), false, Vec::new());
        assert_eq!(exact, Rights::default());
        let held = listed(&texts(&["GRANT SELECT, UPDATE ON one", "GRANT DELETE ON two"]));
        let other = Rights::compare(&grants(), held, Vec::new(), false, Vec::new());
        assert_eq!(shown(other.missing), ["EXECUTE ON FUNCTION f(text, bigint)", "INSERT ON one", "SELECT ON two"]);
        assert_eq!(shown(other.excess), ["UPDATE ON one", "DELETE ON two"]);
    }
}
