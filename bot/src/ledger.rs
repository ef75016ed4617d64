//! The ledger: the journals of both nodes, and this node's own end of them.
//!
//! A node writes files of its own, `knowledge/.journal/<node>/<epoch>-<first line>.jsonl` in the tree, and only appends to them. They
//! travel as any file does. Order of effects: the line is durable in the journal, then the view has it, then whoever noted it goes
//! on. What the other node wrote is taken in when it arrives; a line whose end has not arrived yet waits for it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use shared::journal::FOLDER;
use shared::path::RelPath;
use shared::utc::UtcMs;
use tracing::{info, warn};

use crate::port::Port;
use crate::record::{LINE_BYTES_MAX, Record, What};
use crate::view::{View, ViewError};

/// A file of this length gets no more lines.
const SEGMENT_BYTES_MAX: u64 = 1 << 20;
/// How much is read at once.
const READ_BYTES: u64 = 4 << 20;
/// How long a pairing code can be used.
pub(crate) const OFFER_MS: u64 = 600_000;
/// How often it can be missed.
const MISSES_MAX: u32 = 5;
/// Own files whose last line is older than this go.
const KEPT_MS: u64 = 30 * 86_400_000;

/// The journals, as this node knows them.
pub(crate) struct Ledger {
    port: Arc<dyn Port>,
    node: String,
    epoch: u64,
    next_seq: u64,
    /// The file that is written, and its length.
    segment: Option<(RelPath, u64)>,
    view: View,
}

impl Ledger {
    /// Opens it, and takes in all that is there.
    ///
    /// # Errors
    /// When the view cannot be made. Journals that cannot be read now are read later.
    pub(crate) fn open(port: Arc<dyn Port>, node: &str, view: &Path) -> Result<Self, LedgerError> {
        let view = View::open(view)?;
        if view.is_new {
            info!("the view of the journals is made anew");
        }
        let mut this = Self {
            port,
            node: node.to_owned(),
            epoch: 0,
            next_seq: 0,
            segment: None,
            view,
        };
        if let Err(error) = this.refresh() {
            warn!(%error, "journals are not read yet");
        }
        Ok(this)
    }

    pub(crate) fn view(&self) -> &View {
        &self.view
    }

    /// Returns the time of day.
    pub(crate) fn now(&self) -> UtcMs {
        self.port.utc()
    }

    /// Lists the hashes of the pairing codes that can still be used.
    pub(crate) fn open_offers(&self, now: UtcMs) -> Result<Vec<String>, LedgerError> {
        let open = |(hash, until, missed): (String, UtcMs, u32)| {
            // A clock that was set back by a day does not make a code last longer.
            let made = until.0.saturating_sub(OFFER_MS);
            (missed < MISSES_MAX && made <= now.0).then_some(hash)
        };
        Ok(self
            .view
            .offers(now)?
            .into_iter()
            .filter_map(open)
            .collect())
    }

    /// From now on lines are written under this epoch, in a file of their own.
    pub(crate) fn set_epoch(&mut self, epoch: u64) {
        if self.epoch != epoch {
            self.epoch = epoch;
            self.segment = None;
        }
    }

    /// Makes something durable, and takes it in.
    ///
    /// # Errors
    /// When it is not durable; then it did not happen.
    pub(crate) fn note(&mut self, whats: Vec<What>) -> Result<(), LedgerError> {
        if whats.is_empty() {
            return Ok(());
        }
        // Beyond all that this node has read, also from the other one: what is noted later has the greater number.
        self.next_seq = self.next_seq.max(self.view.last_seq()? + 1);
        let now = self.port.utc();
        let mut records = Vec::with_capacity(whats.len());
        // Half a line that a power cut left at the end of the file gets an end.
        let mut lines = String::from(if self.segment.is_none() { "\n" } else { "" });
        for what in whats {
            let seq = self.next_seq + records.len() as u64;
            let record = Record::new(self.epoch, seq, now, what);
            lines += &record.line();
            records.push(record);
        }
        let path = match &self.segment {
            Some((path, bytes)) if *bytes < SEGMENT_BYTES_MAX => path.clone(),
            _ => self.own(&format!("{:08}-{:010}.jsonl", self.epoch, self.next_seq))?,
        };
        // Whether or not it arrives, these numbers are used up.
        self.next_seq += records.len() as u64;
        let bytes = match self.port.append(&path, lines.as_bytes()) {
            Ok(bytes) => bytes,
            Err(error) => {
                self.segment = None;
                return Err(LedgerError::Journal(error));
            }
        };
        self.segment = Some((path.clone(), bytes));
        Ok(self.view.take(path.as_str(), bytes, &records)?)
    }

    /// Takes in what has been written since; returns whether there was anything.
    ///
    /// # Errors
    /// What the system or the view says. What was taken in before that stays.
    pub(crate) fn refresh(&mut self) -> Result<bool, LedgerError> {
        let mut files = Vec::new();
        let journals = path(FOLDER)?;
        for node in self
            .folder(&journals)?
            .into_iter()
            .filter(|node| node.is_dir)
        {
            let Ok(folder) = journals.join(&node.name) else {
                continue;
            };
            for file in self.folder(&folder)? {
                if let (Ok(path), Some(order)) = (folder.join(&file.name), order(&file.name)) {
                    files.push((order, path, file.len));
                }
            }
        }
        files.sort();
        let mut any = false;
        for (_, path, len) in files {
            let from = self.view.position(path.as_str())?;
            if len < from {
                // Somebody put an older copy back. What is known stays known; what comes now is read from the beginning.
                any |= self.take_in(&path, 0)?;
            } else if len > from {
                any |= self.take_in(&path, from)?;
            }
        }
        Ok(any)
    }

    /// Returns the file that is written, and its length: what the other node has to have to know all that was noted under this epoch.
    pub(crate) fn end(&self) -> Option<(RelPath, u64)> {
        self.segment.clone()
    }

    /// Drops what is old: own files that nobody needs any more, and what the view has of them.
    pub(crate) fn prune(&mut self) -> Result<(), LedgerError> {
        let now = self.port.utc();
        let folder = self.own_folder()?;
        let mut files = self.folder(&folder)?;
        files.retain(|file| order(&file.name).is_some());
        files.sort_by_key(|file| order(&file.name));
        // The last one is being written, and says where to go on.
        files.pop();
        for file in files {
            let path = path(&format!("{}/{}", folder.as_str(), file.name))?;
            let last = self
                .lines(&path, file.len.saturating_sub(LINE_BYTES_MAX as u64))?
                .0
                .pop();
            if last.is_none_or(|last| last.at.0 + KEPT_MS < now.0) {
                self.port.remove(&path).map_err(LedgerError::Journal)?;
                self.view.forget(path.as_str())?;
            }
        }
        Ok(self.view.prune(now)?)
    }

    fn take_in(&mut self, path: &RelPath, mut from: u64) -> Result<bool, LedgerError> {
        let mut any = false;
        loop {
            let (records, bytes) = self.lines(path, from)?;
            if bytes == 0 {
                return Ok(any);
            }
            any |= !records.is_empty();
            from += bytes;
            self.view.take(path.as_str(), from, &records)?;
        }
    }

    /// Reads whole lines, and tells how many bytes they are.
    fn lines(&self, path: &RelPath, from: u64) -> Result<(Vec<Record>, u64), LedgerError> {
        let bytes = self
            .port
            .read(path, from, READ_BYTES)
            .map_err(LedgerError::Journal)?;
        let mut records = Vec::new();
        let mut whole = 0;
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            let Some(line) = line.strip_suffix(b"\n") else {
                break;
            };
            whole += line.len() + 1;
            records.extend(Record::parse(line));
        }
        // What fills all that is read at once and has no end is no line.
        if whole == 0 && bytes.len() as u64 == READ_BYTES {
            whole = bytes.len();
        }
        Ok((records, whole as u64))
    }

    fn own_folder(&self) -> Result<RelPath, LedgerError> {
        path(&format!("{FOLDER}/{}", self.node))
    }

    fn own(&self, name: &str) -> Result<RelPath, LedgerError> {
        path(&format!("{FOLDER}/{}/{name}", self.node))
    }

    /// Lists a folder; one that is not there is empty.
    fn folder(&self, folder: &RelPath) -> Result<Vec<crate::port::Listed>, LedgerError> {
        match self.port.list(Some(folder)) {
            Ok(listed) => Ok(listed),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(LedgerError::Journal(error)),
        }
    }
}

/// Reads the name of a file of a journal: its epoch and its first line. A conflict copy, or anything else that lies there, is none.
fn order(name: &str) -> Option<(u64, u64)> {
    let (epoch, seq) = name.strip_suffix(".jsonl")?.split_once('-')?;
    Some((epoch.parse().ok()?, seq.parse().ok()?))
}

fn path(text: &str) -> Result<RelPath, LedgerError> {
    RelPath::parse(text).map_err(|error| LedgerError::Journal(io::Error::other(error)))
}

/// Returns the time before which a day has passed.
pub(crate) fn a_day_before(now: UtcMs) -> UtcMs {
    UtcMs(now.0.saturating_sub(86_400_000))
}

/// Why something is not noted, or not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum LedgerError {
    /// The tree.
    #[error("the journal in the tree: {0}")]
    Journal(io::Error),
    /// The view.
    #[error(transparent)]
    View(#[from] ViewError),
}

#[cfg(test)]
mod tests;
