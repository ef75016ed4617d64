//! Mounting without leaving anything behind: in a mount namespace of the test's own, which ends with it.

use std::env;
use std::path::Path;
use std::process::Command;

const INSIDE: &str = "LAYER_SYNC_CRASH_INSIDE";

/// Runs the test of that name again, alone in a mount namespace, and returns false; or returns true
/// there. Where that is not possible it prints why and returns false.
#[track_caller]
pub(crate) fn alone(test: &str) -> bool {
    if env::var_os(INSIDE).is_some() {
        return true;
    }
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private"]);
        command
    };
    let tried = unshare()
        .args(["mount", "-t", "tmpfs", "none", "/mnt"])
        .output();
    if !tried.is_ok_and(|output| output.status.success()) {
        println!("skipped: this user may not mount anything");
        return false;
    }
    if !Path::new("/dev/fuse").exists() || !Path::new("/dev/loop-control").exists() {
        println!("skipped: there is no FUSE, or there are no loop devices");
        return false;
    }
    let output = unshare()
        .arg(env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    print!("{}", String::from_utf8_lossy(&output.stdout));
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{test} failed in its namespace");
    false
}

/// Makes an ext4 in a file.
#[track_caller]
pub(crate) fn make_volume(image: &Path, bytes: u64) {
    std::fs::File::create(image)
        .unwrap()
        .set_len(bytes)
        .unwrap();
    // A small journal comes round often, and everything is initialised now, not while it is watched.
    let options = [
        "-q",
        "-F",
        "-b",
        "4096",
        "-J",
        "size=4",
        "-E",
        "lazy_itable_init=0,lazy_journal_init=0",
    ];
    run(Command::new("mkfs.ext4").args(options).arg(image)).unwrap();
}

/// A mounted volume; unmounted when dropped.
pub(crate) struct Mounted<'a>(pub(crate) &'a Path);

impl<'a> Mounted<'a> {
    /// Mounts the volume in a file at a directory.
    pub(crate) fn new(image: &Path, at: &'a Path, options: &str) -> Result<Self, String> {
        let options = format!("loop,{options}");
        run(Command::new("mount")
            .args(["-o", &options])
            .args([image, at]))?;
        Ok(Self(at))
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        if let Err(error) = run(Command::new("umount").arg(self.0)) {
            eprintln!("{error}");
        }
    }
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!(
            "{command:?}: {}",
            String::from_utf8_lossy(&output.stderr)
        ))
    }
}
