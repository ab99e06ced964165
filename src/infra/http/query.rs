//! Reads a query string field by field, and tells everything that is wrong with it at once.

use std::collections::BTreeMap;
use std::fmt;

use actix_web::{HttpRequest, web};

use crate::infra::http::{ApiError, Detail};

/// The parameters of a query, taken out one by one.
#[derive(Debug)]
pub struct QueryFields {
    values: BTreeMap<String, String>,
    problems: Vec<Detail>,
}

impl QueryFields {
    /// Takes the query of a request.
    ///
    /// # Errors
    /// 400 when it cannot be decoded.
    pub fn of(request: &HttpRequest) -> Result<Self, ApiError> {
        let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string())
            .map_err(|_| ApiError::invalid("query", "cannot be decoded"))?;
        let (mut values, mut problems) = (BTreeMap::new(), Vec::new());
        for (name, value) in pairs.into_inner() {
            if values.insert(name.clone(), value).is_some() {
                problems.push(Detail { field: printable(&name), message: "stands twice".to_owned() });
            }
        }
        Ok(Self { values, problems })
    }

    /// A parameter that may be absent, read by `parse`.
    pub fn optional<T, E: fmt::Display>(&mut self, field: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        match parse(&self.values.remove(field)?) {
            Ok(value) => Some(value),
            Err(e) => {
                self.refuse(field, e);
                None
            }
        }
    }

    /// Notes a problem that more than one parameter makes together.
    pub fn refuse(&mut self, field: &str, message: impl fmt::Display) {
        self.problems.push(Detail { field: field.to_owned(), message: message.to_string() });
    }

    /// Ends the reading. A parameter that is left is unknown, and a misspelt filter must not show unfiltered money.
    ///
    /// # Errors
    /// 400 with every problem that was met.
    pub fn finish(mut self) -> Result<(), ApiError> {
        for field in std::mem::take(&mut self.values).into_keys() {
            self.refuse(&printable(&field), "is not a parameter of this request");
        }
        if self.problems.is_empty() { Ok(()) } else { Err(ApiError::validation(self.problems)) }
    }
}

fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(100).collect()
}
