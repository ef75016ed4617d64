//! The commented text of a settings file.

use std::net::SocketAddr;
use std::time::Duration;

use shared::lease::Prefer;
use shared::reconcile::Mode;

use super::{
    BOT_API_DEFAULT, DASHBOARD_DEFAULT, KeptSettings, LISTEN_DEFAULT, Link, MIRROR_API_DEFAULT,
    MIRROR_BUDGET_DEFAULT, MIRROR_BUDGET_MAX, MIRROR_NAME_DEFAULT, MirrorSettings, MirrorTarget,
    NAME_BYTES_MAX, NOWHERE, RATE_LIMIT_MIN, Settings, SyncSettings, VERSION,
};
use crate::quantity::{duration_text, size_text};

/// Writes every key with its unit and default. A key that is not set stands there as a comment.
pub(super) fn render(settings: &Settings) -> String {
    let side = settings.link.side().name();
    format!(
        "# layer-sync: the settings of a {side}.\n\
         # Read when the daemon starts. Durations are written as \"500ms\", \"30s\", \"5m\", \"24h\", \"30d\";\n\
         # sizes as an integer and B, KiB, MiB, GiB or TiB. Secrets do not stand here but in `.env` beside it.\n\
         \n\
         # Version of this file. Required.\n\
         version = {VERSION}\n\
         \n{}\n{}\n{}\n{}\n{}\n{}\n{}\n{}",
        node(settings),
        sync(&settings.sync),
        link(settings),
        lease(settings.prefer),
        kept(&settings.kept),
        mirror(&settings.mirror),
        bot(&settings.bot_api),
        dashboard(settings.dashboard),
    )
}

fn node(settings: &Settings) -> String {
    format!(
        "[node]\n\
         # The name that people see, also in names of conflict copies. At most {NAME_BYTES_MAX} bytes: letters, digits,\n\
         # `-`, `_` and `.`. Required.\n\
         name = {}\n\
         # The folder that is kept equal: an absolute path. Required.\n\
         root = {}\n",
        quoted(&settings.node.name),
        quoted(&settings.node.root.to_string_lossy()),
    )
}

fn sync(sync: &SyncSettings) -> String {
    let default = SyncSettings::default();
    let modes = Mode::ALL.map(|mode| format!("\"{}\"", mode.name()));
    format!(
        "[sync]\n\
         # Which changes travel, and who wins: one of\n\
         # {}.\n\
         # The pusher's counts for both sides. Default: \"{}\".\n\
         mode = \"{}\"\n\
         # Time between two looks at the whole when nothing happens, and so the longest that a change can\n\
         # stay unseen while linked. A duration{}. Default: \"{}\".\n\
         interval = \"{}\"\n\
         # Strict batches: a change waits this long for others, so that they travel together. A duration{}.\n\
         # Default: not set, a change travels as soon as its file is quiet.\n\
         {}\n\
         # What becomes of a file that both sides changed, by name: patterns as in .gitignore, of which `copy` counts\n\
         # before `hold`, and that before `merge`. The pusher's count for both sides.\n\
         # copy: the version that does not keep the path becomes a copy beside it; that is so for whatever fits none.\n\
         # hold: both stay as they are until `layer-sync resolve`; built in for *.db, *.db3, *.sqlite, *.sqlite3.\n\
         # merge: appended lines of *.jsonl, *.ndjson, *.log are united; other texts are merged by line when no two\n\
         # changes meet; else as copy. Default for all three: [].\n\
         copy = {}\n\
         hold = {}\n\
         merge = {}\n\
         # A plan that would delete, or rewrite, more than this share of one side's files waits for `layer-sync confirm`,\n\
         # if it is at least so many files; counted over ten minutes. The pusher's count for both sides.\n\
         # Percent: an integer, 0 to {}. Default: {}.\n\
         delete_percent = {}\n\
         # Files: an integer. Default: {}.\n\
         delete_min = {}\n\
         # Percent: an integer, 0 to {}. Default: {}.\n\
         rewrite_percent = {}\n\
         # Files: an integer. Default: {}.\n\
         rewrite_min = {}\n",
        modes.join(", "),
        default.mode.name(),
        sync.mode.name(),
        range(SyncSettings::INTERVAL),
        duration_text(default.interval),
        duration_text(sync.interval),
        range(SyncSettings::DEBOUNCE),
        match sync.debounce {
            Some(debounce) => format!("debounce = \"{}\"", duration_text(debounce)),
            None => "# debounce = \"30s\"".to_owned(),
        },
        patterns(&sync.conflicts.copy),
        patterns(&sync.conflicts.hold),
        patterns(&sync.conflicts.merge),
        SyncSettings::PERCENT_MAX,
        default.guard.delete_percent,
        sync.guard.delete_percent,
        default.guard.delete_min,
        sync.guard.delete_min,
        SyncSettings::PERCENT_MAX,
        default.guard.rewrite_percent,
        sync.guard.rewrite_percent,
        default.guard.rewrite_min,
        sync.guard.rewrite_min,
    )
}

fn link(settings: &Settings) -> String {
    let meeting = match &settings.link {
        Link::Listen { listen, advertise } => format!(
            "[link]\n\
             # IP address and UDP port that this node listens on; it makes the node the pusher. Required here.\n\
             # What `init pusher` writes when it is not told: \"{LISTEN_DEFAULT}\", all IPv4 addresses.\n\
             listen = \"{listen}\"\n\
             # Host and port at which the receiver can call this node; they go into pairing codes.\n\
             # Default: not set, `layer-sync pair --address HOST:PORT` says it.\n\
             {}\n",
            match advertise {
                Some(address) => format!("advertise = \"{address}\""),
                None => "# advertise = \"vm.example.org:9797\"".to_owned(),
            },
        ),
        Link::Dial { peer } => format!(
            "[link]\n\
             # Host and UDP port at which this node calls the pusher; it makes the node the receiver. Required\n\
             # here; `join` takes it from the pairing code.\n\
             peer = \"{peer}\"\n",
        ),
    };
    let limit = match settings.rate_limit {
        Some(bytes) => format!("rate_limit = \"{}\"", size_text(bytes)),
        None => "# rate_limit = \"2MiB\"".to_owned(),
    };
    format!(
        "{meeting}\
         # Most content that this node sends in a second; small changes go first. What steers the sync and what is\n\
         # lost and sent again come on top. A size, at least \"{}\". Default: not set, as much as the line carries.\n\
         {limit}\n",
        size_text(RATE_LIMIT_MIN),
    )
}

fn lease(prefer: Prefer) -> String {
    let names = Prefer::ALL.map(|prefer| format!("\"{}\"", prefer.name()));
    format!(
        "[lease]\n\
         # Where the role of the primary goes by itself, when the other side has been awake for two minutes and the trees\n\
         # have been equal for one: {}. What a person promotes stays.\n\
         # The pusher's counts for both sides. Default: \"{}\", it stays where it is.\n\
         prefer = \"{}\"\n",
        names.join(", "),
        Prefer::default().name(),
        prefer.name(),
    )
}

fn kept(kept: &KeptSettings) -> String {
    let default = KeptSettings::default();
    format!(
        "[kept]\n\
         # What was displaced or deleted can be restored for this long. A duration{}. Default: \"{}\".\n\
         age = \"{}\"\n\
         # Most that is kept, in percent of the bytes of the tree: an integer, 0 to {}. Default: {}.\n\
         tree_percent = {}\n\
         # What may be kept however small the tree is. A size. Default: \"{}\".\n\
         bytes_min = \"{}\"\n\
         # What is younger than this stays, whatever it weighs. A duration, at most `age`. Default: \"{}\".\n\
         age_min = \"{}\"\n",
        range(KeptSettings::AGE),
        duration_text(default.age),
        duration_text(kept.age),
        KeptSettings::TREE_PERCENT_MAX,
        default.tree_percent,
        kept.tree_percent,
        size_text(default.bytes_min),
        size_text(kept.bytes_min),
        duration_text(default.age_min),
        duration_text(kept.age_min),
    )
}

fn mirror(mirror: &MirrorSettings) -> String {
    let default = MirrorSettings::default();
    let (mut folder, mut name, mut drive) = (
        "# folder = \"/mnt/backup/knowledge\"".to_owned(),
        format!("# name = \"{MIRROR_NAME_DEFAULT}\""),
        "# shared_drive = \"0ABcdEFghIJklUk9PVA\"".to_owned(),
    );
    match &mirror.target {
        None => {}
        Some(MirrorTarget::Folder(path)) => {
            folder = format!("folder = {}", quoted(&path.to_string_lossy()));
        }
        Some(MirrorTarget::Drive {
            name: named,
            shared_drive,
        }) => {
            name = format!("name = {}", quoted(named));
            if let Some(id) = shared_drive {
                drive = format!("shared_drive = {}", quoted(id));
            }
        }
    }
    format!(
        "[mirror]\n\
         # Where the third copy is: \"off\", \"folder\" or \"drive\". The same on both nodes. Drive needs `layer-sync mirror auth`.\n\
         # Default: \"off\".\n\
         target = \"{}\"\n\
         # For \"folder\": an absolute path on a mounted disk. Default: not set.\n\
         {folder}\n\
         # For \"drive\": the name of its folder there. Default: \"{MIRROR_NAME_DEFAULT}\".\n\
         {name}\n\
         # For \"drive\": the shared drive that the folder lies in, by its id. Default: not set, the Drive of the person.\n\
         {drive}\n\
         # How long the link is down before the mirror is the road to the other node. A duration{}. Default: \"{}\".\n\
         after = \"{}\"\n\
         # How often it is looked at while it is the road; otherwise ten times as seldom. A duration{}. Default: \"{}\".\n\
         poll = \"{}\"\n\
         # Most requests in a minute: an integer, 1 to {MIRROR_BUDGET_MAX}. Default: {MIRROR_BUDGET_DEFAULT}.\n\
         budget = {}\n\
         # Address of Drive; one without TLS only on this machine. Default: \"{MIRROR_API_DEFAULT}\".\n\
         api = {}\n",
        MirrorTarget::kind(mirror.target.as_ref()),
        range(MirrorSettings::AFTER),
        duration_text(default.after),
        duration_text(mirror.after),
        range(MirrorSettings::POLL),
        duration_text(default.poll),
        duration_text(mirror.poll),
        mirror.budget,
        quoted(&mirror.api),
    )
}

fn bot(api: &str) -> String {
    format!(
        "[bot]\n\
         # There is a bot when `TELEGRAM_BOT_TOKEN` stands in `.env` beside this file, on both nodes the same one. It runs where\n\
         # the primary is. Address of the Bot API; one without TLS only on this machine. Default: \"{BOT_API_DEFAULT}\".\n\
         api = {}\n",
        quoted(api),
    )
}

fn dashboard(listen: Option<SocketAddr>) -> String {
    format!(
        "[dashboard]\n\
         # Where a browser on this machine finds the dashboard: a loopback address with a port, 0 to let the system choose one;\n\
         # `layer-sync web` prints it. Or \"{NOWHERE}\". Default: \"{DASHBOARD_DEFAULT}\".\n\
         listen = {}\n",
        quoted(&listen.map_or(NOWHERE.to_owned(), |at| at.to_string())),
    )
}

fn range((least, most): (Duration, Duration)) -> String {
    format!(", {} to {}", duration_text(least), duration_text(most))
}

fn patterns(patterns: &[String]) -> String {
    let quoted: Vec<String> = patterns.iter().map(|pattern| quoted(pattern)).collect();
    format!("[{}]", quoted.join(", "))
}

fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}
