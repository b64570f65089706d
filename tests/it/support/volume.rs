//! A small ext4 volume in a file, whose power can be cut: for suites that ask what is really on the disk.
//!
//! It needs root, loop devices, `mkfs.ext4` and a C compiler, and it mounts: only where all suites are asked for.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use rustix::fs::{Advice, fadvise};
use tempfile::TempDir;

use super::suites;

/// How large the volume says it is: room for the ballast, the reserve and some hundred thousand tasks. The file is
/// sparse.
const BYTES: u64 = 768 * 1024 * 1024;
/// How the directories of all runs begin; the process follows.
const PREFIX: &str = "sendoff-volume-";

/// A directory for a server, with its `data` on a volume of its own and all else beside it.
pub(crate) struct Volume {
    image: PathBuf,
    root: PathBuf,
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
        sweep();
        let dir = tempfile::Builder::new().prefix(&format!("{PREFIX}{}-", std::process::id())).tempdir().unwrap();
        let (image, root) = (dir.path().join("volume"), dir.path().join("data"));
        File::create(&image).and_then(|file| file.set_len(BYTES)).expect("a sparse file");
        run("mkfs.ext4", &["-q", "-F", "-m", "0", "-E", "nodiscard"], &image);
        std::fs::create_dir(&root).unwrap();
        let cutter = Cutter::start(dir.path());
        let mut volume = Self { image, root, mounted: false, cutter, dir };
        volume.mount();
        volume
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
        run("mount", &["-t", "ext4", "-o", "loop", &image], &self.root);
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

/// Unmounts what runs have left behind whose process is gone, and deletes it.
fn sweep() {
    let mounts = std::fs::read_to_string("/proc/mounts").expect("the mounts");
    for root in mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(Path::new) {
        let Some(dir) = root.parent().filter(|dir| root.ends_with("data") && is_left_behind(dir)) else { continue };
        unmount(root);
        std::fs::remove_dir_all(dir).expect("it can be deleted");
    }
}

fn is_left_behind(dir: &Path) -> bool {
    let name = dir.file_name().and_then(|name| name.to_str());
    let process = name.and_then(|name| name.strip_prefix(PREFIX)?.split('-').next()?.parse::<u32>().ok());
    process.is_some_and(|process| !Path::new("/proc").join(process.to_string()).exists())
}
