//! Small volumes of their own: an ext4 in a file, mounted where a test wants it.

use std::fs::File;
use std::path::{Path, PathBuf};

use super::run;

/// A mounted volume. It is unmounted when dropped, so it has to outlive the daemon on it.
pub(crate) struct Volume {
    at: PathBuf,
}

impl Volume {
    /// Makes a volume of so many bytes in a file, and mounts it at a directory. `None`, with a printed
    /// reason, where this user may not.
    pub(crate) fn mount(image: &Path, bytes: u64, at: &Path) -> Option<Self> {
        File::create(image).unwrap().set_len(bytes).unwrap();
        let [image, shown] = [image, at].map(|path| path.to_str().unwrap());
        // Without blocks that only root may fill: these daemons may be root.
        let options = ["-q", "-F", "-m", "0", "-J", "size=1", "-b", "1024"];
        let made = run("mkfs.ext4", options.into_iter().chain([image]));
        let mounted = run("mount", ["-o", "loop", image, shown]);
        if made.code != 0 || mounted.code != 0 {
            println!(
                "skipped: no volume can be mounted: {}{}",
                made.stderr, mounted.stderr
            );
            return None;
        }
        Some(Self { at: at.to_owned() })
    }

    /// Takes it away from its place, also while somebody uses it.
    pub(crate) fn unmount_lazily(&self) {
        let answer = run("umount", ["-l", self.at.to_str().unwrap()]);
        assert_eq!(answer.code, 0, "{answer:#?}");
    }

    /// Puts it back to its place. Nobody may hold it any more.
    pub(crate) fn mount_again(&self, image: &Path) {
        let [image, at] = [image, &self.at].map(|path| path.to_str().unwrap());
        let answer = run("mount", ["-o", "loop", image, at]);
        assert_eq!(answer.code, 0, "{answer:#?}");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Also when a test failed and something still runs on it: it goes when that has ended.
        run("umount", ["-l", self.at.to_str().unwrap()]);
    }
}
