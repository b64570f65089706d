//! Rows seen moments ago of tasks that are about to start: a bounded cache, so that the fast path reads no disk.

use std::collections::BTreeMap;

use crate::queue::store::Row;
use crate::task::limits::RECENT_PAYLOAD_BYTES_MAX;
use crate::task::{Span, TaskKey, WallMs};

use super::draft::Draft;

/// Tasks that are due later than this are not kept: they would fill the cache for nothing.
const SOON: Span = Span::from_secs(60);
/// What a row takes beside its payload, in bytes.
const ROW_BYTES: usize = 512;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Recent {
    rows: BTreeMap<TaskKey, Row>,
    bytes: usize,
}

impl Recent {
    /// The row of a task, given away: whoever takes it is about to change it.
    pub(super) fn take(&mut self, key: TaskKey) -> Option<Row> {
        let row = self.rows.remove(&key)?;
        self.bytes = self.bytes.saturating_sub(bytes_of(&row));
        Some(row)
    }

    /// Takes over what a turn has seen: the row of every task that waits and is due soon, as long as there is room.
    /// Whatever else the turn has touched is forgotten.
    pub(super) fn learn(&mut self, draft: Draft, now: WallMs) {
        for (key, row) in draft.into_rows() {
            drop(self.take(key));
            let soon = now.plus(SOON.to_duration());
            let Some(row) = row.filter(|row| row.header.status.is_waiting() && row.header.due <= soon) else {
                continue;
            };
            let bytes = bytes_of(&row);
            if self.bytes + bytes <= RECENT_PAYLOAD_BYTES_MAX {
                self.bytes += bytes;
                self.rows.insert(key, row);
            }
        }
    }
}

fn bytes_of(row: &Row) -> usize {
    ROW_BYTES + row.body.as_ref().map_or(0, |body| body.payload.len())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use bytes::Bytes;

    use super::*;
    use crate::task::header::NameId;
    use crate::task::{Body, Header, IdTail, KeyCounter, LaneName, QueueName, RetryOverrides, Status, TaskType};

    fn row(keys: &mut KeyCounter, status: Status, due: i64, payload: usize) -> Row {
        let key = keys.next(WallMs::new(1_800_000_000_000));
        let header = Header {
            status,
            due: WallMs::new(due),
            ..Header::accepted(key, IdTail::new(1), (NameId(1), NameId(2)), WallMs::new(0))
        };
        let body = Body {
            task_type: TaskType::parse("t").unwrap(),
            name: None,
            labels: Vec::new(),
            timeout: None,
            retry: RetryOverrides::default(),
            idempotency: None,
            payload: Bytes::from(vec![0; payload]),
        };
        let queue = QueueName::parse("q").unwrap();
        Row { header, queue, lane: LaneName::new("l"), body: Ok(Arc::new(body)) }
    }

    fn learn(recent: &mut Recent, rows: impl IntoIterator<Item = Row>) {
        let mut draft = Draft::default();
        rows.into_iter().for_each(|row| draft.put(row));
        recent.learn(draft, WallMs::new(0));
    }

    #[test]
    fn only_tasks_that_start_soon_are_kept_and_changes_replace_them() {
        let (mut recent, mut keys) = (Recent::default(), KeyCounter::after(None, 0));
        let soon = row(&mut keys, Status::Queued, 60_000, 10);
        let late = row(&mut keys, Status::Scheduled, 60_001, 10);
        let running = row(&mut keys, Status::Running, 0, 10);
        let names = [soon.header.key, late.header.key, running.header.key];
        learn(&mut recent, [soon.clone(), late, running]);
        assert_eq!(names.map(|key| recent.rows.contains_key(&key)), [true, false, false]);

        let mut ended = soon.clone();
        ended.header.status = Status::Cancelled;
        learn(&mut recent, [ended]);
        assert_eq!(recent.take(soon.header.key), None);
        assert_eq!(recent.bytes, 0);
    }

    #[test]
    fn payloads_are_kept_up_to_the_bound_and_not_beyond() {
        let (mut recent, mut keys) = (Recent::default(), KeyCounter::after(None, 0));
        let most = RECENT_PAYLOAD_BYTES_MAX - ROW_BYTES;
        let too_large = row(&mut keys, Status::Queued, 0, most + 1);
        let largest = row(&mut keys, Status::Queued, 0, most);
        let one_more = row(&mut keys, Status::Queued, 0, 0);
        let names = [&too_large, &largest, &one_more].map(|row| row.header.key);
        learn(&mut recent, [too_large, largest, one_more]);
        assert_eq!(names.map(|key| recent.take(key).is_some()), [false, true, false]);
        assert_eq!(recent.bytes, 0);
    }
}
