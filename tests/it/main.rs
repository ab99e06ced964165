//! All integration tests, in one crate: against real servers that the crate starts itself, with a database and a
//! virtual host a test.
#![expect(missing_docs, reason = "a test's name is its documentation")]

mod support;

mod concurrency;
mod main_job;
