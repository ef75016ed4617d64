//! Reading content: one pass gives hash, length and chunks.
//!
//! Files are read, never mapped: a truncation by somebody else would be SIGBUS. A file counts as read
//! only when it is the same before and after.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::{Stat, fstat};
use rustix::io::Errno;
use shared::chunk::{Chunker, Manifest};
use shared::hash::{ContentHash, PLAIN_BYTES_MAX};
use shared::tree::Entry;

use crate::fingerprint::{self, Fingerprint, SeenRow, is_exec, now_ns};
use crate::sqlite::{self, Activity};
use crate::{background, handle, volume};

/// How often a file that changes under the reader is read again at once.
const TRIES: usize = 3;
const SMALL_BYTES: usize = PLAIN_BYTES_MAX as usize + 1;
const LONG_BYTES: usize = 1024 * 1024;
/// From here on other programs go first: reading so much keeps a core busy for some milliseconds.
const BACKGROUND_BYTES_MIN: u64 = 16 * 1024 * 1024;

/// Content that was read once.
pub(crate) struct Content {
    pub(crate) hash: ContentHash,
    pub(crate) len: u64,
    /// The chunks, if it is long.
    pub(crate) manifest: Option<Manifest>,
}

/// What reading a file gave.
pub(crate) enum Reading {
    /// The file rested while it was read.
    Read(SeenRow, Option<Manifest>),
    /// It changed each time, or is not the kind of thing that it was.
    Unstable,
    /// It is a database that is in use; its file alone is no content.
    Live,
    /// It is a database in use that could not be read for a while.
    Refused,
    /// The caller asked to stop.
    Stopped,
}

/// Reads files one after another into the same buffer.
#[derive(Default)]
pub(crate) struct Reader {
    buffer: Vec<u8>,
    /// Whether to read what the medium has, not what the system remembers of it.
    from_medium: bool,
    /// How many bytes were read in all.
    pub(crate) bytes: u64,
}

impl Reader {
    /// Makes a reader that reads what the medium has, if asked to.
    pub(crate) fn from_medium(from_medium: bool) -> Self {
        Self {
            from_medium,
            ..Self::default()
        }
    }

    /// Reads the file at a name and returns what is seen there.
    ///
    /// # Errors
    /// Those of the file system; [`Errno::INVAL`] when it is not a regular file (any more).
    pub(crate) fn see(
        &mut self,
        dir: impl AsFd,
        name: &str,
        root_device: u64,
        stop: &AtomicBool,
    ) -> Result<Reading, Errno> {
        for _ in 0..TRIES {
            let now = now_ns();
            let (mut file, before) = handle::open_file(&dir, name)?;
            if self.from_medium {
                volume::read_from_medium(&file);
            }
            let database = sqlite::header(&file, &before);
            let is_live = |stat: &Stat| match database {
                Some(header) => {
                    Ok(sqlite::activity(&dir, name, header, stat, now)? != Activity::AtRest)
                }
                None => Ok::<_, Errno>(false),
            };
            if is_live(&before)? {
                return Ok(Reading::Live);
            }
            let len = fingerprint::len(&before);
            let mut read = || self.content(&mut *file, len, Some(stop));
            let content = if len < BACKGROUND_BYTES_MIN {
                read()
            } else {
                background::run(read)
            };
            let Some(content) = content.map_err(|error| errno(&error))? else {
                return Ok(Reading::Stopped);
            };
            let print = Fingerprint::of(&fstat(&file)?, root_device);
            if is_live(&before)? {
                return Ok(Reading::Live);
            }
            if print == Fingerprint::of(&before, root_device) {
                let row = content.row(&before, print, now);
                return Ok(Reading::Read(row, content.manifest));
            }
        }
        Ok(Reading::Unstable)
    }

    /// Reads from the present position to the end; `None` when told to stop. Of a small file no more is
    /// read than the `len` bytes that it has: whether it has grown since shows in its fingerprint.
    pub(crate) fn content(
        &mut self,
        from: &mut impl Read,
        len: u64,
        stop: Option<&AtomicBool>,
    ) -> io::Result<Option<Content>> {
        let first = if len <= PLAIN_BYTES_MAX {
            len as usize
        } else {
            SMALL_BYTES
        };
        self.buffer.resize(self.buffer.len().max(first), 0);
        let start = read_full(from, &mut self.buffer[..first])?;
        self.bytes += start as u64;
        if start < SMALL_BYTES {
            let hash = ContentHash::of_bytes(&self.buffer[..start]);
            return Ok(Some(Content {
                hash,
                len: start as u64,
                manifest: None,
            }));
        }
        let mut chunker = Chunker::default();
        chunker.push(&self.buffer[..start]);
        self.buffer.resize(LONG_BYTES, 0);
        loop {
            if stop.is_some_and(|stop| stop.load(Ordering::Relaxed)) {
                return Ok(None);
            }
            let more = read_full(from, &mut self.buffer)?;
            self.bytes += more as u64;
            if more == 0 {
                break;
            }
            chunker.push(&self.buffer[..more]);
        }
        let manifest = chunker.finish();
        let (hash, len) = (manifest.content(), manifest.len());
        Ok(Some(Content {
            hash,
            len,
            manifest: Some(manifest),
        }))
    }
}

impl Content {
    fn row(&self, stat: &Stat, print: Fingerprint, now_ns: i64) -> SeenRow {
        let entry = Entry::File {
            content: self.hash,
            len: self.len,
            exec: is_exec(stat),
        };
        SeenRow {
            entry,
            print,
            racy: print.is_racy(now_ns),
        }
    }
}

/// Reads what the file at a handle holds, from its beginning, without asking whether it rests.
pub(crate) fn content_of(file: &mut File) -> io::Result<Content> {
    io::Seek::rewind(file)?;
    let content = Reader::default().content(file, u64::MAX, None)?;
    content.ok_or_else(|| io::ErrorKind::Interrupted.into())
}

/// Fills the buffer unless the content ends before, and returns how much was read.
pub(crate) fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match from.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(more) => filled += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// Returns the number of the system's error.
pub(crate) fn errno(error: &io::Error) -> Errno {
    Errno::from_io_error(error).unwrap_or(Errno::IO)
}
