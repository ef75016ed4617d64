//! What somebody wants, read from what they wrote.

use std::time::Duration;

/// Longest time that `/restore PATH AGO` goes back.
const AGO_MAX: Duration = Duration::from_secs(366 * 86_400);

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    Help,
    Pair(String),
    Status,
    Sync,
    Conflicts,
    /// A folder; empty for the root.
    Files(String),
    Find(String),
    /// A path, and how long ago what is wanted stood there.
    Restore(String, Option<Duration>),
    /// The node that is to be primary; empty for the other one.
    Promote(String),
    Restarts,
    /// None of ours.
    Unknown(String),
}

/// Those that people choose from, with what they do.
pub(crate) const LIST: [(&str, &str); 10] = [
    ("status", "how the pair is"),
    ("sync", "wait until everything is on both machines"),
    ("conflicts", "what both machines changed, to decide"),
    ("files", "what is in a folder: /files notes"),
    ("find", "names and lines with these words: /find offer 2026"),
    (
        "restore",
        "bring a file back, as it was: /restore notes/a.md 2h",
    ),
    ("promote", "let the other machine be primary"),
    ("restarts", "what was started again, and why"),
    ("pair", "become the owner, with a code: /pair CODE"),
    ("help", "this list"),
];

impl Command {
    /// Reads a text; `None` when it is no command. `bot` is the bot's own name: what is for another one in a group is none.
    pub(crate) fn parse(text: &str, bot: &str) -> Option<Self> {
        let text = text.trim();
        let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let word = word.strip_prefix('/')?;
        let (name, to) = word.split_once('@').unwrap_or((word, bot));
        if !to.eq_ignore_ascii_case(bot) {
            return None;
        }
        let rest = rest.trim().to_owned();
        Some(match name.to_ascii_lowercase().as_str() {
            "start" | "help" => Self::Help,
            "pair" => Self::Pair(rest),
            "status" => Self::Status,
            "sync" => Self::Sync,
            "conflicts" => Self::Conflicts,
            "files" => Self::Files(rest),
            "find" => Self::Find(rest),
            "restore" => {
                let (path, ago) = path_and_ago(&rest);
                Self::Restore(path.to_owned(), ago)
            }
            "promote" => Self::Promote(rest),
            "restarts" => Self::Restarts,
            _ => Self::Unknown(name.to_owned()),
        })
    }

    /// Says whether it changes something, which only the owner may.
    pub(crate) fn changes(&self) -> bool {
        matches!(self, Self::Restore(..) | Self::Promote(_))
    }
}

/// Takes a time such as `2h` off the end of a path.
fn path_and_ago(text: &str) -> (&str, Option<Duration>) {
    if let Some((path, last)) = text.rsplit_once(char::is_whitespace)
        && let Some(ago) = ago(last)
    {
        return (path.trim_end(), Some(ago));
    }
    (text, None)
}

fn ago(text: &str) -> Option<Duration> {
    let unit = match text.chars().last()? {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return None,
    };
    let amount: u64 = text[..text.len() - 1].parse().ok()?;
    let ago = Duration::from_secs(amount.checked_mul(unit)?);
    (ago <= AGO_MAX).then_some(ago)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_read() {
        let check =
            |text: &str, command| assert_eq!(Command::parse(text, "LayerBot"), command, "{text}");
        check("/status", Some(Command::Status));
        check("  /STATUS@layerbot now", Some(Command::Status));
        check("/status@other", None);
        check("hello", None);
        check("", None);
        check("/", Some(Command::Unknown(String::new())));
        check("/start abc", Some(Command::Help));
        check("/pair AB12", Some(Command::Pair("AB12".into())));
        check("/files", Some(Command::Files(String::new())));
        check(
            "/files my notes/2026",
            Some(Command::Files("my notes/2026".into())),
        );
        check(
            "/restore a b.md",
            Some(Command::Restore("a b.md".into(), None)),
        );
        let hours = Some(Duration::from_secs(7200));
        check(
            "/restore a b.md 2h",
            Some(Command::Restore("a b.md".into(), hours)),
        );
        check(
            "/restore a.md 999999d",
            Some(Command::Restore("a.md 999999d".into(), None)),
        );
        check("/dance", Some(Command::Unknown("dance".into())));
    }

    #[test]
    fn each_of_the_list_is_a_command() {
        for (name, _) in LIST {
            let read = Command::parse(&format!("/{name}"), "b");
            assert!(!matches!(read, None | Some(Command::Unknown(_))), "{name}");
        }
    }
}
