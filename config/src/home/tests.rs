use std::os::unix::fs::PermissionsExt;

use super::*;

fn os(text: &str) -> Option<OsString> {
    Some(OsString::from(text))
}

#[test]
fn which_home() {
    let check = |flag: Option<&str>, env, user_home, dir: Option<&str>| {
        let home = Home::resolve(flag.map(PathBuf::from), env, user_home);
        assert_eq!(home.ok().as_ref().map(Home::dir), dir.map(Path::new));
    };
    check(Some("/a"), os("/b"), os("/c"), Some("/a"));
    check(None, os("/b"), os("/c"), Some("/b"));
    check(None, os(""), os("/c"), Some("/c/.layer-sync"));
    check(None, None, os("/c"), Some("/c/.layer-sync"));
    check(None, None, os(""), None);
    check(None, None, None, None);
    check(Some(""), os("/b"), os("/c"), None);

    let relative = Home::resolve(Some(PathBuf::from("here")), None, None).unwrap();
    assert!(relative.dir().is_absolute() && relative.dir().ends_with("here"));
    let unknown = Home::resolve(None, None, None).unwrap_err();
    assert_eq!(unknown.exit(), exit::DAEMON_USAGE);
}

#[test]
fn places() {
    let home = Home::new(PathBuf::from("/h"));
    let check = |place: PathBuf, text: &str| assert_eq!(place, Path::new(text));
    check(home.settings_file(), "/h/config.toml");
    check(home.secrets_file(), "/h/.env");
    check(home.state_dir(), "/h/state");
    check(home.identity_dir(), "/h/keys");
    check(home.lock_file(), "/h/lock");
    check(home.log_dir(), "/h/logs");
    check(home.socket(), "/h/control.sock");
}

#[test]
fn rights() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("home of a node");
    let home = Home::new(dir.clone());
    let check = |mode: u32, open: bool| {
        fs::set_permissions(&dir, fs::Permissions::from_mode(mode)).unwrap();
        match home.check() {
            Ok(()) => assert!(!open, "{mode:o}"),
            Err(refused) => {
                assert!(open, "{mode:o}: {refused}");
                assert_eq!(refused.exit(), exit::DAEMON_PERMISSION);
                assert_eq!(
                    refused.fix(),
                    format!("run `chmod 700 '{}'`", dir.display())
                );
                assert_eq!(
                    refused.to_string(),
                    format!("{} is open to other users (mode {mode:o}).", dir.display())
                );
            }
        }
    };

    let missing = home.check().unwrap_err();
    assert!(matches!(missing, HomeRefused::Missing { .. }));
    assert_eq!(missing.exit(), exit::DAEMON_CONFIG);

    home.create().unwrap();
    assert_eq!(
        fs::metadata(&dir).unwrap().permissions().mode() & 0o777,
        0o700
    );
    check(0o700, false);
    check(0o755, false);
    check(0o500, false);
    check(0o720, true);
    check(0o702, true);
    check(0o777, true);
}

#[test]
fn a_file_is_no_home() {
    let temp = tempfile::NamedTempFile::new().unwrap();
    let refused = Home::new(temp.path().to_owned()).check().unwrap_err();
    assert!(matches!(refused, HomeRefused::NotADirectory { .. }));
    assert_eq!(refused.exit(), exit::DAEMON_USAGE);
}

#[test]
fn a_long_home_has_its_socket_elsewhere() {
    let temp = tempfile::tempdir().unwrap();
    let long = temp.path().join("h".repeat(SOCKET_PATH_BYTES_MAX));
    let elsewhere = temp.path().join("t");
    let home = Home {
        dir: long.clone(),
        temp_dir: elsewhere.clone(),
    };
    home.create().unwrap();

    let socket = home.socket();
    let dir = socket.parent().unwrap();
    assert_eq!(dir.parent(), Some(&*elsewhere));
    let name = dir.file_name().unwrap().to_str().unwrap();
    let digits = name.strip_prefix("layer-sync-").unwrap();
    assert!(digits.len() == 16 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()));

    // However the home is spelled, the socket is the same; another home has another one.
    let link = temp.path().join("link");
    std::os::unix::fs::symlink(&long, &link).unwrap();
    assert_eq!(
        Home {
            dir: link,
            ..home.clone()
        }
        .socket(),
        socket
    );
    let other = Home {
        dir: long.join("other"),
        ..home.clone()
    };
    assert_ne!(other.socket(), socket);

    home.check_socket_dir().unwrap();
    home.create_socket_dir().unwrap();
    home.check_socket_dir().unwrap();
    fs::set_permissions(dir, fs::Permissions::from_mode(0o755)).unwrap();
    assert!(matches!(
        home.check_socket_dir(),
        Err(HomeRefused::Mode { mode: 0o755, .. })
    ));
}

#[test]
fn a_short_home_holds_its_socket() {
    let temp = tempfile::tempdir().unwrap();
    let home = Home::new(temp.path().join("h"));
    home.create().unwrap();
    home.create_socket_dir().unwrap();
    home.check_socket_dir().unwrap();
    assert_eq!(home.socket().file_name(), Some("control.sock".as_ref()));
    assert!(!home.socket().exists());
}

#[test]
fn shell_words() {
    let check = |path: &str, word: &str| assert_eq!(shell_word(Path::new(path)), word);
    check("/home/me/.layer-sync", "/home/me/.layer-sync");
    check("/home/my notes", "'/home/my notes'");
    check("/it's", r"'/it'\''s'");
}
