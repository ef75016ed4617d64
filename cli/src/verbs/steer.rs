//! `pair`, `web`, `pause`, `resume`, `restore`: have the daemon do something.

use std::net::{IpAddr, SocketAddr, UdpSocket};

use config::{Address, Link, Settings};
use shared::control::{NodeSide, Pick, Request, Response, Restored, RestoredBelow, exit};
use shared::utc::UtcMs;

use super::{Caller, now, print, print_json};
use crate::args::{OnPath, Shown};
use crate::client::{ANSWER_WAIT_MAX, WORK_WAIT_MAX};
use crate::failure::Failure;
use shared::words::{count, plain, size};

/// Prints the address of the dashboard.
pub(super) fn web(caller: &Caller, shown: Shown) -> Result<u8, Failure> {
    let Response::Web(address) = caller.ask(&Request::Web, ANSWER_WAIT_MAX)? else {
        return Err(caller.unexpected());
    };
    match shown.json {
        true => print_json(&serde_json::json!({ "address": address }))?,
        false => print(&format!("{address}\n"))?,
    }
    Ok(exit::DONE)
}

/// Prints a pairing code: alone on stdout, explained on stderr.
pub(super) fn pair(caller: &Caller, address: Option<Address>, shown: Shown) -> Result<u8, Failure> {
    if caller.status()?.node.side == NodeSide::Receiver {
        return Err(Failure::usage(
            "This node is a receiver; codes are made by the pusher.",
            "run `layer-sync pair` on the other machine",
        ));
    }
    // Nothing stands for the address that the daemon knows from its settings.
    let address = address.or_else(|| guessed_address(caller));
    let wanted = address.as_ref().map_or("", Address::as_str);
    let request = Request::Pair(wanted.to_owned());
    let Response::Code(code) = caller.ask(&request, ANSWER_WAIT_MAX)? else {
        return Err(caller.unexpected());
    };
    if shown.json {
        print_json(&serde_json::json!({ "code": code }))?;
        return Ok(exit::DONE);
    }
    let called = match wanted {
        "" => "the address in the settings",
        wanted => wanted,
    };
    eprintln!(
        "This code is good once, for 10 minutes. With it the other machine calls {called}; if it \
         cannot reach that, say another address with `{} pair --address HOST:PORT`.\n\
         Next: on the other machine run `layer-sync join CODE --root DIR`.",
        caller.command
    );
    print(&format!("{code}\n"))?;
    Ok(exit::DONE)
}

/// Pauses the pair or lets it go on.
pub(super) fn pause(caller: &Caller, stop: bool, shown: Shown) -> Result<u8, Failure> {
    let request = if stop {
        Request::Pause
    } else {
        Request::Resume
    };
    match caller.ask(&request, ANSWER_WAIT_MAX)? {
        Response::Paused(paused) if shown.json => {
            print_json(&serde_json::json!({ "paused": paused }))?;
        }
        Response::Paused(true) => print(&format!(
            "paused: neither tree changes until `{} resume`\n",
            caller.command
        ))?,
        Response::Paused(false) => print("not paused: changes travel\n")?,
        _ => return Err(caller.unexpected()),
    }
    Ok(exit::DONE)
}

/// Puts an earlier version back.
pub(super) fn restore(
    caller: &Caller,
    on: &OnPath,
    at: Option<&str>,
    version: Option<String>,
) -> Result<u8, Failure> {
    let pick = match (at, version) {
        (Some(at), _) => Pick::At(parse_time(at, now())?),
        (None, Some(version)) => Pick::Version(version),
        (None, None) => Pick::Latest,
    };
    let path = caller.path_in_root(&on.path)?;
    match caller.ask(&Request::Restore { path, pick }, WORK_WAIT_MAX)? {
        Response::Restored(restored) if on.shown.json => print_json(&restored)?,
        Response::Restored(restored) => print(&restored_text(&restored))?,
        Response::RestoredBelow(restored) => {
            if on.shown.json {
                print_json(&restored)?;
            } else {
                print(&restored_below_text(&on.path, &restored))?;
            }
            if restored.failures > 0 {
                return Ok(exit::ERROR);
            }
        }
        _ => return Err(caller.unexpected()),
    }
    Ok(exit::DONE)
}

fn restored_text(restored: &Restored) -> String {
    let kept = match &restored.displaced {
        Some(version) => format!(
            "kept: what stood there before, as version {}\n",
            plain(version)
        ),
        None => String::new(),
    };
    format!(
        "restored: {} as version {}, {}\n{kept}",
        plain(restored.path.as_str()),
        plain(&restored.version.version),
        size(restored.version.len)
    )
}

fn restored_below_text(folder: &std::path::Path, restored: &RestoredBelow) -> String {
    let folder = plain(&folder.display().to_string());
    let mut text = format!(
        "restored: {} below {folder}",
        count(restored.restored, "file")
    );
    if restored.unchanged > 0 {
        text += &format!(", {} as they were", restored.unchanged);
    }
    text.push('\n');
    if restored.displaced > 0 {
        let versions = count(restored.displaced, "version");
        text += &format!("kept: what stood there before, {versions}\n");
    }
    for failed in &restored.failed {
        text += &format!("not restored: {}\n", plain(failed));
    }
    let more = restored
        .failures
        .saturating_sub(restored.failed.len() as u64);
    if more > 0 {
        text += &format!("not restored: {} more\n", more);
    }
    if restored.incomplete {
        text += "the other machine could not be asked: what it keeps is not restored; \
                 when it is linked, restore again\n";
    }
    text
}

/// Parses a point in time, UTC, or a length of time before `now`.
fn parse_time(text: &str, now: UtcMs) -> Result<UtcMs, Failure> {
    let wrong = || {
        Failure::usage(
            format!("\"{}\" is no time.", plain(text)),
            "write `2026-11-22 21:14:05` (UTC), or `2h` for two hours ago",
        )
    };
    if let Ok(ago) = humantime::parse_duration(text.trim_end_matches(" ago")) {
        let ago = u64::try_from(ago.as_millis()).map_err(|_| wrong())?;
        return Ok(UtcMs(now.0.saturating_sub(ago)));
    }
    let time = humantime::parse_rfc3339_weak(text).map_err(|_| wrong())?;
    let since = time
        .duration_since(std::time::SystemTime::UNIX_EPOCH)
        .map_err(|_| wrong())?;
    u64::try_from(since.as_millis())
        .map(UtcMs)
        .map_err(|_| wrong())
}

/// Guesses where this machine can be called when the settings do not tell: the pusher listens on
/// all addresses and advertises none.
fn guessed_address(caller: &Caller) -> Option<Address> {
    match Settings::read(&caller.home).ok()?.link {
        Link::Listen {
            listen,
            advertise: None,
        } if listen.ip().is_unspecified() => callable(listen, outward_address(listen)?),
        Link::Listen { .. } | Link::Dial { .. } => None,
    }
}

/// Returns the address at which a listener on all addresses can be called, when its port is known.
fn callable(listen: SocketAddr, outward: IpAddr) -> Option<Address> {
    SocketAddr::new(outward, listen.port())
        .to_string()
        .parse()
        .ok()
}

/// Asks the system from which address it would send into the internet. Nothing is sent.
fn outward_address(listen: SocketAddr) -> Option<IpAddr> {
    // Addresses of documentation (RFC 5737, RFC 3849): every default route covers them.
    let (from, to) = if listen.is_ipv4() {
        ("0.0.0.0:0", "192.0.2.1:9")
    } else {
        ("[::]:0", "[2001:db8::1]:9")
    };
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    Some(socket.local_addr().ok()?.ip())
}

#[cfg(test)]
mod tests {
    use shared::control::Version;
    use shared::path::RelPath;

    use super::*;

    #[test]
    fn times() {
        let now = UtcMs(1_795_382_045_000);
        let check = |text: &str, at: Option<&str>| {
            let parsed = parse_time(text, now);
            assert_eq!(
                parsed.as_ref().ok().map(UtcMs::to_string).as_deref(),
                at,
                "{text}"
            );
            assert!(parsed.is_ok() || parsed.is_err_and(|failure| failure.exit == exit::USAGE));
        };
        check("2026-11-22T21:14:05Z", Some("2026-11-22T21:14:05Z"));
        check("2026-11-22 21:14:05", Some("2026-11-22T21:14:05Z"));
        check("2h", Some("2026-11-22T19:14:05Z"));
        check("2h ago", Some("2026-11-22T19:14:05Z"));
        check("1d 30m", Some("2026-11-21T20:44:05Z"));
        check("100years", Some("1970-01-01T00:00:00Z"));
        check("yesterday", None);
        check("2026-13-01 00:00:00", None);
        check("", None);
    }

    #[test]
    fn addresses() {
        let check = |listen: &str, outward: &str, called: Option<&str>| {
            let address = callable(listen.parse().unwrap(), outward.parse().unwrap());
            assert_eq!(address.as_ref().map(Address::as_str), called, "{listen}");
        };
        check("0.0.0.0:9797", "198.51.100.4", Some("198.51.100.4:9797"));
        check("[::]:9797", "2001:db8::7", Some("[2001:db8::7]:9797"));
        check("0.0.0.0:0", "198.51.100.4", None);
    }

    #[test]
    fn what_was_restored() {
        let mut restored = Restored {
            path: RelPath::parse("notes/plan.md").unwrap(),
            version: Version {
                version: "7f3a".to_owned(),
                path: None,
                at: UtcMs(0),
                len: 5018,
                content: None,
                why: "replaced".to_owned(),
                node: "vm".to_owned(),
            },
            displaced: None,
        };
        assert_eq!(
            restored_text(&restored),
            "restored: notes/plan.md as version 7f3a, 4.9 KiB\n"
        );
        restored.displaced = Some("81bc".to_owned());
        assert_eq!(
            restored_text(&restored),
            "restored: notes/plan.md as version 7f3a, 4.9 KiB\n\
             kept: what stood there before, as version 81bc\n"
        );
    }
}
