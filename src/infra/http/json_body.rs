//! Reads a JSON body field by field, and tells everything that is wrong with it at once.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use actix_web::http::{StatusCode, header};
use actix_web::{HttpRequest, web};
use futures_util::StreamExt as _;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::infra::health::{Health, HealthBoard};
use crate::infra::http::{ApiError, Detail};

/// Longest body, in bytes.
const BODY_BYTES_MAX: usize = 16 * 1024;
/// Longest time that a body may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest time that it may still take once the process stops.
const BODY_TIMEOUT_STOPPING: Duration = Duration::from_secs(1);

/// The fields of a JSON object, taken out one by one.
#[derive(Debug)]
pub struct JsonFields {
    values: BTreeMap<String, Value>,
    problems: Vec<Detail>,
}

/// Reads the body of a request as a JSON object.
///
/// # Errors
/// 415 for another content type, 413 over 16 KiB, 408 after 10 s, 503 when the process stops meanwhile, 400 for what is
/// no JSON object.
pub async fn read_json(request: &HttpRequest, payload: web::Payload) -> Result<JsonFields, ApiError> {
    if !is_json(request) {
        return Err(wrong_media_type());
    }
    let announced = request
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|length| length.to_str().ok())
        .and_then(|length| length.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > BODY_BYTES_MAX) {
        return Err(too_large());
    }
    let health = request.app_data::<web::Data<HealthBoard>>().map(|board| board.watch());
    tokio::select! {
        biased;
        body = collect(payload) => JsonFields::parse(&body?),
        () = cut_short(health) => Err(ApiError::stopping()),
    }
}

/// Ends a moment after the process has begun to stop: a body that does not come must not hold the stop up.
async fn cut_short(health: Option<watch::Receiver<Health>>) {
    match health {
        Some(mut health) => {
            // An error says that the process is gone as a whole.
            let _ = health.wait_for(|health| health.stopping).await;
            tokio::time::sleep(BODY_TIMEOUT_STOPPING).await;
        }
        None => std::future::pending().await,
    }
}

async fn collect(mut payload: web::Payload) -> Result<Vec<u8>, ApiError> {
    let deadline = Instant::now() + BODY_TIMEOUT;
    let mut body = Vec::new();
    loop {
        match timeout_at(deadline, payload.next()).await {
            Err(_) => return Err(slow_body()),
            Ok(None) => return Ok(body),
            Ok(Some(Err(_))) => return Err(ApiError::invalid("body", "could not be read to its end")),
            Ok(Some(Ok(chunk))) if body.len().saturating_add(chunk.len()) > BODY_BYTES_MAX => return Err(too_large()),
            Ok(Some(Ok(chunk))) => body.extend_from_slice(&chunk),
        }
    }
}

/// 415.
pub(super) fn wrong_media_type() -> ApiError {
    let message = "The body must be sent as Content-Type: application/json.";
    ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "UNSUPPORTED_MEDIA_TYPE", message)
}

/// 408.
pub(super) fn slow_body() -> ApiError {
    let message = "The body did not arrive within 10 seconds.";
    ApiError::new(StatusCode::REQUEST_TIMEOUT, "REQUEST_TIMEOUT", message)
}

/// 413.
pub(super) fn too_large() -> ApiError {
    let message = "The body must be at most 16 KiB long.";
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "PAYLOAD_TOO_LARGE", message)
}

/// `application/json`, with no parameter but `charset=utf-8`.
fn is_json(request: &HttpRequest) -> bool {
    let Some(value) = request.headers().get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()) else { return false };
    let mut parts = value.split(';').map(str::trim);
    let essence = parts.next().is_some_and(|essence| essence.eq_ignore_ascii_case("application/json"));
    let plain = |parameter: &str| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        name.trim().eq_ignore_ascii_case("charset") && value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    };
    essence && parts.all(|parameter| parameter.is_empty() || plain(parameter))
}

/// A JSON object that names no field twice.
struct Object(BTreeMap<String, Value>);

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Object;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut fields = BTreeMap::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if fields.insert(name, value).is_some() {
                        return Err(A::Error::custom("a field stands twice"));
                    }
                }
                Ok(Object(fields))
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

impl JsonFields {
    /// Reads a whole body.
    ///
    /// # Errors
    /// 400 unless it is one JSON object without a field that stands twice.
    pub fn parse(body: &[u8]) -> Result<Self, ApiError> {
        // The parser's own words may quote the body, so they are not passed on.
        let Object(values) = serde_json::from_slice(body)
            .map_err(|_| ApiError::invalid("body", "must be one JSON object in which no field stands twice"))?;
        Ok(Self { values, problems: Vec::new() })
    }

    fn problem(&mut self, field: &str, message: impl fmt::Display) {
        self.problems.push(Detail { field: field.to_owned(), message: message.to_string() });
    }

    /// A text that must be there, read by `parse`.
    pub fn text<T, E: fmt::Display>(&mut self, field: &str, parse: impl FnOnce(&str) -> Result<T, E>) -> Option<T> {
        let read = self.optional_text(field, parse)?;
        if read.is_none() {
            self.problem(field, "is required");
        }
        read
    }

    /// A text that may be absent or null. The outer `None` says that it is there and wrong.
    pub fn optional_text<T, E: fmt::Display>(
        &mut self,
        field: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<Option<T>> {
        match self.values.remove(field) {
            None | Some(Value::Null) => Some(None),
            Some(Value::String(text)) => match parse(&text) {
                Ok(value) => Some(Some(value)),
                Err(e) => {
                    self.problem(field, e);
                    None
                }
            },
            Some(_) => {
                self.problem(field, "must be a string");
                None
            }
        }
    }

    /// An integer literal that must be there, read by `parse`. `5.0`, `1e2` and `"5"` are no integer literals.
    pub fn integer<T, E: fmt::Display>(&mut self, field: &str, parse: impl FnOnce(i64) -> Result<T, E>) -> Option<T> {
        let value = match self.values.remove(field) {
            None | Some(Value::Null) => {
                self.problem(field, "is required");
                return None;
            }
            Some(value) => value,
        };
        let Value::Number(number) = value else {
            self.problem(field, "must be an integer");
            return None;
        };
        // Integers beyond i64 become u64 or a float in the parser; as amounts both are simply too large.
        let read = match number.as_i64() {
            Some(integer) => parse(integer),
            None if number.is_u64() => parse(i64::MAX),
            None => {
                self.problem(field, "must be an integer");
                return None;
            }
        };
        read.map_err(|e| self.problem(field, e)).ok()
    }

    /// Ends the reading: whatever field is left is unknown.
    ///
    /// # Errors
    /// 400 with every problem that was met.
    pub fn finish<T>(mut self, built: Option<T>) -> Result<T, ApiError> {
        for field in std::mem::take(&mut self.values).into_keys() {
            let shown: String = field.chars().filter(|c| !c.is_control()).take(100).collect();
            self.problem(&shown, "is not a field of this request");
        }
        match built {
            Some(built) if self.problems.is_empty() => Ok(built),
            _ => Err(ApiError::validation(self.problems)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn integer(body: &str) -> Result<i64, String> {
        let mut fields = JsonFields::parse(body.as_bytes()).map_err(|e| told(&e))?;
        let read = fields.integer("n", Ok::<_, Infallible>);
        fields.finish(read).map_err(|e| told(&e))
    }

    fn told(error: &ApiError) -> String {
        String::from_utf8(error.body()).expect("text")
    }

    #[test]
    fn only_an_integer_literal_is_an_integer() {
        assert_eq!(integer(r#"{"n": 5}"#), Ok(5));
        assert_eq!(integer(r#"{"n": 99999999999999999999}"#).map_err(|e| e.contains("must be an integer")), Err(true));
        for body in [r#"{"n":5.0}"#, r#"{"n":1e2}"#, r#"{"n":"5"}"#, r#"{"n":true}"#, r#"{"n":[5]}"#, r#"{"n":-0}"#] {
            assert!(integer(body).is_err_and(|e| e.contains("must be an integer")), "{body}");
        }
        assert!(integer(r#"{"n":null}"#).is_err_and(|e| e.contains("is required")));
    }

    #[test]
    fn what_is_no_object_or_names_a_field_twice_is_refused() {
        for body in [
            "",
            "null",
            "5",
            "[5]",
            r#"{"n":1,"n":2}"#,
            r#"{"n":1,"\u006e":2}"#,
            r#"{"n":1}x"#,
            "{\"n\":1",
            "\u{feff}{}",
        ] {
            assert!(integer(body).is_err_and(|e| e.contains(r#""field":"body""#)), "{body}");
        }
    }

    #[test]
    fn every_problem_is_told_at_once() {
        let mut fields = JsonFields::parse(br#"{"a":1,"b":"x","unknown":true}"#).expect("object");
        let a = fields.text("a", |t| Ok::<_, Infallible>(t.to_owned()));
        let b = fields.text("b", |_| Err::<(), _>("must be y"));
        let c = fields.text("c", |t| Ok::<_, Infallible>(t.to_owned()));
        let error = fields.finish(a.zip(b).zip(c)).map_err(|e| e.details().to_vec()).expect_err("refused");
        let told: Vec<_> = error.iter().map(|d| (d.field.as_str(), d.message.as_str())).collect();
        assert_eq!(
            told,
            [
                ("a", "must be a string"),
                ("b", "must be y"),
                ("c", "is required"),
                ("unknown", "is not a field of this request")
            ]
        );
    }

    proptest! {
        #[test]
        fn no_body_makes_the_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(mut fields) = JsonFields::parse(&body) {
                let n = fields.integer("n", Ok::<_, Infallible>);
                let _ = fields.finish(n);
            }
        }
    }
}
