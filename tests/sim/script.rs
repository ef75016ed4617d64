//! A history as a script: what people do, what fails, and how long the machines may work in between.
//! It is made from a seed, and can be shortened line by line: each line has its own chance, so that
//! taking one out leaves the others as they are.

use shared::reconcile::Mode;
use shared::tree::Side;

use crate::chance::Chance;
use crate::mirror::Deed;
use crate::user::{CONTENTS, Edit, NAMES};

/// Something that happens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    /// Somebody does something.
    Edit(Side, Edit),
    /// The machines work for some steps.
    Run(u16),
    /// Time passes while nothing is slow.
    Pass(u32),
    /// A process dies.
    Kill(Side),
    /// A machine loses its power.
    CutPower(Side),
    /// The link is cut.
    CutLink,
    /// An index is lost while its process is down.
    LoseIndex(Side),
    /// A watcher hears nothing from now on, or again.
    Deaf(Side, bool),
    /// A machine sleeps: its monotonic clock stands still, its wall clock goes on.
    Sleep(Side, u32),
    /// A wall clock is set.
    SetClock(Side, i64),
    /// The system writes everything out by itself.
    WriteOut(Side),
    /// Somebody asks for the status.
    Status(Side),
    /// Somebody asks that everything be synced now.
    Flush(Side),
    /// Somebody pauses the pair, or resumes it.
    Pause(bool),
    /// The direct road is opened or closed.
    Road(bool),
    /// Somebody does something at the mirror.
    AtMirror(Deed),
    /// What is broken is mended, and everything comes to rest.
    Settle,
}

/// A line of a script.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) act: Act,
    /// The seed of the chance while it is carried out.
    pub(crate) chance: u64,
}

/// A script.
#[derive(Debug, Clone)]
pub(crate) struct Script {
    pub(crate) mode: Mode,
    /// Whether the pusher has a guard. Small trees are emptied all the time; so most have none.
    pub(crate) guarded: bool,
    /// Whether there is a mirror, and how it is.
    pub(crate) mirrored: Option<Mirrored>,
    pub(crate) lines: Vec<Line>,
}

/// How a mirror is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mirrored {
    /// One call in how many fails; 0 for none.
    pub(crate) fails_one_in: usize,
}

/// How a history is drawn.
struct Style {
    /// One in how many lines is a fault; 0 for none.
    fault_one_in: usize,
    /// Whether one side alone is edited between two rests.
    one_at_a_time: bool,
    /// Whether an index may be lost.
    loses_index: bool,
    rules: bool,
    unreadable: bool,
}

impl Script {
    /// Makes the script of a seed.
    pub(crate) fn of_seed(seed: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0x5eed_5eed);
        let style = Style {
            fault_one_in: [0, 4, 6, 10][chance.below(4)],
            one_at_a_time: chance.one_in(3),
            loses_index: chance.one_in(12),
            rules: chance.one_in(12),
            unreadable: chance.one_in(4),
        };
        let mode = if chance.one_in(8) {
            Mode::TwoWayResolved
        } else {
            Mode::TwoWaySafe
        };
        let count = 6 + chance.below(30);
        let mut lines = Vec::with_capacity(count + 2);
        let mut who = *chance.pick(&[Side::Alpha, Side::Beta]);
        for _ in 0..count {
            if !style.one_at_a_time {
                who = *chance.pick(&[Side::Alpha, Side::Beta]);
            }
            let act = style.act(who, &mut chance);
            if act == Act::Settle {
                who = *chance.pick(&[Side::Alpha, Side::Beta]);
            }
            lines.push(act);
        }
        lines.push(Act::Settle);
        let line = |act| Line {
            act,
            chance: chance.next(),
        };
        Self {
            mode,
            guarded: false,
            mirrored: None,
            lines: lines.into_iter().map(line).collect(),
        }
    }
}

impl Script {
    /// Makes the same script for a pair with a guard.
    pub(crate) fn guarded(seed: u64) -> Self {
        Self {
            guarded: true,
            ..Self::of_seed(seed)
        }
    }

    /// Makes the script of a seed for a pair with a mirror.
    pub(crate) fn mirrored(seed: u64) -> Self {
        let mut chance = Chance::new(seed ^ 0x317_7075);
        let mirrored = Mirrored {
            fails_one_in: [0, 10, 30, 100][chance.below(4)],
        };
        let style = Style {
            fault_one_in: [0, 8, 12, 20][chance.below(4)],
            one_at_a_time: chance.one_in(3),
            // What becomes of a mirror whose index was lost is another matter.
            loses_index: false,
            rules: false,
            unreadable: chance.one_in(6),
        };
        let count = 6 + chance.below(30);
        let mut acts = Vec::with_capacity(count + 8);
        let mut is_open = true;
        let mut hand = chance.below(3);
        while acts.len() < count {
            if !style.one_at_a_time || chance.one_in(6) {
                hand = chance.below(3);
            }
            match chance.below(16) {
                0 | 1 => {
                    is_open = !is_open;
                    acts.push(Act::Road(is_open));
                    if !is_open && !chance.one_in(3) {
                        acts.push(Act::Pass(122_000 + chance.below(20_000) as u32));
                    }
                }
                2..4 => acts.push(Act::Pass(1000 + chance.below(60_000) as u32)),
                _ => acts.push(style.act_of(hand, &mut chance)),
            }
        }
        acts.push(Act::Settle);
        let line = |act| Line {
            act,
            chance: chance.next(),
        };
        Self {
            mode: Mode::TwoWaySafe,
            guarded: false,
            mirrored: Some(mirrored),
            lines: acts.into_iter().map(line).collect(),
        }
    }
}

impl Style {
    /// What one of three hands does, or what happens meanwhile.
    fn act_of(&self, hand: usize, chance: &mut Chance) -> Act {
        let side = match hand {
            0 => Side::Alpha,
            1 => Side::Beta,
            _ => *chance.pick(&[Side::Alpha, Side::Beta]),
        };
        match self.act(side, chance) {
            Act::Edit(..) if hand == 2 => Act::AtMirror(Self::deed(chance)),
            act => act,
        }
    }

    fn deed(chance: &mut Chance) -> Deed {
        let at = chance.below(NAMES.len()) as u8;
        let to = chance.below(NAMES.len()) as u8;
        let text = chance.below(CONTENTS) as u16;
        match chance.below(16) {
            0..8 => Deed::Upload(at, text),
            8 => Deed::Second(at, text),
            9..12 => Deed::Trash(at),
            12..14 => Deed::Move(at, to),
            _ => Deed::MakeDir(at),
        }
    }

    fn act(&self, who: Side, chance: &mut Chance) -> Act {
        if self.fault_one_in > 0 && chance.one_in(self.fault_one_in) {
            return self.fault(chance);
        }
        match chance.below(40) {
            0 => Act::Settle,
            1 => Act::Status(*chance.pick(&[Side::Alpha, Side::Beta])),
            2 => Act::Flush(*chance.pick(&[Side::Alpha, Side::Beta])),
            3 => Act::WriteOut(who),
            4 => Act::Pass([60, 600, 40_000][chance.below(3)]),
            5..15 => Act::Run(1 + chance.below(60) as u16),
            15..18 => Act::Run(100 + chance.below(200) as u16),
            _ => Act::Edit(who, self.edit(chance)),
        }
    }

    fn edit(&self, chance: &mut Chance) -> Edit {
        let at = chance.below(NAMES.len()) as u8;
        let to = chance.below(NAMES.len()) as u8;
        // Mostly something new; now and then what was there once.
        let text = if chance.one_in(4) {
            chance.below(6)
        } else {
            chance.below(CONTENTS)
        } as u16;
        if self.unreadable && chance.one_in(5) {
            return if chance.one_in(3) {
                Edit::OpenAll
            } else {
                Edit::Shut(at)
            };
        }
        if self.rules && chance.one_in(8) {
            return Edit::Rules(to);
        }
        match chance.below(24) {
            0..7 => Edit::Save(at, text),
            7..10 => Edit::Write(at, text),
            10..13 => Edit::Remove(at),
            13..16 => Edit::MakeDir(at),
            16 => Edit::MakeFile(at, text),
            17..20 => Edit::Rename(at, to),
            20 => Edit::Link(at, to),
            21 | 22 => Edit::Turn(at),
            _ => Edit::Again(at),
        }
    }

    fn fault(&self, chance: &mut Chance) -> Act {
        let side = *chance.pick(&[Side::Alpha, Side::Beta]);
        match chance.below(16) {
            0..4 => Act::Kill(side),
            4..8 => Act::CutPower(side),
            8..12 => Act::CutLink,
            12 => Act::Deaf(side, !chance.one_in(3)),
            13 => Act::Sleep(side, 100_000 * (1 + chance.below(50) as u32)),
            14 => Act::SetClock(side, (chance.below(7_200_000) as i64) - 3_600_000),
            _ if self.loses_index => Act::LoseIndex(side),
            _ => Act::Pause(chance.one_in(2)),
        }
    }
}
