//! Small files that must be whole or absent, some of them secret: written beside their place, synced, then moved there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Mode of a file that only its owner reads.
pub(super) const SECRET: u32 = 0o600;
/// Mode of a file that anybody may read.
pub(super) const PUBLIC: u32 = 0o644;
/// A key or a certificate chain is never larger, in bytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Why a small file could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FileError {
    /// The operating system refused.
    #[error("{what} {}", path.display())]
    Io {
        /// What was tried: `reading`, `writing`, `making the directory`.
        what: &'static str,
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// Others could read a secret.
    #[error(
        "{} holds a secret and is open to other users (mode {mode:03o}): replace the secret if they may have seen it, \
         then `chmod 600 {}`",
        path.display(), path.display()
    )]
    Exposed {
        /// Which file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// Far larger than what belongs there.
    #[error("{} is larger than {FILE_BYTES_MAX} bytes: it is not what belongs there", path.display())]
    TooLarge {
        /// Which file.
        path: PathBuf,
    },
}

impl FileError {
    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { what, path, source }
    }
}

/// Makes `dir` and its parents, closed to other users; a directory that exists is left as it is.
pub(super) fn ensure_dir(dir: &Path) -> Result<(), FileError> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir).map_err(FileError::io("making the directory", dir))
}

/// The content of a file; `None` when there is none.
pub(super) fn read(path: &Path) -> Result<Option<String>, FileError> {
    match File::open(path) {
        Ok(file) => content(path, &file).map(Some),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(FileError::io("reading", path)(error)),
    }
}

/// The content of a secret file, refused when other users could read it too; `None` when there is none.
pub(super) fn read_secret(path: &Path) -> Result<Option<String>, FileError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(FileError::io("reading", path)(error)),
    };
    let mode = file.metadata().map_err(FileError::io("reading", path))?.mode() & 0o777;
    if mode & 0o077 != 0 {
        return Err(FileError::Exposed { path: path.to_owned(), mode });
    }
    content(path, &file).map(Some)
}

fn content(path: &Path, file: &File) -> Result<String, FileError> {
    let mut text = String::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(FileError::io("reading", path))?;
    if u64::try_from(read).unwrap_or(u64::MAX) > FILE_BYTES_MAX {
        return Err(FileError::TooLarge { path: path.to_owned() });
    }
    Ok(text)
}

/// Puts a file where none is. Durable and whole when this returns; an error of kind `AlreadyExists` when somebody was
/// first.
pub(super) fn create(path: &Path, text: &str, mode: u32) -> Result<(), FileError> {
    let beside = write_beside(path, text, mode)?;
    // A link, unlike a rename, never replaces what is there.
    let linked = fs::hard_link(&beside, path).map_err(FileError::io("writing", path));
    fs::remove_file(&beside).map_err(FileError::io("writing", &beside))?;
    linked?;
    sync_dir_of(path)
}

/// Puts a file in the place of whatever is there. Durable and whole when this returns.
pub(super) fn replace(path: &Path, text: &str, mode: u32) -> Result<(), FileError> {
    let beside = write_beside(path, text, mode)?;
    fs::rename(&beside, path).map_err(FileError::io("writing", path))?;
    sync_dir_of(path)
}

/// Writes and syncs `<name>.<pid>.new` in the same directory.
fn write_beside(path: &Path, text: &str, mode: u32) -> Result<PathBuf, FileError> {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(name);
    let failed = || FileError::io("writing", &beside);
    match fs::remove_file(&beside) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed()(error)),
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&beside).map_err(failed())?;
    // The mode given to `open` passes through the umask.
    file.set_permissions(fs::Permissions::from_mode(mode)).map_err(failed())?;
    file.write_all(text.as_bytes()).map_err(failed())?;
    file.sync_all().map_err(failed())?;
    Ok(beside)
}

fn sync_dir_of(path: &Path) -> Result<(), FileError> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(FileError::io("syncing the directory", dir))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mode_of(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn a_created_file_is_whole_private_and_never_replaces_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/secret");
        ensure_dir(path.parent().unwrap()).unwrap();
        assert_eq!(mode_of(path.parent().unwrap()), 0o700);
        assert!(read_secret(&path).unwrap().is_none());
        create(&path, "first", SECRET).unwrap();
        let again = create(&path, "second", SECRET).unwrap_err();
        assert!(matches!(again, FileError::Io { source, .. } if source.kind() == io::ErrorKind::AlreadyExists));
        assert_eq!(read_secret(&path).unwrap().as_deref(), Some("first"));
        assert_eq!(mode_of(&path), 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "nothing is left beside it");
    }

    #[test]
    fn a_replaced_file_gets_the_mode_asked_for_and_a_stale_neighbour_does_no_harm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cert");
        fs::write(dir.path().join(format!("cert.{}.new", std::process::id())), "left by a crash").unwrap();
        replace(&path, "one", PUBLIC).unwrap();
        replace(&path, "two", PUBLIC).unwrap();
        assert_eq!((read(&path).unwrap().as_deref(), mode_of(&path)), (Some("two"), 0o644));
    }

    #[test]
    fn a_secret_open_to_others_is_refused_with_the_way_out() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key");
        create(&path, "x", SECRET).unwrap();
        for mode in [0o640, 0o604, 0o610] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let error = read_secret(&path).unwrap_err().to_string();
            assert!(error.contains(&format!("mode {mode:o}")) && error.contains("chmod 600"), "{error}");
        }
    }

    #[test]
    fn size_one_below_and_one_above() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("big");
        let most = usize::try_from(FILE_BYTES_MAX).unwrap();
        fs::write(&path, "x".repeat(most)).unwrap();
        assert_eq!(read(&path).unwrap().unwrap().len(), most);
        fs::write(&path, "x".repeat(most + 1)).unwrap();
        assert!(matches!(read(&path), Err(FileError::TooLarge { .. })));
        assert!(matches!(read(dir.path()), Err(FileError::Io { .. })));
    }
}
