//! The directory of a store: who may read it, who has it open, and that it is really on the disk.

use std::fs::{DirBuilder, File, OpenOptions, Permissions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::queue::store::StoreError;

/// The tables.
const DATABASE_FILE: &str = "sendoff.db";
/// Held while a process has the store open; says which.
const LOCK_FILE: &str = "lock";
/// Deleted when the disk is full.
const BALLAST_FILE: &str = "ballast";

const DIR_MODE: u32 = 0o700;
const FILE_MODE: u32 = 0o600;

/// The names of the files in a store's directory.
#[derive(Debug, Clone)]
pub(super) struct Files {
    /// The directory.
    pub(super) dir: PathBuf,
}

impl Files {
    /// The files of the store in `dir`.
    pub(super) fn of(dir: &Path) -> Self {
        Self { dir: dir.to_path_buf() }
    }

    /// The tables.
    pub(super) fn database(&self) -> PathBuf {
        self.dir.join(DATABASE_FILE)
    }

    /// The ballast.
    pub(super) fn ballast(&self) -> PathBuf {
        self.dir.join(BALLAST_FILE)
    }

    /// Makes the directory (for its owner only) if it is not there, takes its lock, and makes an empty database file
    /// that nobody else can read (SQLite gives its log the same mode).
    pub(super) fn claim(&self) -> Result<DirLock, StoreError> {
        let failed = |doing: &str, path: &Path, source: io::Error| {
            StoreError::Unavailable(Box::new(io::Error::new(
                source.kind(),
                format!("failed to {doing} {}: {source}", path.display()),
            )))
        };
        DirBuilder::new()
            .recursive(true)
            .mode(DIR_MODE)
            .create(&self.dir)
            .map_err(|source| failed("make the directory", &self.dir, source))?;
        let path = self.dir.join(LOCK_FILE);
        let mut lock = open_private(&path).map_err(|source| failed("open", &path, source))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(self.in_use(&mut lock)),
            Err(TryLockError::Error(source)) => return Err(failed("lock", &path, source)),
        }
        write_owner(&mut lock).map_err(|source| failed("write", &path, source))?;
        let path = self.database();
        drop(open_private(&path).map_err(|source| failed("open", &path, source))?);
        Ok(DirLock(lock))
    }

    /// Syncs the directory, its parent, and whatever further up can be opened (it may have been made just now), so that
    /// the files made in it are found again after a power cut.
    pub(super) fn sync(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()?;
        let whole = self.dir.canonicalize()?;
        whole.parent().map_or(Ok(()), |parent| File::open(parent)?.sync_all())?;
        for above in whole.ancestors().skip(2) {
            // A directory that cannot be opened was not made by us.
            File::open(above).map_or(Ok(()), |above| above.sync_all())?;
        }
        Ok(())
    }

    fn in_use(&self, lock: &mut File) -> StoreError {
        let mut owner = String::new();
        let owner = match lock.read_to_string(&mut owner) {
            Ok(_) if !owner.trim().is_empty() => format!("process {}", owner.trim()),
            Ok(_) | Err(_) => String::from("another process"),
        };
        let dir = self.dir.display();
        let what = format!("{dir} is in use by {owner}; stop that one first, or give this one another data_dir");
        StoreError::InUse { what }
    }
}

/// The lock on a directory. It ends with this value, even while a child process that was forked from this one, and has not
/// become another program yet, holds the file open too: such a child would keep a lock that only closing gives back.
#[derive(Debug)]
pub(super) struct DirLock(File);

impl Drop for DirLock {
    fn drop(&mut self) {
        if let Err(error) = self.0.unlock() {
            tracing::debug!(%error, "the lock ends with its file");
        }
    }
}

fn write_owner(lock: &mut File) -> io::Result<()> {
    lock.set_len(0)?;
    lock.seek(SeekFrom::Start(0))?;
    writeln!(lock, "{}", std::process::id())
}

/// Opens a file for reading and writing, made if it is not there, that only its owner may read.
pub(super) fn open_private(path: &Path) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(FILE_MODE).open(path)?;
    if file.metadata()?.permissions().mode() & 0o777 != FILE_MODE {
        file.set_permissions(Permissions::from_mode(FILE_MODE))?;
    }
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_ends_although_a_child_still_holds_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let files = Files::of(dir.path());
        let lock = files.claim().unwrap();
        assert!(matches!(files.claim(), Err(StoreError::InUse { .. })));
        let of_a_child = lock.0.try_clone().unwrap();
        drop(lock);
        drop(files.claim().unwrap());
        drop(of_a_child);
    }
}
