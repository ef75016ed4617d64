//! The node's own files: its home, settings, secrets and identity.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use config::home::shell_word;
use config::settings::SettingsRefused;
use config::{HomeRefused, Secrets, SecretsRefused, Settings};
use link::identity::KEY_FILE;
use link::{Identity, IdentityError};

use super::mend::Mend;
use super::{Case, Check, chmod};

/// Bits that nobody but the owner needs on what is the node's own.
const OTHERS: u32 = 0o077;
/// Bits with which somebody else could change it.
const OTHERS_WRITE: u32 = 0o022;

/// The home is there, is ours, and is for us alone.
pub(super) fn home(case: &Case<'_>) -> Check {
    const NAME: &str = "home";
    let dir = case.home.dir();
    let shown = dir.display();
    let narrow = |check: Check| {
        check.mended_by(Mend::Rights {
            path: dir.to_owned(),
            mode: 0o700,
        })
    };
    match case.home.check() {
        Ok(()) => match mode(dir) {
            Ok(mode) if mode & 0o700 != 0o700 => narrow(Check::wrong(
                NAME,
                format!("{shown} cannot be written by its owner (mode {mode:03o})."),
                chmod(0o700, dir),
            )),
            Ok(mode) if mode & OTHERS != 0 => narrow(Check::warning(
                NAME,
                format!("{shown} can be read by other users (mode {mode:03o})."),
                chmod(0o700, dir),
            )),
            _ => Check::ok(NAME, format!("{shown} is for you alone.")),
        },
        Err(refused @ HomeRefused::Mode { .. }) => {
            narrow(Check::wrong(NAME, refused.to_string(), chmod(0o700, dir)))
        }
        Err(refused) => Check::wrong(NAME, refused.to_string(), refused.fix()),
    }
}

/// The settings are there and say nothing wrong: no unknown key, no value out of its bounds.
pub(super) fn settings(case: &Case<'_>) -> (Option<Settings>, Check) {
    const NAME: &str = "settings";
    let file = case.home.settings_file();
    let settings = match Settings::read(case.home) {
        Ok(settings) => settings,
        Err(refused) => {
            let denied = matches!(&refused, SettingsRefused::Unreadable { source, .. }
                if source.kind() == io::ErrorKind::PermissionDenied);
            let check = Check::wrong(NAME, sentence(&refused), refused.fix());
            let mend = Mend::Rights {
                path: file,
                mode: 0o600,
            };
            return (None, if denied { check.mended_by(mend) } else { check });
        }
    };
    let check = match mode(&file) {
        Ok(mode) if mode & OTHERS_WRITE != 0 => Check::warning(
            NAME,
            format!(
                "{} can be written by other users (mode {mode:03o}).",
                file.display()
            ),
            chmod(0o600, &file),
        )
        .mended_by(Mend::Rights {
            path: file,
            mode: 0o600,
        }),
        _ => Check::ok(
            NAME,
            format!(
                "{} is the home of a {}.",
                case.home.dir().display(),
                settings.link.side().name()
            ),
        ),
    };
    (Some(settings), check)
}

/// The secrets, if there are any, are secret.
pub(super) fn secrets(case: &Case<'_>) -> Check {
    const NAME: &str = "secrets";
    let file = case.home.secrets_file();
    match Secrets::read(case.home, []) {
        Ok(_) if file.exists() => Check::ok(NAME, format!("{} is for you alone.", file.display())),
        Ok(_) => Check::ok(NAME, "There is no file of secrets, and none is needed."),
        Err(refused @ SecretsRefused::Mode { .. }) => {
            Check::wrong(NAME, refused.to_string(), chmod(0o600, &file)).mended_by(Mend::Rights {
                path: file,
                mode: 0o600,
            })
        }
        Err(refused) => Check::wrong(NAME, refused.to_string(), refused.fix()),
    }
}

/// The key is there, is ours alone, and fits its certificate.
pub(super) fn identity(case: &Case<'_>, paired: bool) -> Check {
    const NAME: &str = "identity";
    let dir = case.home.identity_dir();
    let key = dir.join(KEY_FILE);
    match key.try_exists() {
        // Loading would make a new one.
        Ok(false) if paired => {
            return Check::wrong(
                NAME,
                format!(
                    "The key {} is gone; with a new one the other machine does not know this one.",
                    key.display()
                ),
                "bring the key back, or pair anew: `layer-sync pair` on the pusher, `layer-sync join CODE --root DIR` on the receiver",
            );
        }
        Ok(false) => return Check::ok(NAME, "The first start makes the key."),
        Ok(true) => {}
        Err(error) => {
            return Check::wrong(
                NAME,
                format!("{} cannot be looked at: {error}.", key.display()),
                chmod(0o700, &dir),
            )
            .mended_by(Mend::Rights {
                path: dir,
                mode: 0o700,
            });
        }
    }
    match Identity::load_or_create(&dir) {
        Ok(identity) => match mode(&dir) {
            Ok(mode) if mode & OTHERS != 0 => Check::warning(
                NAME,
                format!(
                    "{} is open to other users (mode {mode:03o}).",
                    dir.display()
                ),
                chmod(0o700, &dir),
            )
            .mended_by(Mend::Rights {
                path: dir,
                mode: 0o700,
            }),
            _ => Check::ok(
                NAME,
                format!(
                    "The key is {}, and for you alone.",
                    identity.fingerprint().short()
                ),
            ),
        },
        Err(error @ IdentityError::Exposed { .. }) => {
            Check::wrong(NAME, sentence(&error), chmod(0o600, &key)).mended_by(Mend::Rights {
                path: key,
                mode: 0o600,
            })
        }
        Err(IdentityError::Mismatch { certificate, key }) => Check::wrong(
            NAME,
            format!(
                "{} does not belong to {}.",
                certificate.display(),
                key.display()
            ),
            format!("rm {}", shell_word(&certificate)),
        ),
        Err(error) => Check::wrong(
            NAME,
            sentence(&error),
            format!("ls -l {}", shell_word(&dir)),
        ),
    }
}

fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o777)
}

/// Writes an error as a sentence.
pub(super) fn sentence(error: &impl ToString) -> String {
    let text = error.to_string();
    let text = text.trim_end_matches('.');
    let mut chars = text.chars();
    match chars.next() {
        Some(first) => format!("{}{}.", first.to_uppercase(), chars.as_str()),
        None => String::new(),
    }
}
