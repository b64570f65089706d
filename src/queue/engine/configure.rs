//! Putting a configuration in force: at the start, and live.
//!
//! What is known of a queue, and that it is paused, is state and stays; what a configuration says of it comes and goes.

use std::sync::Arc;

use crate::clock::Now;
use crate::config::Config;
use crate::logging::event::QueueHeld;
use crate::queue::store::{Change, NameKind};
use crate::task::QueueName;
use crate::task::header::NameId;

use super::core::{Core, Turn};
use super::queue_state::QueueState;

impl Core {
    /// Puts `config` in force in place of what is: all that waits, and what ends from now on, follows it. What runs
    /// goes on, also above a lowered limit.
    pub(super) fn configure(&mut self, turn: &mut Turn<'_>, config: &Config) {
        self.queue_defaults = Arc::new(config.queue_defaults.clone());
        self.scheduler.set_workers(config.workers.max_concurrent);
        self.scheduler.set_hosts(config.hosts.clone());
        let known: Vec<NameId> = self.queues.keys().copied().collect();
        for id in known {
            if let Some(held) = self.reconfigure(id, config, turn.now) {
                turn.step.events.push(held.into());
            }
        }
        turn.step.changes.extend(self.name_new_queues(config, turn.now));
    }

    /// The limits of a queue that is known already. One that is no longer named is held from now on, one that is named
    /// again goes on; tells of tasks that have to wait by that.
    fn reconfigure(&mut self, id: NameId, config: &Config, now: Now) -> Option<QueueHeld> {
        let queue = self.queues.get_mut(&id)?;
        let named = config.queues.get(&queue.name);
        let limits = named.unwrap_or(&self.queue_defaults);
        if *queue.config != *limits {
            queue.set_config(Arc::new(limits.clone()));
            self.scheduler.set_queue(id, &queue.config, now);
        }
        if queue.configured == named.is_some() {
            return None;
        }
        queue.configured = named.is_some();
        queue.held = !queue.configured;
        self.scheduler.set_paused(id, queue.starts_nothing());
        (queue.held && queue.live > 0).then(|| QueueHeld { queue: queue.name.clone(), tasks: queue.live })
    }

    /// Makes queues known that are new in `config`; what this returns names them in the store.
    pub(super) fn name_new_queues(&mut self, config: &Config, now: Now) -> Vec<Change> {
        let mut changes = Vec::new();
        for name in config.queues.keys() {
            if !self.queue_ids.contains_key(name) {
                let id = self.new_name();
                changes.push(Change::name(NameKind::Queue, id, Arc::from(name.as_str())));
                self.know_queue(config, id, name);
                self.limit_queue(id, now);
            }
        }
        changes
    }

    /// Tells the scheduler of a queue that it does not know yet.
    pub(super) fn limit_queue(&mut self, id: NameId, now: Now) {
        if let Some(queue) = self.queues.get(&id) {
            self.scheduler.set_queue(id, &queue.config, now);
            self.scheduler.set_paused(id, queue.starts_nothing());
        }
    }

    /// A queue that was, or is about to be, named in the store.
    pub(super) fn know_queue(&mut self, config: &Config, id: NameId, name: &QueueName) {
        let configured = config.queues.get(name);
        let limits = configured.map_or_else(|| Arc::clone(&self.queue_defaults), |limits| Arc::new(limits.clone()));
        let mut state = QueueState::new(name.clone(), limits, configured.is_some());
        state.held = configured.is_none();
        self.queues.insert(id, state);
        self.queue_ids.insert(name.clone(), id);
    }
}
