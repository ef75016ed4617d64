//! The table of the four modes, for one path.

use serde::{Deserialize, Serialize};

use crate::tree::{Entry, Side};

/// Which changes travel, and who wins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Both ways; a conflict keeps both versions.
    #[default]
    TwoWaySafe,
    /// Both ways; in a conflict the pusher wins and the other version is kept.
    TwoWayResolved,
    /// From the pusher to the receiver; what the receiver made itself is left alone.
    OneWaySafe,
    /// From the pusher to the receiver; the receiver becomes an exact copy.
    OneWayReplica,
}

impl Mode {
    /// All modes.
    pub const ALL: [Self; 4] = [
        Self::TwoWaySafe,
        Self::TwoWayResolved,
        Self::OneWaySafe,
        Self::OneWayReplica,
    ];

    /// Returns the name that stands in settings.
    pub fn name(self) -> &'static str {
        match self {
            Self::TwoWaySafe => "two-way-safe",
            Self::TwoWayResolved => "two-way-resolved",
            Self::OneWaySafe => "one-way-safe",
            Self::OneWayReplica => "one-way-replica",
        }
    }

    /// Says whether the receiver's changes travel.
    pub fn is_two_way(self) -> bool {
        matches!(self, Self::TwoWaySafe | Self::TwoWayResolved)
    }
}

/// What happens to a path on which the two sides differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The side named gets what the other one has, also when that is nothing.
    Copy {
        /// The side that changes.
        to: Side,
    },
    /// Both are files, and content and exec bit merge field by field into this.
    Merge {
        /// The side whose content stays.
        content: Side,
        /// The exec bit that both get; `None` leaves each side its own.
        exec: Option<bool>,
    },
    /// Both changed it differently: two-way-safe makes a copy.
    Conflict,
    /// It waits for a person.
    Hold,
    /// The receiver's side stays as it is, outside the sync.
    Leave,
}

/// How a side stands to the base.
#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Same,
    /// Created, or changed in content or kind.
    Changed,
    Deleted,
}

/// Decides one path from its base and the two sides, which differ.
///
/// Directories are decided here like everything else, as if they had no content; `walk.rs` takes
/// care of what is in them.
pub fn leaf_verdict(
    mode: Mode,
    base: Option<&Entry>,
    alpha: Option<&Entry>,
    beta: Option<&Entry>,
) -> Verdict {
    if let (Some(Entry::File { .. }), Some(Entry::File { .. })) = (alpha, beta)
        && let Some(merged) = merge_files(mode, base, alpha, beta)
    {
        return merged;
    }
    let to_alpha = Verdict::Copy { to: Side::Alpha };
    let to_beta = Verdict::Copy { to: Side::Beta };
    match (state(base, alpha), state(base, beta)) {
        // A difference without a change is one of exec bits, which a deletion overrules.
        (State::Changed, State::Same | State::Deleted) | (State::Deleted, State::Same) => to_beta,
        (State::Same, State::Same) => to_beta,
        (State::Same, State::Changed) if base.is_none() => match mode {
            Mode::TwoWaySafe | Mode::TwoWayResolved => to_alpha,
            Mode::OneWaySafe => Verdict::Leave,
            Mode::OneWayReplica => to_beta,
        },
        (State::Same, State::Changed) => match mode {
            Mode::TwoWaySafe | Mode::TwoWayResolved => to_alpha,
            Mode::OneWaySafe => Verdict::Hold,
            Mode::OneWayReplica => to_beta,
        },
        (State::Same, State::Deleted) => {
            if mode.is_two_way() {
                to_alpha
            } else {
                to_beta
            }
        }
        (State::Deleted, State::Changed) => match mode {
            Mode::TwoWaySafe | Mode::TwoWayResolved => to_alpha,
            Mode::OneWaySafe => Verdict::Leave,
            Mode::OneWayReplica => to_beta,
        },
        (State::Changed, State::Changed) => both_changed(mode),
        // Both deleted is no difference.
        (State::Deleted, State::Deleted) => to_beta,
    }
}

fn both_changed(mode: Mode) -> Verdict {
    match mode {
        Mode::TwoWaySafe => Verdict::Conflict,
        Mode::TwoWayResolved | Mode::OneWayReplica => Verdict::Copy { to: Side::Beta },
        Mode::OneWaySafe => Verdict::Hold,
    }
}

/// Merges two files by field. `None` when the exec bit plays no part and the table decides.
fn merge_files(
    mode: Mode,
    base: Option<&Entry>,
    alpha: Option<&Entry>,
    beta: Option<&Entry>,
) -> Option<Verdict> {
    let file = |entry: Option<&Entry>| match entry {
        Some(Entry::File { content, exec, .. }) => Some((*content, *exec)),
        _ => None,
    };
    let ((content_a, exec_a), (content_b, exec_b)) = (file(alpha)?, file(beta)?);
    if exec_a == exec_b {
        return None;
    }
    let Some((content, exec)) = file(base) else {
        // No file to compare with. Equal content is no conflict: a file that one side can run, both
        // can run; in the other modes the pusher's word counts.
        if content_a != content_b {
            return None;
        }
        let exec = if mode == Mode::TwoWaySafe {
            true
        } else {
            exec_a
        };
        return Some(Verdict::Merge {
            content: Side::Alpha,
            exec: Some(exec),
        });
    };
    let winner = match (content_a != content, content_b != content) {
        (_, false) => Side::Alpha,
        (false, true) => match mode {
            Mode::TwoWaySafe | Mode::TwoWayResolved => Side::Beta,
            Mode::OneWaySafe => return Some(Verdict::Hold),
            Mode::OneWayReplica => return Some(Verdict::Copy { to: Side::Beta }),
        },
        (true, true) if content_a == content_b => Side::Alpha,
        (true, true) => return None,
    };
    // The bits differ, so just one of them is the base's, and the other one was changed.
    let exec = match mode {
        _ if exec_a != exec => Some(exec_a),
        Mode::TwoWaySafe | Mode::TwoWayResolved => Some(exec_b),
        Mode::OneWaySafe => None,
        Mode::OneWayReplica => Some(exec_a),
    };
    Some(Verdict::Merge {
        content: winner,
        exec,
    })
}

fn state(base: Option<&Entry>, now: Option<&Entry>) -> State {
    match (base, now) {
        (None, None) => State::Same,
        (Some(_), None) => State::Deleted,
        (None, Some(_)) => State::Changed,
        (Some(Entry::File { content: old, .. }), Some(Entry::File { content: new, .. }))
            if old == new =>
        {
            State::Same
        }
        (Some(old), Some(new)) if old == new => State::Same,
        _ => State::Changed,
    }
}
