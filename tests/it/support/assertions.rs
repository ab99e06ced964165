use serde_json::Value;

use super::Response;

/// A JSON body and the common headers.
pub fn assert_json_response(response: &Response, about: &str) {
    let shown = format!("{about}: {response:?}");
    assert_eq!(response.header("content-type"), "application/json", "{shown}");
    assert_common_headers(response, about);
    assert!(!response.body.is_null(), "{shown}");
}

/// The headers of every response, and none that identifies the software.
pub fn assert_common_headers(response: &Response, about: &str) {
    let shown = format!("{about}: {response:?}");
    assert!((1..=64).contains(&response.header("x-request-id").len()), "{shown}");
    assert_eq!(response.header("traceparent").len(), 55, "{shown}");
    assert_eq!(response.header("cache-control"), "no-store", "{shown}");
    assert_eq!(response.header("x-content-type-options"), "nosniff", "{shown}");
    for revealing in ["server", "x-powered-by", "via", "version", "x-version"] {
        assert!(!response.headers.contains_key(revealing), "{shown}");
    }
    assert!(response.headers.keys().all(|name| !name.as_str().starts_with("x-ratelimit")), "{shown}");
}

/// This status and code, and exactly the fields `code` and `message`, plus `details` for a 400 and for a refused bulk.
pub fn assert_error(response: &Response, status: u16, code: &str, about: &str) {
    let shown = format!("{about}: {response:?}");
    assert_eq!((response.status.as_u16(), response.code()), (status, code), "{shown}");
    assert_json_response(response, about);
    let keys = |value: &Value| value.as_object().expect("an object").keys().cloned().collect::<Vec<_>>();
    assert!(response.header("link").ends_with(&format!("/docs/errors#{code}>; rel=\"help\"")), "{shown}");
    assert!(response.body["message"].as_str().is_some_and(|message| !message.is_empty()), "{shown}");
    if status == 400 || code == "BULK_REFUSED" {
        assert_eq!(keys(&response.body), ["code", "details", "message"], "{shown}");
        let details = response.body["details"].as_array().expect("a list");
        assert!(!details.is_empty(), "{shown}");
        for detail in details {
            assert_eq!(keys(detail), ["field", "message"], "{shown}");
            assert!(detail["message"].as_str().is_some_and(|message| !message.is_empty()), "{shown}");
        }
    } else {
        assert_eq!(keys(&response.body), ["code", "message"], "{shown}");
    }
    let text = response.body.to_string();
    for internal in ["serde", "at line", "column", "SELECT", "INSERT", "sql", "panicked", "src/"] {
        assert!(!text.contains(internal), "{shown}");
    }
}

/// A 400 that lists exactly these fields.
pub fn assert_invalid(response: &Response, fields: &[&str], about: &str) {
    assert_error(response, 400, "VALIDATION_ERROR", about);
    assert_eq!(response.fields(), fields, "{about}: {response:?}");
}
