//! Devices that remember: files of a file system in user space, under loop devices.
//!
//! Every write that the kernel issues arrives here in order, and so does every *flush*, with which it
//! asks that what was written before be durable. So what a power cut can leave is known exactly: all
//! that was written before the last flush, and of what was written since any part, in any order.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, UNIX_EPOCH};

use fuser::{
    BackgroundSession, Config, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags,
    Generation, INodeNo, LockOwner, MountOption, OpenFlags, ReplyAttr, ReplyData, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyWrite, Request, WriteFlags,
};

use crate::dice::Dice;

/// Half of what was written and not flushed arrives as pieces of this length, or not at all.
const PIECE_BYTES: usize = 4096;
/// The device of the number 0 is the file of this inode.
const FIRST_FILE: u64 = 2;
const FOREVER: Duration = Duration::from_secs(3600);

/// What is lost of that which was written since the last flush.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Nothing: the process and the kernel died, the device went on.
    Nothing,
    /// All of it.
    Everything,
    /// Each piece by chance.
    ByChance,
}

enum Event {
    Write {
        device: usize,
        offset: usize,
        data: Box<[u8]>,
    },
    Flush {
        device: usize,
    },
}

#[derive(Default)]
struct Log {
    now: Vec<Vec<u8>>,
    events: Vec<Event>,
}

/// Some devices with one memory.
pub(crate) struct Devices {
    at_first: Vec<Vec<u8>>,
    log: Arc<Mutex<Log>>,
    dir: PathBuf,
    session: Option<BackgroundSession>,
}

impl Devices {
    /// Offers devices with these contents as files in `dir`.
    pub(crate) fn new(dir: &Path, contents: Vec<Vec<u8>>) -> std::io::Result<Self> {
        let log = Arc::new(Mutex::new(Log {
            now: contents.clone(),
            events: Vec::new(),
        }));
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("layer-sync-test".to_owned())];
        let session = fuser::spawn_mount(Files(log.clone()), dir, &config)?;
        Ok(Self {
            at_first: contents,
            log,
            dir: dir.to_owned(),
            session: Some(session),
        })
    }

    /// Returns the file of a device.
    pub(crate) fn file(&self, device: usize) -> PathBuf {
        self.dir.join(device.to_string())
    }

    /// Returns how much has happened so far.
    pub(crate) fn now(&self) -> usize {
        lock(&self.log).events.len()
    }

    /// Returns the contents that a power cut at a moment leaves.
    pub(crate) fn left(&self, moment: usize, loss: Loss, dice: &mut Dice) -> Vec<Vec<u8>> {
        let log = lock(&self.log);
        let events = &log.events[..moment];
        let mut flushed: BTreeMap<usize, usize> = BTreeMap::new();
        for (at, event) in events.iter().enumerate() {
            if let Event::Flush { device } = event {
                flushed.insert(*device, at);
            }
        }
        let mut left = self.at_first.clone();
        for (at, event) in events.iter().enumerate() {
            let Event::Write {
                device,
                offset,
                data,
            } = event
            else {
                continue;
            };
            let is_durable = flushed.get(device).is_some_and(|flush| at < *flush);
            for (number, piece) in data.chunks(PIECE_BYTES).enumerate() {
                let arrives = match loss {
                    Loss::Nothing => true,
                    Loss::Everything => false,
                    Loss::ByChance => dice.below(2) == 0,
                };
                if is_durable || arrives {
                    let from = offset + number * PIECE_BYTES;
                    left[*device][from..from + piece.len()].copy_from_slice(piece);
                }
            }
        }
        left
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        if let Some(session) = self.session.take()
            && let Err(error) = session.umount_and_join()
        {
            eprintln!("the devices are still in use: {error}");
        }
    }
}

fn lock(log: &Mutex<Log>) -> MutexGuard<'_, Log> {
    log.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The file system: one directory, in it a file for each device.
struct Files(Arc<Mutex<Log>>);

impl Files {
    fn device(ino: INodeNo) -> Option<usize> {
        usize::try_from(ino.0.checked_sub(FIRST_FILE)?).ok()
    }

    fn attr(&self, ino: INodeNo) -> Option<FileAttr> {
        let (kind, perm, size) = match Self::device(ino) {
            None => (FileType::Directory, 0o700, 0),
            Some(device) => {
                let size = lock(&self.0).now.get(device)?.len() as u64;
                (FileType::RegularFile, 0o600, size)
            }
        };
        Some(FileAttr {
            ino,
            size,
            blocks: size.div_ceil(512),
            atime: UNIX_EPOCH,
            mtime: UNIX_EPOCH,
            ctime: UNIX_EPOCH,
            crtime: UNIX_EPOCH,
            kind,
            perm,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            blksize: 4096,
            flags: 0,
        })
    }
}

impl Filesystem for Files {
    fn lookup(&self, _: &Request, _: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let device = name.to_str().and_then(|name| name.parse::<u64>().ok());
        match device.and_then(|device| self.attr(INodeNo(FIRST_FILE + device))) {
            Some(attr) => reply.entry(&FOREVER, &attr, Generation(0)),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.attr(ino) {
            Some(attr) => reply.attr(&FOREVER, &attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn open(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let log = lock(&self.0);
        let Some(content) = Self::device(ino).and_then(|device| log.now.get(device)) else {
            return reply.error(Errno::EIO);
        };
        let from = content.len().min(offset as usize);
        let to = content.len().min(from + size as usize);
        reply.data(&content[from..to]);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let mut log = lock(&self.0);
        let (offset, end) = (offset as usize, offset as usize + data.len());
        let place = Self::device(ino).and_then(|device| Some((device, log.now.get_mut(device)?)));
        match place {
            Some((device, content)) if end <= content.len() => {
                content[offset..end].copy_from_slice(data);
                let data = data.into();
                log.events.push(Event::Write {
                    device,
                    offset,
                    data,
                });
                reply.written((end - offset) as u32);
            }
            _ => reply.error(Errno::ENOSPC),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // The end of a file descriptor, which says nothing about durability.
        reply.ok();
    }

    fn fsync(&self, _: &Request, ino: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        if let Some(device) = Self::device(ino) {
            lock(&self.0).events.push(Event::Flush { device });
        }
        reply.ok();
    }
}
