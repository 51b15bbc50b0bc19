//! Who may ask next. One request is outstanding at a time, so everything that has something to ask stands in line.

use std::collections::BTreeMap;

use crate::host::binding::SlotId;

/// Which line to stand in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Lane {
    /// Somebody waits for the answer, or is cut off until it comes.
    Urgent,
    /// Extensions and giving back: soon is soon enough.
    Background,
}

/// After so many urgent ones a background one has its turn: a flood of binds must not let leases run out.
const URGENT_IN_A_ROW: u8 = 4;

/// Two lines, first come, first served in each. A slot stands in one of them, once: no more stand here than there are
/// slots.
#[derive(Debug, Default)]
pub(super) struct Queue {
    urgent: BTreeMap<u64, SlotId>,
    background: BTreeMap<u64, SlotId>,
    places: BTreeMap<SlotId, (Lane, u64)>,
    next_place: u64,
    urgent_in_a_row: u8,
}

impl Queue {
    /// Stands in line. One who stands there keeps its place, unless it moves from background to urgent.
    pub(super) fn push(&mut self, id: SlotId, lane: Lane) {
        match self.places.get(&id) {
            Some((Lane::Urgent, _)) => return,
            Some((Lane::Background, _)) if lane == Lane::Background => return,
            Some((Lane::Background, _)) => self.remove(id),
            None => {}
        }
        let place = self.next_place;
        self.next_place += 1;
        self.places.insert(id, (lane, place));
        self.lane(lane).insert(place, id);
    }

    /// Leaves the line.
    pub(super) fn remove(&mut self, id: SlotId) {
        if let Some((lane, place)) = self.places.remove(&id) {
            self.lane(lane).remove(&place);
        }
    }

    /// The next one.
    pub(super) fn pop(&mut self) -> Option<SlotId> {
        let lane = match (self.urgent.is_empty(), self.background.is_empty()) {
            (true, true) => return None,
            (false, true) => Lane::Urgent,
            (true, false) => Lane::Background,
            (false, false) if self.urgent_in_a_row >= URGENT_IN_A_ROW => Lane::Background,
            (false, false) => Lane::Urgent,
        };
        self.urgent_in_a_row = match lane {
            Lane::Urgent => self.urgent_in_a_row.saturating_add(1),
            Lane::Background => 0,
        };
        let (_, id) = self.lane(lane).pop_first()?;
        self.places.remove(&id);
        Some(id)
    }

    /// Nobody stands here.
    pub(super) fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// Everybody leaves.
    pub(super) fn clear(&mut self) {
        *self = Self { next_place: self.next_place, ..Self::default() };
    }

    fn lane(&mut self, lane: Lane) -> &mut BTreeMap<u64, SlotId> {
        match lane {
            Lane::Urgent => &mut self.urgent,
            Lane::Background => &mut self.background,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(queue: &mut Queue) -> Vec<u64> {
        std::iter::from_fn(|| queue.pop()).map(|id| id.0).collect()
    }

    #[test]
    fn serves_in_order_and_each_once() {
        let mut queue = Queue::default();
        for id in [3, 1, 2, 3, 1] {
            queue.push(SlotId(id), Lane::Urgent);
        }
        assert_eq!(drain(&mut queue), [3, 1, 2]);
    }

    #[test]
    fn background_has_its_turn_in_a_flood() {
        let mut queue = Queue::default();
        queue.push(SlotId(100), Lane::Background);
        queue.push(SlotId(101), Lane::Background);
        for id in 0..10 {
            queue.push(SlotId(id), Lane::Urgent);
        }
        assert_eq!(drain(&mut queue), [0, 1, 2, 3, 100, 4, 5, 6, 7, 101, 8, 9]);
    }

    #[test]
    fn urgency_moves_one_up_and_never_down() {
        let mut queue = Queue::default();
        queue.push(SlotId(1), Lane::Background);
        queue.push(SlotId(2), Lane::Background);
        queue.push(SlotId(2), Lane::Urgent);
        queue.push(SlotId(2), Lane::Background);
        assert_eq!(drain(&mut queue), [2, 1]);
    }

    #[test]
    fn who_left_is_not_served_and_leaves_no_trace() {
        let mut queue = Queue::default();
        for id in 0..1000 {
            queue.push(SlotId(id), Lane::Urgent);
            queue.remove(SlotId(id));
        }
        assert!(queue.urgent.is_empty() && queue.places.is_empty());
        queue.push(SlotId(7), Lane::Urgent);
        queue.clear();
        assert_eq!(queue.pop(), None);
    }
}
