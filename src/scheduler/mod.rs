//! stub
use crate::clock::Now;
use crate::config::{HostsConfig, QueueConfig};
use crate::task::header::NameId;
use crate::task::*;
use std::time::Duration;
#[derive(Debug, Clone, Copy)]
pub struct Waiting {
    pub key: TaskKey,
    pub queue: NameId,
    pub lane: NameId,
    pub priority: Priority,
    pub due: WallMs,
    pub due_on_wall: bool,
    pub ahead: bool,
    pub retrying: bool,
    pub deadline: Option<WallMs>,
}
impl Waiting {
    pub fn of(_h: &Header) -> Self {
        todo!()
    }
}
pub struct Pick {
    pub key: TaskKey,
    pub queue: NameId,
    pub lane: NameId,
}
pub struct Counts {
    pub scheduled: u64,
    pub queued: u64,
    pub retrying: u64,
    pub running: u64,
    pub oldest_ready: Option<WallMs>,
}
pub struct Look {
    pub promoted: u64,
    pub jumped: Option<i64>,
}
#[derive(Debug)]
pub struct Scheduler;
impl Scheduler {
    pub fn new(_workers_max: u32, _hosts: HostsConfig, _now: Now) -> Self {
        todo!()
    }
    pub fn name_lane(&mut self, _lane: NameId, _name: &LaneName) {}
    pub fn set_queue(&mut self, _queue: NameId, _config: &QueueConfig, _now: Now) {}
    pub fn set_paused(&mut self, _queue: NameId, _paused: bool) {}
    pub fn due_after(&self, _delay: Span, _now: Now) -> WallMs {
        todo!()
    }
    pub fn insert(&mut self, _task: &Waiting, _now: Now) {}
    pub fn load(&mut self, _tasks: Vec<Waiting>, _now: Now) {}
    pub fn remove(&mut self, _task: &Waiting) -> bool {
        todo!()
    }
    pub fn look(&mut self, _now: Now) -> Look {
        todo!()
    }
    pub fn overdue(&mut self, _now: Now, _max: usize) -> Vec<TaskKey> {
        todo!()
    }
    pub fn clock_trusted(&self) -> bool {
        todo!()
    }
    pub fn pick(&mut self, _now: Now) -> Option<Pick> {
        todo!()
    }
    pub fn finish(&mut self, _queue: NameId, _lane: NameId) {}
    pub fn next_look(&self, _now: Now) -> Option<Duration> {
        todo!()
    }
    pub fn counts(&self, _queue: NameId) -> Counts {
        todo!()
    }
}
