//! Where a server runs whose disk fails it: over a copy of the same directory each time, on a volume if there can be one.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Child;

use serde_json::json;
use tempfile::TempDir;

use crate::power::ledger::{Order, id_of};
use crate::support::counter::Counter;
use crate::support::process::{Process, spawn};
use crate::support::volume::{Volume, available, compiled};

/// What a store's directory is made of that is not made anew at each start.
const KEPT: [&str; 3] = ["admin.key", "sendoff.db", "sendoff.db-wal"];

/// See the module.
pub(super) struct Ground {
    place: Place,
    /// A directory that a crash has left, with tasks in it and a log that is not written back.
    left: TempDir,
    /// The library, and its marks.
    marks: TempDir,
    library: PathBuf,
}

enum Place {
    Bare(TempDir),
    Volume(Box<Volume>),
}

impl Ground {
    /// Makes the directory that everything begins with.
    pub(super) async fn new(suite: &str, target: &Counter) -> Self {
        let left = TempDir::new().unwrap();
        let process = Process::start(left.path(), &[]);
        for n in 0..4 {
            let mut order = Order::new(format!("before-{n}"), target.url());
            if n == 3 {
                order.body["delay"] = json!("1h");
            }
            let id = id_of(&order.send(&process.client).await.unwrap()).expect("accepted");
            if n < 2 {
                process.client.get(&format!("/tasks/{id}?wait=30s")).await;
            }
        }
        process.kill();
        let marks = TempDir::new().unwrap();
        let library = compiled(marks.path(), "refuse.so", include_str!("refuse.c"), &["-shared", "-fPIC"]);
        let place = if available(suite) {
            Place::Volume(Box::new(Volume::new()))
        } else {
            let bare = TempDir::new().unwrap();
            fs::create_dir(bare.path().join("data")).unwrap();
            Place::Bare(bare)
        };
        let ground = Self { place, left, marks, library };
        fs::create_dir(ground.dir().join("certs")).unwrap();
        for entry in fs::read_dir(ground.left.path().join("certs")).unwrap().map(Result::unwrap) {
            fs::copy(entry.path(), ground.dir().join("certs").join(entry.file_name())).unwrap();
        }
        ground
    }

    pub(super) fn dir(&self) -> &Path {
        match &self.place {
            Place::Bare(dir) => dir.path(),
            Place::Volume(volume) => volume.dir(),
        }
    }

    /// Begins again with the directory of the beginning, durably, and starts a server over it whose n-th call fails.
    pub(super) fn start(&self, n: usize) -> Child {
        let data = self.dir().join("data");
        for entry in fs::read_dir(&data).unwrap().map(Result::unwrap) {
            if entry.file_type().unwrap().is_file() {
                fs::remove_file(entry.path()).unwrap();
            }
        }
        for name in KEPT {
            fs::copy(self.left.path().join("data").join(name), data.join(name)).unwrap();
            File::open(data.join(name)).unwrap().sync_all().unwrap();
        }
        File::open(&data).unwrap().sync_all().unwrap();
        for mark in ["calls", "failed", "ended"] {
            drop(fs::remove_file(self.marks.path().join(mark)));
        }
        drop(fs::remove_file(self.dir().join("log")));
        let (data, at) = (data.canonicalize().unwrap(), n.to_string());
        let environment = [
            ("LD_PRELOAD", self.library.to_str().unwrap()),
            ("REFUSE_DIR", data.to_str().unwrap()),
            ("REFUSE_MARKS", self.marks.path().to_str().unwrap()),
            ("REFUSE_AT", &at),
        ];
        spawn(self.dir(), &environment)
    }

    /// The calls of a run in which none failed.
    pub(super) fn calls(&self) -> Vec<String> {
        fs::read_to_string(self.marks.path().join("calls")).unwrap().lines().map(str::to_owned).collect()
    }

    /// The call that failed, if one has.
    pub(super) fn failed(&self) -> Option<String> {
        fs::read_to_string(self.marks.path().join("failed")).ok()
    }

    /// Whether the call has failed, and whoever made it has had time to say so. The writer says it with its answer. The
    /// checkpointer makes its calls beside commits that are good ones: it has said it when its thread has ended.
    pub(super) fn is_over(&self) -> bool {
        let ended = || self.marks.path().join("ended").exists();
        self.failed().is_some_and(|call| !call.contains("store-checkpoi") || ended())
    }

    /// Cuts the power if there is any, ends the process, and gives power back.
    pub(super) fn lose_power(&mut self, process: Option<Process>) {
        if let Place::Volume(volume) = &mut self.place {
            volume.cut();
        }
        if let Some(process) = process {
            process.kill();
        }
        if let Place::Volume(volume) = &mut self.place {
            volume.remount(false);
        }
    }

    /// What power cuts were made of.
    pub(super) fn power(&self) -> &'static str {
        match self.place {
            Place::Bare(_) => "kill -9 for want of a volume",
            Place::Volume(_) => "power cuts",
        }
    }
}
