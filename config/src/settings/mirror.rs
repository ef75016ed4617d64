//! Section `[mirror]`: where the third copy is.

use std::path::PathBuf;
use std::time::Duration;

use super::document::Section;
use super::{SettingsRefused, duration, is_safe};

/// Google's own interface.
pub const MIRROR_API_DEFAULT: &str = "https://www.googleapis.com";
/// The name of the folder in Drive when nobody says otherwise.
pub const MIRROR_NAME_DEFAULT: &str = "layer-sync";
/// Requests in a minute when nobody says otherwise: a tenth of what Drive allows one person.
pub const MIRROR_BUDGET_DEFAULT: u32 = 1200;
/// Most requests in a minute.
pub const MIRROR_BUDGET_MAX: u32 = 60_000;
/// Names of the targets.
const OFF: &str = "off";
const FOLDER: &str = "folder";
const DRIVE: &str = "drive";
/// The keys.
pub(super) const KEYS: [&str; 8] = [
    "target",
    "folder",
    "name",
    "shared_drive",
    "after",
    "poll",
    "budget",
    "api",
];

/// Section `[mirror]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MirrorSettings {
    /// Where it is; `None` for nowhere.
    pub target: Option<MirrorTarget>,
    /// How long the link is down before the mirror is the road to the other node.
    pub after: Duration,
    /// How often it is looked at while it is the road; otherwise ten times as seldom, unless something changes here.
    pub poll: Duration,
    /// Most requests in a minute.
    pub budget: u32,
    /// Address of Drive.
    pub api: String,
}

/// Where the third copy is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum MirrorTarget {
    /// In a folder of a mounted disk: an absolute path.
    Folder(PathBuf),
    /// In Google Drive.
    Drive {
        /// The name of its folder there.
        name: String,
        /// The shared drive that the folder lies in; `None` for that of the person.
        shared_drive: Option<String>,
    },
}

impl MirrorSettings {
    /// Range of [`MirrorSettings::after`].
    pub const AFTER: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(86_400));
    /// Range of [`MirrorSettings::poll`].
    pub const POLL: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(3600));
}

impl Default for MirrorSettings {
    fn default() -> Self {
        Self {
            target: None,
            after: Duration::from_secs(120),
            poll: Duration::from_secs(30),
            budget: MIRROR_BUDGET_DEFAULT,
            api: MIRROR_API_DEFAULT.to_owned(),
        }
    }
}

impl MirrorTarget {
    pub(super) fn kind(target: Option<&Self>) -> &'static str {
        match target {
            None => OFF,
            Some(Self::Folder(_)) => FOLDER,
            Some(Self::Drive { .. }) => DRIVE,
        }
    }
}

pub(super) fn mirror(section: &Section<'_>) -> Result<MirrorSettings, SettingsRefused> {
    let default = MirrorSettings::default();
    let kinds = [OFF, FOLDER, DRIVE];
    let allowed = format!("one of \"{OFF}\", \"{FOLDER}\", \"{DRIVE}\"");
    let kind = section.optional("target", &allowed, |text| {
        kinds.into_iter().find(|kind| *kind == text)
    })?;
    let folder = section.optional(
        "folder",
        "an absolute path in quotes, such as \"/mnt/backup/knowledge\"",
        |text| Some(PathBuf::from(text)).filter(|path| path.is_absolute()),
    )?;
    let name = section.optional("name", "a name in quotes of at most 255 bytes", |text| {
        (!text.is_empty() && text.len() <= 255 && !text.contains(char::is_control))
            .then(|| text.to_owned())
    })?;
    let shared_drive = section.optional(
        "shared_drive",
        "the id of a shared drive in quotes, as the address of its page in Drive ends",
        |text| {
            let is_id = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
            (!text.is_empty() && text.chars().all(is_id)).then(|| text.to_owned())
        },
    )?;
    let target = match kind.unwrap_or(OFF) {
        FOLDER => {
            let missing = "`target` in [mirror] is \"folder\", and `folder` does not say which";
            let folder = folder.ok_or_else(|| section.wrong("target", missing))?;
            Some(MirrorTarget::Folder(folder))
        }
        DRIVE => Some(MirrorTarget::Drive {
            name: name.unwrap_or_else(|| MIRROR_NAME_DEFAULT.to_owned()),
            shared_drive,
        }),
        _ => None,
    };
    let allowed =
        "an address such as \"https://www.googleapis.com\"; without TLS only on this machine";
    let api = section.optional("api", allowed, |text| {
        (is_safe(text) && !text.ends_with('/')).then(|| text.to_owned())
    })?;
    let budget = section.integer("budget", MIRROR_BUDGET_MAX)?;
    if budget == Some(0) {
        let text = "`budget` in [mirror] is 0, which lets nothing through; `target = \"off\"` turns the mirror off";
        return Err(section.wrong("budget", text));
    }
    Ok(MirrorSettings {
        target,
        after: duration(section, "after", MirrorSettings::AFTER)?.unwrap_or(default.after),
        poll: duration(section, "poll", MirrorSettings::POLL)?.unwrap_or(default.poll),
        budget: budget.unwrap_or(default.budget),
        api: api.unwrap_or(default.api),
    })
}
