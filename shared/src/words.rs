//! Numbers, times, names and states as people read them: the same in the command, in the chat and in what a halted sync says.

use crate::control::{BotState, Health, MirrorState, Road, Role, SyncState};
use crate::utc::UtcMs;

/// Units of size, the largest first.
const UNITS: [(&str, u64); 4] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];

/// Writes a size: `512 B`, `4.9 KiB`, `340 MiB`.
pub fn size(bytes: u64) -> String {
    match UNITS.iter().find(|(_, unit)| bytes >= *unit) {
        None => format!("{bytes} B"),
        Some((name, unit)) => {
            let amount = bytes as f64 / *unit as f64;
            let decimals = usize::from(amount < 99.95);
            format!("{amount:.decimals$} {name}")
        }
    }
}

/// Writes a number with a comma every three digits.
pub fn number(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Writes a number of things: `1 file`, `8,214 files`.
pub fn count(how_many: u64, thing: &str) -> String {
    let plural = if how_many == 1 { "" } else { "s" };
    format!("{} {thing}{plural}", number(how_many))
}

/// Writes a length of time in its two largest units: `0.9 s`, `12 s`, `4 m 12 s`, `3 h 12 m`.
pub fn span(millis: u64) -> String {
    let seconds = millis / 1000;
    match seconds {
        0..10 => format!("{}.{} s", seconds, millis % 1000 / 100),
        10..60 => format!("{seconds} s"),
        60..3600 => format!("{} m {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Writes the time of day: `21:14:05`.
pub fn clock(at: UtcMs) -> String {
    at.to_string()[11..19].to_owned()
}

/// Writes date and time: `2026-11-22 21:14:05`.
pub fn moment(at: UtcMs) -> String {
    let text = at.to_string();
    format!("{} {}", &text[..10], &text[11..19])
}

/// Writes the time of day, and the date before it when it is not that of `now`.
pub fn near_moment(at: UtcMs, now: UtcMs) -> String {
    const DAY_MS: u64 = 86_400_000;
    if at.0 / DAY_MS == now.0 / DAY_MS {
        clock(at)
    } else {
        moment(at)
    }
}

/// Writes a name or sentence that came from elsewhere so that it cannot steer the terminal: control
/// characters, and those that turn the direction of writing, are escaped.
pub fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        let turns = matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || turns {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain
}

/// Returns the word for a state.
pub fn health_name(health: Health) -> &'static str {
    match health {
        Health::Healthy => "healthy",
        Health::Degraded => "degraded",
        Health::Held => "held",
        Health::Halted => "halted",
    }
}

/// Returns the word for a role.
pub fn role_name(role: Role) -> &'static str {
    match role {
        Role::Primary => "PRIMARY",
        Role::Standby => "standby",
        Role::Candidate => "candidate",
        Role::Draining => "draining",
        Role::SafeMode => "SAFE MODE",
    }
}

/// Returns the word for a state of the sync.
pub fn sync_name(state: SyncState) -> &'static str {
    match state {
        SyncState::UpToDate => "up to date",
        SyncState::Syncing => "syncing",
        SyncState::Held => "held",
        SyncState::Paused => "paused",
        SyncState::Offline => "offline",
        SyncState::Halted => "halted",
        SyncState::Starting => "starting",
    }
}

/// Returns the state of the mirror in a word or two.
pub fn mirror_name(state: MirrorState) -> &'static str {
    match state {
        MirrorState::Standby => "standby",
        MirrorState::Starting => "starting",
        MirrorState::Ok => "ok",
        MirrorState::Unreachable => "unreachable",
        MirrorState::NoConsent => "no consent",
        MirrorState::Full => "full",
        MirrorState::NoFolder => "no folder",
        MirrorState::Halted => "halted",
        MirrorState::Broken => "broken",
    }
}

/// Returns how changes reach the other node, in a few words.
pub fn road_name(road: Road) -> &'static str {
    match road {
        Road::Direct => "road direct",
        Road::Mirror => "road mirror",
        Road::None => "no road",
    }
}

/// Returns the words for a state of the bot.
pub fn bot_name(state: BotState) -> &'static str {
    match state {
        BotState::NotPrimary => "not primary",
        BotState::Starting => "starting",
        BotState::Polling => "polling",
        BotState::Conflict => "conflict",
        BotState::Webhook => "webhook set",
        BotState::Throttled => "throttled",
        BotState::Unauthorised => "unauthorised",
        BotState::Unreachable => "unreachable",
        BotState::Unwritable => "unwritable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        let check = |bytes, text: &str| assert_eq!(size(bytes), text);
        check(0, "0 B");
        check(1023, "1023 B");
        check(1024, "1.0 KiB");
        check(5_018, "4.9 KiB");
        check(85_144_371, "81.2 MiB");
        check(104_857_599, "100 MiB");
        check(356_515_840, "340 MiB");
        check(1 << 42, "4.0 TiB");
        check(u64::MAX, "16777216 TiB");
    }

    #[test]
    fn numbers() {
        let check = |amount, text: &str| assert_eq!(number(amount), text);
        check(0, "0");
        check(999, "999");
        check(1_000, "1,000");
        check(9_363, "9,363");
        check(1_234_567, "1,234,567");
        assert_eq!(count(1, "file"), "1 file");
        assert_eq!(count(0, "file"), "0 files");
    }

    #[test]
    fn spans() {
        let check = |millis, text: &str| assert_eq!(span(millis), text);
        check(0, "0.0 s");
        check(38, "0.0 s");
        check(2_449, "2.4 s");
        check(12_900, "12 s");
        check(252_000, "4 m 12 s");
        check(11_520_000, "3 h 12 m");
        check(183_600_000, "2 d 3 h");
    }

    #[test]
    fn times() {
        let at = UtcMs(1_795_382_045_000);
        assert_eq!(clock(at), "21:14:05");
        assert_eq!(moment(at), "2026-11-22 21:14:05");
        assert_eq!(near_moment(at, UtcMs(at.0 + 60_000)), "21:14:05");
        assert_eq!(
            near_moment(at, UtcMs(at.0 + 86_400_000)),
            "2026-11-22 21:14:05"
        );
    }

    #[test]
    fn names_do_not_steer_the_terminal() {
        let check = |text: &str, shown: &str| assert_eq!(plain(text), shown);
        check("notes/büro 📎.md", "notes/büro 📎.md");
        check("a\x1b[2Jb\n", "a\\u{1b}[2Jb\\n");
        check("gpj.\u{202e}exe", "gpj.\\u{202e}exe");
    }
}
