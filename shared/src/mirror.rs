//! The mark that travels beside each file of a mirror, and what two machines conclude from it.
//!
//! A mirror is a third place with no say of its own: it neither locks nor compares, and it can be hours behind. So every copy in it
//! carries what it is ([`Mark::entry`]), which agreed state of the pair it was made from ([`Mark::batch`]), and which copies stood there
//! before it ([`Mark::past`]). From that alone either machine tells three cases apart, without asking the other one:
//!
//! * what is there is the past of what is here: it may be replaced;
//! * what is here is the past of what is there: it may be taken;
//! * neither: both were changed, and the rules for conflicts apply.
//!
//! [`ancestor`] says which, as the base that [`crate::reconcile`] plans with. So a mirror that is behind rolls nothing back.

mod trail;

use serde::{Deserialize, Serialize};

pub use trail::{STEPS_MAX, Step, Trail};

use crate::hash::ContentHash;
use crate::transfer::TAKING_MAX;
use crate::tree::{BaseRow, Entry, Gen, Sight};

/// Most copies that a mark remembers: what fits into one property. With more of them between two looks of the other machine, what
/// that machine had in common with the mirror last counts as one of them.
pub const PAST_MAX: usize = 7;

/// So many batches may have been agreed on by the other machine, at most, that this one has not heard of when the link ends.
const IN_FLIGHT_MAX: u64 = TAKING_MAX as u64;

/// What identifies a version: a beginning of the hash of what stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct VersionId(pub u64);

impl VersionId {
    /// Returns that of an entry.
    pub fn of(entry: &Entry) -> Self {
        let kind = match entry {
            Entry::File { exec: false, .. } => "f",
            Entry::File { exec: true, .. } => "x",
            Entry::Dir => "d",
            Entry::Symlink { .. } => "l",
        };
        let text = format!("{kind} {}", entry.identity());
        let hash = ContentHash::of_bytes(text.as_bytes());
        Self(u64::from_le_bytes(std::array::from_fn(|index| {
            hash.as_bytes()[index]
        })))
    }
}

/// What stands beside a copy in a mirror. Whoever writes a copy writes its mark in the same request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// What was written.
    pub entry: Entry,
    /// SHA-256 of the bytes that were written: if what is there has another one, somebody has edited it since. `None` for a folder.
    pub sum: Option<[u8; 32]>,
    /// The pair that wrote it. Batch numbers mean nothing to another one.
    pub pair: u64,
    /// The batch in which the pair had agreed on just this; for an edit, up to which batch whoever wrote it knew what was agreed on.
    pub batch: Gen,
    /// Whether it is an edit that the pair had not agreed on then.
    pub edit: bool,
    /// The node that wrote it.
    pub node: String,
    /// A number by chance: which writing this is.
    pub writing: u64,
    /// What stood there before, the latest first.
    pub past: Vec<VersionId>,
    /// Its exact name in the tree.
    pub name: String,
    /// The place that it was written for ([`place_in`]). What stands elsewhere was moved by a person.
    pub place: u64,
    /// Of a folder: what it is known by in the marks of what lies in it, for ever. 0 otherwise.
    pub tag: u64,
}

/// Returns what a mark says of a place: a name in the folder of this tag. Where that folder lies is said by its own mark, so that a
/// folder moves without a word about what is in it. The root has the tag 0.
pub fn place_in(tag: u64, name: &str) -> u64 {
    let hash = ContentHash::of_bytes(format!("{tag:x}/{name}").as_bytes());
    u64::from_le_bytes(std::array::from_fn(|index| hash.as_bytes()[index]))
}

/// As of which batch something stands where it does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AsOf {
    /// The batch.
    pub batch: Gen,
    /// Whether it is an edit of what the pair had agreed on then.
    pub edit: bool,
}

impl AsOf {
    /// Says the same of what lies in a folder. A folder is moved with all that is in it; and what was an edit then stays one, when the
    /// pair agrees on the folder alone.
    pub fn within(self, folder: Self) -> Self {
        match folder.batch >= self.batch {
            true => Self {
                batch: folder.batch,
                edit: self.edit || folder.edit,
            },
            false => self,
        }
    }
}

/// What a mirror has at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct There {
    /// What stands there.
    pub entry: Entry,
    /// Its mark, if one was written.
    pub mark: Option<Mark>,
    /// Whether it and all folders above it stand where their marks were written for.
    pub is_here: bool,
    /// What its mark says, within the folders above it; `None` without one of this pair.
    pub as_of: Option<AsOf>,
}

impl There {
    /// Says whether a person has edited or made it: nobody wrote a mark for just this.
    pub fn is_by_hand(&self) -> bool {
        self.mark
            .as_ref()
            .is_none_or(|mark| mark.entry != self.entry)
    }

    /// Returns what the mark of the next copy says of what stood there before: this one, and what this one says.
    pub fn past_with_itself(&self) -> Vec<VersionId> {
        let now = VersionId::of(&self.entry);
        let mut past = vec![now];
        if let Some(mark) = &self.mark {
            let own = VersionId::of(&mark.entry);
            let before = std::iter::once(own).chain(mark.past.iter().copied());
            past.extend(before.filter(|version| *version != now));
        }
        past.dedup();
        past.truncate(PAST_MAX);
        past
    }
}

/// What this machine and the mirror agreed on for a path last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Met {
    /// What stood at both.
    pub entry: Entry,
    /// The batch that the pair had agreed on for the path then.
    pub batch: Gen,
    /// The writing of the copy; 0 when a person had made it.
    pub writing: u64,
    /// Whether this machine was about to take it away there, or to move it: that it is gone is no news then.
    pub going: bool,
}

/// All that this machine knows about a path when it plans with a mirror.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// What stands here.
    pub here: Sight,
    /// What the pair agreed on last, also when that was to have nothing there.
    pub base: Option<BaseRow>,
    /// What this machine and the mirror agreed on last.
    pub met: Option<Met>,
    /// What the mirror has.
    pub there: Option<There>,
    /// As of when one of the pair put something else in the place of the folder that the path was in.
    pub instead: Option<AsOf>,
    /// The last batch of the pair that this machine knows of.
    pub last_batch: Gen,
    /// The writings that this machine has had here itself: those that it has begun and not heard the end of, and what it has taken.
    pub had: Vec<u64>,
    /// Whether anything crossed by the mirror at the path since the pair agreed. Then it is an edit to go back to what was agreed on.
    pub crossed: bool,
}

/// Returns what counts as the last common state of this machine and the mirror, for the planning. `pair` is the pair of this machine.
pub fn ancestor(pair: u64, known: &Known) -> Option<Entry> {
    let here = known.here.entry();
    let agreed = known.base.as_ref();
    let batch = agreed.map(|row| row.batch);
    let Some(there) = &known.there else {
        // Whoever put something in the place of its folder had all in it that was agreed on until then, and took it away.
        let was_had = |row: &&BaseRow| known.instead.is_some_and(|by| row.batch <= by.batch);
        if let Some(row) = agreed.filter(was_had).filter(|row| row.entry.is_some()) {
            return row.entry.clone();
        }
        // Somebody removed it there: unless the pair has agreed on something since it was there, that is news.
        let met = known.met.as_ref().filter(|met| !met.going)?;
        let is_overtaken = batch.is_some_and(|batch| batch > met.batch);
        return (!is_overtaken).then(|| met.entry.clone());
    };
    if here == Some(&there.entry) {
        return here.cloned();
    }
    let by_hand = there.is_by_hand();
    let mark = there.mark.as_ref();
    let ours = mark.filter(|mark| mark.pair == pair);
    let is_unchanged = known.met.as_ref().is_some_and(|met| {
        met.entry == there.entry
            && match mark {
                Some(mark) => !by_hand && met.writing == mark.writing,
                None => met.writing == 0,
            }
    });
    let as_of = there.as_of.filter(|_| there.is_here);
    // Whoever of the pair wrote an edit had it on disk then; what the pair agreed on later has taken it into account. And what this
    // machine wrote it had itself, also when it never heard that the writing was done. Unless a person moved it here.
    let is_past = !by_hand
        && (mark.is_some_and(|mark| known.had.contains(&mark.writing))
            || as_of.is_some_and(|AsOf { batch: at, edit }| {
                batch.is_some_and(|batch| at < batch || at == batch && !edit)
            }));
    // What the pair has agreed on both trees have had, also when this machine never heard that it was agreed. Where nothing tells that
    // it was changed since, that has to be certain: a machine that was put back to an earlier day has not had what was made since.
    let is_as_agreed = here.is_some() && here == agreed.and_then(|row| row.entry.as_ref());
    let was_had = !by_hand
        && as_of.is_some_and(|AsOf { batch: at, edit }| match here {
            _ if edit => false,
            Some(_) if !is_as_agreed => !known.last_batch.is_behind(at, IN_FLIGHT_MAX),
            _ => at <= known.last_batch,
        });
    if is_unchanged || is_past || was_had {
        return Some(there.entry.clone());
    }
    let Some(here) = here else {
        // It is gone here and changed there; what it was matters only in that it is not what it is now.
        let was = match mark.filter(|_| by_hand) {
            Some(mark) => Some(&mark.entry),
            None => agreed
                .and_then(|row| row.entry.as_ref())
                .or(known.met.as_ref().map(|met| &met.entry)),
        };
        return was.filter(|was| **was != there.entry).cloned();
    };
    let own = VersionId::of(here);
    let is_as_met = known
        .met
        .as_ref()
        .is_some_and(|met| met.entry == *here && batch.is_none_or(|batch| batch <= met.batch));
    let is_behind = match mark.filter(|_| there.is_here) {
        Some(mark) => {
            mark.past.contains(&own)
                // It may be further behind than a mark can say.
                || mark.past.len() >= PAST_MAX && is_as_met
                || by_hand && (mark.entry == *here || is_as_met)
                || ours.is_some_and(|mark| {
                    agreed.is_some_and(|row| {
                        row.entry.as_ref() == Some(here) && mark.batch >= row.batch
                    })
                })
        }
        // A person put another file in the place of what both had, or moved one there.
        None => is_as_met,
    };
    if is_behind {
        return Some(here.clone());
    }
    // Both were changed. What both come from is of use for a merge, if it is neither of the two.
    let was = agreed.and_then(|row| row.entry.clone());
    was.filter(|was| was != here && *was != there.entry)
}

/// Who writes a mark, which writing it is, and where.
#[derive(Debug, Clone, Copy)]
pub struct Author<'a> {
    /// The pair.
    pub pair: u64,
    /// The node.
    pub node: &'a str,
    /// The number of the writing.
    pub writing: u64,
    /// The tag of the folder that it is written in.
    pub folder: u64,
}

/// Returns the mark for what this machine is about to write under a name. Its past is that of what stands there.
pub fn mark_for(known: &Known, entry: &Entry, name: &str, author: Author<'_>) -> Mark {
    let agreed = known.base.as_ref();
    let there = known.there.as_ref();
    let before = there.and_then(|there| there.mark.as_ref());
    let before = before.filter(|mark| mark.pair == author.pair);
    // To go back to what was agreed on before something that is there is an edit of that.
    let is_last = |row: &&BaseRow| before.is_none_or(|mark| mark.batch <= row.batch);
    let is_agreed = agreed
        .filter(|row| row.entry.as_ref() == Some(entry) && !known.crossed)
        .filter(is_last);
    let tag = match entry {
        Entry::Dir => before
            .map(|mark| mark.tag)
            .filter(|tag| *tag != 0)
            .unwrap_or(author.writing),
        _ => 0,
    };
    Mark {
        entry: entry.clone(),
        sum: None,
        pair: author.pair,
        // Whoever replaces a copy has looked at it.
        batch: is_agreed.map_or_else(
            || {
                let rows = [agreed.map(|row| row.batch), before.map(|mark| mark.batch)];
                let known_of = rows.into_iter().flatten().max().unwrap_or_default();
                known.last_batch.max(known_of)
            },
            |row| row.batch,
        ),
        edit: is_agreed.is_none(),
        node: author.node.to_owned(),
        writing: author.writing,
        past: there.map(There::past_with_itself).unwrap_or_default(),
        name: name.to_owned(),
        place: place_in(author.folder, name),
        tag,
    }
}

/// Longest key and value of one property together, in bytes: Drive's limit.
pub const PROPERTY_BYTES_MAX: usize = 124;
/// Longest target of a link that a mark can tell, in bytes.
pub const LINK_TOLD_BYTES_MAX: usize = 900;
/// Bytes of a text that one property holds; a longer one is told in several.
const PART_BYTES: usize = PROPERTY_BYTES_MAX - 4;
/// The version of what properties say.
const FORM: &str = "1";
/// Says that there is nothing to say. An empty value is not stored everywhere.
const NOTHING: &str = "-";

impl Mark {
    /// Says as of which batch it was written.
    pub fn as_of(&self) -> AsOf {
        AsOf {
            batch: self.batch,
            edit: self.edit,
        }
    }

    /// Writes it as properties, each within [`PROPERTY_BYTES_MAX`] and none empty; 25 at most.
    pub fn properties(&self) -> Vec<(String, String)> {
        let (kind, len) = match &self.entry {
            Entry::File { exec, len, .. } => (if *exec { "x" } else { "f" }, *len),
            Entry::Dir => ("d", 0),
            Entry::Symlink { target } => ("l", target.len() as u64),
        };
        let past: Vec<String> = self
            .past
            .iter()
            .take(PAST_MAX)
            .map(|version| format!("{:x}", version.0))
            .collect();
        let or_nothing = |text: String| match text.is_empty() {
            true => NOTHING.to_owned(),
            false => text,
        };
        let mut properties: Vec<(String, String)> = [
            ("v", FORM.to_owned()),
            ("k", kind.to_owned()),
            ("h", self.entry.identity().to_string()),
            ("l", len.to_string()),
            ("s", self.sum.map_or(NOTHING.to_owned(), hex)),
            ("p", format!("{:x}", self.pair)),
            ("b", self.batch.0.to_string()),
            ("e", u8::from(self.edit).to_string()),
            ("o", or_nothing(clipped(&self.node, PART_BYTES))),
            ("w", format!("{:x}", self.writing)),
            ("a", or_nothing(past.join(" "))),
            ("q", format!("{:x}", self.place)),
            ("g", format!("{:x}", self.tag)),
        ]
        .map(|(key, value)| (key.to_owned(), value))
        .into();
        tell("n", &self.name, &mut properties);
        if let Entry::Symlink { target } = &self.entry {
            tell("t", target, &mut properties);
        }
        properties
    }

    /// Reads one; `None` when it is none, or one of a later version.
    pub fn parse(get: impl Fn(&str) -> Option<String>) -> Option<Self> {
        if get("v")? != FORM {
            return None;
        }
        let number = |key: &str| u64::from_str_radix(&get(key)?, 16).ok();
        let content: ContentHash = get("h")?.parse().ok()?;
        let len: u64 = get("l")?.parse().ok()?;
        let file = |exec| Entry::File { content, len, exec };
        let entry = match get("k")?.as_str() {
            "f" => file(false),
            "x" => file(true),
            "d" => Entry::Dir,
            "l" => Entry::Symlink {
                target: told("t", &get)?.into(),
            },
            _ => return None,
        };
        let past = get("a").filter(|text| text != NOTHING).unwrap_or_default();
        let past = past
            .split_whitespace()
            .map(|text| u64::from_str_radix(text, 16).ok().map(VersionId));
        Some(Self {
            entry,
            sum: get("s").and_then(|text| unhex(&text)),
            pair: number("p")?,
            batch: Gen::try_from(get("b")?.parse::<u64>().ok()?).ok()?,
            edit: get("e")? != "0",
            node: get("o").filter(|text| text != NOTHING).unwrap_or_default(),
            writing: number("w")?,
            past: past.collect::<Option<_>>()?,
            name: told("n", &get)?,
            place: number("q")?,
            tag: number("g")?,
        })
    }
}

/// Tells a text in as many parts as it needs. Parts that an earlier, longer one has left are not read.
fn tell(key: &str, text: &str, properties: &mut Vec<(String, String)>) {
    let (mut rest, mut count) = (text, 0);
    while !rest.is_empty() {
        let part = clipped(rest, PART_BYTES);
        rest = &rest[part.len()..];
        properties.push((format!("{key}{count}"), part));
        count += 1;
    }
    properties.push((key.to_owned(), count.to_string()));
}

fn told(key: &str, get: &impl Fn(&str) -> Option<String>) -> Option<String> {
    let count: u8 = get(key)?.parse().ok()?;
    (0..count)
        .map(|part| get(&format!("{key}{part}")))
        .collect()
}

fn clipped(text: &str, bytes: usize) -> String {
    let mut cut = text.len().min(bytes);
    while !text.is_char_boundary(cut) {
        cut -= 1;
    }
    text[..cut].to_owned()
}

/// Writes a sum in hexadecimal digits.
pub fn hex(sum: [u8; 32]) -> String {
    ContentHash::from_bytes(sum).to_string()
}

/// Reads a sum in hexadecimal digits.
pub fn unhex(text: &str) -> Option<[u8; 32]> {
    text.parse::<ContentHash>()
        .ok()
        .map(|hash| *hash.as_bytes())
}

#[cfg(test)]
mod tests;
