//! Who this machine is: one private key and a self-signed certificate around it.
//!
//! Two files in a folder of the node's home, `identity.key` (mode 0600) and `identity.crt`. The key
//! is written first and is the identity; a missing certificate is made again from it, so a crash
//! between the two loses nothing. Each file is staged, synced, renamed, and the folder synced.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, DnType, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};

use crate::fingerprint::Fingerprint;

/// File of the private key, PKCS#8 in PEM.
pub const KEY_FILE: &str = "identity.key";
/// File of the certificate, X.509 in PEM.
pub const CERTIFICATE_FILE: &str = "identity.crt";

/// The name inside the certificate. Nobody checks it; the key alone counts.
const CERTIFICATE_NAME: &str = "layer-sync";
/// The key file is for its owner only.
const KEY_MODE: u32 = 0o600;
/// The certificate is no secret.
const CERTIFICATE_MODE: u32 = 0o644;
/// A folder that is made for the identity is for its owner only.
const DIRECTORY_MODE: u32 = 0o700;
/// Any of these bits on the key file means that others may have read or replaced it.
const MODE_OF_OTHERS: u32 = 0o077;

/// The key of this machine and the certificate that carries it.
pub struct Identity {
    certificate: CertificateDer<'static>,
    key: PrivatePkcs8KeyDer<'static>,
    fingerprint: Fingerprint,
}

impl Identity {
    /// Makes a new identity (Ed25519) that is stored nowhere.
    ///
    /// # Errors
    /// [`IdentityError::Generate`] when the system gives no random bytes.
    pub fn generate() -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(IdentityError::Generate)?;
        let certificate = certify(&key)?;
        Self::new(certificate, &key)
    }

    /// Loads the identity in `dir`, or makes one there. `dir` is made when it is missing.
    ///
    /// # Errors
    /// [`IdentityError::Exposed`] when others can read or write the key file; the other variants
    /// name the file and what is wrong with it. A file that is there is never overwritten.
    pub fn load_or_create(dir: &Path) -> Result<Self, IdentityError> {
        let (key_path, certificate_path) = (dir.join(KEY_FILE), dir.join(CERTIFICATE_FILE));
        let key = match load_key(&key_path)? {
            Some(key) => key,
            None => create_key(dir, &key_path)?,
        };
        let certificate = match read(&certificate_path)? {
            Some(pem) => CertificateDer::from_pem_slice(&pem)
                .map_err(|error| IdentityError::damaged(&certificate_path, error))?,
            None => create_certificate(dir, &certificate_path, &key)?,
        };
        let expected = fingerprint_of_key(&key)?;
        let found = Fingerprint::of_certificate(&certificate)
            .map_err(|error| IdentityError::damaged(&certificate_path, error))?;
        if found != expected {
            return Err(IdentityError::Mismatch {
                certificate: certificate_path,
                key: key_path,
            });
        }
        Self::new(certificate, &key)
    }

    /// Returns the fingerprint by which the other machine knows this one.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(crate) fn key(&self) -> PrivateKeyDer<'static> {
        self.key.clone_key().into()
    }

    /// Derives a secret of this machine for one purpose, the same after every start.
    pub(crate) fn derive(&self, context: &'static str) -> [u8; 32] {
        blake3::derive_key(context, self.key.secret_pkcs8_der())
    }

    fn new(certificate: CertificateDer<'static>, key: &KeyPair) -> Result<Self, IdentityError> {
        let fingerprint =
            Fingerprint::of_certificate(&certificate).map_err(IdentityError::Unusable)?;
        let key = PrivatePkcs8KeyDer::from(key.serialize_der());
        Ok(Self {
            certificate,
            key,
            fingerprint,
        })
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Self {
            certificate: self.certificate.clone(),
            key: self.key.clone_key(),
            fingerprint: self.fingerprint,
        }
    }
}

/// Shows the fingerprint, never the key.
impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity")
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

fn load_key(path: &Path) -> Result<Option<KeyPair>, IdentityError> {
    // The mode is read from the open file, so it cannot be exchanged between look and read.
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(IdentityError::file(path, error)),
    };
    let mode = file
        .metadata()
        .map_err(|error| IdentityError::file(path, error))?
        .permissions()
        .mode();
    if mode & MODE_OF_OTHERS != 0 {
        return Err(IdentityError::Exposed {
            path: path.to_owned(),
            mode: mode & 0o777,
        });
    }
    let pem = io::read_to_string(&mut file).map_err(|error| IdentityError::file(path, error))?;
    KeyPair::from_pem(&pem)
        .map(Some)
        .map_err(|error| IdentityError::damaged(path, error))
}

fn create_key(dir: &Path, path: &Path) -> Result<KeyPair, IdentityError> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(DIRECTORY_MODE)
        .create(dir)
        .map_err(|error| IdentityError::file(dir, error))?;
    let key = KeyPair::generate_for(&rcgen::PKCS_ED25519).map_err(IdentityError::Generate)?;
    write(dir, path, KEY_MODE, key.serialize_pem().as_bytes())?;
    Ok(key)
}

fn create_certificate(
    dir: &Path,
    path: &Path,
    key: &KeyPair,
) -> Result<CertificateDer<'static>, IdentityError> {
    let certificate = self_signed(key)?;
    write(dir, path, CERTIFICATE_MODE, certificate.pem().as_bytes())?;
    Ok(certificate.der().clone())
}

fn fingerprint_of_key(key: &KeyPair) -> Result<Fingerprint, IdentityError> {
    Fingerprint::of_certificate(&certify(key)?).map_err(IdentityError::Unusable)
}

fn certify(key: &KeyPair) -> Result<CertificateDer<'static>, IdentityError> {
    Ok(self_signed(key)?.der().clone())
}

fn self_signed(key: &KeyPair) -> Result<rcgen::Certificate, IdentityError> {
    let mut params =
        CertificateParams::new([CERTIFICATE_NAME.to_owned()]).map_err(IdentityError::Generate)?;
    params
        .distinguished_name
        .push(DnType::CommonName, CERTIFICATE_NAME);
    params.self_signed(key).map_err(IdentityError::Generate)
}

fn read(path: &Path) -> Result<Option<Vec<u8>>, IdentityError> {
    match fs::read(path) {
        Ok(bytes) => Ok(Some(bytes)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(IdentityError::file(path, error)),
    }
}

/// Writes `path` whole or not at all: stage, sync, rename, sync the folder.
fn write(dir: &Path, path: &Path, mode: u32, bytes: &[u8]) -> Result<(), IdentityError> {
    let mut staged = path.as_os_str().to_owned();
    staged.push(format!(".{}.new", std::process::id()));
    let staged = PathBuf::from(staged);
    let write = || -> io::Result<()> {
        // What a crashed attempt left behind is of no use, and may have another mode.
        match fs::remove_file(&staged) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(&staged)?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&staged, path)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(|error| IdentityError::file(path, error))
}

/// Why this machine has no identity to speak with.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The key file is open to other users of this machine, who may have copied it.
    #[error(
        "{} can be read or written by other users (mode {mode:03o}); make it yours alone with \
         `chmod 600`, or delete it and pair again if others may have copied it",
        path.display()
    )]
    Exposed {
        /// The key file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },

    /// The file is there but does not hold what it should.
    #[error("{} is damaged: {why}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        why: String,
    },

    /// The certificate is around another key.
    #[error(
        "{} does not belong to {}; delete the certificate, it is made again from the key",
        certificate.display(),
        key.display()
    )]
    Mismatch {
        /// The certificate file.
        certificate: PathBuf,
        /// The key file.
        key: PathBuf,
    },

    /// The file system refused.
    #[error("{}: {source}", path.display())]
    File {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },

    /// No key or certificate could be made.
    #[error("cannot make an identity: {0}")]
    Generate(rcgen::Error),

    /// The certificate that was just made does not parse.
    #[error("the identity cannot be used: {0}")]
    Unusable(rustls::Error),
}

impl IdentityError {
    fn file(path: &Path, source: io::Error) -> Self {
        Self::File {
            path: path.to_owned(),
            source,
        }
    }

    fn damaged(path: &Path, why: impl fmt::Display) -> Self {
        Self::Damaged {
            path: path.to_owned(),
            why: why.to_string(),
        }
    }
}

#[cfg(test)]
mod tests;
