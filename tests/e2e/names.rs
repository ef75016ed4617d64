//! Names that one of the two volumes does not tell apart. The receiver works on a real mount that folds
//! case and normalization and keeps the spelling, as a Mac's volume does.

use std::fs;

use crate::harness::{Folding, Mount, Pair, SOON, names, read, wait_until, write};

/// A pair whose receiver's volume folds.
fn pair_on_folding() -> Option<(Pair, Mount)> {
    let mut pair = Pair::strangers();
    let mount = Folding::mount(pair.scratch())?;
    pair.receiver.root = mount.root().to_owned();
    pair.pair();
    Some((pair, mount))
}

#[test]
fn twins_are_held_and_both_kept() {
    let Some((pair, mount)) = pair_on_folding() else {
        return;
    };
    let [here, _] = pair.roots();
    for (first, second) in [("Plan.md", "plan.md"), ("caf\u{e9}.md", "cafe\u{301}.md")] {
        write(&here, first, "first");
        pair.flush();
        write(&here, second, "second");
        let problem = pair.pusher.problem("held.twin");
        assert_eq!(problem["path"], second);
        assert!(
            problem["fix"].as_str().unwrap().contains("rename"),
            "{problem}"
        );
        // Everything else goes on.
        write(&here, "beside.md", first);
        wait_until("the others arrive", SOON, || {
            read(mount.behind(), "beside.md").as_deref() == Some(first)
        });
        assert_eq!(read(mount.behind(), first).as_deref(), Some("first"));
        assert!(!names(mount.behind()).contains(&second.to_owned()));
        assert_eq!(read(&here, second).as_deref(), Some("second"));
        pair.pusher.ask(["flush"]).exits(4);
        // What helps is what it says.
        fs::rename(here.join(second), here.join(format!("other {second}"))).unwrap();
        wait_until("nothing is held any more", SOON, || {
            pair.pusher.ask(["flush"]).code == 0
        });
        pair.flush();
        assert_eq!(
            read(mount.behind(), &format!("other {second}")).as_deref(),
            Some("second")
        );
    }
}

#[test]
fn a_twin_of_a_folder_is_held_with_all_that_is_in_it() {
    let Some((pair, mount)) = pair_on_folding() else {
        return;
    };
    let [here, _] = pair.roots();
    write(&here, "Notes/a.md", "1");
    pair.flush();
    write(&here, "notes/b.md", "2");
    pair.pusher.problem("held.twin");
    pair.pusher.ask(["flush"]).exits(4);
    assert_eq!(names(mount.behind()), ["Notes"]);
    assert_eq!(names(&mount.behind().join("Notes")), ["a.md"]);
    assert_eq!(read(&here, "notes/b.md").as_deref(), Some("2"));
}

#[test]
fn a_rename_that_changes_only_the_case_arrives_from_either_side() {
    let Some((pair, mount)) = pair_on_folding() else {
        return;
    };
    let [here, there] = pair.roots();
    write(&here, "readme.md", "text");
    write(&here, "folder/a.md", "1");
    pair.flush();
    fs::rename(here.join("readme.md"), here.join("README.md")).unwrap();
    fs::rename(here.join("folder"), here.join("Folder")).unwrap();
    pair.flush();
    assert_eq!(names(mount.behind()), ["Folder", "README.md"]);
    fs::rename(there.join("README.md"), there.join("Readme.md")).unwrap();
    pair.flush();
    assert_eq!(names(&here), ["Folder", "Readme.md"]);
    assert_eq!(read(&here, "Readme.md").as_deref(), Some("text"));
    assert_eq!(read(mount.behind(), "Folder/a.md").as_deref(), Some("1"));
    // An edit afterwards finds its file.
    write(&here, "Readme.md", "edited");
    pair.flush();
    assert_eq!(read(mount.behind(), "Readme.md").as_deref(), Some("edited"));
}
