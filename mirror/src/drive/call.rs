//! One call: what an answer of Drive means.
//!
//! Drive says most in the `reason` of an error; the code alone is ambiguous (403 is both "slow down" and "not yours").

use std::time::Duration;

use google_drive3::common::{Delegate, Error, Response, Retry};
use google_drive3::hyper::StatusCode;
use google_drive3::hyper::header::RETRY_AFTER;
use serde_json::Value;

use super::consent::Denied;
use crate::target::Wrong;

/// Reasons that ask to slow down.
const SLOW_DOWN: [&str; 6] = [
    "rateLimitExceeded",
    "userRateLimitExceeded",
    "sharingRateLimitExceeded",
    "dailyLimitExceeded",
    "backendError",
    "internalError",
];
/// Reasons that say that there is no room.
const NO_ROOM: [&str; 4] = [
    "storageQuotaExceeded",
    "quotaExceeded",
    "teamDriveFileLimitExceeded",
    "numChildrenInNonRootLimitExceeded",
];
/// Reasons that say that the account, or the project, is not let in.
const NOT_LET_IN: [&str; 4] = [
    "accessNotConfigured",
    "domainPolicy",
    "accountDisabled",
    "insufficientScopes",
];
/// How long to wait when the quota of a day is used up.
const DAILY_WAIT: Duration = Duration::from_secs(600);

/// Hears what the generated client does not pass on: the code, and how long to wait.
#[derive(Default)]
pub(super) struct Ear {
    pub(super) status: Option<StatusCode>,
    after: Option<Duration>,
}

impl Delegate for Ear {
    fn http_failure(&mut self, response: &Response, _: Option<&Value>) -> Retry {
        self.hear(response);
        Retry::Abort
    }
}

impl Ear {
    pub(super) fn hear<B>(&mut self, response: &hyper::Response<B>) {
        self.status = Some(response.status());
        let after = response.headers().get(RETRY_AFTER);
        let seconds = after.and_then(|text| text.to_str().ok()?.parse().ok());
        self.after = seconds.map(Duration::from_secs);
    }

    /// Says what an error means.
    pub(super) fn wrong(&self, error: Error) -> Wrong {
        match error {
            Error::BadRequest(body) => self.refusal(&body),
            Error::Failure(_) => self.refusal(&Value::Null),
            Error::MissingToken(source) => match source.downcast::<Denied>() {
                Ok(denied) => denied.0,
                Err(other) => Wrong::Unreachable(other.to_string()),
            },
            Error::HttpError(error) => Wrong::Unreachable(chain(&error)),
            Error::Io(error) => Wrong::Unreachable(error.to_string()),
            Error::JsonDecodeError(_, error) => Wrong::Nonsense(error.to_string()),
            other => Wrong::Nonsense(other.to_string().trim().to_owned()),
        }
    }

    /// Says what an answer that is no success means.
    pub(super) fn refusal(&self, body: &Value) -> Wrong {
        let error = &body["error"];
        let reason = error["errors"][0]["reason"].as_str().unwrap_or_default();
        let message = error["message"].as_str().unwrap_or_default();
        let code = self.status.map_or(0, |status| status.as_u16());
        let text = match (message, reason) {
            ("", "") => format!("code {code}"),
            ("", reason) => format!("{reason}, code {code}"),
            (message, "") => format!("{message} (code {code})"),
            (message, reason) => format!("{message} ({reason})"),
        };
        if NO_ROOM.contains(&reason) {
            return Wrong::Full(text);
        }
        if NOT_LET_IN.contains(&reason) {
            return Wrong::NoConsent(text);
        }
        let daily = (reason == "dailyLimitExceeded").then_some(DAILY_WAIT);
        let busy = |text| Wrong::Busy {
            text,
            after: self.after.or(daily),
        };
        if SLOW_DOWN.contains(&reason) {
            return busy(text);
        }
        match code {
            // The token is not good any more; the next one may be.
            401 | 408 | 429 | 500.. => busy(text),
            404 | 410 => Wrong::Gone,
            409 | 412 | 416 => Wrong::Changed,
            _ => Wrong::Refused(text),
        }
    }
}

/// Returns what an error says, with what is behind it.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        text += &format!(": {error}");
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn of(code: u16, reason: &str) -> Wrong {
        let ear = Ear {
            status: StatusCode::from_u16(code).ok(),
            after: None,
        };
        ear.refusal(
            &json!({"error": {"code": code, "message": "m", "errors": [{"reason": reason}]}}),
        )
    }

    #[test]
    fn reasons_count_before_codes() {
        let is = |code, reason, expected: fn(&Wrong) -> bool| {
            let wrong = of(code, reason);
            assert!(expected(&wrong), "{code} {reason}: {wrong:?}");
        };
        is(403, "userRateLimitExceeded", |w| {
            matches!(w, Wrong::Busy { .. })
        });
        is(403, "rateLimitExceeded", |w| {
            matches!(w, Wrong::Busy { .. })
        });
        is(429, "rateLimitExceeded", |w| {
            matches!(w, Wrong::Busy { .. })
        });
        is(500, "backendError", |w| matches!(w, Wrong::Busy { .. }));
        is(503, "", |w| matches!(w, Wrong::Busy { .. }));
        is(401, "authError", |w| matches!(w, Wrong::Busy { .. }));
        is(403, "storageQuotaExceeded", |w| matches!(w, Wrong::Full(_)));
        is(403, "insufficientFilePermissions", |w| {
            matches!(w, Wrong::Refused(_))
        });
        is(403, "accessNotConfigured", |w| {
            matches!(w, Wrong::NoConsent(_))
        });
        is(404, "notFound", |w| matches!(w, Wrong::Gone));
        is(409, "fileIdInUse", |w| matches!(w, Wrong::Changed));
        is(400, "invalid", |w| matches!(w, Wrong::Refused(_)));
        let daily = of(403, "dailyLimitExceeded");
        assert!(matches!(
            daily,
            Wrong::Busy {
                after: Some(DAILY_WAIT),
                ..
            }
        ));
    }
}
