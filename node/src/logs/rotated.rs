//! A log file that is turned over when it is full, so that all of them together never outgrow their bound.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// Largest log file, in bytes, save for a last line that goes beyond.
const FILE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// How many there are, with the one that is written. The oldest one goes.
const FILES_MAX: usize = 6;

/// The file that is written. Each write is a whole line.
#[derive(Debug)]
pub(super) struct Rotated {
    path: PathBuf,
    file: File,
    bytes: u64,
    bytes_max: u64,
}

impl Rotated {
    /// Goes on with the file at `path`.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Self::with_bound(path, FILE_BYTES_MAX)
    }

    fn with_bound(path: &Path, bytes_max: u64) -> io::Result<Self> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir)?;
        }
        let file = appended(path)?;
        Ok(Self {
            path: path.to_owned(),
            bytes: file.metadata()?.len(),
            file,
            bytes_max,
        })
    }

    fn turn_over(&mut self) -> io::Result<()> {
        for number in (1..FILES_MAX).rev() {
            let newer = match number {
                1 => self.path.clone(),
                _ => numbered(&self.path, number - 1),
            };
            match fs::rename(newer, numbered(&self.path, number)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        self.file = appended(&self.path)?;
        self.bytes = 0;
        Ok(())
    }
}

impl Write for Rotated {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if self.bytes >= self.bytes_max {
            // What cannot be turned over goes on growing, which is better than no log.
            let _ = self.turn_over();
        }
        let written = self.file.write(line)?;
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

fn appended(path: &Path) -> io::Result<File> {
    OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)
}

fn numbered(path: &Path, number: usize) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_lines_are_kept_and_no_more_than_the_bound() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("logs").join("daemon.log");
        for number in 0..1000 {
            // As a daemon that is started again in between.
            let mut log = Rotated::with_bound(&path, 100).expect("a log");
            let line = format!("line {number}\n");
            log.write_all(line.as_bytes()).expect("it is written");
        }
        let files: Vec<_> = fs::read_dir(dir.path().join("logs"))
            .expect("a folder")
            .map(|entry| entry.expect("an entry").path())
            .collect();
        assert_eq!(files.len(), FILES_MAX);
        for file in &files {
            let text = fs::read_to_string(file).expect("a log");
            assert!(text.len() < 120, "{}: {}", file.display(), text.len());
            assert!(text.ends_with('\n'));
        }
        let text = |path: &Path| fs::read_to_string(path).expect("a log");
        assert!(text(&path).ends_with("line 999\n"));
        let (last, before) = (text(&path), text(&numbered(&path, 1)));
        let first = last.lines().next().expect("a line");
        let first: u32 = first["line ".len()..].parse().expect("a number");
        assert!(
            before.ends_with(&format!("line {}\n", first - 1)),
            "{before}{last}"
        );
    }
}
