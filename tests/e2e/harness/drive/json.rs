//! The JSON of answers: partial responses, and errors as Drive writes them.

use serde_json::{Map, Value, json};

/// An answer that is no success.
#[derive(Debug, Clone)]
pub(super) struct Refusal {
    pub(super) code: u16,
    pub(super) body: Value,
}

/// Refuses with a code and a reason.
pub(super) fn refuse(code: u16, reason: &str) -> Refusal {
    let domain = match reason {
        "userRateLimitExceeded" | "rateLimitExceeded" => "usageLimits",
        _ => "global",
    };
    let message = format!("{reason}, says the server of the tests.");
    let error = json!({ "domain": domain, "reason": reason, "message": message });
    Refusal {
        code,
        body: json!({ "error": { "code": code, "message": message, "errors": [error] } }),
    }
}

/// Cuts a value down to what `fields` asks for: `a,b(c,d/e)`, `*` for all.
pub(super) fn only(value: &Value, fields: &str) -> Value {
    match value {
        Value::Array(all) => all.iter().map(|one| only(one, fields)).collect(),
        Value::Object(object) => {
            let mut kept = Map::new();
            for (name, inner) in parts(fields) {
                if name == "*" {
                    return value.clone();
                }
                if let Some(found) = object.get(name) {
                    let cut = match inner {
                        Some(inner) => only(found, inner),
                        None => found.clone(),
                    };
                    kept.insert(name.to_owned(), cut);
                }
            }
            Value::Object(kept)
        }
        other => other.clone(),
    }
}

/// Splits at the commas that are in no brackets; each with what is asked for within.
fn parts(fields: &str) -> Vec<(&str, Option<&str>)> {
    let mut found = Vec::new();
    let (mut depth, mut start) = (0, 0);
    let ends = fields.char_indices().chain([(fields.len(), ',')]);
    for (at, c) in ends {
        match c {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                let part = fields[start..at].trim();
                start = at + 1;
                let split = part.split_once('(');
                found.push(match split {
                    Some((name, inner)) => (name, inner.strip_suffix(')')),
                    None => match part.split_once('/') {
                        Some((name, inner)) => (name, Some(inner)),
                        None => (part, None),
                    },
                });
            }
            _ => {}
        }
    }
    found
}
