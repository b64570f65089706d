//! How many attempts may run against one host at one time, over all queues.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::HostsConfig;
use crate::task::LaneName;
use crate::task::header::NameId;

/// The hosts that were named, and those somebody waits for.
#[derive(Debug)]
pub(super) struct Hosts {
    config: HostsConfig,
    lanes: BTreeMap<NameId, Host>,
}

#[derive(Debug)]
struct Host {
    /// Kept so that a new configuration can be asked about it.
    name: Option<LaneName>,
    cap: u32,
    running: u32,
    /// Queues with ready tasks for it.
    queues: BTreeSet<NameId>,
}

impl Host {
    fn is_open(&self) -> bool {
        self.running < self.cap
    }
}

/// Whether a lane may start something changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Turned {
    /// Its host has a free slot again.
    Open,
    /// Its host is at its cap.
    Closed,
}

impl Hosts {
    pub(super) fn new(config: HostsConfig) -> Self {
        Self { config, lanes: BTreeMap::new() }
    }

    /// Names a lane; one that is no host (`scheme://…`) but a task type has no cap. Until it is named, the default holds.
    pub(super) fn name(&mut self, lane: NameId, name: &LaneName) -> Option<Turned> {
        let cap = cap(&self.config, Some(name));
        let host = self.host(lane);
        host.name = Some(name.clone());
        set_cap(host, cap)
    }

    /// A new configuration: the lanes that opened or closed by it.
    pub(super) fn set_config(&mut self, config: HostsConfig) -> Vec<(NameId, Turned)> {
        self.config = config;
        let mut turned = Vec::new();
        for (lane, host) in &mut self.lanes {
            turned.extend(set_cap(host, cap(&self.config, host.name.as_ref())).map(|turned| (*lane, turned)));
        }
        turned
    }

    /// Whether the host has a free slot.
    pub(super) fn is_open(&self, lane: NameId) -> bool {
        self.lanes.get(&lane).map_or(self.config.defaults.max_concurrent > 0, Host::is_open)
    }

    /// A queue has its first ready task for the host.
    pub(super) fn wanted_by(&mut self, lane: NameId, queue: NameId) {
        self.host(lane).queues.insert(queue);
    }

    /// A queue has no ready task for the host any more.
    pub(super) fn unwanted_by(&mut self, lane: NameId, queue: NameId) {
        if let Some(host) = self.lanes.get_mut(&lane) {
            host.queues.remove(&queue);
        }
    }

    /// Queues with ready tasks for the host, in order of their ids.
    pub(super) fn queues(&self, lane: NameId) -> impl Iterator<Item = NameId> {
        self.lanes.get(&lane).into_iter().flat_map(|host| host.queues.iter().copied())
    }

    /// Takes a slot of an open host.
    pub(super) fn start(&mut self, lane: NameId) -> Option<Turned> {
        let host = self.host(lane);
        let was_open = host.is_open();
        host.running = host.running.saturating_add(1);
        (was_open && !host.is_open()).then_some(Turned::Closed)
    }

    /// Gives a slot back.
    pub(super) fn finish(&mut self, lane: NameId) -> Option<Turned> {
        let host = self.host(lane);
        let was_open = host.is_open();
        host.running = host.running.saturating_sub(1);
        (!was_open && host.is_open()).then_some(Turned::Open)
    }

    fn host(&mut self, lane: NameId) -> &mut Host {
        let cap = self.config.defaults.max_concurrent;
        self.lanes.entry(lane).or_insert_with(|| Host { name: None, cap, running: 0, queues: BTreeSet::new() })
    }
}

fn cap(config: &HostsConfig, name: Option<&LaneName>) -> u32 {
    match name {
        Some(name) if !name.as_str().contains("://") => u32::MAX,
        Some(name) => config.overrides.get(name).unwrap_or(&config.defaults).max_concurrent,
        None => config.defaults.max_concurrent,
    }
}

fn set_cap(host: &mut Host, cap: u32) -> Option<Turned> {
    let was_open = host.is_open();
    host.cap = cap;
    match (was_open, host.is_open()) {
        (false, true) => Some(Turned::Open),
        (true, false) => Some(Turned::Closed),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HostConfig;

    const LANE: NameId = NameId(3);

    fn config(default: u32, special: u32) -> HostsConfig {
        HostsConfig {
            defaults: HostConfig { max_concurrent: default },
            overrides: BTreeMap::from([(LaneName::new("https://b:443"), HostConfig { max_concurrent: special })]),
        }
    }

    #[test]
    fn the_override_of_a_host_holds_then_the_default() {
        let mut hosts = Hosts::new(config(2, 1));
        assert_eq!(hosts.name(LANE, &LaneName::new("https://b:443")), None);
        assert_eq!(hosts.start(LANE), Some(Turned::Closed));
        assert!(!hosts.is_open(LANE));
        assert_eq!(hosts.name(LANE, &LaneName::new("https://a:443")), Some(Turned::Open));
        assert_eq!(hosts.start(LANE), Some(Turned::Closed));
        assert_eq!(hosts.finish(LANE), Some(Turned::Open));
    }

    #[test]
    fn a_host_knows_the_queues_that_want_it() {
        let mut hosts = Hosts::new(config(1, 1));
        for queue in [NameId(2), NameId(1), NameId(2)] {
            hosts.wanted_by(LANE, queue);
        }
        assert_eq!(hosts.queues(LANE).collect::<Vec<_>>(), [NameId(1), NameId(2)]);
        hosts.unwanted_by(LANE, NameId(2));
        assert_eq!(hosts.queues(LANE).collect::<Vec<_>>(), [NameId(1)]);
    }

    #[test]
    fn a_task_type_is_no_host_and_has_no_cap() {
        let mut hosts = Hosts::new(config(1, 1));
        hosts.name(LANE, &LaneName::new("thumbnail"));
        assert!((0..1_000).all(|_| hosts.start(LANE).is_none()));
    }

    #[test]
    fn a_cap_is_lowered_and_raised_live_and_nothing_running_is_cut() {
        let mut hosts = Hosts::new(config(8, 8));
        for _ in 0..5 {
            assert_eq!(hosts.start(LANE), None);
        }
        assert_eq!(hosts.set_config(config(3, 8)), [(LANE, Turned::Closed)]);
        assert_eq!(hosts.finish(LANE), None);
        assert_eq!(hosts.finish(LANE), None);
        assert_eq!(hosts.finish(LANE), Some(Turned::Open), "two run, three may");
        assert_eq!(hosts.start(LANE), Some(Turned::Closed));
        assert_eq!(hosts.set_config(config(4, 8)), [(LANE, Turned::Open)]);
    }
}
