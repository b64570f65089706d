//! Rows of the store, changed by somebody else: what no longer fits its checksum is told as damage, and what does is
//! read as it stands there, or told as damage. The layout under the checksums is written down here once more, so that a
//! change of the format that forgets its number is noticed.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use rusqlite::Connection;
use rusqlite::types::Value;
use sendoff::clock::Clock;
use sendoff::queue::store::{Change, NameKind, Row, SqliteOptions, SqliteStore, Store};
use sendoff::task::header::NameId;
use sendoff::task::name::LabelName;
use sendoff::task::{
    Attempt, Body, Header, IdTail, KeyCounter, LeaseKind, NoCredential, OutcomeClass, RetryOverrides, Span, Status,
    TaskName, TaskType, WallMs,
};
use tokio::runtime::Runtime;
use twox_hash::XxHash3_64;

/// A table, its columns under the checksum, how many of them are numbers, and where the checksum stands.
struct Table {
    name: &'static str,
    columns: &'static str,
    numbers: usize,
    /// The last column is hashed apart, because it may be large.
    large: bool,
}

const TABLES: [Table; 3] = [
    Table {
        name: "task",
        columns: "tail, queue, lane, status, priority, flags, series, attempts, attempts_total, interruptions, epoch, \
                  lease, lease_until, due, expires_at, give_up_at, first_dispatched_at, submitted_at, changed_at, \
                  last_class, last_http_status, dead_reason, payload_bytes",
        numbers: 23,
        large: false,
    },
    Table { name: "payload", columns: "type, name, idempotency, meta, body", numbers: 0, large: true },
    Table {
        name: "attempt",
        columns: "n, series, number, started_at, took_ms, class, http_status, error, head",
        numbers: 7,
        large: true,
    },
];

/// A store with one task that has a history, and a second connection to it.
pub(super) struct Ground {
    runtime: Runtime,
    store: SqliteStore,
    other: Connection,
    header: Header,
}

impl Ground {
    pub(super) fn new(dir: &Path) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let store = SqliteStore::open(dir, SqliteOptions::new(Clock::system())).unwrap();
        let (queued, body) = task();
        let running = Header { status: Status::Running, epoch: 2, lease: Some(LeaseKind::Pool), ..queued.clone() };
        let header = Header { status: Status::Retrying, epoch: 3, lease: None, ..running.clone() };
        let changes = vec![
            Change::name(NameKind::Queue, NameId(0), Arc::from("default")),
            Change::name(NameKind::Lane, NameId(0), Arc::from("https://a.example:443")),
            Change::insert(queued.clone(), Arc::new(body)),
            Change::start(&queued, running.clone()),
            Change::settle(&running, header.clone(), attempt()),
        ];
        runtime.block_on(store.commit(changes)).unwrap();
        let other = Connection::open(dir.join("sendoff.db")).unwrap();
        other.pragma_update(None, "synchronous", "OFF").unwrap();
        Self { runtime, store, other, header }
    }

    fn cells(&self, table: &Table) -> Vec<Value> {
        let sql = format!("SELECT {}, checksum FROM {}", table.columns, table.name);
        let count = table.columns.split(", ").count() + 1;
        self.other.query_row(&sql, [], |row| (0..count).map(|at| row.get(at)).collect()).unwrap()
    }

    /// Says whether SQLite lets it be: some columns are never NULL.
    fn write(&self, table: &Table, cells: &[Value]) -> bool {
        let sets: Vec<_> = table.columns.split(", ").chain(["checksum"]).map(|name| format!("{name} = ?")).collect();
        // `n` is part of the key of an attempt: there is one row, so no condition is needed.
        let sql = format!("UPDATE {} SET {}", table.name, sets.join(", "));
        self.other.execute(&sql, rusqlite::params_from_iter(cells)).is_ok()
    }

    fn row(&self) -> Option<Row> {
        self.runtime.block_on(self.store.rows(vec![self.header.key])).unwrap().pop().unwrap()
    }

    fn attempts(&self) -> Vec<Attempt> {
        let record = self.runtime.block_on(self.store.record(sendoff::task::TaskRef::by_id(self.header.id())));
        record.unwrap().expect("it is found by its id").attempts
    }
}

/// The body: the first byte says which table, and whether the checksum is made to fit; the others edit cells.
pub(super) fn records(input: &[u8], ground: &Ground) {
    let Some((first, mut edits)) = input.split_first() else { return };
    let table = &TABLES[usize::from(first & 0x7f) % TABLES.len()];
    let sealed = first & 0x80 != 0;
    let before = ground.cells(table);
    let mut cells = before.clone();
    let checksum = cells.len() - 1;
    while let Some(next) = edit(edits, &mut cells[..checksum]) {
        edits = next;
    }
    if sealed {
        cells[checksum] = Value::Integer(sum(table, ground.header.key.to_i64(), &cells[..checksum]));
    }
    if !ground.write(table, &cells) {
        return;
    }
    let content = &cells[..checksum];
    let changed = content != &before[..checksum];
    match table.name {
        "task" => task_reads(ground, content, changed, sealed),
        "payload" => payload_reads(ground, content, changed, sealed),
        _ => attempt_reads(ground, content, changed, sealed),
    }
    assert!(ground.write(table, &before));
}

fn task_reads(ground: &Ground, cells: &[Value], changed: bool, sealed: bool) {
    let row = ground.row().expect("its row is there");
    let Ok(_) = row.body else {
        assert!(changed, "an untouched row is damaged: {:?}", row.body);
        return;
    };
    assert!(sealed || !changed, "a changed row went unnoticed: {cells:?}");
    let number = |at: usize| match &cells[at] {
        Value::Integer(number) => Some(*number),
        Value::Null => None,
        other @ (Value::Real(_) | Value::Text(_) | Value::Blob(_)) => panic!("{other:?} was read as a number"),
    };
    let header = row.header;
    assert_eq!(number(6), Some(i64::from(header.series)));
    assert_eq!(number(7), Some(i64::from(header.attempts)));
    assert_eq!(number(10), Some(i64::from(header.epoch)));
    assert_eq!(number(12), header.lease_until.map(WallMs::get));
    assert_eq!(number(13), Some(header.due.get()));
    assert_eq!(number(20), header.last_http_status.map(i64::from));
    assert_eq!(number(22), Some(i64::from(header.payload_bytes)));
}

fn payload_reads(ground: &Ground, cells: &[Value], changed: bool, sealed: bool) {
    let row = ground.row().expect("its header is untouched");
    let Ok(body) = row.body else {
        assert!(changed, "an untouched row is damaged: {:?}", row.body);
        return;
    };
    assert!(sealed || !changed, "a changed row went unnoticed: {cells:?}");
    assert_eq!(bytes(&cells[0]), Some(body.task_type.as_str().as_bytes()));
    assert_eq!(bytes(&cells[1]), body.name.as_ref().map(|name| name.as_str().as_bytes()));
    assert_eq!(bytes(&cells[4]), Some(&body.payload[..]));
}

fn attempt_reads(ground: &Ground, cells: &[Value], changed: bool, sealed: bool) {
    let attempts = ground.attempts();
    let [attempt] = &attempts[..] else { panic!("one attempt was made, {attempts:?} are shown") };
    if attempt.class == OutcomeClass::Corrupt {
        assert!(changed, "an untouched row is damaged: {attempt:?}");
        return;
    }
    assert!(sealed || !changed, "a changed row went unnoticed: {cells:?}");
    assert_eq!(cells[0], Value::Integer(i64::from(attempt.ordinal)));
    assert_eq!(cells[3], Value::Integer(attempt.started_at.get()));
    assert_eq!(bytes(&cells[7]).map(String::from_utf8_lossy), attempt.error.as_deref().map(Into::into));
    assert_eq!(bytes(&cells[8]).unwrap_or_default(), &attempt.response_head[..]);
}

/// One edit: a cell and what becomes of it. What is left of the input; `None` when there was no whole edit in it.
fn edit<'a>(input: &'a [u8], cells: &mut [Value]) -> Option<&'a [u8]> {
    let ([at, kind], rest) = input.split_first_chunk()?;
    let cell = &mut cells[usize::from(*at) % cells.len()];
    let (taken, rest) = match kind % 5 {
        0 => {
            *cell = Value::Null;
            return Some(rest);
        }
        1 => {
            let (number, rest) = rest.split_first_chunk::<8>()?;
            *cell = Value::Integer(i64::from_be_bytes(*number));
            return Some(rest);
        }
        2 => {
            let (small, rest) = rest.split_first()?;
            *cell = Value::Integer(i64::from(small.cast_signed()));
            return Some(rest);
        }
        _ => {
            let (len, rest) = rest.split_first()?;
            rest.split_at(usize::from(*len).min(rest.len()))
        }
    };
    *cell = match std::str::from_utf8(taken) {
        Ok(text) if kind % 5 == 3 => Value::Text(text.to_owned()),
        _ => Value::Blob(taken.to_vec()),
    };
    Some(rest)
}

fn bytes(value: &Value) -> Option<&[u8]> {
    match value {
        Value::Text(text) => Some(text.as_bytes()),
        Value::Blob(blob) => Some(blob),
        Value::Null | Value::Integer(_) | Value::Real(_) => None,
    }
}

/// The checksum of format 2: table, row id, numbers with a byte that says whether they are there, the rest with their
/// lengths; what may be large is hashed with the hash of all that as its seed.
fn sum(table: &Table, id: i64, cells: &[Value]) -> i64 {
    fn put(out: &mut Vec<u8>, number: Option<i64>) {
        out.push(u8::from(number.is_some()));
        out.extend(number.unwrap_or(0).to_le_bytes());
    }
    let (last, others) = cells.split_last().unwrap();
    let (large, small) = if table.large { (bytes(last).unwrap_or_default(), others) } else { (&[][..], cells) };
    let mut out = table.name.as_bytes().to_vec();
    out.extend(id.to_le_bytes());
    for (at, cell) in small.iter().enumerate() {
        if at < table.numbers {
            put(&mut out, if let Value::Integer(number) = cell { Some(*number) } else { None });
        } else {
            put(&mut out, bytes(cell).map(|bytes| i64::try_from(bytes.len()).unwrap()));
            out.extend_from_slice(bytes(cell).unwrap_or_default());
        }
    }
    XxHash3_64::oneshot_with_seed(XxHash3_64::oneshot(&out), large).cast_signed()
}

fn task() -> (Header, Body) {
    let noon = WallMs::parse("2026-11-24T12:00:00Z").unwrap();
    let header = Header {
        due_on_wall: true,
        expires_at: Some(noon),
        no_credential: NoCredential { waits: 2, refusals: 1 },
        payload_bytes: 9,
        ..Header::accepted(KeyCounter::after(None, 0).next(noon), IdTail::new(0xfeed), (NameId(0), NameId(0)), noon)
    };
    let retry = RetryOverrides { max_attempts: Some(3), jitter: Some(0.25), ..RetryOverrides::default() };
    let body = Body {
        task_type: TaskType::parse("http_request").unwrap(),
        name: Some(TaskName::parse("order:7").unwrap()),
        labels: vec![(LabelName::parse("tenant").unwrap(), String::from("42 é"))],
        timeout: Some(Span::from_secs(10)),
        retry,
        idempotency: Some(7),
        payload: Bytes::from_static(b"{\"a\": 1 }"),
    };
    (header, body)
}

fn attempt() -> Attempt {
    Attempt {
        ordinal: 1,
        series: 1,
        number: 1,
        started_at: WallMs::new(1_000),
        took: Span::from_millis(12),
        class: OutcomeClass::HttpStatus,
        http_status: Some(500),
        error: Some(String::from("it said no")),
        response_head: Bytes::from_static(b"no"),
    }
}
