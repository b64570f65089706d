//! How full the disk is, and the ballast that is thrown off when it is.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use rustix::io::Errno;

use crate::clock::Clock;
use crate::queue::store::Pressure;
use crate::task::limits::{BALLAST_BYTES, RESERVE_BYTES_DEFAULT_MAX, RESERVE_BYTES_MIN};

use super::files::{Files, open_private};

/// How old a reading of the free space may be.
const READING_AGE_MAX: Duration = Duration::from_secs(1);
/// The default reserve is one of so many parts of the volume (5 %).
const RESERVE_VOLUME_PARTS: u64 = 20;

/// Watches the free space of one directory.
pub(super) struct Disk {
    files: Files,
    reserve: u64,
    clock: Clock,
    reading: Mutex<Reading>,
    /// Bytes written since the last reading.
    written: AtomicU64,
    /// A commit found the disk full, and none has gone through since.
    full: AtomicBool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Reading {
    at: Option<Duration>,
    free: u64,
}

struct Volume {
    total: u64,
    free: u64,
}

impl Disk {
    /// Watches the volume of `files`; `reserve` in bytes, `None` for the default.
    pub(super) fn new(files: Files, reserve: Option<u64>, clock: Clock) -> io::Result<Self> {
        let volume = volume(&files.dir)?;
        let reserve = reserve.unwrap_or_else(|| (volume.total / RESERVE_VOLUME_PARTS).min(RESERVE_BYTES_DEFAULT_MAX));
        let (reading, written, full) = (Mutex::default(), AtomicU64::new(0), AtomicBool::new(false));
        Ok(Self { files, reserve: reserve.max(RESERVE_BYTES_MIN), clock, reading, written, full })
    }

    /// How full it is: a reading at most a second old, less what was written since. A volume that cannot be read
    /// counts as full.
    pub(super) fn pressure(&self) -> Pressure {
        let free = self.free();
        if free < self.reserve { Pressure::BelowReserve { free, reserve: self.reserve } } else { Pressure::Normal }
    }

    fn free(&self) -> u64 {
        let now = self.clock.now().mono;
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        if reading.at.is_none_or(|at| now.saturating_sub(at) >= READING_AGE_MAX) {
            // The ballast lies within the reserve: it is space that can be had.
            let free = volume(&self.files.dir).map_or(0, |volume| volume.free.saturating_add(self.ballast_len()));
            *reading = Reading { at: Some(now), free };
            self.written.store(0, Ordering::Relaxed);
        }
        reading.free.saturating_sub(self.written.load(Ordering::Relaxed))
    }

    /// A commit went through that wrote about `bytes`.
    pub(super) fn note_written(&self, bytes: u64) {
        self.written.fetch_add(bytes, Ordering::Relaxed);
        self.full.store(false, Ordering::Relaxed);
    }

    /// A commit found the disk full, whatever the volume says (quotas): nothing is free until the next reading.
    pub(super) fn note_full(&self) {
        self.full.store(true, Ordering::Relaxed);
        let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        *reading = Reading { at: Some(self.clock.now().mono), free: 0 };
    }

    fn ballast_len(&self) -> u64 {
        fs::metadata(self.files.ballast()).map_or(0, |found| found.len())
    }

    /// Whether the ballast is there, all of it.
    pub(super) fn has_ballast(&self) -> bool {
        self.ballast_len() == BALLAST_BYTES
    }

    /// Deletes the ballast. Says whether that freed anything.
    pub(super) fn drop_ballast(&self) -> bool {
        let path = self.files.ballast();
        let freed = self.ballast_len() > 0 && fs::remove_file(path).is_ok();
        // Some file systems free the space only with their next transaction.
        if freed && let Ok(dir) = File::open(&self.files.dir) {
            drop(dir.sync_all());
        }
        freed
    }

    /// Makes the ballast if it is not there and the free space is above the reserve. Failing is no fault: the disk is
    /// then as full as it was.
    pub(super) fn make_ballast(&self) {
        let enough = || volume(&self.files.dir).is_ok_and(|volume| volume.free >= self.reserve);
        if self.has_ballast() || self.full.load(Ordering::Relaxed) || !enough() {
            return;
        }
        let path = self.files.ballast();
        if open_private(&path).and_then(|file| allocate(file, BALLAST_BYTES)).is_err() {
            drop(fs::remove_file(path));
        }
    }
}

fn volume(path: &PathBuf) -> io::Result<Volume> {
    let found = statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(found.f_frsize);
    Ok(Volume { total: bytes(found.f_blocks), free: bytes(found.f_bavail) })
}

/// Gives a file real blocks: asked for where the file system can, else written.
fn allocate(file: File, bytes: u64) -> io::Result<()> {
    match fallocate(&file, FallocateFlags::empty(), 0, bytes) {
        Ok(()) => Ok(()),
        Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => write_zeros(file, bytes),
        Err(error) => Err(error.into()),
    }
}

fn write_zeros(mut file: File, bytes: u64) -> io::Result<()> {
    let zeros = vec![0; 1024 * 1024];
    let mut left = bytes;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(zeros.len()).min(zeros.len());
        file.write_all(zeros.get(..part).unwrap_or_default())?;
        left -= part as u64;
    }
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::task::WallMs;

    #[test]
    fn zeros_fill_a_file_where_blocks_cannot_be_asked_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("zeros");
        write_zeros(open_private(&path).unwrap(), 1024 * 1024 + 7).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 1024 * 1024 + 7);
    }

    #[test]
    fn what_is_written_counts_until_the_next_reading() {
        let dir = tempfile::tempdir().unwrap();
        let (clock, hand) = Clock::manual(WallMs::new(0));
        let disk = Disk::new(Files::of(dir.path()), Some(0), clock).unwrap();
        assert_eq!(disk.reserve, RESERVE_BYTES_MIN, "never below two full commits");
        assert_eq!(disk.pressure(), Pressure::Normal);
        disk.note_written(u64::MAX);
        assert_eq!(disk.pressure(), Pressure::BelowReserve { free: 0, reserve: RESERVE_BYTES_MIN });
        hand.advance(Duration::from_millis(999));
        assert_ne!(disk.pressure(), Pressure::Normal);
        hand.advance(Duration::from_millis(1));
        assert_eq!(disk.pressure(), Pressure::Normal);
    }

    #[test]
    fn ballast_is_thrown_off_once_and_made_again_after_a_commit() {
        let dir = tempfile::tempdir().unwrap();
        let (clock, _hand) = Clock::manual(WallMs::new(0));
        let disk = Disk::new(Files::of(dir.path()), None, clock).unwrap();
        disk.make_ballast();
        assert!(disk.has_ballast());
        assert!(disk.drop_ballast());
        assert!(!disk.drop_ballast(), "there is nothing left to throw off");
        disk.note_full();
        assert!(matches!(disk.pressure(), Pressure::BelowReserve { free: 0, .. }));
        disk.make_ballast();
        assert!(!disk.has_ballast(), "not while commits find the disk full");
        disk.note_written(0);
        disk.make_ballast();
        assert!(disk.has_ballast());
    }
}
