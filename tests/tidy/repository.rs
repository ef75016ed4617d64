//! What the rules are about: the files of this repository.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold what was built or found, not what was written.
const NOT_WRITTEN: [&str; 5] = [".git", "target", "corpus", "artifacts", "coverage"];

/// Returns the folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let tests = Path::new(env!("CARGO_MANIFEST_DIR"));
    tests
        .parent()
        .expect("the workspace around `tests`")
        .to_owned()
}

/// Reads a file, named from the root.
pub(crate) fn read(name: &str) -> String {
    fs::read_to_string(root().join(name))
        .unwrap_or_else(|error| panic!("{name} has to be there: {error}"))
}

/// Reads a TOML file, named from the root.
pub(crate) fn read_toml(name: &str) -> toml::Table {
    read(name)
        .parse()
        .unwrap_or_else(|error| panic!("{name} is not TOML: {error}"))
}

/// Returns the members of the workspace.
pub(crate) fn members() -> Vec<String> {
    let workspace = read_toml("Cargo.toml");
    let members = workspace["workspace"]["members"]
        .as_array()
        .expect("a list of members");
    members
        .iter()
        .map(|member| member.as_str().expect("a folder").to_owned())
        .collect()
}

/// One file that somebody wrote, with its name from the root.
pub(crate) struct Written {
    pub(crate) name: String,
    pub(crate) text: String,
}

impl Written {
    pub(crate) fn is_rust(&self) -> bool {
        self.name.ends_with(".rs")
    }

    /// Says whether this is test code: the crate `tests`, a `tests.rs`, or what lies below one.
    pub(crate) fn is_test(&self) -> bool {
        self.name
            .split('/')
            .any(|part| part == "tests" || part == "tests.rs")
    }

    /// Returns the last component of the name.
    pub(crate) fn file_name(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }
}

/// Returns all text files of the repository, sorted by name.
pub(crate) fn written() -> Vec<Written> {
    let (root, mut found, mut folders) = (root(), Vec::new(), vec![root()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder").flatten() {
            let (path, kind) = (entry.path(), entry.file_type().expect("its kind"));
            let name = entry.file_name().to_string_lossy().into_owned();
            if kind.is_dir() && !NOT_WRITTEN.contains(&&*name) {
                folders.push(path);
            } else if kind.is_file() && name != "Cargo.lock" {
                let name = path
                    .strip_prefix(&root)
                    .expect("below the root")
                    .to_string_lossy()
                    .into_owned();
                found.extend(fs::read_to_string(&path).map(|text| Written { name, text }));
            }
        }
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// Fails with all that was found, and what to do about it.
pub(crate) fn expect_none(found: &[String], to_do: &str) {
    assert!(found.is_empty(), "{to_do}\n  {}", found.join("\n  "));
}
