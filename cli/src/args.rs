//! What can be typed.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Parser, Subcommand};
use config::Address;
use config::settings::LISTEN_DEFAULT;
use shared::control::Keep;
use shared::reconcile::Mode;

use crate::verbs::decide::keep;

/// Keeps one folder tree equal on two machines.
#[derive(Debug, Parser)]
#[command(name = "layer-sync", version, arg_required_else_help = true)]
pub(crate) struct Args {
    /// The home of the node: settings, secrets, state, socket [default: $LAYER_SYNC_HOME, else
    /// ~/.layer-sync]
    #[arg(long, global = true, value_name = "DIR")]
    pub(crate) home: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Keep two folders of this machine equal, both sides in this process
    Up(Up),
    /// Make a node on this machine
    Init {
        #[command(subcommand)]
        side: Init,
    },
    /// Print a one-time code for the other machine (the code alone on stdout)
    Pair {
        /// Where the receiver can call this machine
        #[arg(long, value_name = "HOST:PORT")]
        address: Option<Address>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Make this machine the receiver of the pusher that printed CODE
    Join {
        /// What `layer-sync pair` printed
        code: String,
        /// The folder to keep equal
        #[arg(long, value_name = "DIR")]
        root: PathBuf,
        /// The name that people see [default: the name of the machine]
        #[arg(long)]
        name: Option<String>,
    },
    /// Run the pusher, in the foreground
    Pusher(Log),
    /// Run the receiver, in the foreground
    Receiver(Log),
    /// Show what this node keeps running, start a part of it again, or rehearse its crash
    Duty {
        #[command(subcommand)]
        wish: Duty,
    },
    /// Have the system start this node's daemon and keep it up
    Service {
        #[command(subcommand)]
        act: ServiceAct,
    },
    /// Show how the pair is
    Status(Status),
    /// Wait until everything that changed before now is durable on both sides
    Flush {
        /// How long to wait at most
        #[arg(long, value_name = "DURATION", default_value = "60s", value_parser = humantime::parse_duration)]
        timeout: Duration,
        #[command(flatten)]
        shown: Shown,
    },
    /// Show what the next cycle would do
    Plan(Shown),
    /// Show state, reason, remedy and history of one path
    Why(OnPath),
    /// Show the conflicts that nobody resolved yet
    Conflicts(Shown),
    /// Decide a conflict: which version counts on both sides; the other one is kept
    Resolve(Resolve),
    /// Let a batch pass that was halted because it displaces too much, or bring back what it would
    Confirm(Confirm),
    /// Show the earlier versions of a path, also of one that was deleted
    Versions(OnPath),
    /// Put an earlier version of a path back; what stands there now is kept
    Restore {
        #[command(flatten)]
        on: OnPath,
        /// What stood there then: `2026-11-22 21:14:05` (UTC), or `2h` for two hours ago
        #[arg(long, value_name = "TIME", conflicts_with = "version")]
        at: Option<String>,
        /// The version of this name, as `versions` shows it
        #[arg(long)]
        version: Option<String>,
    },
    /// Change neither tree until `resume`
    Pause(Shown),
    /// Go on after `pause`
    Resume(Shown),
    /// Have this node be the primary, or the other one
    Promote(Promote),
    /// Print the address of the dashboard, for a browser on this machine
    Web(Shown),
    /// Keep a third copy in a folder or in Google Drive, and restore from it
    Mirror {
        #[command(subcommand)]
        wish: Mirror,
    },
    /// Say who may speak with the bot, or say something through it
    Bot {
        #[command(subcommand)]
        wish: Bot,
    },
    /// Show what happens, until everything is equal
    Events {
        /// Go on until interrupted
        #[arg(long)]
        follow: bool,
        #[command(flatten)]
        shown: Shown,
    },
    /// Look at rights, watches, room, clock, index, marker, link and peer; say how to mend what is
    /// wrong; exit 4 with warnings, 5 when something stops the sync
    Doctor(Doctor),
    /// Look at both trees and compare them
    Verify {
        /// Read every file on both sides, and find what a disk has spoilt
        #[arg(long)]
        deep: bool,
        #[command(flatten)]
        shown: Shown,
    },
}

impl Verb {
    /// Says whether a service manager starts this verb and reads its exit code.
    pub(crate) fn is_daemon(&self) -> bool {
        matches!(self, Self::Pusher(_) | Self::Receiver(_))
    }
}

#[derive(Debug, clap::Args)]
pub(crate) struct Up {
    /// The folder of the pusher's side
    pub(crate) source: PathBuf,
    /// The folder of the receiver's side
    pub(crate) replica: PathBuf,
    /// End when both are equal and durable
    #[arg(long)]
    pub(crate) once: bool,
    /// Keep a third copy in this folder, as `mirror` does
    #[arg(long, value_name = "FOLDER")]
    pub(crate) mirror: Option<PathBuf>,
    /// Which changes travel, and who wins
    #[arg(long, default_value = Mode::default().name(), value_parser = modes())]
    pub(crate) mode: Mode,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Init {
    /// The side that listens and plans
    Pusher {
        /// The folder to keep equal
        #[arg(long, value_name = "DIR")]
        root: PathBuf,
        /// IP address and UDP port to listen on
        #[arg(long, value_name = "ADDR", default_value = LISTEN_DEFAULT)]
        listen: String,
        /// The name that people see [default: the name of the machine]
        #[arg(long)]
        name: Option<String>,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Status {
    /// Show it again every second
    #[arg(long)]
    pub(crate) watch: bool,
    /// Show the problems alone; exit 4 when something is degraded, 5 when halted
    #[arg(long)]
    pub(crate) check: bool,
    /// One line
    #[arg(long, conflicts_with = "check")]
    pub(crate) short: bool,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Doctor {
    /// Mend what is safe: rights of the node's own files, what a dead daemon left, missing parts of
    /// the private folder; never a file of the tree
    #[arg(long)]
    pub(crate) fix: bool,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, clap::Args)]
pub(crate) struct OnPath {
    /// Relative to the current directory or to the root, or absolute
    pub(crate) path: PathBuf,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Resolve {
    #[command(flatten)]
    pub(crate) on: OnPath,
    /// The version of this machine, that of the other one, or both under two names
    #[arg(long, value_name = "mine|theirs|both", value_parser = keep)]
    pub(crate) keep: Keep,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Confirm {
    /// The batch, as `status` names it; `root` accepts the folder of this node as it is now
    pub(crate) batch: String,
    /// Bring back what the batch would delete or rewrite
    #[arg(long)]
    pub(crate) undo: bool,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Log {
    /// Log to files in the node's home, which are turned over, instead of to standard error
    #[arg(long)]
    pub(crate) log_to_file: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Duty {
    /// Show each with its state
    List(Shown),
    /// End it and start it again, also when it is parked
    Restart {
        /// The duty, as `list` names it
        name: String,
    },
    /// End it as a crash would; five times in two minutes park it, and the other machine is primary
    Crash {
        /// The duty, as `list` names it
        name: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Bot {
    /// Make a one-time code; whoever sends `/pair CODE` to the bot is its owner
    Pair(Shown),
    /// Show who may speak with it, or let somebody ask it who changes nothing
    Allow {
        /// The person's number at Telegram: the bot tells it to whom it refuses
        user: Option<i64>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Listen to somebody no more
    Deny {
        /// The person's number at Telegram
        user: i64,
    },
    /// Send a text to the owner
    Send {
        /// The text; `-` reads it from standard input
        text: String,
    },
}

#[derive(Debug, Subcommand)]
pub(crate) enum Mirror {
    /// Show how the mirror is
    Status(Shown),
    /// Let this node into Google Drive: asks in the browser of this machine
    Auth(MirrorAuth),
    /// Bring the mirror up to date now; with SOURCE and FOLDER, mirror a folder without any node
    Push {
        /// The folder to mirror
        #[arg(requires = "folder")]
        source: Option<PathBuf>,
        /// The folder that becomes its mirror
        folder: Option<PathBuf>,
        #[command(flatten)]
        shown: Shown,
    },
    /// Compare the hash of every file with that in the mirror; exit 4 when something differs
    Verify(Shown),
    /// Make a tree of a mirror: goes on where it was cut short, overwrites nothing
    Restore {
        /// The folder to restore into
        dir: PathBuf,
        /// Where the mirror is: a folder, `drive`, or `drive:NAME` [default: that of the settings]
        #[arg(long, value_name = "PLACE")]
        from: Option<String>,
        #[command(flatten)]
        shown: Shown,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct MirrorAuth {
    /// Ask with a code that is typed on another device
    #[arg(long, conflicts_with = "service_account")]
    pub(crate) device: bool,
    /// As a service account, with the key in this file; needs a shared drive
    #[arg(long, value_name = "FILE")]
    pub(crate) service_account: Option<PathBuf>,
    /// For the whole Drive, so that files are seen that a person adds in the mirror's folder
    #[arg(long)]
    pub(crate) all: bool,
    /// Address of a server that stands in for Drive [default: that of the settings, else Google's]
    #[arg(long, value_name = "URL")]
    pub(crate) api: Option<String>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ServiceAct {
    /// Write the unit or the agent, check it, start it now and at every start of the machine
    Install {
        /// Write it into this root of a file system, and start nothing
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
    /// Stop it, and remove what `install` wrote; the node and its tree stay
    Uninstall {
        /// Remove it from this root of a file system, and stop nothing
        #[arg(long, value_name = "DIR")]
        into: Option<PathBuf>,
    },
    /// Start it
    Start,
    /// Stop it
    Stop,
    /// Stop and start it
    Restart,
    /// Show what the service manager says about it; `layer-sync status` shows how the node is
    Status,
    /// Show the log of the daemon
    Logs {
        /// Go on until interrupted
        #[arg(long)]
        follow: bool,
    },
}

#[derive(Debug, clap::Args)]
pub(crate) struct Promote {
    /// The node, by its name or as `pusher` or `receiver` [default: this one]
    #[arg(long, value_name = "NODE")]
    pub(crate) to: Option<String>,
    /// Without asking the pusher, which is out of reach and must not run; asks for its name to confirm
    #[arg(long)]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) shown: Shown,
}

#[derive(Debug, Clone, Copy, clap::Args)]
pub(crate) struct Shown {
    /// Show JSON, for programs
    #[arg(long)]
    pub(crate) json: bool,
}

fn modes() -> impl TypedValueParser<Value = Mode> {
    PossibleValuesParser::new(Mode::ALL.map(Mode::name)).try_map(|name| {
        Mode::ALL
            .into_iter()
            .find(|mode| mode.name() == name)
            .ok_or("there is no such mode")
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_command_is_sound() {
        Args::command().debug_assert();
    }

    #[test]
    fn lines() {
        let check = |line: &str, fits: bool| {
            let parsed = Args::try_parse_from(line.split(' '));
            assert_eq!(parsed.is_ok(), fits, "{line}");
        };
        check("layer-sync up a b --once --mode one-way-safe", true);
        check("layer-sync up a b --mode sideways", false);
        check("layer-sync up a b --once --mirror c", true);
        check("layer-sync up a", false);
        check(
            "layer-sync init pusher --root a --listen 0.0.0.0:1 --name vm",
            true,
        );
        check("layer-sync init receiver --root a", false);
        check("layer-sync pair --address vm:9797 --json", true);
        check("layer-sync pair --address vm", false);
        check("layer-sync join LS1-AAAA --root a --name mac", true);
        check("layer-sync join --root a", false);
        check("layer-sync --home h pusher", true);
        check("layer-sync receiver --home h", true);
        check("layer-sync status --watch --check --json", true);
        check("layer-sync status --short --check", false);
        check("layer-sync flush --timeout 1h", true);
        check("layer-sync flush --timeout 60", false);
        check("layer-sync restore p --at 2h --json", true);
        check("layer-sync restore p --version 7f3a", true);
        check("layer-sync restore p --version 7f3a --at 2h", false);
        check("layer-sync events --follow --json", true);
        check("layer-sync resolve p --keep mine", true);
        check("layer-sync resolve p --keep ours", false);
        check("layer-sync resolve p", false);
        check("layer-sync confirm 1a2b3c4d --undo --json", true);
        check("layer-sync confirm", false);
        check("layer-sync doctor --fix --json", true);
        check("layer-sync doctor --home h", true);
        check("layer-sync promote --to mac --json", true);
        check("layer-sync promote --force", true);
        check("layer-sync promote mac", false);
        check("layer-sync receiver --log-to-file", true);
        check("layer-sync service install --into d", true);
        check("layer-sync service logs --follow", true);
        check("layer-sync service", false);
        check("layer-sync duty restart sync", true);
        check("layer-sync duty list --json", true);
        check("layer-sync duty crash", false);
        check("layer-sync web --json", true);
        check("layer-sync mirror status --json", true);
        check("layer-sync mirror auth --device", true);
        check(
            "layer-sync mirror auth --all --api http://127.0.0.1:1",
            true,
        );
        check("layer-sync mirror auth --device --service-account f", false);
        check("layer-sync mirror push", true);
        check("layer-sync mirror push a b --json", true);
        check("layer-sync mirror push a", false);
        check("layer-sync mirror verify --json", true);
        check("layer-sync mirror restore d --from drive:name", true);
        check("layer-sync mirror restore", false);
        check("layer-sync bot pair --json", true);
        check("layer-sync bot allow", true);
        check("layer-sync bot allow 12345 --json", true);
        check("layer-sync bot allow ada", false);
        check("layer-sync bot deny", false);
        check("layer-sync bot send -", true);
    }

    #[test]
    fn the_defaults() {
        let args = Args::parse_from(["layer-sync", "flush"]);
        assert!(matches!(args.verb, Verb::Flush { timeout, .. } if timeout.as_secs() == 60));
        let args = Args::parse_from(["layer-sync", "up", "a", "b"]);
        assert!(matches!(args.verb, Verb::Up(up) if up.mode == Mode::TwoWaySafe && !up.once));
    }
}
