use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn none() -> [(OsString, OsString); 0] {
    []
}

fn home_with(text: &str, mode: u32) -> (tempfile::TempDir, Home) {
    let temp = tempfile::tempdir().unwrap();
    let home = Home::new(temp.path().to_owned());
    fs::write(home.secrets_file(), text).unwrap();
    fs::set_permissions(home.secrets_file(), fs::Permissions::from_mode(mode)).unwrap();
    (temp, home)
}

#[test]
fn lines() {
    let check = |text: &str, key: &str, value: Option<&str>| {
        let (_temp, home) = home_with(text, 0o600);
        let secrets = Secrets::read(&home, none()).unwrap();
        assert_eq!(secrets.get(key), value, "{text:?}");
    };
    check("", "KEY", None);
    check("KEY=a", "KEY", Some("a"));
    check("# a comment\n\n  KEY = a  \n", "KEY", Some("a"));
    check("export KEY=a", "KEY", Some("a"));
    check("KEY=a=b#c", "KEY", Some("a=b#c"));
    check("KEY=\" a b \"", "KEY", Some(" a b "));
    check("KEY='$HOME'", "KEY", Some("$HOME"));
    check("KEY=\r\n", "KEY", None);
    check("KEY=a\nKEY=b", "KEY", Some("b"));
    check("KEY=a", "key", None);
}

#[test]
fn wrong_lines() {
    let check = |text: &str, wrong: usize| {
        let (_temp, home) = home_with(text, 0o600);
        match Secrets::read(&home, none()) {
            Err(refused @ SecretsRefused::Line { line, .. }) => {
                assert_eq!(line, wrong, "{text:?}");
                assert_eq!(refused.exit(), exit::DAEMON_CONFIG);
                assert!(!refused.to_string().contains("hush"));
            }
            other => panic!("{text:?}: {other:?}"),
        }
    };
    check("hush", 1);
    check("A=1\n\n=hush", 3);
    check("1A=hush", 1);
    check("A B=hush", 1);
    check("A=\"hush", 1);
}

#[test]
fn the_environment_wins() {
    let (_temp, home) = home_with("A=file\nB=file", 0o600);
    let env = [("B".into(), "env".into()), ("C".into(), "env".into())];
    let secrets = Secrets::read(&home, env).unwrap();
    assert_eq!(secrets.get("A"), Some("file"));
    assert_eq!(secrets.get("B"), Some("env"));
    assert_eq!(secrets.get("C"), Some("env"));
    assert_eq!(format!("{secrets:?}"), "Secrets(3 values)");
}

#[test]
fn rights() {
    let check = |mode: u32, refused: bool| {
        let (_temp, home) = home_with("A=1", mode);
        match Secrets::read(&home, none()) {
            Ok(_) => assert!(!refused, "{mode:o}"),
            Err(error) => {
                let file = home.secrets_file();
                assert!(
                    refused && matches!(error, SecretsRefused::Mode { .. }),
                    "{error}"
                );
                assert_eq!(error.exit(), exit::DAEMON_PERMISSION);
                assert_eq!(error.fix(), format!("run `chmod 600 {}`", file.display()));
            }
        }
    };
    check(0o600, false);
    check(0o400, false);
    check(0o644, true);
    check(0o640, true);
    check(0o604, true);
    check(0o700, true);
}

#[test]
fn no_file_is_no_secret() {
    let temp = tempfile::tempdir().unwrap();
    let secrets = Secrets::read(&Home::new(temp.path().to_owned()), none()).unwrap();
    assert_eq!(secrets, Secrets::default());
}

#[test]
fn too_large() {
    let (_temp, home) = home_with(&"#".repeat(SECRETS_BYTES_MAX as usize + 1), 0o600);
    let refused = Secrets::read(&home, none()).unwrap_err();
    assert!(matches!(refused, SecretsRefused::TooLarge { .. }));
}
