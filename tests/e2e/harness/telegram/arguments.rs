//! The arguments of a call: JSON, or text as in a query string.

use serde_json::{Map, Value};

/// Arguments by name. A number, a flag or an object may also be given as text.
#[derive(Clone, Debug, Default)]
pub(super) struct Arguments(Map<String, Value>);

impl Arguments {
    /// Reads the body of a POST; an empty one has no arguments.
    pub(super) fn from_body(body: &[u8]) -> Option<Self> {
        if body.trim_ascii().is_empty() {
            return Some(Self::default());
        }
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Some(Self(map)),
            _ => None,
        }
    }

    /// Adds what stands behind the `?`.
    pub(super) fn add_query(&mut self, query: &str) {
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            self.0.insert(decoded(name), Value::String(decoded(value)));
        }
    }

    pub(super) fn to_value(&self) -> Value {
        Value::Object(self.0.clone())
    }

    pub(super) fn text(&self, name: &str) -> Option<String> {
        match self.0.get(name)? {
            Value::String(text) => Some(text.clone()),
            number @ Value::Number(_) => Some(number.to_string()),
            _ => None,
        }
    }

    pub(super) fn integer(&self, name: &str) -> Option<i64> {
        integer(self.0.get(name)?)
    }

    pub(super) fn flag(&self, name: &str) -> bool {
        self.0.get(name).is_some_and(flag)
    }

    /// Returns a list or an object.
    pub(super) fn structure(&self, name: &str) -> Option<Value> {
        let value = match self.0.get(name)? {
            Value::String(text) => serde_json::from_str(text).ok()?,
            value => value.clone(),
        };
        (value.is_array() || value.is_object()).then_some(value)
    }
}

pub(super) fn integer(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

pub(super) fn flag(value: &Value) -> bool {
    match value {
        Value::Bool(flag) => *flag,
        Value::String(text) => matches!(&*text.to_lowercase(), "true" | "yes" | "1"),
        value => value == 1,
    }
}

fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        match (first, after) {
            (b'%', [high, low, beyond @ ..]) => {
                let digit = |byte: &u8| char::from(*byte).to_digit(16);
                if let (Some(high), Some(low)) = (digit(high), digit(low)) {
                    bytes.push((high * 16 + low) as u8);
                    rest = beyond;
                } else {
                    bytes.push(b'%');
                }
            }
            (b'+', _) => bytes.push(b' '),
            (byte, _) => bytes.push(*byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}
