//! `doctor`: looks at everything that the node stands on.
//!
//! It asks the daemon, if one answers, and has `node` look at the rest.

use std::fmt::Write;

use node::doctor::{Asked, Check, Diagnosis, PeerSaid, SCHEMA, State, examine, mend};
use shared::control::{PeerState, Request, Response};
use shared::utc::UtcMs;

use super::{Caller, now, paint, print, print_json};
use crate::args;
use crate::client::{ANSWER_WAIT_MAX, Client, ClientError};
use crate::failure::Failure;
use crate::human::Paint;
use shared::words::plain;

/// Examines the node; with `--fix`, mends first what is safe to mend.
pub(super) fn doctor(caller: &Caller, wish: &args::Doctor) -> Result<u8, Failure> {
    let look = || examine(&caller.home, &caller.command, &asked(caller), now());
    let mut diagnosis = Diagnosis {
        schema: SCHEMA,
        checks: look(),
        mended: Vec::new(),
    };
    if wish.fix && diagnosis.checks.iter().any(Check::can_be_mended) {
        diagnosis.mended = mend(&caller.home, &diagnosis.checks);
        diagnosis.checks = look();
    }
    if wish.shown.json {
        print_json(&diagnosis)?;
    } else {
        print(&page(&diagnosis, &caller.command, paint()))?;
    }
    Ok(diagnosis.exit())
}

/// Asks the daemon how it is, and has it ask the other node.
fn asked(caller: &Caller) -> Asked {
    let ask = |request| Client::ask(&caller.home, &request, ANSWER_WAIT_MAX);
    let status = match ask(Request::Status) {
        Ok(Response::Status(status)) => status,
        Err(ClientError::NotRunning) => return Asked::NotRunning,
        Ok(_) => return Asked::Deaf(ClientError::Unexpected.into_failure(&caller.home, "").text),
        Err(error) => {
            return Asked::Deaf(error.into_failure(&caller.home, &caller.command).text);
        }
    };
    let mut peer = None;
    if status.peer.state == PeerState::Linked {
        let before = now();
        if let Ok(Response::Status(status)) = ask(Request::Peer(Box::new(Request::Status))) {
            let at = UtcMs(before.0.midpoint(now().0));
            peer = Some(PeerSaid { status, at });
        }
    }
    Asked::Running { status, peer }
}

/// Writes a line for each check, and one for what helps.
fn page(diagnosis: &Diagnosis, command: &str, paint: Paint) -> String {
    let mut page = String::new();
    for done in &diagnosis.mended {
        let _ = writeln!(page, "Mended   {}", plain(done));
    }
    for check in &diagnosis.checks {
        let (word, colour) = match check.state {
            State::Ok => ("ok", 32),
            State::Warning => ("warning", 33),
            State::Wrong => ("wrong", 31),
        };
        let word = paint.word(&format!("{word:<7}"), colour);
        let _ = writeln!(page, "{word}  {:<10}  {}", check.name, plain(&check.text));
        if !check.fix.is_empty() {
            let _ = writeln!(page, "                     Next: {}", plain(&check.fix));
        }
    }
    if diagnosis.mended.is_empty() && diagnosis.checks.iter().any(Check::can_be_mended) {
        let _ = writeln!(
            page,
            "Some of it can be mended at once: `{command} doctor --fix`."
        );
    }
    page
}

#[cfg(test)]
mod tests {
    use config::Home;

    use super::*;

    #[test]
    fn a_page() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(dir.path().join("none"));
        let shown = home.dir().display().to_string();
        let diagnosis = Diagnosis {
            schema: SCHEMA,
            checks: examine(&home, "layer-sync", &Asked::NotRunning, UtcMs(0)),
            mended: vec!["did \x1b[2J".to_owned()],
        };
        let text = page(&diagnosis, "layer-sync", Paint { on: false });
        let begin = format!(
            "Mended   did \\u{{1b}}[2J\n\
             wrong    home        There is no home at {shown}.\n                     Next: make the node with "
        );
        assert!(text.starts_with(&begin), "{text}");
        assert_eq!(text.lines().count(), 3, "{text}");
        let text = page(&diagnosis, "layer-sync", Paint { on: true });
        assert!(text.contains("\x1b[1;31mwrong  \x1b[0m  home"), "{text}");
    }
}
