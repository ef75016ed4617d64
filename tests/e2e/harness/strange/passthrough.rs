//! A folder, seen through a file system in user space: every request is carried out on the real file.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo, LockOwner,
    OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyEmpty,
    ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::{
    AtFlags, CWD, Dir, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_NOW, UTIME_OMIT, Uid,
    chmodat, chownat, linkat, mkdirat, openat, readlinkat, renameat_with, statvfs, symlinkat,
    unlinkat, utimensat,
};
use shared::path::RelPath;

use super::inodes::{Inode, Inodes};
use super::{Fault, Faults};

/// Nothing is remembered by the kernel: each request says how things are now.
const NOW: Duration = Duration::ZERO;

type Result<T> = std::result::Result<T, Errno>;

/// A listed name, its kind and the file's real number.
type Listed = (OsString, FileType, u64);

pub(super) struct Passthrough {
    inodes: Mutex<Inodes>,
    open: Mutex<Open>,
    folds: bool,
    faults: Faults,
}

#[derive(Default)]
struct Open {
    next: u64,
    files: HashMap<u64, Arc<File>>,
    listings: HashMap<u64, (Vec<Listed>, Option<Errno>)>,
}

impl Passthrough {
    pub(super) fn new(root: &Path, folds: bool, faults: Faults) -> io::Result<Self> {
        Ok(Self {
            inodes: Mutex::new(Inodes::new(root)?),
            open: Mutex::default(),
            folds,
            faults,
        })
    }

    fn inode(&self, number: INodeNo) -> Result<Arc<Inode>> {
        lock(&self.inodes).get(number).map_err(errno)
    }

    /// Returns the error that some fault asks for.
    fn fault(&self, asks: impl Fn(&Fault) -> Option<i32>) -> Result<()> {
        match lock(&self.faults).iter().find_map(asks) {
            Some(error) => Err(Errno::from_i32(error)),
            None => Ok(()),
        }
    }

    fn may_look(&self, at: &Path) -> Result<()> {
        self.fault(|fault| match fault {
            Fault::Refuses { path, error } if at.starts_with(path) => Some(*error),
            _ => None,
        })
    }

    fn may_write(&self) -> Result<()> {
        self.fault(|fault| match fault {
            Fault::NoWrites { error } => Some(*error),
            _ => None,
        })
    }

    /// Returns the name under which a directory has what is asked for, or the name itself.
    fn spelled(&self, parent: &Inode, name: &OsStr) -> Result<OsString> {
        let exact = openat(
            &parent.handle,
            name,
            OFlags::PATH | OFlags::NOFOLLOW,
            Mode::empty(),
        );
        if !self.folds || exact.is_ok() {
            return Ok(name.to_owned());
        }
        let key = |name: &OsStr| Some(RelPath::parse(name.to_str()?).ok()?.folded_key());
        let Some(wanted) = key(name) else {
            return Ok(name.to_owned());
        };
        let same = |(listed, ..): &Listed| key(listed).as_ref() == Some(&wanted);
        let found = list(parent)?.into_iter().find(same);
        Ok(found.map_or_else(|| name.to_owned(), |(name, ..)| name))
    }

    fn look_up(&self, parent: INodeNo, name: &OsStr) -> Result<FileAttr> {
        let parent = self.inode(parent)?;
        let path = parent.path.join(name);
        self.may_look(&path)?;
        let spelled = self.spelled(&parent, name)?;
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let handle = openat(&parent.handle, &spelled, flags, Mode::empty()).map_err(errno)?;
        let handle = File::from(handle);
        let metadata = handle.metadata()?;
        let number = lock(&self.inodes).looked_up(handle, path, spelled != name)?;
        Ok(attr(number.0, &metadata))
    }

    /// Looks up what was just made, and gives it to who asked for it.
    fn made(&self, request: &Request, parent: INodeNo, name: &OsStr) -> Result<FileAttr> {
        let handle = &self.inode(parent)?.handle;
        let owner = (Uid::from_raw(request.uid()), Gid::from_raw(request.gid()));
        let flags = AtFlags::SYMLINK_NOFOLLOW;
        chownat(handle, name, Some(owner.0), Some(owner.1), flags).map_err(errno)?;
        self.look_up(parent, name)
    }

    /// Returns the directory in which a name may be made now.
    fn place(&self, parent: INodeNo, name: &OsStr) -> Result<Arc<Inode>> {
        self.may_write()?;
        let parent = self.inode(parent)?;
        self.may_look(&parent.path.join(name))?;
        if self.spelled(&parent, name)? != name {
            return Err(Errno::EEXIST);
        }
        Ok(parent)
    }

    fn remove(&self, parent: INodeNo, name: &OsStr, flags: AtFlags) -> Result<()> {
        let parent = self.inode(parent)?;
        self.may_look(&parent.path.join(name))?;
        let spelled = self.spelled(&parent, name)?;
        unlinkat(&parent.handle, spelled, flags).map_err(errno)
    }

    fn rename_to(
        &self,
        from: (INodeNo, &OsStr),
        to: (INodeNo, &OsStr),
        flags: RenameFlags,
    ) -> Result<()> {
        self.may_write()?;
        let (old_dir, new_dir) = (self.inode(from.0)?, self.inode(to.0)?);
        let old = self.spelled(&old_dir, from.1)?;
        let mut new = self.spelled(&new_dir, to.1)?;
        if old == new && from.0 == to.0 {
            // Only the spelling changes.
            new = to.1.to_owned();
        }
        let flags = rustix::fs::RenameFlags::from_bits_retain(flags.bits());
        renameat_with(&old_dir.handle, old, &new_dir.handle, new, flags).map_err(errno)
    }

    fn open_file(&self, number: INodeNo, flags: i32) -> Result<FileHandle> {
        let inode = self.inode(number)?;
        // The kernel appends by itself, and the name leads through a link.
        let kept = OFlags::ACCMODE | OFlags::TRUNC;
        let flags = OFlags::from_bits_retain(flags as u32) & kept | OFlags::CLOEXEC;
        let file = openat(CWD, inode.by_handle(), flags, Mode::empty()).map_err(errno)?;
        Ok(lock(&self.open).add(file.into()))
    }

    fn file(&self, handle: FileHandle) -> Result<Arc<File>> {
        lock(&self.open)
            .files
            .get(&handle.0)
            .cloned()
            .ok_or(Errno::EBADF)
    }

    fn list_for(&self, number: INodeNo) -> Result<FileHandle> {
        let inode = self.inode(number)?;
        self.may_look(&inode.path)?;
        let (mut listing, mut ends) = (list(&inode)?, None);
        listing.sort_by(|a, b| a.0.cmp(&b.0));
        for fault in &*lock(&self.faults) {
            match fault {
                Fault::Forgetful { dir, show } if *dir == inode.path => listing.truncate(*show),
                Fault::Breaks { dir, show, error } if *dir == inode.path => {
                    listing.truncate(*show);
                    ends = Some(Errno::from_i32(*error));
                }
                _ => {}
            }
        }
        let mut open = lock(&self.open);
        open.next += 1;
        let number = open.next;
        open.listings.insert(number, (listing, ends));
        Ok(FileHandle(number))
    }

    fn change(
        &self,
        number: INodeNo,
        [mode, user, group]: [Option<u32>; 3],
        size: Option<u64>,
        times: [Option<TimeOrNow>; 2],
    ) -> Result<FileAttr> {
        let inode = self.inode(number)?;
        let by_handle = inode.by_handle();
        if let Some(mode) = mode {
            let mode = Mode::from_raw_mode(mode & 0o7777);
            chmodat(CWD, &by_handle, mode, AtFlags::empty()).map_err(errno)?;
        }
        if user.is_some() || group.is_some() {
            let (user, group) = (user.map(Uid::from_raw), group.map(Gid::from_raw));
            chownat(CWD, &by_handle, user, group, AtFlags::empty()).map_err(errno)?;
        }
        if let Some(size) = size {
            self.may_write()?;
            File::options()
                .write(true)
                .open(&by_handle)?
                .set_len(size)?;
        }
        if times != [None, None] {
            let [last_access, last_modification] = times.map(timespec);
            let times = Timestamps {
                last_access,
                last_modification,
            };
            utimensat(CWD, &by_handle, &times, AtFlags::empty()).map_err(errno)?;
        }
        let metadata = inode.handle.metadata()?;
        Ok(attr(metadata.ino(), &metadata))
    }
}

impl Open {
    fn add(&mut self, file: File) -> FileHandle {
        self.next += 1;
        self.files.insert(self.next, Arc::new(file));
        FileHandle(self.next)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn errno(error: rustix::io::Errno) -> Errno {
    Errno::from_i32(error.raw_os_error())
}

fn list(dir: &Inode) -> Result<Vec<Listed>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let dir = openat(CWD, dir.by_handle(), flags, Mode::empty()).map_err(errno)?;
    let mut listing = Vec::new();
    for entry in Dir::read_from(dir).map_err(errno)? {
        let entry = entry.map_err(errno)?;
        let name = std::os::unix::ffi::OsStrExt::from_bytes(entry.file_name().to_bytes());
        let name: &OsStr = name;
        let kind = match entry.file_type() {
            rustix::fs::FileType::Directory => FileType::Directory,
            rustix::fs::FileType::Symlink => FileType::Symlink,
            _ => FileType::RegularFile,
        };
        if name != "." && name != ".." {
            listing.push((name.to_owned(), kind, entry.ino()));
        }
    }
    Ok(listing)
}

fn attr(number: u64, metadata: &Metadata) -> FileAttr {
    let kind = metadata.file_type();
    let kind = if kind.is_dir() {
        FileType::Directory
    } else if kind.is_symlink() {
        FileType::Symlink
    } else if kind.is_fifo() {
        FileType::NamedPipe
    } else if kind.is_socket() {
        FileType::Socket
    } else {
        FileType::RegularFile
    };
    FileAttr {
        ino: INodeNo(number),
        size: metadata.len(),
        blocks: metadata.blocks(),
        atime: time(metadata.atime(), metadata.atime_nsec()),
        mtime: time(metadata.mtime(), metadata.mtime_nsec()),
        ctime: time(metadata.ctime(), metadata.ctime_nsec()),
        crtime: UNIX_EPOCH,
        kind,
        perm: (metadata.mode() & 0o7777) as u16,
        nlink: metadata.nlink() as u32,
        uid: metadata.uid(),
        gid: metadata.gid(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    }
}

fn time(seconds: i64, nanoseconds: i64) -> SystemTime {
    let whole = Duration::from_secs(seconds.unsigned_abs());
    let whole = if seconds < 0 {
        UNIX_EPOCH - whole
    } else {
        UNIX_EPOCH + whole
    };
    whole + Duration::from_nanos(nanoseconds.unsigned_abs())
}

fn timespec(time: Option<TimeOrNow>) -> Timespec {
    let special = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
    match time {
        None => special(UTIME_OMIT),
        Some(TimeOrNow::Now) => special(UTIME_NOW),
        Some(TimeOrNow::SpecificTime(time)) => {
            let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
            Timespec {
                tv_sec: since.as_secs() as i64,
                tv_nsec: since.subsec_nanos().into(),
            }
        }
    }
}

fn entry(made: Result<FileAttr>, reply: ReplyEntry) {
    match made {
        Ok(attr) => reply.entry(&NOW, &attr, Generation(0)),
        Err(error) => reply.error(error),
    }
}

fn empty(done: Result<()>, reply: ReplyEmpty) {
    match done {
        Ok(()) => reply.ok(),
        Err(error) => reply.error(error),
    }
}

fn opened(opened: Result<FileHandle>, reply: ReplyOpen) {
    match opened {
        Ok(handle) => reply.opened(handle, FopenFlags::empty()),
        Err(error) => reply.error(error),
    }
}

fn attributes(found: Result<FileAttr>, reply: ReplyAttr) {
    match found {
        Ok(attr) => reply.attr(&NOW, &attr),
        Err(error) => reply.error(error),
    }
}

impl Filesystem for Passthrough {
    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        entry(self.look_up(parent, name), reply);
    }

    fn forget(&self, _: &Request, number: INodeNo, lookups: u64) {
        lock(&self.inodes).forget(number, lookups);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        let found = self.inode(number).and_then(|inode| {
            self.may_look(&inode.path)?;
            let metadata = inode.handle.metadata()?;
            Ok(attr(metadata.ino(), &metadata))
        });
        attributes(found, reply);
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<fuser::BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        attributes(
            self.change(number, [mode, uid, gid], size, [atime, mtime]),
            reply,
        );
    }

    fn readlink(&self, _: &Request, number: INodeNo, reply: ReplyData) {
        let target = self
            .inode(number)
            .and_then(|inode| readlinkat(&inode.handle, "", Vec::new()).map_err(errno));
        match target {
            Ok(target) => reply.data(target.as_bytes()),
            Err(error) => reply.error(error),
        }
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        reply: ReplyEntry,
    ) {
        let made = self.place(parent, name).and_then(|dir| {
            mkdirat(&dir.handle, name, Mode::from_raw_mode(mode)).map_err(errno)?;
            self.made(request, parent, name)
        });
        entry(made, reply);
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.remove(parent, name, AtFlags::empty()), reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        empty(self.remove(parent, name, AtFlags::REMOVEDIR), reply);
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        let made = self.place(parent, name).and_then(|dir| {
            symlinkat(target, &dir.handle, name).map_err(errno)?;
            self.made(request, parent, name)
        });
        entry(made, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = ((parent, name), (new_parent, new_name));
        empty(self.rename_to(from, to, flags), reply);
    }

    fn link(&self, _: &Request, number: INodeNo, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let made = self.place(parent, name).and_then(|dir| {
            let from = self.inode(number)?.by_handle();
            linkat(CWD, from, &dir.handle, name, AtFlags::SYMLINK_FOLLOW).map_err(errno)?;
            self.look_up(parent, name)
        });
        entry(made, reply);
    }

    fn open(&self, _: &Request, number: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        opened(self.open_file(number, flags.0), reply);
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        _: i32,
        reply: ReplyCreate,
    ) {
        let made = self.place(parent, name).and_then(|dir| {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
            let mode = Mode::from_raw_mode(mode & 0o7777);
            let file = openat(&dir.handle, name, flags, mode).map_err(errno)?;
            Ok((self.made(request, parent, name)?, file))
        });
        match made {
            Ok((attr, file)) => {
                let handle = lock(&self.open).add(file.into());
                reply.created(&NOW, &attr, Generation(0), handle, FopenFlags::empty());
            }
            Err(error) => reply.error(error),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let mut bytes = vec![0; size as usize];
        let read = self.inode(number).and_then(|inode| {
            self.fault(|fault| match fault {
                Fault::Unreadable { path, error } if inode.path.starts_with(path) => Some(*error),
                _ => None,
            })?;
            Ok(self.file(handle)?.read_at(&mut bytes, offset)?)
        });
        match read {
            Ok(len) => reply.data(&bytes[..len]),
            Err(error) => reply.error(error),
        }
    }

    fn write(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let written = self
            .may_write()
            .and_then(|()| Ok(self.file(handle)?.write_at(data, offset)?));
        match written {
            Ok(len) => reply.written(len as u32),
            Err(error) => reply.error(error),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        lock(&self.open).files.remove(&handle.0);
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, handle: FileHandle, _: bool, reply: ReplyEmpty) {
        let synced = self.file(handle).and_then(|file| Ok(file.sync_all()?));
        empty(synced, reply);
    }

    fn opendir(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        opened(self.list_for(number), reply);
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let open = lock(&self.open);
        let Some((listing, ends)) = open.listings.get(&handle.0) else {
            return reply.error(Errno::EBADF);
        };
        let rest = listing.iter().enumerate().skip(offset as usize);
        let mut count = 0;
        for (at, (name, kind, number)) in rest {
            if reply.add(INodeNo(*number), at as u64 + 1, *kind, name) {
                break;
            }
            count += 1;
        }
        match ends {
            Some(error) if count == 0 => reply.error(*error),
            _ => reply.ok(),
        }
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        lock(&self.open).listings.remove(&handle.0);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        let root = self.inode(INodeNo::ROOT);
        match root.and_then(|root| statvfs(root.by_handle()).map_err(errno)) {
            Ok(found) => reply.statfs(
                found.f_blocks,
                found.f_bfree,
                found.f_bavail,
                found.f_files,
                found.f_ffree,
                found.f_bsize as u32,
                found.f_namemax as u32,
                found.f_frsize as u32,
            ),
            Err(error) => reply.error(error),
        }
    }
}
