//! What will happen, in order of time and of having been planned.

use std::collections::BTreeMap;
use std::rc::Rc;

use sendoff::queue::lease::Settlement;

use crate::sim::arrivals::Letter;
use crate::sim::faults::Fault;

/// Something that will happen at a moment of the world.
#[derive(Debug)]
pub(super) enum Event {
    /// A client has a new wish.
    Arrive,
    /// A client sends what it sent before.
    Again(Rc<Letter>, u32),
    /// A client does something to tasks that exist.
    Act,
    /// An attempt that began in this process is over.
    Settle(u32, Settlement),
    /// An outcome comes again, or from a process that is gone: nobody holds its lease.
    Ghost(Settlement),
    Fault(Fault),
    /// Nothing goes wrong any more, and what was changed is as in the beginning.
    Calm,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    events: BTreeMap<(i64, u64), Event>,
    planned: u64,
}

impl Agenda {
    pub(super) fn plan(&mut self, at: i64, event: Event) -> (i64, u64) {
        self.planned += 1;
        self.events.insert((at, self.planned), event);
        (at, self.planned)
    }

    /// Takes something from the agenda that will not happen.
    pub(super) fn strike_out(&mut self, place: (i64, u64)) -> Option<Event> {
        self.events.remove(&place)
    }

    pub(super) fn next(&self) -> Option<i64> {
        self.events.keys().next().map(|(at, _)| *at)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty()
    }

    /// The next event, if its time has come.
    pub(super) fn pop(&mut self, at: i64) -> Option<Event> {
        let first = self.events.first_entry().filter(|first| first.key().0 <= at)?;
        Some(first.remove())
    }

    /// What clients will have sent by `at`.
    pub(super) fn take_mail(&mut self, at: i64) -> Vec<Event> {
        let of_clients = |event: &Event| matches!(event, Event::Arrive | Event::Again(..) | Event::Act);
        let due = self.events.range(..=(at, u64::MAX)).filter(|(_, event)| of_clients(event));
        let places: Vec<_> = due.map(|(place, _)| *place).collect();
        places.iter().filter_map(|place| self.events.remove(place)).collect()
    }
}
