//! From what a person types to a path inside the root.

use std::path::{Component, Path, PathBuf};

use shared::path::RelPath;

use crate::failure::Failure;

/// Returns which path of the tree at `root` is meant by `typed`.
///
/// A relative path is taken from the current directory `cwd` or from the root: from where it leads
/// into the root, and when both do, from where something stands, the current directory first. Links
/// on the way are followed, the last component is not: the link itself is what the tree holds. The
/// path need not exist.
pub(crate) fn in_root(root: &Path, cwd: &Path, typed: &Path) -> Result<RelPath, Failure> {
    let root = root.canonicalize().unwrap_or_else(|_| root.to_owned());
    let cwd = cwd.canonicalize().unwrap_or_else(|_| cwd.to_owned());
    let mut meant = vec![resolve(&cwd, typed), resolve(&root, typed)];
    meant.retain(|path| path.starts_with(&root));
    let path = meant.iter().find(|path| exists(path)).or(meant.first());

    let shown = typed.display();
    let Some(inside) = path.and_then(|path| path.strip_prefix(&root).ok()) else {
        return Err(Failure::usage(
            format!("\"{shown}\" lies outside the root {}.", root.display()),
            "name a path inside the root, absolute or relative to it",
        ));
    };
    if inside.as_os_str().is_empty() {
        return Err(Failure::usage(
            format!("\"{shown}\" is the root itself."),
            "name a file or folder inside it",
        ));
    }
    RelPath::parse_bytes(inside.as_os_str().as_encoded_bytes()).map_err(|refused| {
        Failure::usage(
            format!("\"{shown}\" cannot be a path of the tree: {refused}."),
            "",
        )
    })
}

/// Takes `typed` from `base`, which has no links. Every component but the last is resolved as far
/// as it exists.
fn resolve(base: &Path, typed: &Path) -> PathBuf {
    let mut path = base.to_owned();
    let mut components = typed.components().peekable();
    while let Some(component) = components.next() {
        match component {
            Component::Prefix(_) | Component::RootDir => path = PathBuf::from("/"),
            Component::CurDir => {}
            Component::ParentDir => {
                path.pop();
            }
            Component::Normal(name) => {
                path.push(name);
                if components.peek().is_some() {
                    path = path.canonicalize().unwrap_or(path);
                }
            }
        }
    }
    path
}

fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use super::*;

    /// `root/notes/{plan.md,sub/deep.md}`, `root/both`, `root/notes/both`, and links: `root/short`
    /// to `notes`, `root/out` to the outside, and `way` beside the root to the root.
    fn tree() -> (tempfile::TempDir, PathBuf) {
        let temp = tempfile::tempdir().unwrap();
        let top = temp.path().canonicalize().unwrap();
        fs::create_dir_all(top.join("root/notes/sub")).unwrap();
        fs::create_dir_all(top.join("outside")).unwrap();
        for file in ["notes/plan.md", "notes/sub/deep.md", "both", "notes/both"] {
            fs::write(top.join("root").join(file), "").unwrap();
        }
        symlink("notes", top.join("root/short")).unwrap();
        symlink("../outside", top.join("root/out")).unwrap();
        symlink("root", top.join("way")).unwrap();
        (temp, top)
    }

    #[test]
    fn what_is_meant() {
        let (_temp, top) = tree();
        let check = |cwd: &str, typed: &str, meant: &str| {
            let typed = typed.replace("TOP", top.to_str().unwrap());
            let path = in_root(&top.join("root"), &top.join(cwd), Path::new(&typed));
            assert_eq!(
                path.as_ref().map(RelPath::as_str),
                Ok(meant),
                "{cwd}: {typed}"
            );
        };
        // From outside the root: relative to it.
        check("outside", "notes/plan.md", "notes/plan.md");
        check(".", "notes/plan.md", "notes/plan.md");
        check("outside", "./notes//plan.md", "notes/plan.md");
        check("outside", "gone/long/ago", "gone/long/ago");
        check(".", "root/notes/plan.md", "notes/plan.md");
        check(".", "root/notes/gone.md", "notes/gone.md");
        check(".", "way/notes/plan.md", "notes/plan.md");
        // From inside: relative to the current directory, and else to the root.
        check("root", "notes/plan.md", "notes/plan.md");
        check("root/notes", "plan.md", "notes/plan.md");
        check("root/notes", "both", "notes/both");
        check("root/notes", "../both", "both");
        check("root/notes", "notes/plan.md", "notes/plan.md");
        check("root/notes", "gone.md", "notes/gone.md");
        check("root/notes/sub", "..", "notes");
        check("way/notes", "plan.md", "notes/plan.md");
        // Absolute, also by way of a link.
        check("outside", "TOP/root/notes/plan.md", "notes/plan.md");
        check("outside", "TOP/way/notes/plan.md", "notes/plan.md");
        check("outside", "TOP/way/gone/a", "gone/a");
        // The last component is not followed, those before it are.
        check("root", "short", "short");
        check("root", "out", "out");
        check("root", "short/plan.md", "notes/plan.md");
    }

    #[test]
    fn what_is_refused() {
        let (_temp, top) = tree();
        let check = |cwd: &str, typed: &str, text: &str| {
            let typed = typed.replace("TOP", top.to_str().unwrap());
            let path = in_root(&top.join("root"), &top.join(cwd), Path::new(&typed));
            let failure = path.unwrap_err();
            assert_eq!(failure.exit, shared::control::exit::USAGE);
            assert!(failure.text.contains(text), "{}", failure.text);
        };
        check("root", "../outside/a", "outside the root");
        check("root", "TOP/outside/a", "outside the root");
        check("root", "TOP/rootless", "outside the root");
        check("root", "out/a", "outside the root");
        check("outside", "../../a", "outside the root");
        check("root", ".", "the root itself");
        check("outside", "TOP/way/notes/..", "the root itself");
        check(
            "root",
            &"a".repeat(300),
            "a component is longer than 255 bytes",
        );
    }

    #[test]
    fn a_name_that_is_not_text() {
        use std::ffi::OsStr;
        use std::os::unix::ffi::OsStrExt;

        let (_temp, top) = tree();
        let typed = Path::new(OsStr::from_bytes(b"a\xff"));
        let failure = in_root(&top.join("root"), &top, typed).unwrap_err();
        assert!(failure.text.contains("it is not UTF-8"));
    }
}
