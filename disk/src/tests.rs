//! A bench for the tests of this crate, and the tests of opening.

use std::fs;
use std::ops::ControlFlow;
use std::os::unix::fs::{PermissionsExt, symlink};

use crate::durable::Durable;
use shared::delta::Form;
use shared::transfer::{Batch, Item, Need, Op, Part, Source};
use shared::tree::BaseRow;

use super::*;
use crate::apply::Step;
#[cfg(target_os = "linux")]
pub(crate) use small_volume::SmallVolume;

#[cfg(target_os = "linux")]
mod small_volume;

/// A replica in a temporary folder, with everything that it reported.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) replica: Arc<Replica>,
    pub(crate) stored: Stored,
    reports: Arc<Mutex<Vec<Report>>>,
    next: u64,
}

pub(crate) fn path(text: &str) -> RelPath {
    RelPath::parse(text).expect("a path")
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        fs::create_dir(dir.path().join("root")).expect("the root");
        Self::open_in(dir, None)
    }

    /// Makes one in memory, if the system has a place for that: barriers cost nothing there, and a
    /// process that dies leaves the same.
    pub(crate) fn in_memory() -> Self {
        let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
            return Self::new();
        };
        fs::create_dir(dir.path().join("root")).expect("the root");
        Self::open_in(dir, None)
    }

    /// Makes one on another volume, with some ballast that gives room when it is removed.
    #[cfg(target_os = "linux")]
    pub(crate) fn on(volume: &Path) -> Self {
        let dir = tempfile::tempdir_in(volume).expect("a folder");
        fs::create_dir(dir.path().join("root")).expect("the root");
        fs::write(dir.path().join("root/ballast"), vec![1; 500_000]).expect("written");
        Self::open_in(dir, None)
    }

    /// Opens it again, as after the end of the process.
    pub(crate) fn reopen(self) -> Self {
        self.reopen_after(|| {})
    }

    /// Opens it again, as after the process died at this very moment: what the index would still do at an
    /// orderly end is taken back.
    pub(crate) fn crash(self) -> Self {
        let index = self.dir.path().join("state/index.redb");
        let left = fs::read(&index).expect("the index");
        self.reopen_after(|| fs::write(index, left).expect("written"))
    }

    /// Opens it again after something happened to its files.
    pub(crate) fn reopen_after(self, change: impl FnOnce()) -> Self {
        let (id, dir, next) = (self.replica.id(), self.dir, self.next);
        drop((self.replica, self.stored));
        change();
        Self {
            next,
            ..Self::open_in(dir, Some(id))
        }
    }

    /// Tries to open it again after something happened to its files, and returns why that is refused.
    pub(crate) fn refused_after(self, change: impl FnOnce()) -> OpenRefused {
        let (id, dir) = (self.replica.id(), self.dir);
        drop((self.replica, self.stored));
        change();
        open(dir.path(), Some(id), Arc::default())
            .err()
            .expect("it is refused")
    }

    fn open_in(dir: tempfile::TempDir, expected: Option<ReplicaId>) -> Self {
        let reports = Arc::new(Mutex::new(Vec::new()));
        let began = Instant::now();
        let (replica, stored) = loop {
            match open(dir.path(), expected, reports.clone()) {
                // A test beside this one is starting a program: until that runs, it holds a copy of every
                // descriptor of this process, that of the lock among them.
                Err(OpenRefused::InUse { .. }) if began.elapsed().as_secs() < 10 => {
                    std::thread::yield_now();
                }
                opened => break opened.expect("it opens"),
            }
        };
        Self {
            dir,
            replica: Arc::new(replica),
            stored,
            reports,
            next: 1,
        }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("root")
    }

    pub(crate) fn at(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Writes a file, making the directories above it.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        let at = self.at(name);
        fs::create_dir_all(at.parent().expect("a parent")).expect("the directories");
        fs::write(at, content).expect("the file");
    }

    pub(crate) fn read(&self, name: &str) -> String {
        match fs::read(self.at(name)) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) => format!("<{}>", error.kind()),
        }
    }

    pub(crate) fn look(&self) -> Looked {
        self.replica
            .look(&Look::All, &AtomicBool::new(false))
            .expect("a look")
    }

    pub(crate) fn look_at(&self, names: &[&str]) -> Looked {
        let paths = names.iter().map(|name| path(name)).collect();
        self.replica
            .look(&Look::Paths(paths), &AtomicBool::new(false))
            .expect("a look")
    }

    /// Takes the reports since the last call.
    pub(crate) fn reports(&self) -> Vec<Report> {
        std::mem::take(&mut *lock(&self.reports))
    }

    /// Takes what was observed since the last call.
    pub(crate) fn sights(&self) -> Vec<(RelPath, Sight)> {
        let reports = std::mem::take(&mut *lock(&self.reports));
        let observed = |report| match report {
            Report::Observed(sights) => sights,
            Report::Applied { .. } | Report::Moved(_) | Report::Passed(_) => Vec::new(),
        };
        reports.into_iter().flat_map(observed).collect()
    }

    /// Takes what was observed since the last call, one line each.
    pub(crate) fn observed(&self) -> Vec<String> {
        let sights = self.sights();
        sights
            .iter()
            .map(|(path, sight)| shown(path, sight))
            .collect()
    }

    /// Takes the outcomes of the last batch that was applied since the last call.
    pub(crate) fn outcomes(&self) -> Vec<Outcome> {
        let reports = std::mem::take(&mut *lock(&self.reports));
        let applied = |report| match report {
            Report::Applied { outcomes, .. } => Some(outcomes),
            Report::Observed(_) | Report::Moved(_) | Report::Passed(_) => None,
        };
        reports
            .into_iter()
            .filter_map(applied)
            .next_back()
            .expect("a batch was applied")
    }

    pub(crate) fn batch(&mut self, ops: Vec<Op>) -> Batch {
        self.next += 1;
        Batch {
            number: Gen(self.next),
            settles: None,
            ops,
        }
    }

    /// Stages a batch whose small contents are at hand.
    pub(crate) fn staged(&self, batch: &Batch, contents: &[&[u8]]) -> Staged {
        let mut taking = self.replica.take(batch);
        for (index, op) in batch.ops.iter().enumerate() {
            if op.moves().is_some() {
                let index = index as u32;
                taking.part(Part::Stands { index }).expect("honest");
            }
            let Some((_, entry)) = op.wants() else {
                continue;
            };
            let content = contents
                .iter()
                .find(|content| ContentHash::of_bytes(content) == entry.identity())
                .expect("the content is at hand");
            let need = taking
                .part(pack(index as u32, content))
                .expect("an honest part");
            assert_eq!(need, []);
        }
        taking.finish()
    }

    /// Stages and applies operations, and returns their outcomes.
    pub(crate) fn apply(&mut self, ops: Vec<Op>, contents: &[&[u8]]) -> Vec<Outcome> {
        let batch = self.batch(ops);
        let staged = self.staged(&batch, contents);
        self.replica
            .apply(&batch, staged, Gen(0))
            .expect("the batch is recorded");
        self.outcomes()
    }

    /// Lets `steps` steps happen and none after them.
    pub(crate) fn stop_after(&self, steps: usize) {
        let mut taken = 0;
        self.hook(move |_| {
            taken += 1;
            if taken > steps {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
    }

    /// Calls `hook` before each step from now on.
    pub(crate) fn hook(&self, hook: impl FnMut(Step) -> ControlFlow<()> + Send + 'static) {
        *lock(&self.replica.hook) = Some(Box::new(hook));
    }

    pub(crate) fn unhook(&self) {
        *lock(&self.replica.hook) = None;
    }

    /// Returns the names in a part of the private folder.
    pub(crate) fn private(&self, part: &str) -> Vec<String> {
        let names = fs::read_dir(self.at(".layer-sync").join(part)).expect("it can be listed");
        let mut names: Vec<String> = names
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .filter(|name| name != "catalogue.jsonl")
            .collect();
        names.sort();
        names
    }

    /// Returns the contents of all kept files.
    pub(crate) fn kept(&self) -> Vec<String> {
        let read = |name: String| {
            let at = self.at(".layer-sync/kept").join(name);
            match fs::read_link(&at) {
                Ok(target) => format!("-> {}", target.display()),
                Err(_) => fs::read_to_string(at).unwrap_or_else(|error| format!("<{error}>")),
            }
        };
        let mut contents: Vec<String> = self.private("kept").into_iter().map(read).collect();
        contents.sort();
        contents
    }

    pub(crate) fn base(&self) -> Vec<(RelPath, BaseRow)> {
        self.stored.base.clone().into_iter().collect()
    }
}

fn open(
    dir: &Path,
    expected: Option<ReplicaId>,
    reports: Arc<Mutex<Vec<Report>>>,
) -> Result<(Replica, Stored), OpenRefused> {
    let places = Places {
        root: dir.join("root"),
        state: dir.join("state"),
    };
    let sink: Sink = Box::new(move |report| lock(&reports).push(report));
    Replica::open(
        &places,
        expected,
        Rules::default(),
        "here",
        KeptLimits::default(),
        sink,
    )
}

pub(crate) fn shown(path: &RelPath, sight: &Sight) -> String {
    match sight {
        Sight::Absent => format!("{path} -"),
        Sight::Is(Entry::Dir) => format!("{path} dir"),
        Sight::Is(Entry::Symlink { target }) => format!("{path} -> {target}"),
        Sight::Is(Entry::File { len, exec, .. }) => {
            format!("{path} file {len}{}", if *exec { " x" } else { "" })
        }
        Sight::Blocked(obstacle) => format!("{path} {obstacle:?}"),
    }
}

pub(crate) fn file(content: impl AsRef<[u8]>) -> Option<Entry> {
    let content = content.as_ref();
    let len = content.len() as u64;
    Some(Entry::File {
        content: ContentHash::of_bytes(content),
        len,
        exec: false,
    })
}

pub(crate) fn link(target: &str) -> Option<Entry> {
    Some(Entry::Symlink {
        target: target.into(),
    })
}

pub(crate) fn op(name: &str, expect: Option<Entry>, make: Option<Entry>) -> Op {
    let same_content = matches!(
        (&expect, &make),
        (Some(Entry::File { content: old, .. }), Some(Entry::File { content: new, .. })) if old == new
    );
    let from = match &make {
        Some(Entry::File { .. }) if !same_content => Source::There(path(name)),
        _ => Source::Nothing,
    };
    Op {
        path: path(name),
        expect,
        make,
        from,
        agrees: true,
    }
}

pub(crate) fn pack(index: u32, content: &[u8]) -> Part {
    let len = content.len() as u32;
    let files = vec![shared::transfer::PackedFile {
        index,
        len,
        mtime_ns: 1_700_000_000_123_456_789,
        form: Form::Whole,
    }];
    Part::Pack {
        files,
        zstd: false,
        bytes: content.to_vec(),
    }
}

/// Returns content that does not compress, the same for the same seed.
pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// Carries everything that `giver` has for a batch over to `taker`, and returns what was needed.
pub(crate) fn carry(giver: &Replica, taking: &mut Taking, batch: &Batch) -> Vec<Need> {
    let ops = (0..).zip(&batch.ops);
    let items: Vec<Item> = ops.filter_map(|(index, op)| Item::of(index, op)).collect();
    let mut parts = Vec::new();
    giver
        .give(&items, &mut |part| {
            parts.push(part);
            Ok(())
        })
        .expect("it is given");
    let needs: Vec<Need> = parts
        .into_iter()
        .flat_map(|part| taking.part(part).expect("an honest part"))
        .collect();
    for need in &needs {
        giver
            .give_chunks(&need.item, &need.runs, &need.olds, &mut |run| {
                match run {
                    Some(run) => {
                        let more = taking.chunks(need.item.index, run);
                        assert_eq!(more.expect("an honest run"), None);
                    }
                    None => taking.gone(need.item.index),
                }
                Ok(())
            })
            .expect("they are given");
    }
    needs
}

#[test]
fn a_second_opening_is_refused_until_the_first_one_ends() {
    let bench = Bench::new();
    let id = bench.replica.id();
    let refused = open(bench.dir.path(), Some(id), Arc::default())
        .err()
        .expect("it is refused");
    assert!(matches!(refused, OpenRefused::InUse { .. }), "{refused}");
    assert!(refused.to_string().contains("already runs"), "{refused}");
    let bench = bench.reopen();
    assert_eq!(bench.replica.id(), id);
}

#[test]
fn a_root_without_its_marker_is_refused_and_left_alone() {
    let check = |change: &dyn Fn(&Path), expected: &str| {
        let bench = Bench::new();
        bench.write("a", "a");
        let (dir, id) = (bench.dir.path().to_owned(), bench.replica.id());
        let Bench {
            dir: keep, replica, ..
        } = bench;
        drop(replica);
        change(&dir.join("root"));
        let refused = open(&dir, Some(id), Arc::default())
            .err()
            .expect("it is refused");
        let shown = format!("{refused:?}");
        assert!(shown.starts_with(expected), "{shown}");
        drop(keep);
    };
    check(
        &|root| fs::remove_file(root.join(".layer-sync/marker")).expect("gone"),
        "MarkerMissing",
    );
    check(
        &|root| fs::remove_dir_all(root.join(".layer-sync")).expect("gone"),
        "MarkerMissing",
    );
    check(
        &|root| {
            let text = format!("{{\"version\":1,\"replica\":\"{}\"}}", ReplicaId([7; 16]));
            fs::write(root.join(".layer-sync/marker"), text).expect("written");
        },
        "ForeignMarker",
    );
    check(
        &|root| fs::write(root.join(".layer-sync/marker"), "{").expect("written"),
        "ForeignMarker",
    );
    check(
        &|root| fs::remove_dir_all(root).expect("gone"),
        "NotADirectory",
    );
    check(
        &|root| {
            fs::remove_dir_all(root).expect("gone");
            fs::write(root, "a file").expect("written");
        },
        "NotADirectory",
    );
    check(
        &|root| {
            let outer = root.parent().expect("a folder").join(".layer-sync");
            fs::create_dir(&outer).expect("made");
            fs::write(outer.join("marker"), "").expect("written");
        },
        "InsideAnotherRoot",
    );
}

#[test]
fn a_first_start_on_an_old_root_takes_a_new_identity_and_no_base() {
    let mut bench = Bench::new();
    bench.write("a", "a");
    bench.look();
    assert_eq!(
        bench.apply(vec![op("b", None, file("b"))], &[b"b"]),
        [Outcome::Done]
    );
    let old = bench.replica.id();
    let Bench { dir, replica, .. } = bench;
    drop(replica);
    let bench = Bench::open_in(dir, None);
    assert_ne!(bench.replica.id(), old);
    assert!(bench.stored.index_is_new && bench.stored.base.is_empty());
    assert!(bench.stored.seen_known.is_empty());
}

#[test]
fn base_notes_and_seen_survive() {
    let mut bench = Bench::new();
    bench.write("dir/a", "a");
    bench.look();
    let index = bench.stored.index;
    assert_eq!(
        bench.apply(vec![op("b", None, file("b"))], &[b"b"]),
        [Outcome::Done]
    );
    let rows = vec![
        (
            path("dir"),
            BaseRow {
                entry: Some(Entry::Dir),
                batch: Gen(7),
            },
        ),
        (
            path("old"),
            BaseRow {
                entry: None,
                batch: Gen(7),
            },
        ),
        (
            path("older"),
            BaseRow {
                entry: None,
                batch: Gen(3),
            },
        ),
    ];
    let notes = Notes {
        ignore: "*.tmp".to_owned(),
        paused: true,
        ..Notes::default()
    };
    bench
        .replica
        .commit(&rows, notes, Gen(3), Durable::Tree)
        .expect("recorded");

    let bench = bench.reopen();
    assert_eq!(
        (bench.stored.index, bench.stored.index_is_new),
        (index, false)
    );
    let paths: Vec<String> = bench
        .base()
        .iter()
        .map(|(path, _)| path.to_string())
        .collect();
    assert_eq!(
        paths,
        ["b", "dir", "old"],
        "the older tombstone is resolved"
    );
    let known: Vec<&str> = bench
        .stored
        .seen_known
        .iter()
        .map(|(path, _)| path.as_str())
        .collect();
    assert_eq!(known, ["b", "dir", "dir/a"]);
    let notes = &bench.stored.notes;
    assert_eq!((notes.resolved, notes.last_batch), (Gen(3), Gen(2)));
    assert_eq!((notes.ignore.as_str(), notes.paused), ("*.tmp", true));

    bench
        .replica
        .commit(&[], Notes::default(), Gen(9), Durable::Rows)
        .expect("recorded");
    let bench = bench.reopen();
    assert_eq!(bench.base().len(), 2, "the tombstone is resolved now");
    bench
        .replica
        .forget_base(Notes::default())
        .expect("forgotten");
    assert!(bench.reopen().stored.base.is_empty());
}

#[test]
fn rules_are_read_from_a_regular_file_only() {
    let bench = Bench::new();
    assert_eq!(bench.replica.read_rules().expect("read"), None);
    bench.write(".layerignore", "*.tmp\n");
    let rules = bench.replica.read_rules().expect("read").expect("there");
    assert_eq!(rules.text.as_deref(), Ok("*.tmp\n"));
    assert_eq!(rules.content, ContentHash::of_bytes(b"*.tmp\n"));
    bench.write(".layerignore", [0xff]);
    let refused = shared::ignore::RulesRefused::NotUtf8;
    assert_eq!(
        bench
            .replica
            .read_rules()
            .expect("read")
            .expect("there")
            .text,
        Err(refused)
    );
    bench.write(
        ".layerignore",
        vec![b'a'; shared::ignore::RULES_BYTES_MAX + 1],
    );
    let refused = shared::ignore::RulesRefused::TooLong;
    assert_eq!(
        bench
            .replica
            .read_rules()
            .expect("read")
            .expect("there")
            .text,
        Err(refused)
    );
    fs::remove_file(bench.at(".layerignore")).expect("gone");
    symlink("/etc/passwd", bench.at(".layerignore")).expect("a link");
    assert_eq!(bench.replica.read_rules().expect("read"), None);
}

#[test]
fn the_private_folder_is_private() {
    let bench = Bench::new();
    let mode = fs::metadata(bench.at(".layer-sync"))
        .expect("it is there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
}
