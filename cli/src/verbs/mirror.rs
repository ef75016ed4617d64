//! `mirror`: the third copy.

use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use config::settings::{MIRROR_NAME_DEFAULT, MirrorTarget};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use node::mirror::{Grant, authorise, push_apart, restore_apart};
use serde_json::json;
use shared::block::problem_lines;
use shared::control::{
    MirrorAct, MirrorStatus, MirrorVerified, Mirrored, Request, Response, Status, exit,
};
use shared::words::{count, mirror_name, moment, number, plain, road_name, size, span};

use super::{Caller, make, print, print_json};
use crate::args::{Mirror, MirrorAuth, Shown};
use crate::client::ANSWER_WAIT_MAX;
use crate::failure::Failure;

/// How long a push or a verify may take: a first push of a large tree to Drive takes hours.
const LONG_WAIT: Duration = Duration::from_secs(7 * 86_400);
/// How often the progress of a daemon is asked for.
const LOOK: Duration = Duration::from_secs(1);

/// Does what was typed.
pub(super) fn mirror(caller: &Caller, wish: Mirror) -> Result<u8, Failure> {
    match wish {
        Mirror::Status(shown) => status(caller, shown),
        Mirror::Auth(wish) => auth(caller, &wish),
        Mirror::Push {
            source: Some(source),
            folder: Some(folder),
            shown,
        } => apart(caller, &source, &folder, shown),
        Mirror::Push { shown, .. } => push(caller, shown),
        Mirror::Verify(shown) => verify(caller, shown),
        Mirror::Restore { dir, from, shown } => restore(caller, &dir, from.as_deref(), shown),
    }
}

fn status(caller: &Caller, shown: Shown) -> Result<u8, Failure> {
    let status = caller.status()?;
    let problems: Vec<_> = status
        .problems
        .iter()
        .filter(|problem| problem.code.contains(".mirror_"))
        .cloned()
        .collect();
    let Some(mirror) = &status.mirror else {
        return Err(none(caller));
    };
    if shown.json {
        print_json(&json!({ "mirror": mirror, "problems": problems }))?;
    } else {
        print(&format!(
            "{}{}",
            problem_lines(&problems),
            text(mirror, &status)
        ))?;
    }
    Ok(if problems.is_empty() {
        exit::DONE
    } else {
        exit::DEGRADED
    })
}

fn none(caller: &Caller) -> Failure {
    Failure::error(
        "This node has no mirror.",
        format!(
            "set `target` in [mirror] of its settings, on both nodes, and start the daemons again; `{} mirror push SOURCE FOLDER` \
             mirrors a folder without a node",
            caller.command
        ),
    )
}

fn text(mirror: &MirrorStatus, status: &Status) -> String {
    let at = |time: Option<shared::utc::UtcMs>| time.map_or("not yet".to_owned(), moment);
    let mut rows = vec![
        (
            "Target",
            format!("{}: {}", mirror.target, plain(&mirror.place)),
        ),
        ("State", mirror_name(mirror.state).to_owned()),
        ("Road", road_name(mirror.road).to_owned()),
        ("Up to date", at(mirror.last_push)),
        ("Looked at", at(mirror.last_look)),
        ("Waiting", number(mirror.waiting)),
        (
            "Written",
            format!(
                "{}, {}",
                count(mirror.pushed, "file"),
                size(mirror.pushed_bytes)
            ),
        ),
        ("Taken", count(mirror.taken, "change")),
    ];
    if mirror.lag_ms > 0 {
        rows.push(("Behind", span(mirror.lag_ms)));
    }
    if mirror.held > 0 {
        rows.push(("Held", number(mirror.held)));
    }
    if let Some(why) = &mirror.why {
        rows.push(("Says", plain(why)));
    }
    rows.push(("Node", plain(&status.node.id)));
    let lines = rows
        .iter()
        .map(|(name, text)| format!("{name:<12}{text}\n"));
    lines.collect()
}

fn auth(caller: &Caller, wish: &MirrorAuth) -> Result<u8, Failure> {
    let grant = match (&wish.service_account, wish.device) {
        (Some(key), _) => Grant::Service(key.clone()),
        (None, true) => Grant::Device,
        (None, false) => Grant::Loopback,
    };
    let show = |address: &str, code: Option<&str>| match code {
        Some(code) => eprintln!("Open {address} on any device, and type the code {code} there."),
        None => eprintln!("Open this address in a browser on this machine:\n{address}"),
    };
    authorise(&caller.home, &grant, wish.all, wish.api.as_deref(), show)?;
    print("this node may use Drive now; a daemon that waits for it goes on by itself\n")?;
    Ok(exit::DONE)
}

/// Asks the daemon, and shows how far it has come meanwhile.
fn long(caller: &Caller, act: MirrorAct) -> Result<Response, Failure> {
    if caller.status()?.mirror.is_none() {
        return Err(none(caller));
    }
    let (answer, answered) = mpsc::channel();
    let asker = caller.clone();
    thread::spawn(move || {
        let _ = answer.send(asker.ask(&Request::Mirror(act), LONG_WAIT));
    });
    let bar = bar(None);
    loop {
        match answered.recv_timeout(LOOK) {
            Ok(response) => {
                bar.finish_and_clear();
                return response;
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                if let Ok(Response::Status(status)) = caller.ask(&Request::Status, ANSWER_WAIT_MAX)
                    && let Some(mirror) = status.mirror
                {
                    bar.set_message(format!(
                        "{} waiting; {} and {} written since the start of the daemon",
                        number(mirror.waiting),
                        count(mirror.pushed, "file"),
                        size(mirror.pushed_bytes)
                    ));
                    bar.tick();
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                return Err(Failure::error("The question was lost.", "ask again"));
            }
        }
    }
}

/// Brings the mirror of a node up to date.
pub(super) fn bring(caller: &Caller) -> Result<u8, Failure> {
    push(caller, Shown { json: false })
}

fn push(caller: &Caller, shown: Shown) -> Result<u8, Failure> {
    let Response::Mirrored(done) = long(caller, MirrorAct::Push)? else {
        return Err(caller.unexpected());
    };
    if shown.json {
        print_json(&done)?;
    } else {
        print(&format!("{}\n", summary(&done)))?;
    }
    Ok(if done.left == 0 {
        exit::DONE
    } else {
        exit::DEGRADED
    })
}

fn summary(done: &Mirrored) -> String {
    let mut parts = Vec::new();
    if done.pushed > 0 {
        parts.push(format!(
            "{} written, {}",
            count(done.pushed, "file"),
            size(done.bytes)
        ));
    }
    if done.changed > 0 {
        parts.push(format!("{} moved, marked or removed", number(done.changed)));
    }
    if done.taken > 0 {
        parts.push(format!("{} taken from it", count(done.taken, "change")));
    }
    let did = match parts.is_empty() {
        true => "nothing to do".to_owned(),
        false => parts.join(", "),
    };
    match done.left {
        0 => format!("the mirror is up to date: {did}"),
        left => format!("{did}; {} left", count(left, "path")),
    }
}

fn verify(caller: &Caller, shown: Shown) -> Result<u8, Failure> {
    let Response::MirrorVerified(found) = long(caller, MirrorAct::Verify)? else {
        return Err(caller.unexpected());
    };
    if shown.json {
        print_json(&found)?;
    } else {
        print(&verified(&found))?;
    }
    Ok(if found.differences == 0 {
        exit::DONE
    } else {
        exit::DEGRADED
    })
}

fn verified(found: &MirrorVerified) -> String {
    let mut text: String = found
        .different
        .iter()
        .map(|line| format!("{}\n", plain(line)))
        .collect();
    text += &format!(
        "{} and {} are the same in the mirror",
        count(found.equal, "file"),
        size(found.bytes)
    );
    if found.differences > 0 {
        text += &format!("; {} not", number(found.differences));
    }
    text + "\n"
}

/// Mirrors a folder without a node.
fn apart(caller: &Caller, source: &Path, folder: &Path, shown: Shown) -> Result<u8, Failure> {
    let source = make::absolute(source)?;
    let folder = make::absolute(folder)?;
    let bar = bar(None);
    let pushed = push_apart(&caller.home, &source, &folder, |files, bytes| {
        bar.set_message(format!("{}, {} written", count(files, "file"), size(bytes)));
        bar.tick();
    });
    bar.finish_and_clear();
    let pushed = pushed?;
    let done = Mirrored {
        pushed: pushed.done.pushed,
        bytes: pushed.done.bytes,
        changed: pushed.done.changed,
        taken: 0,
        left: pushed.done.left,
    };
    if shown.json {
        print_json(&json!({ "files": pushed.files, "done": done, "waits": pushed.waits }))?;
    } else {
        for (text, fix) in &pushed.waits {
            print(&format!("{}\n  Next: {}\n", plain(text), plain(fix)))?;
        }
        print(&format!(
            "{} of {}\n",
            summary(&done),
            count(pushed.files, "file")
        ))?;
    }
    Ok(if done.left == 0 {
        exit::DONE
    } else {
        exit::DEGRADED
    })
}

fn restore(caller: &Caller, dir: &Path, from: Option<&str>, shown: Shown) -> Result<u8, Failure> {
    let dir = make::absolute(dir)?;
    let from = from.map(place).transpose()?;
    let bar = bar(Some(()));
    let restored = restore_apart(&caller.home, from, &dir, |so_far| {
        bar.set_length(so_far.bytes.max(1));
        bar.set_position(so_far.bytes_done);
        bar.set_message(format!(
            "{} of {}",
            number(so_far.files_done),
            count(so_far.files, "file")
        ));
    });
    bar.finish_and_clear();
    let restored = restored?;
    if shown.json {
        print_json(&json!({
            "files": restored.files_done,
            "bytes": restored.bytes_done,
            "unchanged": restored.unchanged,
            "failed": restored.failed,
            "failures": restored.failures,
        }))?;
    } else {
        for text in &restored.failed {
            print(&format!("not restored: {}\n", plain(text)))?;
        }
        let mut text = format!(
            "restored and verified: {}, {}",
            count(restored.files_done, "file"),
            size(restored.bytes_done)
        );
        if restored.unchanged > 0 {
            text += &format!(
                ", {} of them stood there already",
                number(restored.unchanged)
            );
        }
        print(&format!("{text}\n"))?;
        let next = "layer-sync init pusher --root";
        eprintln!(
            "Next: `{next} {}` makes a node of it; then pair another machine.",
            dir.display()
        );
    }
    Ok(if restored.failures == 0 {
        exit::DONE
    } else {
        exit::DEGRADED
    })
}

/// Says which place somebody means.
fn place(text: &str) -> Result<MirrorTarget, Failure> {
    let drive = |name: &str| MirrorTarget::Drive {
        name: name.to_owned(),
        shared_drive: None,
    };
    Ok(match text.split_once(':') {
        _ if text == "drive" => drive(MIRROR_NAME_DEFAULT),
        Some(("drive", name)) if !name.is_empty() => drive(name),
        Some(("folder", folder)) => MirrorTarget::Folder(make::absolute(Path::new(folder))?),
        _ => MirrorTarget::Folder(make::absolute(&PathBuf::from(text))?),
    })
}

/// Makes a bar, which is drawn on a terminal alone.
fn bar(with_end: Option<()>) -> ProgressBar {
    let target = match io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    let (bar, style) = match with_end {
        Some(()) => (
            ProgressBar::new(1),
            "{bar:30} {bytes} of {total_bytes}  {msg}  {eta}",
        ),
        None => (ProgressBar::new_spinner(), "{spinner} {msg}"),
    };
    bar.set_draw_target(target);
    if let Ok(style) = ProgressStyle::with_template(style) {
        bar.set_style(style);
    }
    bar
}
