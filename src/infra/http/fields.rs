//! The fields of a JSON body or of a query, declared once: what is read is what the OpenAPI document shows.
//!
//! A *form* is a function from [`Fields`] to a value. It asks for each field by name, with its parser and its schema.
//! [`Fields::read`] runs the form on a request and reports every problem at once; [`Fields::describe`] runs it without
//! a request and collects the schemas. A form must therefore ask for all of its fields before it looks at any of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use percent_encoding::percent_decode_str;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::error::Category;
use serde_json::{Number, Value};
use utoipa::openapi::{KnownFormat, Object, ObjectBuilder, SchemaFormat, Type};

use crate::infra::http::{ApiError, Detail};

/// The fields of one request, each taken out as it is read.
pub struct Fields {
    values: BTreeMap<String, Value>,
    problems: Vec<Detail>,
    place: &'static Place,
    /// Where the schemas go when there is no request.
    schemas: Option<Vec<FieldSchema>>,
}

/// What the OpenAPI document says about one field.
pub(super) struct FieldSchema {
    pub(super) name: &'static str,
    pub(super) is_required: bool,
    pub(super) schema: Object,
    /// Only of a list of objects.
    pub(super) items: Option<ItemSchema>,
}

/// What the OpenAPI document says about the objects in a list.
pub(super) struct ItemSchema {
    pub(super) name: &'static str,
    pub(super) fields: Vec<FieldSchema>,
    /// Items in the list; at least one.
    pub(super) max: usize,
}

/// The smallest float that is not an i64.
const TWO_TO_THE_63: f64 = 9_223_372_036_854_775_808.0;

/// Problems that a response lists at most; others are not reported.
const PROBLEMS_MAX: usize = 1_000;

/// What is wrong with a query parameter that the endpoint does not have.
pub(super) const UNKNOWN_PARAMETER: &str = "unknown parameter";

/// Where fields are, and what is said about them there.
struct Place {
    /// About a field that no form has asked for.
    unknown: &'static str,
    /// About a value that is not a text.
    not_a_text: &'static str,
}

const BODY: Place = Place { unknown: "unknown field", not_a_text: "must be a string" };
/// A value that was decoded is always a text.
const QUERY: Place = Place { unknown: UNKNOWN_PARAMETER, not_a_text: "must be UTF-8" };

/// What is wrong with a field that occurs twice.
const REPEATED: &str = "must not be repeated";

/// The fields of a JSON object, and the paths of those that occur twice, in it or in an object within it.
#[derive(Default)]
struct Members {
    values: BTreeMap<String, Value>,
    repeated: BTreeSet<String>,
}

/// A JSON value. A [`Value`] alone keeps only the last one of two fields with the same name.
#[derive(Default)]
struct Member {
    value: Value,
    repeated: BTreeSet<String>,
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;

        impl<'de> Visitor<'de> for Fields {
            type Value = Members;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut object = Members::default();
                while let Some((name, member)) = map.next_entry::<String, Member>()? {
                    add_within(&mut object.repeated, &name, &member.repeated);
                    if object.values.insert(name.clone(), member.value).is_some() {
                        object.repeated.insert(printable(&name));
                    }
                }
                Ok(object)
            }
        }

        deserializer.deserialize_map(Fields)
    }
}

impl<T: Into<Value>> From<T> for Member {
    fn from(value: T) -> Self {
        Self { value: value.into(), repeated: BTreeSet::new() }
    }
}

impl<'de> Deserialize<'de> for Member {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Any;

        impl<'de> Visitor<'de> for Any {
            type Value = Member;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any JSON value")
            }

            fn visit_unit<E>(self) -> Result<Member, E> {
                Ok(Value::Null.into())
            }

            fn visit_bool<E>(self, flag: bool) -> Result<Member, E> {
                Ok(flag.into())
            }

            fn visit_i64<E>(self, number: i64) -> Result<Member, E> {
                Ok(number.into())
            }

            fn visit_u64<E>(self, number: u64) -> Result<Member, E> {
                Ok(number.into())
            }

            fn visit_f64<E>(self, number: f64) -> Result<Member, E> {
                Ok(number.into())
            }

            fn visit_str<E>(self, text: &str) -> Result<Member, E> {
                Ok(text.into())
            }

            fn visit_string<E>(self, text: String) -> Result<Member, E> {
                Ok(text.into())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Member, A::Error> {
                let (mut values, mut repeated) = (Vec::new(), BTreeSet::new());
                while let Some(member) = list.next_element::<Member>()? {
                    add_within(&mut repeated, &format!("[{}]", values.len()), &member.repeated);
                    values.push(member.value);
                }
                Ok(Member { value: Value::Array(values), repeated })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Member, A::Error> {
                let Members { values, repeated } = Members::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Member { value: Value::Object(values.into_iter().collect()), repeated })
            }
        }

        deserializer.deserialize_any(Any)
    }
}

fn int64(integer: ObjectBuilder) -> ObjectBuilder {
    integer.format(Some(SchemaFormat::KnownFormat(KnownFormat::Int64)))
}

/// The end of the range of i64 beyond which `number` is. The parser turns an integer literal above u64::MAX into a float, and
/// nothing is lost by treating `1e30` the same: no field has such a value.
fn beyond_i64(number: &Number) -> Option<i64> {
    if number.is_u64() {
        return Some(i64::MAX);
    }
    let float = number.as_f64().filter(|float| float.abs() >= TWO_TO_THE_63)?;
    Some(if float > 0.0 { i64::MAX } else { i64::MIN })
}

/// Adds the paths of what is repeated within `name`. Bounded, so that the paths cannot become much larger than the body.
fn add_within(repeated: &mut BTreeSet<String>, name: &str, within: &BTreeSet<String>) {
    let name = if within.is_empty() { String::new() } else { printable(name) };
    for inner in within.iter().take(PROBLEMS_MAX) {
        let dot = if inner.starts_with('[') { "" } else { "." };
        repeated.insert(printable(&format!("{name}{dot}{inner}")));
    }
}

/// A name or value of a query.
fn decoded(text: &str) -> Vec<u8> {
    percent_decode_str(&text.replace('+', " ")).collect()
}

/// A name that came with the request, short and harmless enough to be sent back.
fn printable(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(100).collect()
}

/// What is wrong with a body that is not a JSON object. The parser's message may quote the body, so it is not passed on.
fn not_an_object(body: &[u8], error: &serde_json::Error) -> String {
    if error.classify() == Category::Data || body.trim_ascii().is_empty() {
        return "must be a JSON object".to_owned();
    }
    // The parser counts bytes, and editors count characters.
    let line = body.split(|byte| *byte == b'\n').nth(error.line().saturating_sub(1)).unwrap_or_default();
    let before = line.get(..error.column()).unwrap_or(line);
    let place = format!("line {}, character {}", error.line(), String::from_utf8_lossy(before).chars().count());
    match error.classify() {
        Category::Eof => format!("is not valid JSON: it ends too early, in {place}"),
        _ => format!("is not valid JSON in {place}"),
    }
}

impl Fields {
    /// Duplicate fields are problems that [`Self::read`] reports.
    ///
    /// # Errors
    /// 400 unless the body is one JSON object.
    pub fn json(body: &[u8]) -> Result<Self, ApiError> {
        let Members { values, repeated } =
            serde_json::from_slice(body).map_err(|e| ApiError::invalid("body", not_an_object(body, &e)))?;
        let mut fields = Self { values, problems: Vec::new(), place: &BODY, schemas: None };
        for name in repeated {
            fields.refuse(&printable(&name), REPEATED);
        }
        Ok(fields)
    }

    /// A query is decoded as forms are. Parameters that are repeated or not UTF-8 are problems that [`Self::read`] reports.
    pub fn query(query: &str) -> Self {
        let mut fields = Self { values: BTreeMap::new(), problems: Vec::new(), place: &QUERY, schemas: None };
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            // No endpoint has a parameter whose name has a replacement character.
            let name = String::from_utf8_lossy(&decoded(name)).into_owned();
            // Whatever is not a text will do.
            let value = String::from_utf8(decoded(value)).map_or(Value::Bool(false), Value::String);
            if fields.values.insert(name.clone(), value).is_some() {
                fields.refuse(&printable(&name), REPEATED);
            }
        }
        fields
    }

    /// Reads the form. A field that it does not ask for is a problem too: a misspelled filter must not show unfiltered
    /// money.
    ///
    /// # Errors
    /// 400 with every problem.
    pub fn read<T>(mut self, form: impl FnOnce(&mut Self) -> Option<T>) -> Result<T, ApiError> {
        let read = form(&mut self);
        self.refuse_unknown();
        match read {
            Some(read) if self.problems.is_empty() => Ok(read),
            _ => Err(ApiError::validation(self.problems)),
        }
    }

    fn refuse_unknown(&mut self) {
        for name in std::mem::take(&mut self.values).into_keys() {
            self.refuse(&printable(&name), self.place.unknown);
        }
    }

    pub(super) fn describe<T>(form: impl FnOnce(&mut Self) -> Option<T>) -> Vec<FieldSchema> {
        let mut fields =
            Self { values: BTreeMap::new(), problems: Vec::new(), place: &BODY, schemas: Some(Vec::new()) };
        form(&mut fields);
        fields.schemas.unwrap_or_default()
    }

    /// A required text.
    pub fn text<T, E: fmt::Display>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
        schema: impl FnOnce(ObjectBuilder) -> ObjectBuilder,
    ) -> Option<T> {
        let value = self.required(name, Type::String, schema)?;
        self.parse_text(name, value, parse)
    }

    /// A text that may be absent, or null in a body. The outer `None` means that it is present and invalid.
    pub fn optional_text<T, E: fmt::Display>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&str) -> Result<T, E>,
        schema: impl FnOnce(ObjectBuilder) -> ObjectBuilder,
    ) -> Option<Option<T>> {
        match self.take(name, false, Type::String, schema) {
            None => Some(None),
            Some(value) => self.parse_text(name, value, parse).map(Some),
        }
    }

    /// An object whose values are texts; it may be absent, or null in a body.
    pub fn optional_texts<T, E: fmt::Display>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(&BTreeMap<String, String>) -> Result<T, E>,
        schema: impl FnOnce(ObjectBuilder) -> ObjectBuilder,
    ) -> Option<Option<T>> {
        let object = match self.take(name, false, Type::Object, schema) {
            None => return Some(None),
            Some(Value::Object(object)) => object,
            Some(_) => {
                self.refuse(name, "must be an object");
                return None;
            }
        };
        let (mut texts, mut is_valid) = (BTreeMap::new(), true);
        for (key, value) in object {
            if let Value::String(text) = value {
                texts.insert(key, text);
            } else {
                self.refuse(&printable(&format!("{name}.{key}")), "must be a string");
                is_valid = false;
            }
        }
        if !is_valid {
            return None;
        }
        parse(&texts).map(Some).map_err(|e| self.refuse(name, e)).ok()
    }

    /// The texts whose names begin with `prefix`, by the rest of their names. `None` if one of them is not a text.
    pub fn with_prefix(&mut self, prefix: &str) -> Option<BTreeMap<String, String>> {
        let mut found = BTreeMap::new();
        let mut others = Vec::new();
        self.values.retain(|name, value| match (name.strip_prefix(prefix), value) {
            (Some(rest), Value::String(text)) => {
                found.insert(rest.to_owned(), std::mem::take(text));
                false
            }
            (Some(_), _) => {
                others.push(name.clone());
                false
            }
            (None, _) => true,
        });
        for name in &others {
            self.refuse_named(name, self.place.not_a_text);
        }
        others.is_empty().then_some(found)
    }

    /// A required integer literal: `5.0`, `1e2` and `"5"` are refused.
    pub fn integer<T, E: fmt::Display>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(i64) -> Result<T, E>,
        schema: impl FnOnce(ObjectBuilder) -> ObjectBuilder,
    ) -> Option<T> {
        let value = self.required(name, Type::Integer, |integer| schema(int64(integer)))?;
        self.parse_integer(name, &value, parse)
    }

    /// An integer literal that may be absent or null. The outer `None` means that it is present and invalid.
    pub fn optional_integer<T, E: fmt::Display>(
        &mut self,
        name: &'static str,
        parse: impl FnOnce(i64) -> Result<T, E>,
        schema: impl FnOnce(ObjectBuilder) -> ObjectBuilder,
    ) -> Option<Option<T>> {
        match self.take(name, false, Type::Integer, |integer| schema(int64(integer))) {
            None => Some(None),
            Some(value) => self.parse_integer(name, &value, parse).map(Some),
        }
    }

    /// A boolean that may be absent or null. The outer `None` means that it is something else.
    pub fn optional_boolean(
        &mut self,
        name: &'static str,
        schema: impl FnOnce(ObjectBuilder) -> ObjectBuilder,
    ) -> Option<Option<bool>> {
        match self.take(name, false, Type::Boolean, schema) {
            None => Some(None),
            Some(Value::Bool(value)) => Some(Some(value)),
            Some(_) => {
                self.refuse(name, "must be true or false");
                None
            }
        }
    }

    /// A required list of 1 to `max` objects, each read by `form`. Their schema is called `item`. A problem with a field of one
    /// is reported like `items[3].amountMinor`.
    pub fn objects<T>(
        &mut self,
        name: &'static str,
        (item, max): (&'static str, usize),
        about: &str,
        mut form: impl FnMut(&mut Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        if let Some(schemas) = &mut self.schemas {
            let schema = ObjectBuilder::new().schema_type(Type::Array).description(Some(about)).build();
            let items = Some(ItemSchema { name: item, fields: Self::describe(&mut form), max });
            schemas.push(FieldSchema { name, is_required: true, schema, items });
            return None;
        }
        let items = match self.values.remove(name) {
            Some(Value::Array(items)) if (1..=max).contains(&items.len()) => items,
            None | Some(Value::Null) => {
                self.refuse(name, "is required");
                return None;
            }
            Some(_) => {
                self.refuse(name, format!("must be a list of 1 to {max} objects"));
                return None;
            }
        };
        let count = items.len();
        let mut read = Vec::with_capacity(count);
        for (index, item) in items.into_iter().enumerate() {
            let Value::Object(object) = item else {
                self.refuse(&format!("{name}[{index}]"), "must be an object");
                continue;
            };
            let values = object.into_iter().collect();
            let mut fields = Self { values, problems: Vec::new(), place: self.place, schemas: None };
            read.extend(form(&mut fields));
            fields.refuse_unknown();
            for Detail { field, message } in fields.problems {
                self.refuse(&format!("{name}[{index}].{field}"), message);
            }
        }
        (read.len() == count).then_some(read)
    }

    /// Adds a problem, for example one of two fields together.
    pub fn refuse(&mut self, name: &str, message: impl fmt::Display) {
        if self.problems.len() >= PROBLEMS_MAX {
            return;
        }
        self.problems.push(Detail { field: name.to_owned(), message: message.to_string() });
    }

    /// The same for a field whose name came with the request.
    pub fn refuse_named(&mut self, name: &str, message: impl fmt::Display) {
        self.refuse(&printable(name), message);
    }

    fn take(
        &mut self,
        name: &'static str,
        is_required: bool,
        kind: Type,
        schema: impl FnOnce(ObjectBuilder) -> ObjectBuilder,
    ) -> Option<Value> {
        if let Some(schemas) = &mut self.schemas {
            let schema = schema(ObjectBuilder::new().schema_type(kind)).build();
            schemas.push(FieldSchema { name, is_required, schema, items: None });
        }
        self.values.remove(name).filter(|value| !value.is_null())
    }

    fn required(
        &mut self,
        name: &'static str,
        kind: Type,
        schema: impl FnOnce(ObjectBuilder) -> ObjectBuilder,
    ) -> Option<Value> {
        let value = self.take(name, true, kind, schema);
        if value.is_none() {
            self.refuse(name, "is required");
        }
        value
    }

    fn parse_integer<T, E: fmt::Display>(
        &mut self,
        name: &str,
        value: &Value,
        parse: impl FnOnce(i64) -> Result<T, E>,
    ) -> Option<T> {
        let integer = match value {
            Value::Number(number) => number.as_i64().or_else(|| beyond_i64(number)),
            _ => None,
        };
        match integer.map(parse) {
            Some(Ok(value)) => return Some(value),
            Some(Err(e)) => self.refuse(name, e),
            None => self.refuse(name, "must be an integer"),
        }
        None
    }

    fn parse_text<T, E: fmt::Display>(
        &mut self,
        name: &str,
        value: Value,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let Value::String(text) = value else {
            self.refuse(name, self.place.not_a_text);
            return None;
        };
        parse(&text).map_err(|e| self.refuse(name, e)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::convert::Infallible;

    fn problems<T: fmt::Debug>(read: Result<T, ApiError>) -> Vec<(String, String)> {
        let details = read.expect_err("refused").details().to_vec();
        details.into_iter().map(|detail| (detail.field, detail.message)).collect()
    }

    fn of(expected: &[(&str, &str)]) -> Vec<(String, String)> {
        expected.iter().map(|(field, message)| ((*field).to_owned(), (*message).to_owned())).collect()
    }

    fn integer(body: &str) -> Result<i64, ApiError> {
        Fields::json(body.as_bytes())?.read(|fields| fields.integer("n", Ok::<_, Infallible>, |n| n))
    }

    #[test]
    fn only_an_integer_literal_is_an_integer() {
        assert_eq!(integer(r#"{"n": 5}"#).ok(), Some(5));
        assert_eq!(integer(r#"{"n": 18446744073709551615}"#).ok(), Some(i64::MAX), "too large for any parser");
        for (literal, end) in [
            ("9223372036854775808", i64::MAX),
            ("18446744073709551616", i64::MAX),
            ("99999999999999999999", i64::MAX),
            ("-9223372036854775809", i64::MIN),
            ("-99999999999999999999", i64::MIN),
        ] {
            assert_eq!(
                integer(&format!("{{\"n\": {literal}}}")).ok(),
                Some(end),
                "{literal} is outside of every range"
            );
        }
        let not_integers = [
            r#"{"n":5.0}"#,
            r#"{"n":1e2}"#,
            r#"{"n":"5"}"#,
            r#"{"n":true}"#,
            r#"{"n":[5]}"#,
            r#"{"n":-0}"#,
            r#"{"n":9223372036854774784.5}"#,
        ];
        for body in not_integers {
            assert_eq!(problems(integer(body)), of(&[("n", "must be an integer")]), "{body}");
        }
        assert_eq!(problems(integer(r#"{"n":null}"#)), of(&[("n", "is required")]));
    }

    #[test]
    fn an_optional_integer_may_be_absent_or_null_but_not_something_else() {
        let read = |body: &str| {
            Fields::json(body.as_bytes())?.read(|fields| fields.optional_integer("n", Ok::<_, Infallible>, |n| n))
        };
        for (body, expected) in [("{}", None), (r#"{"n":null}"#, None), (r#"{"n":5}"#, Some(5))] {
            assert_eq!(read(body).ok(), Some(expected), "{body}");
        }
        for body in [r#"{"n":"5"}"#, r#"{"n":5.0}"#, r#"{"n":[]}"#] {
            assert_eq!(problems(read(body)), of(&[("n", "must be an integer")]), "{body}");
        }
    }

    #[test]
    fn a_body_that_is_not_an_object_or_has_duplicate_fields_is_refused() {
        for body in ["null", "5", "[5]", "[", "", " \n"] {
            assert_eq!(problems(integer(body)), of(&[("body", "must be a JSON object")]), "{body}");
        }
        for body in [r#"{"n":1,"n":2}"#, r#"{"n":1,"\u006e":2,"n":3}"#] {
            assert_eq!(problems(integer(body)), of(&[("n", "must not be repeated")]), "{body}");
        }
        let body = br#"{"n":{"a":1,"b":{"c":1,"c":1},"a":2},"m":[1,{"d":1},{"d":1,"d":2}],"l":{"a":1,"b":{"a":1}}}"#;
        let expected: Vec<String> = ["m[2].d", "n.a", "n.b.c"].map(str::to_owned).into();
        let body = Fields::json(body).expect("an object");
        assert_eq!(body.problems.iter().map(|detail| detail.field.clone()).collect::<Vec<_>>(), expected);
        let body = Fields::json(br#"{"n":1,"n":"x","m":1,"m":2}"#).expect("an object");
        let read = body.read(|fields| fields.integer("n", Ok::<_, Infallible>, |n| n));
        let repeated = "must not be repeated";
        let expected = [("m", repeated), ("n", repeated), ("n", "must be an integer"), ("m", "unknown field")];
        assert_eq!(problems(read), of(&expected), "beside every other problem");
    }

    #[test]
    fn invalid_json_is_reported_with_its_place_in_characters() {
        for (body, message) in [
            (r#"{"n":1}x"#, "is not valid JSON in line 1, character 8"),
            ("{\"n\":1", "is not valid JSON: it ends too early, in line 1, character 6"),
            ("{\n  \"größe\": ,\n}", "is not valid JSON in line 2, character 12"),
            ("{\"n\":1,}", "is not valid JSON in line 1, character 8"),
            ("\u{feff}{}", "is not valid JSON in line 1, character 1"),
        ] {
            assert_eq!(problems(integer(body)), of(&[("body", message)]), "{body}");
        }
    }

    #[test]
    fn an_optional_integer_or_boolean_may_be_absent_or_null_and_is_as_strict_when_it_is_present() {
        let read = |body: &str| {
            Fields::json(body.as_bytes()).expect("an object").read(|fields| {
                let n = fields.optional_integer("n", Ok::<_, Infallible>, |n| n);
                let b = fields.optional_boolean("b", |b| b);
                Some((n?, b?))
            })
        };
        for body in ["{}", r#"{"n":null,"b":null}"#] {
            assert_eq!(read(body).ok(), Some((None, None)), "{body}");
        }
        assert_eq!(read(r#"{"n":5,"b":false}"#).ok(), Some((Some(5), Some(false))));
        for (body, field, message) in [
            (r#"{"n":5.0}"#, "n", "must be an integer"),
            (r#"{"n":"5"}"#, "n", "must be an integer"),
            (r#"{"n":true}"#, "n", "must be an integer"),
            (r#"{"b":"true"}"#, "b", "must be true or false"),
            (r#"{"b":1}"#, "b", "must be true or false"),
            (r#"{"b":[]}"#, "b", "must be true or false"),
        ] {
            assert_eq!(problems(read(body)), of(&[(field, message)]), "{body}");
        }
    }

    fn letters(fields: &mut Fields) -> Option<(String, String, String)> {
        let a = fields.text("a", str::parse, |a| a.min_length(Some(1)));
        let b = fields.text("b", |_| Err::<String, _>("must be y"), |b| b.description(Some("Always y.")));
        let c = fields.optional_text("c", str::parse, |c| c);
        Some((a?, b?, c??))
    }

    #[test]
    fn every_problem_is_reported_at_once() {
        let body = Fields::json(br#"{"b":"x","c":1,"d":true}"#).expect("an object");
        let expected = [("a", "is required"), ("b", "must be y"), ("c", "must be a string"), ("d", "unknown field")];
        assert_eq!(problems(body.read(letters)), of(&expected));
        let query = Fields::query("b=x&d=1&d=2");
        let expected =
            [("d", "must not be repeated"), ("a", "is required"), ("b", "must be y"), ("d", "unknown parameter")];
        assert_eq!(problems(query.read(letters)), of(&expected));
    }

    #[test]
    fn a_query_is_decoded_once_and_what_is_not_utf_8_is_refused() {
        let read = |query: &str| {
            Fields::query(query).read(|fields| {
                let text = fields.text("a", str::parse::<String>, |a| a);
                let prefixed = fields.with_prefix("m.");
                Some((text?, prefixed?.into_iter().collect::<Vec<_>>()))
            })
        };
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        for (query, a, prefixed) in [
            ("a=", "", vec![]),
            ("a", "", vec![]),
            ("&a=1&&", "1", vec![]),
            ("a=b+c%20d%2Be", "b c d+e", vec![]),
            ("%61=%C3%BC", "ü", vec![]),
            ("a=%2561", "%61", vec![]),
            ("a=100%", "100%", vec![]),
            ("a=%zz%4", "%zz%4", vec![]),
            ("a=b=c", "b=c", vec![]),
            ("a=%EF%BF%BD", "\u{fffd}", vec![]),
            ("a=1&m.x=&m.%C3%BC=%3D", "1", vec![pair("x", ""), pair("ü", "=")]),
        ] {
            assert_eq!(read(query).ok(), Some((a.to_owned(), prefixed)), "{query}");
        }
        let not_utf_8 = "must be UTF-8";
        for (query, expected) in [
            ("a=%ff", vec![("a", not_utf_8)]),
            ("a=%C3", vec![("a", not_utf_8)]),
            ("a=%ED%A0%80", vec![("a", not_utf_8)]),
            ("a=1&m.x=%ff&m.y=1&m.z=%fe", vec![("m.x", not_utf_8), ("m.z", not_utf_8)]),
            ("a=1&b=%ff", vec![("b", "unknown parameter")]),
            ("a=1&%ff=1", vec![("\u{fffd}", "unknown parameter")]),
            ("a=%ff&a=1", vec![("a", "must not be repeated")]),
        ] {
            assert_eq!(problems(read(query)), of(&expected), "{query}");
        }
    }

    #[test]
    fn a_form_describes_the_fields_that_it_reads() {
        let described = Fields::describe(letters);
        let names: Vec<_> = described.iter().map(|field| (field.name, field.is_required)).collect();
        assert_eq!(names, [("a", true), ("b", true), ("c", false)]);
        assert_eq!(described[0].schema.min_length, Some(1));
        assert_eq!(described[1].schema.description.as_deref(), Some("Always y."));
    }

    #[test]
    fn an_object_of_texts_has_nothing_else_in_it() {
        let read = |body: &str| {
            Fields::json(body.as_bytes())?
                .read(|fields| fields.optional_texts("m", |texts| Ok::<_, Infallible>(format!("{texts:?}")), |m| m))
        };
        assert_eq!(read(r#"{"m":{"b":"2","a":""}}"#).ok().flatten().as_deref(), Some(r#"{"a": "", "b": "2"}"#));
        for absent in ["{}", r#"{"m":null}"#] {
            assert_eq!(read(absent).ok(), Some(None), "{absent}");
        }
        for other in [r#"{"m":[]}"#, r#"{"m":"a"}"#, r#"{"m":5}"#, r#"{"m":true}"#] {
            assert_eq!(problems(read(other)), of(&[("m", "must be an object")]), "{other}");
        }
        let message = "must be a string";
        let expected = of(&[("m.a", message), ("m.b", message), ("m.c", message), ("m.e", message)]);
        assert_eq!(problems(read(r#"{"m":{"a":1,"b":null,"c":{"d":"x"},"d":"x","e":["x"]}}"#)), expected);
    }

    #[test]
    fn every_problem_in_a_list_of_objects_is_reported_with_its_place() {
        let read = |body: &str| {
            Fields::json(body.as_bytes())?.read(|fields| {
                fields.objects("list", ("Item", 3), "A list.", |item| {
                    let n = item.integer("n", Ok::<_, Infallible>, |n| n);
                    let flag = item.optional_boolean("flag", |flag| flag);
                    Some((n?, flag?))
                })
            })
        };
        let list = read(r#"{"list":[{"n":1},{"n":2,"flag":null},{"flag":true,"n":3}]}"#);
        assert_eq!(list.ok(), Some(vec![(1, None), (2, None), (3, Some(true))]));
        let body = r#"{"list":[{"n":1},{"n":"x","flag":0,"m":1},[]],"more":1}"#;
        let expected = [
            ("list[1].n", "must be an integer"),
            ("list[1].flag", "must be true or false"),
            ("list[1].m", "unknown field"),
            ("list[2]", "must be an object"),
            ("more", "unknown field"),
        ];
        assert_eq!(problems(read(body)), of(&expected));
        for body in [r#"{"list":[]}"#, r#"{"list":[{},{},{},{}]}"#, r#"{"list":{"n":1}}"#] {
            assert_eq!(problems(read(body)), of(&[("list", "must be a list of 1 to 3 objects")]), "{body}");
        }
        assert_eq!(problems(read(r#"{"list":null}"#)), of(&[("list", "is required")]));
    }

    #[test]
    fn a_response_lists_at_most_a_thousand_problems() {
        let fields: Vec<_> = (0..1_500).map(|n| format!("\"f{n}\":1")).collect();
        let body = Fields::json(format!("{{{}}}", fields.join(",")).as_bytes()).expect("an object");
        assert_eq!(problems(body.read(|_| Some(()))).len(), 1_000);
    }

    proptest! {
        #[test]
        fn every_value_is_read_as_it_is_without_repeated_fields(text in "[ \\[\\]{}:,\"a0-9.eE+-]{0,40}|[\\[{\"a:1,}\\]]{0,20}") {
            let expected = serde_json::from_str::<Value>(&text).ok();
            let member = serde_json::from_str::<Member>(&text).ok();
            let read = member.map(|member| member.value);
            prop_assert_eq!(read, expected);
        }

        #[test]
        fn no_body_makes_the_reader_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Fields::json(&body).and_then(|fields| fields.read(letters));
        }

        #[test]
        fn no_query_makes_the_reader_panic(query in any::<String>()) {
            let _ = Fields::query(&query).read(letters);
        }
    }
}
