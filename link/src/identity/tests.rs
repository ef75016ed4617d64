use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::{CERTIFICATE_FILE, Identity, IdentityError, KEY_FILE};

fn load(dir: &Path) -> Result<Identity, IdentityError> {
    Identity::load_or_create(dir)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

#[test]
fn it_is_made_once_and_stays() {
    let home = tempfile::tempdir().expect("a folder");
    let dir = home.path().join("secrets");
    let made = load(&dir).expect("made");
    assert_eq!((mode(&dir), mode(&dir.join(KEY_FILE))), (0o700, 0o600));
    let loaded = load(&dir).expect("loaded");
    assert_eq!(loaded.fingerprint(), made.fingerprint());
    assert_eq!(loaded.certificate(), made.certificate());
    let mut names: Vec<_> = fs::read_dir(&dir)
        .expect("a folder")
        .map(|entry| entry.expect("a file").file_name())
        .collect();
    names.sort();
    assert_eq!(
        names,
        [CERTIFICATE_FILE, KEY_FILE],
        "nothing is left beside them"
    );
}

#[test]
fn two_are_not_the_same() {
    let (one, two) = (
        Identity::generate().expect("one"),
        Identity::generate().expect("two"),
    );
    assert_ne!(one.fingerprint(), two.fingerprint());
}

#[test]
fn a_lost_certificate_is_made_again_around_the_same_key() {
    let home = tempfile::tempdir().expect("a folder");
    let made = load(home.path()).expect("made");
    fs::remove_file(home.path().join(CERTIFICATE_FILE)).expect("removed");
    assert_eq!(
        load(home.path()).expect("loaded").fingerprint(),
        made.fingerprint()
    );
}

#[test]
fn a_key_that_others_can_reach_is_refused() {
    let home = tempfile::tempdir().expect("a folder");
    load(home.path()).expect("made");
    let key = home.path().join(KEY_FILE);
    for mode in [0o640, 0o604, 0o620, 0o602, 0o644] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("changed");
        let error = load(home.path()).expect_err("exposed");
        assert!(matches!(error, IdentityError::Exposed { .. }), "{error}");
        assert!(error.to_string().contains("chmod 600"), "{error}");
    }
    for mode in [0o600, 0o400] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).expect("changed");
        load(home.path()).expect("for its owner only");
    }
}

#[test]
fn damaged_files_are_named_and_kept() {
    for file in [KEY_FILE, CERTIFICATE_FILE] {
        let home = tempfile::tempdir().expect("a folder");
        load(home.path()).expect("made");
        fs::write(home.path().join(file), "nonsense").expect("written");
        let error = load(home.path()).expect_err("damaged");
        assert!(matches!(error, IdentityError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(file), "{error}");
        assert_eq!(
            fs::read(home.path().join(file)).expect("still there"),
            b"nonsense"
        );
    }
}

#[test]
fn a_certificate_of_another_key_is_refused() {
    let (one, two) = (
        tempfile::tempdir().expect("one"),
        tempfile::tempdir().expect("two"),
    );
    load(one.path()).expect("made");
    load(two.path()).expect("made");
    let file = CERTIFICATE_FILE;
    fs::copy(one.path().join(file), two.path().join(file)).expect("copied");
    let error = load(two.path()).expect_err("mismatch");
    assert!(matches!(error, IdentityError::Mismatch { .. }), "{error}");
}

#[test]
fn the_key_is_not_shown_by_accident() {
    let identity = Identity::generate().expect("an identity");
    let shown = format!("{identity:?}");
    assert!(
        shown.contains(&identity.fingerprint().short()) && !shown.contains("key:"),
        "{shown}"
    );
}
