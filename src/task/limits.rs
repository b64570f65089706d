//! Every bound of sendoff, named, with its unit: one table in one file.

use super::time::Span;

/// One bound, for whoever wants to read them all (`sendoff limits`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limit {
    /// The constant's name; its unit stands in it.
    pub name: &'static str,
    /// The value as people write it: `1048576`, `1m30s`.
    pub value: String,
    /// The unit of the value; empty for times, which carry theirs.
    pub unit: &'static str,
    /// What it bounds.
    pub meaning: String,
}

/// Declares the constants as they stand, and [`table`] of them all: none can be forgotten there.
macro_rules! limits {
    ($($(#[doc = $doc:literal])+ pub const $name:ident: $kind:ty = $value:expr;)+) => {
        $($(#[doc = $doc])+ pub const $name: $kind = $value;)+

        /// Every bound of this file.
        pub fn table() -> Vec<Limit> {
            vec![$(Limit {
                name: stringify!($name),
                value: $name.to_string(),
                unit: unit(stringify!($name), stringify!($kind)),
                meaning: meaning(concat!($($doc),+)),
            }),+]
        }
    };
}

/// The unit that a name carries (`…_BYTES_MAX`), where its type does not.
fn unit(name: &str, kind: &str) -> &'static str {
    let has = |word: &str| name.split('_').any(|part| part == word);
    if kind == "Span" {
        ""
    } else if has("BYTES") {
        "bytes"
    } else if has("LEN") {
        if name == "PATH_LEN_MAX" { "bytes" } else { "characters" }
    } else if has("RATE") {
        "per second"
    } else {
        ""
    }
}

/// A doc comment as plain text.
fn meaning(doc: &str) -> String {
    doc.trim().replace(['[', ']', '`'], "")
}

limits! {
/// Characters of a queue, type, label or handler name.
pub const NAME_LEN_MAX: usize = 128;
/// Characters of a client's own `task_id`.
pub const TASK_NAME_LEN_MAX: usize = 256;
/// Characters of a label's value.
pub const LABEL_VALUE_LEN_MAX: usize = 256;
/// Labels of one task.
pub const LABELS_MAX: usize = 32;
/// Characters of an `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_LEN_MAX: usize = 256;

/// Default bound on one task's payload, in bytes.
pub const PAYLOAD_BYTES_DEFAULT: u64 = 1024 * 1024;
/// What `limits.payload_bytes` may be set to, in bytes.
pub const PAYLOAD_BYTES_MAX: u64 = 10 * 1024 * 1024;
/// What a single-task request may add around its payload (retry, labels, …), in bytes.
pub const TASK_ENVELOPE_BYTES_MAX: usize = 64 * 1024;
/// Tasks in one batch.
pub const BATCH_TASKS_MAX: usize = 10_000;
/// Body of a batch request, in bytes.
pub const BATCH_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes of a batch of lines that are read off the threads that serve others in one go.
pub const LINES_PIECE_BYTES: usize = 256 * 1024;
/// Body of any other request, in bytes.
pub const SMALL_BODY_BYTES_MAX: usize = 64 * 1024;
/// All request bodies being read at one time, in bytes.
pub const BODIES_IN_FLIGHT_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Connections of clients at one time; further ones wait in the kernel's queue.
pub const CLIENT_CONNECTIONS_MAX: u32 = 10_000;
/// How long a client's TLS handshake may take.
pub const TLS_HANDSHAKE_MAX: Span = Span::from_secs(10);
/// How long a connection may take from its handshake to the end of its first request's head.
pub const FIRST_REQUEST_MAX: Span = Span::from_secs(10);
/// From the end of an answer to the end of the next request's head, whatever the client sends meanwhile.
pub const CLIENT_IDLE_MAX: Span = Span::from_secs(75);
/// How long a connection on which a request is being worked on may go without any progress.
pub const CLIENT_STALLED_MAX: Span = Span::from_secs(180);
/// HTTP/2: how often a ping is sent to a client, and how quickly it has to be answered.
pub const HTTP2_PING_EVERY: Span = Span::from_secs(20);
/// HTTP/2: requests at one time on one connection.
pub const HTTP2_STREAMS_MAX: u32 = 250;
/// HTTP/2: streams that a client opened and reset before they were looked at; more end its connection.
pub const HTTP2_RESETS_MAX: usize = 50;
/// A request's line and headers together, in bytes.
pub const REQUEST_HEAD_BYTES_MAX: u32 = 32 * 1024;
/// HTTP/1.1: headers of a request.
pub const HTTP1_HEADERS_MAX: usize = 100;
/// How long a request's body may take to arrive.
pub const BODY_READ_MAX: Span = Span::from_secs(60);
/// Characters of a caller's own `X-Request-Id`.
pub const REQUEST_ID_LEN_MAX: usize = 128;
/// Headers of one HTTP task.
pub const TARGET_HEADERS_MAX: usize = 64;
/// Headers of one HTTP task, names and values together, in bytes.
pub const TARGET_HEADER_BYTES_MAX: usize = 16 * 1024;
/// Characters of a target URL.
pub const TARGET_URL_LEN_MAX: usize = 8 * 1024;
/// Faults reported for one request or configuration file.
pub const FAULTS_REPORTED_MAX: usize = 100;
/// Changes that the event of one reload spells out.
pub const CHANGES_REPORTED_MAX: usize = 100;
/// Characters of one value in it.
pub const CHANGE_VALUE_CHARS_MAX: usize = 200;

/// Tasks on one page when the caller does not say.
pub const PAGE_DEFAULT: u32 = 100;
/// Tasks on one page at most.
pub const PAGE_MAX: u32 = 1_000;
/// Rows looked at for one page; a page may therefore be short.
pub const PAGE_ROWS_SCANNED_MAX: u32 = 5_000;
/// Payload bytes on one page, roughly: reached, the page ends early.
pub const PAGE_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Rows asked of the store in one step of a page, so that no page is held in memory as a whole before it is cut.
pub const PAGE_STEP_ROWS: u32 = 100;

/// Longest long poll (`?wait=`).
pub const WAIT_MAX: Span = Span::from_secs(60);
/// Long polls held open at one time.
pub const WAITERS_MAX: usize = 10_000;
/// How far ahead `run_at`, `delay` and `expires_at` may lie (five years).
pub const RUN_AHEAD_MAX: Span = Span::from_secs(5 * 366 * 86_400);
/// How long an `Idempotency-Key` is remembered, from acceptance.
pub const IDEMPOTENCY_WINDOW: Span = Span::from_secs(24 * 3_600);

/// Deadline of one attempt when the task does not say.
pub const TIMEOUT_DEFAULT: Span = Span::from_secs(30);
/// Longest deadline of one attempt.
pub const TIMEOUT_MAX: Span = Span::from_secs(24 * 3_600);
/// Shortest deadline of one attempt.
pub const TIMEOUT_MIN: Span = Span::from_millis(1);
/// Bytes kept of a response body.
pub const RESPONSE_HEAD_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a response body read and dropped so that its connection can be used again.
pub const RESPONSE_DRAIN_BYTES_MAX: usize = 64 * 1024;
/// Characters of a target's HTTP method.
pub const TARGET_METHOD_LEN_MAX: usize = 32;
/// Lookups of host names at one time: fewer than the threads that may block, which others need too.
pub const DNS_LOOKUPS_MAX: usize = 128;
/// Idle connections kept for one host.
pub const CONNECTIONS_IDLE_PER_HOST_MAX: usize = 256;
/// How long an idle connection is kept; shorter than most targets keep theirs, so that few are found closed.
pub const CONNECTION_IDLE_MAX: Span = Span::from_secs(30);
/// How often a busy HTTP/2 connection is asked whether it still lives.
pub const HTTP2_PING_INTERVAL: Span = Span::from_secs(20);
/// How long it may take to answer.
pub const HTTP2_PING_ANSWER_MAX: Span = Span::from_secs(10);
/// Characters kept of an attempt's error message.
pub const ERROR_LEN_MAX: usize = 1_024;

/// What `max_attempts` may be.
pub const ATTEMPTS_MAX: u32 = 1_000_000;
/// What `max_doublings` may be.
pub const DOUBLINGS_MAX: u32 = 64;
/// What `min_backoff`, `max_backoff` and `priority_aging` may be.
pub const BACKOFF_MAX: Span = Span::from_secs(366 * 86_400);
/// How often whoever issues a task's credential may say no (400, 401) before the task is dead.
pub const ISSUER_REFUSALS_MAX: u8 = 3;
/// Attempts kept of a series at its beginning.
pub const ATTEMPTS_KEPT_FIRST: u32 = 20;
/// Attempts kept at its end.
pub const ATTEMPTS_KEPT_LAST: u32 = 20;

/// What `max_dispatches_per_second` may be at least (one a day and a bit); lower, and pause is what is meant.
pub const RATE_PER_SECOND_MIN: f64 = 0.000_01;
/// What `max_dispatches_per_second` may be at most.
pub const RATE_PER_SECOND_MAX: f64 = 1_000_000.0;
/// What `max_burst_size` may be.
pub const BURST_MAX: u32 = 1_000_000;
/// What `max_concurrent_dispatches`, `workers.max_concurrent` and a host's `max_concurrent` may be.
pub const CONCURRENT_MAX: u32 = 100_000;
/// What a queue's `weight` may be.
pub const WEIGHT_MAX: u32 = 1_000;

/// Commands waiting for the engine; more are answered "busy".
pub const COMMANDS_QUEUED_MAX: usize = 8_192;
/// Bytes of commands waiting for the engine.
pub const COMMANDS_QUEUED_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Commands taken into one commit.
pub const COMMIT_COMMANDS_MAX: usize = 4_096;
/// Bytes of one commit, roughly.
pub const COMMIT_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Attempts started in one commit.
pub const COMMIT_STARTS_MAX: usize = 1_024;
/// Tasks in one step of bulk work (purge, bulk redrive, retention).
pub const CHUNK_TASKS_MAX: u32 = 1_000;
/// Bytes of payloads accepted moments ago that are kept in memory, so that the fast path reads no disk.
pub const RECENT_PAYLOAD_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Longest sleep without another look at the clock.
pub const LOOK_AGAIN: Span = Span::from_secs(1);
/// A difference between the clocks larger than this is a jump: logged, counted, and expiry and retention wait.
pub const WALL_JUMP: Span = Span::from_secs(300);
/// How long the clocks must agree after a jump before expiry and retention go on.
pub const WALL_AGREEMENT: Span = Span::from_secs(60);
/// A start so long after the last thing that the store knows is taken for a jump of the clock, not for a long stop.
pub const START_GAP_MAX: Span = Span::from_secs(30 * 86_400);

/// The deleted-when-full file in `data_dir`, in bytes.
pub const BALLAST_BYTES: u64 = 64 * 1024 * 1024;
/// `storage.reserve` at most by default, in bytes.
pub const RESERVE_BYTES_DEFAULT_MAX: u64 = 256 * 1024 * 1024;
/// `storage.reserve` at least, in bytes: two full commits.
pub const RESERVE_BYTES_MIN: u64 = 2 * COMMIT_BYTES_MAX as u64;

/// How long the command line tries to connect.
pub const CLIENT_CONNECT_MAX: Span = Span::from_secs(10);
/// How long the command line waits for a whole answer; longer than [`WAIT_MAX`].
pub const CLIENT_ANSWER_MAX: Span = Span::from_secs(90);
/// API keys of one server, the one in `admin.key` not counted.
pub const API_KEYS_MAX: usize = 1_000;
/// Scopes of one API key.
pub const KEY_SCOPES_MAX: usize = 64;
/// How precisely the last use of an API key is known.
pub const KEY_USE_STEP: Span = Span::from_secs(60);
/// How often last uses of API keys are written down, if there were any.
pub const KEY_USES_KEPT_EVERY: Span = Span::from_secs(600);
/// Failed authentications from one address (IPv6: one /64) in one go.
pub const AUTH_FAILURES_BURST: u32 = 30;
/// After these, how often one more is answered with 401 rather than 429.
pub const AUTH_FAILURE_EVERY: Span = Span::from_secs(2);
/// Addresses whose failed authentications are counted apart; all further ones are counted together.
pub const AUTH_FAILURE_SOURCES_MAX: usize = 10_000;
/// Characters of a pattern with `*` for claims and names in certificates.
pub const GLOB_LEN_MAX: usize = 512;
/// Issuers of bearer tokens in the configuration.
pub const CALLER_ISSUERS_MAX: usize = 32;
/// Audiences of one issuer.
pub const CALLER_AUDIENCES_MAX: usize = 16;
/// Grants of one issuer.
pub const CALLER_GRANTS_MAX: usize = 256;
/// Characters of an audience, and of the name of a claim.
pub const CALLER_TEXT_LEN_MAX: usize = 512;
/// Grants for client certificates.
pub const CERTIFICATE_GRANTS_MAX: usize = 1_000;
/// Client certificates of which is remembered that they are good.
pub const CLIENT_CERTIFICATES_KEPT_MAX: usize = 256;
/// A bearer token that is no API key, in bytes.
pub const JWT_BYTES_MAX: usize = 8 * 1024;
/// Characters of the URL of an issuer of bearer tokens.
pub const ISSUER_LEN_MAX: usize = 256;
/// Characters of the `sub` of a bearer token.
pub const JWT_SUBJECT_LEN_MAX: usize = 255;
/// Characters of a name in a client certificate; longer ones are passed over.
pub const CERTIFICATE_NAME_LEN_MAX: usize = 500;
/// How far the clock of an issuer may be from ours.
pub const JWT_LEEWAY: Span = Span::from_secs(30);
/// How long an issuer may take to tell its keys.
pub const ISSUER_ANSWER_MAX: Span = Span::from_secs(10);
/// A document of an issuer, in bytes.
pub const ISSUER_DOCUMENT_BYTES_MAX: usize = 256 * 1024;
/// Keys of one issuer.
pub const ISSUER_KEYS_MAX: usize = 100;
/// How long the keys of an issuer are taken as they are at least, whatever the issuer says.
pub const ISSUER_KEYS_FRESH_MIN: Span = Span::from_secs(60);
/// How long, when the issuer does not say.
pub const ISSUER_KEYS_FRESH_DEFAULT: Span = Span::from_secs(600);
/// How long at most: a key that the issuer has withdrawn is refused after this long.
pub const ISSUER_KEYS_FRESH_MAX: Span = Span::from_secs(3_600);
/// How long the keys of an issuer that cannot be asked are still good.
pub const ISSUER_KEYS_STALE_MAX: Span = Span::from_secs(24 * 3_600);
/// How often an issuer is asked at most because tokens name keys that it did not have.
pub const ISSUER_UNKNOWN_KEY_EVERY: Span = Span::from_secs(30);
/// How long an issuer that did not answer as it should is left alone.
pub const ISSUER_FAILURE_KEPT: Span = Span::from_secs(10);
/// How long at most, if its `Retry-After` asks for more.
pub const ISSUER_RETRY_AFTER_MAX: Span = Span::from_secs(60);

/// Administrative acts under way at one time; more are answered "busy".
pub const AUDIT_ACTS_MAX: usize = 32;
/// Characters of a name or path in a line of the audit log; what is longer is cut there.
pub const AUDIT_TEXT_CHARS_MAX: usize = 512;
/// Bytes of `before` and of `after` in a line of the audit log; what is longer is cut there.
pub const AUDIT_VALUE_BYTES_MAX: usize = 8 * 1024;
/// A line of the audit log, in bytes.
pub const AUDIT_LINE_BYTES_MAX: usize = 64 * 1024;
/// Bytes on the disk that are set aside for lines of the audit log before an act is admitted.
pub const AUDIT_ROOM_BYTES: u64 = 2 * 1024 * 1024;
/// The end of the audit log that a start looks through, in bytes.
pub const AUDIT_TAIL_BYTES: u64 = 1024 * 1024;

/// How long a command that follows a task or watches a list waits for a server that does not answer.
pub const CLIENT_SILENCE_MAX: Span = Span::from_secs(30);
/// How long whoever listens on the server's port already has to say that it is a sendoff.
pub const PROBE_MAX: Span = Span::from_secs(1);
/// How often the command line looks again at most.
pub const LOOK_INTERVAL_MIN: Span = Span::from_millis(100);
/// Bytes of a body that the target of `sendoff dev` echoes.
pub const ECHO_BODY_BYTES_MAX: usize = 1024;

/// Tasks that `task create -f` sends in one request. Part of where a file is cut: with another number a repeat after an
/// upgrade would create again.
pub const BULK_CHUNK_TASKS: usize = 5_000;
/// Bytes of lines in one of its requests, unless one line alone has more. Part of where a file is cut.
pub const BULK_CHUNK_BYTES: usize = 4 * 1024 * 1024;
/// Longest line that it takes, in bytes: what the most generous server takes.
pub const BULK_LINE_BYTES_MAX: usize = 10 * 1024 * 1024 + TASK_ENVELOPE_BYTES_MAX;
/// Its requests in flight.
pub const BULK_IN_FLIGHT: usize = 4;
/// Its faulty lines that are told one by one.
pub const FAULTS_SHOWN_MAX: usize = 20;
/// First pause before it tries again.
pub const BULK_RETRY_PAUSE_MIN: Span = Span::from_millis(250);
/// Longest pause before it tries again, unless the server asks for more.
pub const BULK_RETRY_PAUSE_MAX: Span = Span::from_secs(10);
/// How long the command line waits for bulk redrive and purge.
pub const BULK_ANSWER_MAX: Span = Span::from_secs(3_600);
/// How long `queue wait` goes on without a server.
pub const UNREACHABLE_MAX: Span = Span::from_secs(300);
/// Time between two lines of progress where there is no terminal.
pub const PROGRESS_LINE_EVERY: Span = Span::from_secs(10);

/// A configuration file, in bytes.
pub const CONFIG_BYTES_MAX: usize = 1024 * 1024;
/// How deep maps and lists of a configuration may be nested.
pub const CONFIG_DEPTH_MAX: usize = 16;
/// Bytes of a path in the configuration.
pub const PATH_LEN_MAX: usize = 4_096;
/// Queues of one server.
pub const QUEUES_MAX: usize = 10_000;
/// Hosts with limits of their own.
pub const HOST_OVERRIDES_MAX: usize = 10_000;
/// Entries of one `egress` list.
pub const EGRESS_ENTRIES_MAX: usize = 1_000;
/// Credentials of one configuration, and as many in the store.
pub const CREDENTIALS_MAX: usize = 1_000;
/// Body of `PUT /credentials/{name}`, in bytes.
pub const CREDENTIAL_BODY_BYTES_MAX: usize = 256 * 1024;
/// Credentials being changed by the API at one time; further ones are told to come again.
pub const CREDENTIAL_CHANGES_MAX: usize = 16;
/// Entries of one credential's `hosts`.
pub const CREDENTIAL_HOSTS_MAX: usize = 100;
/// Scopes of one credential.
pub const CREDENTIAL_SCOPES_MAX: usize = 100;
/// Characters of a credential's plain values: a username, a header's name, a client id, a scope.
pub const CREDENTIAL_TEXT_LEN_MAX: usize = 1_024;
/// Entries of one credential's `also`.
pub const CREDENTIAL_ALSO_MAX: usize = 4;
/// Entries of one credential's `secrets`.
pub const CREDENTIAL_SECRETS_MAX: usize = 4;
/// The shortest secret that signs webhooks, in bytes (Standard Webhooks 1.0.0, "Signature scheme").
pub const WEBHOOK_SECRET_BYTES_MIN: usize = 24;
/// The longest.
pub const WEBHOOK_SECRET_BYTES_MAX: usize = 64;
/// A secret that a credential refers to, in bytes.
pub const SECRET_BYTES_MAX: usize = 64 * 1024;
/// How long fetching a token may take.
pub const TOKEN_FETCH_MAX: Span = Span::from_secs(10);
/// Bytes of an issuer's answer.
pub const TOKEN_ANSWER_BYTES_MAX: usize = 64 * 1024;
/// How long a token lives whose issuer does not say.
pub const TOKEN_LIFE_DEFAULT: Span = Span::from_secs(300);
/// How long a token is used at most, whatever its issuer says.
pub const TOKEN_LIFE_MAX: Span = Span::from_secs(24 * 3_600);
/// A token is not sent any more so long before its end, or a tenth of its life before it if that is less.
pub const TOKEN_END_MARGIN_MAX: Span = Span::from_secs(10);
/// So old a token may be that is to be fresh, because the target refused the one before.
pub const TOKEN_FRESH_MAX: Span = Span::from_secs(60);
/// How long the issuer is left alone after a first failure; twice as long after each further one.
pub const TOKEN_FAILURE_KEPT_MIN: Span = Span::from_secs(1);
/// How long it is left alone at most, unless it asks for more.
pub const TOKEN_FAILURE_KEPT_MAX: Span = Span::from_secs(10);
/// How long an issuer's `Retry-After` is heeded at most.
pub const TOKEN_RETRY_AFTER_MAX: Span = Span::from_secs(300);
/// Audiences of one credential whose tokens are kept.
pub const TOKEN_AUDIENCES_MAX: usize = 1_000;
/// For how long a signed assertion holds by which we ask for a token.
pub const ASSERTION_LIFE: Span = Span::from_secs(300);
/// For how long an ID token of ours holds.
pub const ID_TOKEN_LIFE: Span = Span::from_secs(300);
/// How long a key signs our ID tokens before the next one does.
pub const SIGNING_KEY_LIFE: Span = Span::from_secs(30 * 86_400);
/// How long a signing key is published before it signs, at least.
pub const SIGNING_KEY_PUBLISHED_BEFORE: Span = Span::from_secs(86_400);
/// How long a signing key stays published after the next one has begun to sign.
pub const SIGNING_KEY_PUBLISHED_AFTER: Span = Span::from_secs(3_600);
/// Time between two looks whether it is time for another signing key.
pub const SIGNING_KEYS_LOOK_INTERVAL: Span = Span::from_secs(600);
/// How long a copy of our discovery document and of our public keys may be kept.
pub const ISSUER_DOCUMENTS_KEPT: Span = Span::from_secs(3_600);
/// What `max_tasks` and the `count` of `retention` and `dead_letters` may be.
pub const TASKS_KEPT_MAX: u64 = 1_000_000_000;
/// What `max_bytes`, `storage.reserve` and the `bytes` of `retention` and `dead_letters` may be (1 PiB).
pub const BYTES_KEPT_MAX: u64 = 1 << 50;
/// What the `age` of `retention` and `dead_letters` may be (ten years).
pub const AGE_KEPT_MAX: Span = Span::from_secs(10 * 366 * 86_400);
/// What `server.shutdown_grace` may be.
pub const SHUTDOWN_GRACE_MAX: Span = Span::from_secs(3_600);
/// Time between two looks at the files of the server's certificate; a change is acted on at the second that sees it.
pub const CERTIFICATE_LOOK_INTERVAL: Span = Span::from_secs(5);
/// How long aborted attempts and open requests have to end before a stop leaves them behind.
pub const CUT_GRACE: Span = Span::from_secs(5);
/// How long what still runs at the end of `sendoff dev` may take to end before the process does.
pub const DEV_RUNTIME_END_MAX: Span = Span::from_secs(1);
}

const _: () = assert!(COMMIT_COMMANDS_MAX <= COMMANDS_QUEUED_MAX);
const _: () = assert!(BATCH_BYTES_MAX <= COMMIT_BYTES_MAX);
const _: () = assert!(PAYLOAD_BYTES_DEFAULT <= PAYLOAD_BYTES_MAX);
const _: () = assert!(PAGE_MAX <= PAGE_ROWS_SCANNED_MAX);
const _: () = assert!(PAGE_MAX.div_ceil(PAGE_STEP_ROWS) * PAGE_STEP_ROWS <= PAGE_ROWS_SCANNED_MAX);
const _: () = assert!(RESPONSE_HEAD_BYTES_MAX <= RESPONSE_DRAIN_BYTES_MAX);
const _: () = assert!(WAIT_MAX.as_millis() < CLIENT_ANSWER_MAX.as_millis());
const _: () = assert!(BULK_CHUNK_TASKS <= BATCH_TASKS_MAX);
const _: () = assert!(BULK_LINE_BYTES_MAX as u64 == PAYLOAD_BYTES_MAX + TASK_ENVELOPE_BYTES_MAX as u64);
const _: () = assert!(BULK_CHUNK_BYTES <= BATCH_BYTES_MAX && BULK_LINE_BYTES_MAX < BATCH_BYTES_MAX);
const _: () = assert!(WAIT_MAX.as_millis() < CLIENT_STALLED_MAX.as_millis());
const _: () = assert!(BODY_READ_MAX.as_millis() < CLIENT_STALLED_MAX.as_millis());
// The audit log has the whole name of whoever asks.
const _: () = assert!(ISSUER_LEN_MAX + 1 + JWT_SUBJECT_LEN_MAX <= AUDIT_TEXT_CHARS_MAX);
const _: () = assert!("email:".len() + CERTIFICATE_NAME_LEN_MAX <= AUDIT_TEXT_CHARS_MAX);
const _: () = assert!(JWT_LEEWAY.as_millis() <= 60_000);
const _: () = assert!(ISSUER_KEYS_FRESH_MIN.as_millis() <= ISSUER_KEYS_FRESH_DEFAULT.as_millis());
const _: () = assert!(ISSUER_KEYS_FRESH_DEFAULT.as_millis() <= ISSUER_KEYS_FRESH_MAX.as_millis());
const _: () = assert!(ISSUER_KEYS_FRESH_MAX.as_millis() < ISSUER_KEYS_STALE_MAX.as_millis());
const _: () = assert!(ISSUER_FAILURE_KEPT.as_millis() <= ISSUER_RETRY_AFTER_MAX.as_millis());
const _: () = assert!(JWT_BYTES_MAX < REQUEST_HEAD_BYTES_MAX as usize);
const _: () = assert!(ID_TOKEN_LIFE.as_millis() < SIGNING_KEY_PUBLISHED_AFTER.as_millis());
const _: () = assert!(2 * ISSUER_DOCUMENTS_KEPT.as_millis() < SIGNING_KEY_PUBLISHED_BEFORE.as_millis());
const _: () = assert!(SIGNING_KEY_PUBLISHED_BEFORE.as_millis() < SIGNING_KEY_LIFE.as_millis());
// A character has up to six bytes in JSON (`\u0001`), and a byte of a value that is cut up to two.
const _: () = assert!(6 * 6 * AUDIT_TEXT_CHARS_MAX + 2 * 2 * AUDIT_VALUE_BYTES_MAX + 1024 <= AUDIT_LINE_BYTES_MAX);
const _: () = assert!((AUDIT_ACTS_MAX * AUDIT_LINE_BYTES_MAX) as u64 <= AUDIT_ROOM_BYTES);
const _: () = assert!(2 * AUDIT_LINE_BYTES_MAX as u64 <= AUDIT_TAIL_BYTES);
const _: () = assert!(BALLAST_BYTES <= RESERVE_BYTES_MIN);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_every_bound_with_its_unit_and_meaning() {
        let source = include_str!("limits.rs");
        let table = table();
        let declared = source.lines().filter(|line| line.starts_with("pub const ")).count();
        assert_eq!(table.len(), declared);
        let find = |name: &str| table.iter().find(|limit| limit.name == name).cloned().expect(name);
        let row = |name: &str| (find(name).value, find(name).unit, find(name).meaning);
        assert_eq!(
            row("PAYLOAD_BYTES_DEFAULT"),
            ("1048576".to_owned(), "bytes", "Default bound on one task's payload, in bytes.".to_owned())
        );
        assert_eq!(row("WAIT_MAX"), ("1m".to_owned(), "", "Longest long poll (?wait=).".to_owned()));
        assert_eq!(row("NAME_LEN_MAX").1, "characters");
        assert!(table.iter().all(|limit| limit.meaning.ends_with('.')), "{table:?}");
    }
}
