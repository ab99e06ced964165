//! What every answer has, and what every refusal looks like.

use serde_json::Value;

use super::Answer;

/// Every answer carries these headers, and none that tells what it was made with.
pub fn assert_dressed(answer: &Answer, about: &str) {
    let shown = format!("{about}: {answer:?}");
    assert_eq!(answer.header("content-type"), "application/json", "{shown}");
    assert_dressed_without_body(answer, about);
    assert!(!answer.body.is_null(), "{shown}");
}

/// The same for an answer to HEAD, which has no body to be seen.
pub fn assert_dressed_without_body(answer: &Answer, about: &str) {
    let shown = format!("{about}: {answer:?}");
    assert!((1..=64).contains(&answer.header("x-request-id").len()), "{shown}");
    assert_eq!(answer.header("traceparent").len(), 55, "{shown}");
    assert_eq!(answer.header("cache-control"), "no-store", "{shown}");
    assert_eq!(answer.header("x-content-type-options"), "nosniff", "{shown}");
    for telling in ["server", "x-powered-by", "via", "version", "x-version"] {
        assert!(!answer.headers.contains_key(telling), "{shown}");
    }
    assert!(answer.headers.keys().all(|name| !name.as_str().starts_with("x-ratelimit")), "{shown}");
}

/// A refusal: this status and code, and exactly `code` and `message`, with `details` for a 400 alone.
pub fn assert_refused(answer: &Answer, status: u16, code: &str, about: &str) {
    let shown = format!("{about}: {answer:?}");
    assert_eq!((answer.status.as_u16(), answer.code()), (status, code), "{shown}");
    assert_dressed(answer, about);
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert!(answer.body["message"].as_str().is_some_and(|message| !message.is_empty()), "{shown}");
    if status == 400 {
        assert_eq!(keys(&answer.body), ["code", "details", "message"], "{shown}");
        let details = answer.body["details"].as_array().expect("a list");
        assert!(!details.is_empty(), "{shown}");
        for detail in details {
            assert_eq!(keys(detail), ["field", "message"], "{shown}");
            assert!(detail["message"].as_str().is_some_and(|message| !message.is_empty()), "{shown}");
        }
    } else {
        assert_eq!(keys(&answer.body), ["code", "message"], "{shown}");
    }
    let said = answer.body.to_string();
    for inner in ["serde", "at line", "column", "SELECT", "INSERT", "sql", "panicked", "src/"] {
        assert!(!said.contains(inner), "{shown}");
    }
}

/// A 400 that complains of exactly these fields.
pub fn assert_invalid(answer: &Answer, fields: &[&str], about: &str) {
    assert_refused(answer, 400, "VALIDATION_ERROR", about);
    assert_eq!(answer.fields(), fields, "{about}: {answer:?}");
}
