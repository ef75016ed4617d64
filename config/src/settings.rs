//! The settings of one node: `config.toml` in its home.
//!
//! The text is parsed once, into values that need no second check. What is wrong is told in one
//! sentence with file, line, key, what was found and what is allowed. The commented text that a new
//! node gets is made by `render.rs`; the samples beside this crate are such texts.

mod document;
mod mirror;
mod render;

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use shared::control::{NodeSide, exit};
use shared::lease::Prefer;
use shared::reconcile::{ConflictRules, Mode, PatternRefused};
use shared::safety::Limits;

use crate::address::Address;
use crate::home::{Home, HomeRefused};
use crate::quantity::{duration_text, parse_duration, parse_size, size_text};
use document::{Document, Section};
pub use mirror::{
    MIRROR_API_DEFAULT, MIRROR_BUDGET_DEFAULT, MIRROR_BUDGET_MAX, MIRROR_NAME_DEFAULT,
    MirrorSettings, MirrorTarget,
};

/// Version of the file.
pub const VERSION: i64 = 1;
/// Longest name of a node, in bytes: names go into names of conflict copies.
pub const NAME_BYTES_MAX: usize = 64;
/// Where a pusher listens when nobody says otherwise: UDP, every IPv4 address of the machine.
pub const LISTEN_DEFAULT: &str = "0.0.0.0:9797";

/// Sections and their keys, in the order in which they are written.
const SECTIONS: [(&str, &[&str]); 8] = [
    ("node", &["name", "root"]),
    (
        "sync",
        &[
            "mode",
            "interval",
            "debounce",
            "copy",
            "hold",
            "merge",
            "delete_percent",
            "delete_min",
            "rewrite_percent",
            "rewrite_min",
        ],
    ),
    ("link", &["listen", "advertise", "peer", "rate_limit"]),
    ("lease", &["prefer"]),
    ("kept", &["age", "tree_percent", "bytes_min", "age_min"]),
    ("mirror", &mirror::KEYS),
    ("bot", &["api"]),
    ("dashboard", &["listen"]),
];

/// What a node is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The node itself.
    pub node: NodeSettings,
    /// When and how the trees are made equal.
    pub sync: SyncSettings,
    /// How the two nodes meet; it decides which side this node is.
    pub link: Link,
    /// Most content that this node sends in a second, in bytes: `rate_limit` in `[link]`. `None`: as much as
    /// the line carries.
    pub rate_limit: Option<u64>,
    /// Where the role of the primary goes by itself: `prefer` in `[lease]`. The pusher's counts.
    pub prefer: Prefer,
    /// What is kept of displaced contents.
    pub kept: KeptSettings,
    /// The third copy.
    pub mirror: MirrorSettings,
    /// Address of the Bot API: `api` in `[bot]`. There is a bot when its token is among the secrets.
    pub bot_api: String,
    /// Where the dashboard is served: `listen` in `[dashboard]`, an address of this machine alone. `None`: nowhere.
    pub dashboard: Option<SocketAddr>,
}

/// Where the dashboard is served when nobody says otherwise: the system chooses the port.
pub const DASHBOARD_DEFAULT: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);
/// What [`Settings::dashboard`] is called when it is nowhere.
const NOWHERE: &str = "off";

/// Telegram's own Bot API.
pub const BOT_API_DEFAULT: &str = "https://api.telegram.org";

/// Section `[node]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodeSettings {
    /// The name people see: letters, digits, `-`, `_` and `.`, at most [`NAME_BYTES_MAX`] bytes.
    pub name: String,
    /// The folder that is kept equal: an absolute path.
    pub root: PathBuf,
}

/// Section `[sync]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncSettings {
    /// Which changes travel, and who wins.
    pub mode: Mode,
    /// Time between two cycles when nothing happens; the bound on how late a change can be.
    pub interval: Duration,
    /// Strict batches: a change waits this long for others. `None`: it goes when the file is quiet.
    pub debounce: Option<Duration>,
    /// What becomes of a conflict, by name.
    pub conflicts: ConflictSettings,
    /// From where on a plan waits for a person.
    pub guard: Limits,
}

/// Patterns in gitignore syntax; `copy` counts before `hold`, and that before `merge`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ConflictSettings {
    /// The version that does not keep the path becomes a copy beside it.
    pub copy: Vec<String>,
    /// Both versions wait for a person.
    pub hold: Vec<String>,
    /// Both are merged where that needs no guess.
    pub merge: Vec<String>,
}

impl ConflictSettings {
    /// Compiles the patterns.
    ///
    /// # Errors
    /// The first one that does not parse.
    pub fn rules(&self) -> Result<ConflictRules, PatternRefused> {
        ConflictRules::new(&self.copy, &self.hold, &self.merge)
    }
}

impl SyncSettings {
    /// Range of [`SyncSettings::interval`].
    pub const INTERVAL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
    /// Range of [`SyncSettings::debounce`].
    pub const DEBOUNCE: (Duration, Duration) =
        (Duration::from_millis(50), Duration::from_secs(3600));
    /// Largest share of a tree in percent. A guard with it never stops anything.
    pub const PERCENT_MAX: u8 = 100;
    /// Largest number of files that the guard lets pass without a look at their share.
    pub const GUARD_FILES_MAX: u64 = 1_000_000_000;
}

impl Default for SyncSettings {
    fn default() -> Self {
        Self {
            mode: Mode::default(),
            interval: Duration::from_secs(30),
            debounce: None,
            conflicts: ConflictSettings::default(),
            guard: Limits::default(),
        }
    }
}

/// Least [`Settings::rate_limit`]. A batch of 4 MiB takes a minute with it.
pub const RATE_LIMIT_MIN: u64 = 64 << 10;

/// Section `[link]`: a node listens or dials, never both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// The pusher.
    Listen {
        /// Address and UDP port that it listens on. Port 0 lets the system choose one.
        listen: SocketAddr,
        /// Where the receiver can call it, for pairing codes.
        advertise: Option<Address>,
    },
    /// The receiver.
    Dial {
        /// Where the pusher can be called.
        peer: Address,
    },
}

impl Link {
    /// Returns which side of the pair a node with this link is.
    pub fn side(&self) -> NodeSide {
        match self {
            Self::Listen { .. } => NodeSide::Pusher,
            Self::Dial { .. } => NodeSide::Receiver,
        }
    }
}

/// Section `[kept]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeptSettings {
    /// Versions older than this go.
    pub age: Duration,
    /// Most that is kept, in percent of the bytes of the tree, but at least [`KeptSettings::bytes_min`].
    pub tree_percent: u8,
    /// What may always be kept, in bytes, however small the tree is.
    pub bytes_min: u64,
    /// Versions younger than this stay, whatever they weigh.
    pub age_min: Duration,
}

impl KeptSettings {
    /// Range of [`KeptSettings::age`].
    pub const AGE: (Duration, Duration) = (
        Duration::from_secs(3600),
        Duration::from_secs(3650 * 86_400),
    );
    /// Largest [`KeptSettings::tree_percent`].
    pub const TREE_PERCENT_MAX: u8 = 100;
}

impl Default for KeptSettings {
    fn default() -> Self {
        Self {
            age: Duration::from_secs(30 * 86_400),
            tree_percent: 10,
            bytes_min: 1 << 30,
            age_min: Duration::from_secs(86_400),
        }
    }
}

impl Settings {
    /// Reads the settings of a node.
    ///
    /// # Errors
    /// A file that is missing, cannot be read, or says something wrong.
    pub fn read(home: &Home) -> Result<Self, SettingsRefused> {
        let file = home.settings_file();
        match fs::read_to_string(&file) {
            Ok(text) => Self::parse(&text, &file.display().to_string()),
            Err(source) if source.kind() == io::ErrorKind::NotFound => {
                Err(SettingsRefused::Missing { file })
            }
            Err(source) => Err(SettingsRefused::Unreadable { file, source }),
        }
    }

    /// Parses the text of a settings file. `file_name` stands in what is refused.
    ///
    /// # Errors
    /// [`SettingsRefused::Wrong`] with the first thing that is wrong.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, SettingsRefused> {
        let document = Document::parse(text, file_name)?;
        // First, because another version has other keys.
        document.version()?;
        document.check_names(&SECTIONS)?;
        Ok(Self {
            node: node(&document.section("node"))?,
            sync: sync(&document.section("sync"))?,
            link: link(&document.section("link"))?,
            rate_limit: rate_limit(&document.section("link"))?,
            prefer: prefer(&document.section("lease"))?,
            kept: kept(&document.section("kept"))?,
            mirror: mirror::mirror(&document.section("mirror"))?,
            bot_api: bot_api(&document.section("bot"))?,
            dashboard: dashboard(&document.section("dashboard"))?,
        })
    }

    /// Returns the commented text that [`Settings::parse`] reads as these settings.
    pub fn render(&self) -> String {
        render::render(self)
    }

    /// Writes `config.toml` into the home, with mode 0600: whole and durable, or not at all. One
    /// that exists is never touched.
    ///
    /// # Errors
    /// [`WriteRefused::Exists`]; values that could not be read again; what the system refuses.
    pub fn write_new(&self, home: &Home) -> Result<(), WriteRefused> {
        let file = home.settings_file();
        let text = self.render();
        let read_again = Self::parse(&text, "settings")?;
        if read_again != *self {
            return Err(WriteRefused::NotText);
        }
        let fresh = home.dir().join(".config.toml.new");
        let written = write_beside(&fresh, &text)
            // A link fails when the name is taken, where a rename would replace the file.
            .and_then(|()| fs::hard_link(&fresh, &file));
        let cleared = fs::remove_file(&fresh);
        match written
            .and(cleared)
            .and_then(|()| File::open(home.dir())?.sync_all())
        {
            Ok(()) => Ok(()),
            Err(source) if source.kind() == io::ErrorKind::AlreadyExists => {
                Err(WriteRefused::Exists { file })
            }
            Err(source) => Err(WriteRefused::Unwritable { file, source }),
        }
    }
}

fn write_beside(fresh: &Path, text: &str) -> io::Result<()> {
    // What an interrupted attempt left behind.
    match fs::remove_file(fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(fresh)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn node(section: &Section<'_>) -> Result<NodeSettings, SettingsRefused> {
    let name = section.required("name", NAME_ALLOWED, |text| {
        is_name(text).then(|| text.to_owned())
    })?;
    let root = section.required(
        "root",
        "an absolute path in quotes, such as \"/home/me/knowledge\"",
        |text| Some(PathBuf::from(text)).filter(|path| path.is_absolute()),
    )?;
    Ok(NodeSettings { name, root })
}

const NAME_ALLOWED: &str =
    "a name in quotes of at most 64 bytes: letters, digits, `-`, `_` and `.`, not first a `.`";

fn is_name(text: &str) -> bool {
    let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
    (1..=NAME_BYTES_MAX).contains(&text.len()) && !text.starts_with('.') && text.chars().all(plain)
}

fn sync(section: &Section<'_>) -> Result<SyncSettings, SettingsRefused> {
    let default = SyncSettings::default();
    let modes = Mode::ALL.map(|mode| format!("\"{}\"", mode.name()));
    let mode = section.optional("mode", &format!("one of {}", modes.join(", ")), |text| {
        Mode::ALL.into_iter().find(|mode| mode.name() == text)
    })?;
    Ok(SyncSettings {
        mode: mode.unwrap_or(default.mode),
        interval: duration(section, "interval", SyncSettings::INTERVAL)?
            .unwrap_or(default.interval),
        debounce: duration(section, "debounce", SyncSettings::DEBOUNCE)?,
        conflicts: conflicts(section)?,
        guard: guard(section, default.guard)?,
    })
}

fn conflicts(section: &Section<'_>) -> Result<ConflictSettings, SettingsRefused> {
    let patterns = |key: &str| -> Result<Vec<String>, SettingsRefused> {
        let patterns = section.texts(key)?.unwrap_or_default();
        match ConflictRules::new(&patterns, &[], &[]) {
            Ok(_) => Ok(patterns),
            Err(refused) => Err(section.wrong(key, &format!("`{key}` in [sync]: {refused}"))),
        }
    };
    Ok(ConflictSettings {
        copy: patterns("copy")?,
        hold: patterns("hold")?,
        merge: patterns("merge")?,
    })
}

fn guard(section: &Section<'_>, default: Limits) -> Result<Limits, SettingsRefused> {
    let percent = |key| section.integer(key, SyncSettings::PERCENT_MAX);
    let files = |key| section.integer(key, SyncSettings::GUARD_FILES_MAX);
    Ok(Limits {
        delete_percent: percent("delete_percent")?.unwrap_or(default.delete_percent),
        delete_min: files("delete_min")?.unwrap_or(default.delete_min),
        rewrite_percent: percent("rewrite_percent")?.unwrap_or(default.rewrite_percent),
        rewrite_min: files("rewrite_min")?.unwrap_or(default.rewrite_min),
    })
}

fn link(section: &Section<'_>) -> Result<Link, SettingsRefused> {
    let listen = section.optional(
        "listen",
        &format!("an IP address with a port, such as \"{LISTEN_DEFAULT}\""),
        |text| text.parse::<SocketAddr>().ok(),
    )?;
    let called = "a host with a port, such as \"vm.example.org:9797\"";
    let advertise = section.optional("advertise", called, |text| text.parse::<Address>().ok())?;
    let peer = section.optional("peer", called, |text| text.parse::<Address>().ok())?;
    match (listen, peer) {
        (Some(listen), None) => Ok(Link::Listen { listen, advertise }),
        (None, Some(_)) if advertise.is_some() => Err(section.wrong(
            "advertise",
            "`advertise` in [link] is for a pusher, and `peer` makes this node a receiver",
        )),
        (None, Some(peer)) => Ok(Link::Dial { peer }),
        (Some(_), Some(_)) => Err(section.wrong(
            "peer",
            "[link] has both `listen` and `peer`; a pusher has `listen` alone, a receiver `peer` \
             alone",
        )),
        (None, None) => Err(section.wrong(
            "listen",
            "[link] has neither `listen`, which makes this node the pusher, nor `peer`, which \
             makes it the receiver",
        )),
    }
}

fn rate_limit(section: &Section<'_>) -> Result<Option<u64>, SettingsRefused> {
    let allowed = format!(
        "a size in quotes for each second, such as \"2MiB\", at least \"{}\"",
        size_text(RATE_LIMIT_MIN)
    );
    section.optional("rate_limit", &allowed, |text| {
        parse_size(text).filter(|bytes| *bytes >= RATE_LIMIT_MIN)
    })
}

fn prefer(section: &Section<'_>) -> Result<Prefer, SettingsRefused> {
    let names = Prefer::ALL.map(|prefer| format!("\"{}\"", prefer.name()));
    let prefer = section.optional("prefer", &format!("one of {}", names.join(", ")), |text| {
        Prefer::ALL.into_iter().find(|prefer| prefer.name() == text)
    })?;
    Ok(prefer.unwrap_or_default())
}

fn kept(section: &Section<'_>) -> Result<KeptSettings, SettingsRefused> {
    let default = KeptSettings::default();
    let age = duration(section, "age", KeptSettings::AGE)?.unwrap_or(default.age);
    // The shipped minimum must not make a short `age` alone an error.
    let age_min = duration(section, "age_min", (Duration::ZERO, age))?
        .unwrap_or_else(|| default.age_min.min(age));
    let bytes_min = section.optional(
        "bytes_min",
        "a size in quotes, such as \"256MiB\": an integer and B, KiB, MiB, GiB or TiB",
        parse_size,
    )?;
    let tree_percent = section.integer("tree_percent", KeptSettings::TREE_PERCENT_MAX)?;
    Ok(KeptSettings {
        age,
        tree_percent: tree_percent.unwrap_or(default.tree_percent),
        bytes_min: bytes_min.unwrap_or(default.bytes_min),
        age_min,
    })
}

fn bot_api(section: &Section<'_>) -> Result<String, SettingsRefused> {
    let allowed =
        "an address such as \"https://api.telegram.org\"; without TLS only on this machine";
    let api = section.optional("api", allowed, |text| {
        is_safe(text).then(|| text.to_owned())
    })?;
    Ok(api.unwrap_or_else(|| BOT_API_DEFAULT.to_owned()))
}

fn dashboard(section: &Section<'_>) -> Result<Option<SocketAddr>, SettingsRefused> {
    let allowed =
        "an address of this machine alone with a port, such as \"127.0.0.1:9798\", or \"off\"";
    let listen = section.optional("listen", allowed, |text| match text {
        NOWHERE => Some(None),
        text => text
            .parse::<SocketAddr>()
            .ok()
            .filter(|at| at.ip().is_loopback())
            .map(Some),
    })?;
    Ok(listen.unwrap_or(Some(DASHBOARD_DEFAULT)))
}

/// Says whether a token can be sent to an address.
fn is_safe(address: &str) -> bool {
    let plain = |text: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_graphic() && !"?#@\\".contains(c))
    };
    if let Some(rest) = address.strip_prefix("https://") {
        return plain(rest);
    }
    let Some(rest) = address.strip_prefix("http://") else {
        return false;
    };
    let host = rest.split('/').next().unwrap_or_default();
    let loopback = match host.parse::<SocketAddr>() {
        Ok(address) => address.ip().is_loopback(),
        Err(_) => host.split(':').next() == Some("localhost"),
    };
    loopback && plain(rest)
}

fn duration(
    section: &Section<'_>,
    key: &str,
    (least, most): (Duration, Duration),
) -> Result<Option<Duration>, SettingsRefused> {
    let allowed = format!(
        "a duration in quotes from \"{}\" to \"{}\"",
        duration_text(least),
        duration_text(most)
    );
    section.optional(key, &allowed, |text| {
        parse_duration(text).filter(|duration| (least..=most).contains(duration))
    })
}

/// Why settings cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SettingsRefused {
    /// There is no file.
    #[error("There are no settings at {}.", file.display())]
    Missing {
        /// Where the file should be.
        file: PathBuf,
    },
    /// The file cannot be read.
    #[error("The settings in {} cannot be read: {source}.", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file says something wrong.
    #[error("{file}:{line}: {text}")]
    Wrong {
        /// The file, as the caller named it.
        file: String,
        /// Number of the line, from 1.
        line: usize,
        /// What is wrong, one sentence without its full stop.
        text: String,
    },
}

impl SettingsRefused {
    /// Returns the exit code of a daemon that cannot start because of this.
    pub fn exit(&self) -> u8 {
        match self {
            Self::Unreadable { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                exit::DAEMON_PERMISSION
            }
            _ => exit::DAEMON_CONFIG,
        }
    }

    /// Returns what helps.
    pub fn fix(&self) -> String {
        match self {
            Self::Missing { file } => HomeRefused::Missing {
                dir: file.parent().unwrap_or(file).to_owned(),
            }
            .fix(),
            Self::Unreadable { file, .. } => {
                format!("run `chmod 600 {}`", crate::home::shell_word(file))
            }
            Self::Wrong { file, line, .. } => format!("correct line {line} of {file}"),
        }
    }
}

/// Why settings cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum WriteRefused {
    /// There are settings already.
    #[error("There are settings already at {}; they were not changed.", file.display())]
    Exists {
        /// The file.
        file: PathBuf,
    },
    /// Something in them is not allowed.
    #[error(transparent)]
    Wrong(#[from] SettingsRefused),
    /// The root is not UTF-8, which a settings file must be.
    #[error("The path of the root is not UTF-8, so it cannot stand in a settings file.")]
    NotText,
    /// The system refuses.
    #[error("The settings cannot be written to {}: {source}.", file.display())]
    Unwritable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

#[cfg(test)]
mod tests;
