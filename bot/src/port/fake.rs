//! A node in memory, for tests: its files are a map, and its clock is set.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use shared::control::{LeaseView, Request, Response};
use shared::lease::{Epoch, Moment, Permit};
use shared::path::RelPath;
use shared::utc::UtcMs;
use tokio::sync::watch;

use super::{Asked, Listed, Port};

/// A node without a lease.
pub(crate) struct Fake {
    files: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Whether nothing can be written.
    pub(crate) read_only: Mutex<bool>,
    pub(crate) utc: Mutex<UtcMs>,
}

impl Fake {
    pub(crate) fn new() -> Self {
        Self {
            files: Mutex::default(),
            read_only: Mutex::new(false),
            utc: Mutex::new(UtcMs(1_795_382_045_000)),
        }
    }

    /// Has what another node has of a folder, as a sync does, but for the last `cut` bytes of each file.
    pub(crate) fn receive(&self, other: &Self, cut: usize) {
        let theirs = other.with(|files| files.clone());
        self.with(|files| {
            for (path, bytes) in theirs {
                let own = files.entry(path).or_default();
                if bytes.len() - cut.min(bytes.len()) > own.len() {
                    *own = bytes[..bytes.len() - cut].to_vec();
                }
            }
        });
    }

    /// Does something to the files.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> T {
        work(&mut self.files.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Port for Fake {
    fn permit(&self, _: Duration) -> Option<Permit> {
        None
    }

    fn take_back(&self, _: Permit) {}

    fn holds(&self, _: Epoch) -> bool {
        false
    }

    fn role(&self) -> watch::Receiver<LeaseView> {
        watch::channel(LeaseView::default()).1
    }

    fn ask(&self, _: Request) -> Asked {
        Box::pin(async { Response::Paused(false) })
    }

    fn list(&self, folder: Option<&RelPath>) -> io::Result<Vec<Listed>> {
        let begin = folder
            .map(|folder| format!("{folder}/"))
            .unwrap_or_default();
        let mut listed: Vec<Listed> = Vec::new();
        self.with(|files| {
            for (path, bytes) in files.iter() {
                let Some(rest) = path.strip_prefix(&begin) else {
                    continue;
                };
                let (name, is_dir) = match rest.split_once('/') {
                    Some((name, _)) => (name, true),
                    None => (rest, false),
                };
                if listed.last().is_none_or(|last| last.name != name) {
                    listed.push(Listed {
                        name: name.to_owned(),
                        is_dir,
                        len: if is_dir { 0 } else { bytes.len() as u64 },
                    });
                }
            }
        });
        match listed.is_empty() {
            true => Err(io::ErrorKind::NotFound.into()),
            false => Ok(listed),
        }
    }

    fn read(&self, path: &RelPath, offset: u64, bytes_max: u64) -> io::Result<Vec<u8>> {
        self.with(|files| {
            let bytes = files.get(path.as_str()).ok_or(io::ErrorKind::NotFound)?;
            let from = (offset as usize).min(bytes.len());
            let to = (from + bytes_max as usize).min(bytes.len());
            Ok(bytes[from..to].to_vec())
        })
    }

    fn append(&self, path: &RelPath, bytes: &[u8]) -> io::Result<u64> {
        if *self
            .read_only
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
        {
            return Err(io::ErrorKind::ReadOnlyFilesystem.into());
        }
        self.with(|files| {
            let file = files.entry(path.as_str().to_owned()).or_default();
            file.extend_from_slice(bytes);
            Ok(file.len() as u64)
        })
    }

    fn remove(&self, path: &RelPath) -> io::Result<()> {
        self.with(|files| files.remove(path.as_str()));
        Ok(())
    }

    fn now(&self) -> Moment {
        Moment::default()
    }

    fn utc(&self) -> UtcMs {
        *self.utc.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn chance(&self) -> [u8; 8] {
        [7; 8]
    }
}
