//! A small ext4 volume in a file, whose power can be cut: for suites that ask what is really on the disk.
//!
//! It needs root, loop devices, `mkfs.ext4` and a C compiler, and it mounts: only where all suites are asked for.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Advice, FallocateFlags, fadvise, fallocate, statvfs};
use tempfile::{NamedTempFile, TempDir};

use super::suites;

/// How large the volume says it is: room for the ballast, the reserve and some hundred thousand tasks. The file is
/// sparse.
const BYTES: u64 = 768 * 1024 * 1024;
/// How large a volume is that lies in memory: the ballast, the reserve, and a little.
const THIN_BYTES: u64 = 256 * 1024 * 1024;
/// The memory beneath it.
const MEMORY: &str = "size=288m";
/// How the directories of all runs begin; the process follows.
const PREFIX: &str = "sendoff-volume-";

/// A directory for a server, with its `data` on a volume of its own and all else beside it.
pub(crate) struct Volume {
    image: PathBuf,
    root: PathBuf,
    /// Where memory is mounted, if the file lies in memory.
    memory: Option<PathBuf>,
    mounted: bool,
    cutter: Cutter,
    dir: TempDir,
}

/// The process that cuts.
struct Cutter {
    child: Child,
    asked: ChildStdin,
    told: BufReader<ChildStdout>,
}

/// Whether volumes can be made and are asked for; says aloud why not.
pub(crate) fn available(suite: &str) -> bool {
    let missing = if !suites::required() {
        Some("it mounts volumes, which nobody has asked for")
    } else if !rustix::process::geteuid().is_root() {
        Some("only root may mount volumes")
    } else if !Path::new("/dev/loop-control").exists() {
        Some("there are no loop devices")
    } else if !has("mkfs.ext4", "-V") {
        Some("there is no mkfs.ext4")
    } else if !has("cc", "--version") {
        Some("there is no C compiler")
    } else {
        None
    };
    if let Some(missing) = missing {
        suites::skipped(suite, missing);
    }
    missing.is_none()
}

/// Whether a program is there.
pub(crate) fn has(program: &str, asked: &str) -> bool {
    Command::new(program).arg(asked).output().is_ok_and(|output| output.status.success())
}

/// Compiles a C program (or with `-shared` a library) and gives its path.
pub(crate) fn compiled(dir: &Path, name: &str, source: &str, options: &[&str]) -> PathBuf {
    let path = dir.join(name);
    let mut command = Command::new("cc");
    command.args(["-x", "c", "-O1", "-Wall", "-Werror", "-", "-o"]).arg(&path).args(options);
    let mut cc = command.stdin(Stdio::piped()).spawn().expect("a C compiler");
    cc.stdin.take().expect("piped").write_all(source.as_bytes()).expect("it reads");
    assert!(cc.wait().expect("it ends").success(), "{name} does not compile");
    path
}

fn run(program: &str, arguments: &[&str], path: &Path) {
    let output = Command::new(program).args(arguments).arg(path).output().expect(program);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {arguments:?} {}: {said}", path.display());
}

impl Volume {
    /// A new volume, mounted. What runs that died have left behind is taken away first.
    pub(crate) fn new() -> Self {
        let dir = place();
        let image = dir.path().join("volume");
        File::create(&image).and_then(|file| file.set_len(BYTES)).expect("a sparse file");
        Self::of(dir, image, None)
    }

    /// A new volume that has a place on its disk for what describes files, but for what is in them only as long as
    /// nobody calls [`Self::use_up`].
    pub(crate) fn thin() -> Self {
        let dir = place();
        let memory = dir.path().join("memory");
        std::fs::create_dir(&memory).unwrap();
        run("mount", &["-t", "tmpfs", "-o", MEMORY, "none"], &memory);
        let image = memory.join("volume");
        let file = File::create(&image).expect("a file in memory");
        fallocate(&file, FallocateFlags::empty(), 0, THIN_BYTES).expect("there is room");
        let volume = Self::of(dir, image, Some(memory));
        run("fstrim", &[], &volume.root);
        volume
    }

    fn of(dir: TempDir, image: PathBuf, memory: Option<PathBuf>) -> Self {
        let root = dir.path().join("data");
        std::fs::create_dir(&root).unwrap();
        let cutter = Cutter::start(dir.path());
        // Nothing of the journal and the tables is left out, and nothing is done to them later.
        let tables = "nodiscard,lazy_journal_init=1,lazy_itable_init=1";
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", tables], &image);
        let mut volume = Self { image, root, memory, mounted: false, cutter, dir };
        volume.mount();
        volume
    }

    /// From now on the disk refuses to write what is in files, where it had written nothing before: the sync fails, and
    /// the kernel takes the pages for written all the same. Whoever holds the file that this gives puts an end to it by
    /// dropping it.
    pub(crate) fn use_up(&self) -> NamedTempFile {
        let memory = self.memory.as_ref().expect("a thin volume");
        let filler = NamedTempFile::new_in(memory).expect("a file in memory");
        let found = statvfs(memory).expect("how much is left");
        fallocate(filler.as_file(), FallocateFlags::empty(), 0, found.f_bavail * found.f_frsize)
            .expect("there is room");
        filler
    }

    /// Where a server runs: its `data` is the root of the volume.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Cuts the power: from now on nothing reaches the disk, and what had not is gone with the next [`Self::remount`].
    pub(crate) fn cut(&mut self) {
        self.cutter.ask("cut", "done");
    }

    /// Power is back. Nobody may have a file of the volume open any more. `forgetful`: what the page cache knows of the
    /// file beneath is dropped too.
    pub(crate) fn remount(&mut self, forgetful: bool) {
        run("umount", &[], &self.root);
        self.mounted = false;
        if forgetful {
            let image = File::open(&self.image).expect("the file beneath");
            image.sync_all().expect("it syncs");
            fadvise(&image, 0, None, Advice::DontNeed).expect("advice is taken");
        }
        self.mount();
    }

    fn mount(&mut self) {
        let image = self.image.to_str().expect("a plain path").to_owned();
        run("mount", &["-t", "ext4", "-o", "loop,noinit_itable", &image], &self.root);
        self.mounted = true;
        let root = self.root.to_str().expect("a plain path").to_owned();
        self.cutter.ask(&root, "ready");
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        // Holds the root open.
        self.cutter.end();
        if self.mounted {
            unmount(&self.root);
        }
        if let Some(memory) = &self.memory {
            unmount(memory);
        }
    }
}

impl Cutter {
    fn start(dir: &Path) -> Self {
        let path = compiled(dir, "cut", include_str!("cut.c"), &[]);
        let mut child = Command::new(path).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let (asked, told) = (child.stdin.take().expect("piped"), child.stdout.take().expect("piped"));
        Self { child, asked, told: BufReader::new(told) }
    }

    fn ask(&mut self, line: &str, expected: &str) {
        self.asked.write_all(format!("{line}\n").as_bytes()).expect("it listens");
        let mut told = String::new();
        self.told.read_line(&mut told).expect("it answers");
        assert_eq!(told.trim_end(), expected, "after `{line}`");
    }

    fn end(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Lets go of a mount whatever still uses it; its loop device goes with it.
fn unmount(root: &Path) {
    let ended = Command::new("umount").arg("--lazy").arg(root).status();
    assert!(ended.is_ok_and(|status| status.success()) || std::thread::panicking(), "{} stays mounted", root.display());
}

/// A directory for a volume, after what runs whose process is gone have left behind is unmounted and deleted.
fn place() -> TempDir {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mounts = std::fs::read_to_string("/proc/mounts").expect("the mounts");
    // The last first: one may lie on another.
    for root in mounts.lines().rev().filter_map(|line| line.split(' ').nth(1)).map(Path::new) {
        if root.parent().is_some_and(is_left_behind) {
            unmount(root);
        }
    }
    for entry in std::fs::read_dir(std::env::temp_dir()).expect("it can be listed").map_while(Result::ok) {
        if is_left_behind(&entry.path()) {
            std::fs::remove_dir_all(entry.path()).expect("it can be deleted");
        }
    }
    let prefix = format!("{PREFIX}{}-", std::process::id());
    tempfile::Builder::new().prefix(&prefix).tempdir().expect("a directory")
}

fn is_left_behind(dir: &Path) -> bool {
    let name = dir.file_name().and_then(|name| name.to_str());
    let process = name.and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
    process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists())
}
