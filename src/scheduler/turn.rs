//! Whose turn it is: queues share the worker slots by weight (stride scheduling, Waldspurger and Weihl 1995).
//!
//! Every queue has a pass, which grows by `STRIDE / weight` with each start; the queue with the lowest pass is next.
//! While two queues both could start, their starts divided by their weights never differ by more than one start of the
//! lighter one. A queue that comes back from being idle or blocked goes on from where the others are: nothing is saved.

use std::collections::{BTreeMap, BTreeSet};

use crate::task::header::NameId;

/// What a start costs a queue of weight 1. In 128 bits it cannot run out.
const STRIDE: u128 = 1 << 40;

/// The queues in their turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    /// Those that could start something now, the next one first; ties go by name id.
    line: BTreeSet<(u128, NameId)>,
    /// The pass of the queue that started last, at that moment: where newcomers go on from.
    reached: u128,
    queues: BTreeMap<NameId, Turn>,
}

#[derive(Debug, Clone, Copy)]
struct Turn {
    pass: u128,
    stride: u128,
    in_line: bool,
}

impl Turns {
    /// Makes a queue known, or changes its weight (starts from now on cost accordingly).
    pub(super) fn set_weight(&mut self, queue: NameId, weight: u32) {
        let stride = STRIDE / u128::from(weight.max(1));
        let fresh = Turn { pass: self.reached, stride, in_line: false };
        self.queues.entry(queue).or_insert(fresh).stride = stride;
    }

    /// The queue could start something now.
    pub(super) fn join(&mut self, queue: NameId) {
        let reached = self.reached;
        if let Some(turn) = self.queues.get_mut(&queue).filter(|turn| !turn.in_line) {
            turn.in_line = true;
            turn.pass = turn.pass.max(reached);
            self.line.insert((turn.pass, queue));
        }
    }

    /// The queue cannot start anything now.
    pub(super) fn leave(&mut self, queue: NameId) {
        if let Some(turn) = self.queues.get_mut(&queue).filter(|turn| turn.in_line) {
            turn.in_line = false;
            self.line.remove(&(turn.pass, queue));
        }
    }

    /// Who is next.
    pub(super) fn next(&self) -> Option<NameId> {
        self.line.first().map(|(_, queue)| *queue)
    }

    /// The queue, which is in line, has started something.
    pub(super) fn charge(&mut self, queue: NameId) {
        if let Some(turn) = self.queues.get_mut(&queue).filter(|turn| turn.in_line) {
            self.line.remove(&(turn.pass, queue));
            self.reached = self.reached.max(turn.pass);
            turn.pass += turn.stride;
            self.line.insert((turn.pass, queue));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn turns(weights: &[u32]) -> Turns {
        let mut turns = Turns::default();
        for (id, weight) in (0_u32..).zip(weights) {
            turns.set_weight(NameId(id), *weight);
            turns.join(NameId(id));
        }
        turns
    }

    fn start(turns: &mut Turns) -> u32 {
        let queue = turns.next().unwrap();
        turns.charge(queue);
        queue.0
    }

    #[test]
    fn equal_weights_take_turns_in_order_of_their_ids() {
        let mut turns = turns(&[1, 1, 1]);
        let order: Vec<u32> = (0..7).map(|_| start(&mut turns)).collect();
        assert_eq!(order, [0, 1, 2, 0, 1, 2, 0]);
    }

    #[test]
    fn a_queue_that_was_idle_saved_nothing_up() {
        let mut turns = turns(&[1, 1]);
        turns.leave(NameId(1));
        assert!((0..100).all(|_| start(&mut turns) == 0));
        turns.join(NameId(1));
        let order: Vec<u32> = (0..6).map(|_| start(&mut turns)).collect();
        assert_eq!(order, [1, 0, 1, 0, 1, 0]);
    }

    #[test]
    fn leaving_and_coming_back_does_not_shed_what_was_used() {
        let mut turns = turns(&[1, 1]);
        assert_eq!(start(&mut turns), 0);
        turns.leave(NameId(0));
        turns.join(NameId(0));
        assert_eq!(start(&mut turns), 1);
    }

    #[test]
    fn a_weight_changes_live_and_zero_counts_as_one() {
        let mut turns = turns(&[0, 1]);
        turns.set_weight(NameId(1), 3);
        let order: Vec<u32> = (0..40).map(|_| start(&mut turns)).collect();
        assert_eq!(order.iter().filter(|id| **id == 0).count(), 10);
    }

    #[test]
    fn what_is_not_in_line_is_neither_next_nor_charged() {
        let mut turns = Turns::default();
        turns.join(NameId(4));
        turns.charge(NameId(4));
        turns.leave(NameId(4));
        assert_eq!(turns.next(), None);
    }

    proptest! {
        #[test]
        fn shares_are_as_the_weights_within_one_turn(weights in proptest::collection::vec(1_u32..1_000, 2..6), starts in 1_usize..3_000) {
            let mut turns = turns(&weights);
            let mut got = vec![0_u32; weights.len()];
            for _ in 0..starts {
                got[start(&mut turns) as usize] += 1;
                for (a, b) in (0..weights.len()).flat_map(|a| (0..a).map(move |b| (a, b))) {
                    let (share_a, share_b) = (f64::from(got[a]) / f64::from(weights[a]), f64::from(got[b]) / f64::from(weights[b]));
                    let turn = 1.0 / f64::from(weights[a].min(weights[b]));
                    prop_assert!((share_a - share_b).abs() <= turn + 1e-6, "{got:?} for {weights:?}");
                }
            }
        }
    }
}
