//! The rarer parts of a body (labels, deadline, retry) in a few bytes; nothing at all for a task that says none of them.
//!
//! Numbers are LEB128, in the order of the fields. The format number of the store is this encoding's version.

use crate::task::name::LabelName;
use crate::task::outcome::StatusAction;
use crate::task::{Body, RetryOverrides, Span, StopWhen};

/// What is kept here of a [`Body`].
#[derive(Debug, Default, PartialEq)]
pub(super) struct BodyMeta {
    pub(super) labels: Vec<(LabelName, String)>,
    pub(super) timeout: Option<Span>,
    pub(super) retry: RetryOverrides,
}

const ACTIONS: [StatusAction; 3] = [StatusAction::Done, StatusAction::Retry, StatusAction::Dead];
const STOPS: [StopWhen; 2] = [StopWhen::Any, StopWhen::All];

/// Encodes; `None` when there is nothing to say.
pub(super) fn encode(body: &Body) -> Option<Vec<u8>> {
    if body.labels.is_empty() && body.timeout.is_none() && body.retry.is_empty() {
        return None;
    }
    let mut out = Vec::new();
    put(&mut out, body.labels.len() as u64);
    for (key, value) in &body.labels {
        put_text(&mut out, key.as_str());
        put_text(&mut out, value);
    }
    let retry = &body.retry;
    put_option(&mut out, body.timeout.map(Span::as_millis));
    put_option(&mut out, retry.max_attempts.map(u64::from));
    put_option(&mut out, retry.min_backoff.map(Span::as_millis));
    put_option(&mut out, retry.max_backoff.map(Span::as_millis));
    put_option(&mut out, retry.max_doublings.map(u64::from));
    put_option(&mut out, retry.max_retry_duration.map(Span::as_millis));
    put_option(&mut out, retry.jitter.map(f64::to_bits));
    put_option(&mut out, retry.stop_when.map(|stop| u64::from(stop == StopWhen::All)));
    put(&mut out, retry.on_status.len() as u64);
    for (status, action) in &retry.on_status {
        put(&mut out, u64::from(*status));
        put(&mut out, ACTIONS.iter().position(|known| known == action).unwrap_or(0) as u64);
    }
    // Came later than the others: where nothing follows, nothing was said.
    if retry.credential_wait_max.is_some() {
        put_option(&mut out, retry.credential_wait_max.map(Span::as_millis));
    }
    Some(out)
}

/// Decodes; `None` when the bytes are no encoding.
pub(super) fn decode(bytes: Option<&[u8]>) -> Option<BodyMeta> {
    let Some(mut rest) = bytes else { return Some(BodyMeta::default()) };
    let input = &mut rest;
    let mut meta = BodyMeta::default();
    for _ in 0..take(input)? {
        let key = LabelName::parse(take_text(input)?).ok()?;
        meta.labels.push((key, String::from(take_text(input)?)));
    }
    let span = |ms: Option<u64>| ms.map(Span::from_millis);
    meta.timeout = span(take_option(input).ok()?);
    let retry = &mut meta.retry;
    retry.max_attempts = take_u32(input).ok()?;
    retry.min_backoff = span(take_option(input).ok()?);
    retry.max_backoff = span(take_option(input).ok()?);
    retry.max_doublings = take_u32(input).ok()?;
    retry.max_retry_duration = span(take_option(input).ok()?);
    retry.jitter = take_option(input).ok()?.map(f64::from_bits);
    retry.stop_when = match take_option(input).ok()? {
        Some(code) => Some(*STOPS.get(usize::try_from(code).ok()?)?),
        None => None,
    };
    for _ in 0..take(input)? {
        let status = u16::try_from(take(input)?).ok()?;
        let action = *ACTIONS.get(usize::try_from(take(input)?).ok()?)?;
        retry.on_status.insert(status, action);
    }
    if !input.is_empty() {
        meta.retry.credential_wait_max = span(take_option(input).ok()?);
    }
    rest.is_empty().then_some(meta)
}

fn put(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        // The low seven bits, and that more follow.
        out.push(u8::try_from(number & 0x7f).unwrap_or(0) | 0x80);
        number >>= 7;
    }
    out.push(u8::try_from(number).unwrap_or(0));
}

fn put_option(out: &mut Vec<u8>, number: Option<u64>) {
    out.push(u8::from(number.is_some()));
    if let Some(number) = number {
        put(out, number);
    }
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    put(out, text.len() as u64);
    out.extend_from_slice(text.as_bytes());
}

fn take_byte(input: &mut &[u8]) -> Option<u8> {
    let (first, rest) = input.split_first()?;
    *input = rest;
    Some(*first)
}

fn take(input: &mut &[u8]) -> Option<u64> {
    let (mut number, mut shift) = (0_u64, 0_u32);
    loop {
        let byte = take_byte(input)?;
        let part = u64::from(byte & 0x7f);
        number |= part.checked_shl(shift).filter(|shifted| shifted >> shift == part)?;
        if byte < 0x80 {
            return Some(number);
        }
        shift += 7;
    }
}

/// An option that is neither absent nor readable.
struct Malformed;

fn take_option(input: &mut &[u8]) -> Result<Option<u64>, Malformed> {
    match take_byte(input) {
        Some(0) => Ok(None),
        Some(1) => take(input).map(Some).ok_or(Malformed),
        Some(_) | None => Err(Malformed),
    }
}

fn take_u32(input: &mut &[u8]) -> Result<Option<u32>, Malformed> {
    let number = take_option(input)?.map(u32::try_from).transpose();
    number.map_err(|_too_large| Malformed)
}

fn take_text<'a>(input: &mut &'a [u8]) -> Option<&'a str> {
    let len = usize::try_from(take(input)?).ok()?;
    let (text, rest) = input.split_at_checked(len)?;
    *input = rest;
    std::str::from_utf8(text).ok()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;
    use crate::task::TaskType;

    fn body(labels: Vec<(LabelName, String)>, timeout: Option<Span>, retry: RetryOverrides) -> Body {
        let task_type = TaskType::parse("t").unwrap();
        Body { task_type, name: None, labels, timeout, retry, idempotency: None, payload: Bytes::new() }
    }

    #[test]
    fn a_task_that_says_nothing_costs_nothing() {
        assert_eq!(encode(&body(Vec::new(), None, RetryOverrides::default())), None);
        assert_eq!(decode(None), Some(BodyMeta::default()));
    }

    proptest! {
        #[test]
        fn whatever_is_said_reads_back(
            labels in proptest::collection::vec(("[a-z]{1,20}", ".{0,40}"), 0..5),
            timeout in proptest::option::of(any::<u64>()),
            numbers in proptest::option::of((any::<u32>(), any::<u64>(), 0.0..1.0_f64, any::<bool>())),
            on_status in proptest::collection::btree_map(100..600_u16, 0..3_usize, 0..4),
        ) {
            let labels: Vec<_> = labels.into_iter().map(|(k, v)| (LabelName::parse(&k).unwrap(), v)).collect();
            let retry = RetryOverrides {
                max_attempts: numbers.map(|n| n.0),
                min_backoff: numbers.map(|n| Span::from_millis(n.1)),
                max_backoff: timeout.map(Span::from_millis),
                max_doublings: numbers.map(|n| n.0 / 2),
                max_retry_duration: numbers.map(|n| Span::from_millis(n.1 / 3)),
                jitter: numbers.map(|n| n.2),
                stop_when: numbers.map(|n| if n.3 { StopWhen::All } else { StopWhen::Any }),
                credential_wait_max: numbers.filter(|n| n.3).map(|n| Span::from_millis(n.1 / 5)),
                on_status: on_status.into_iter().map(|(status, action)| (status, ACTIONS[action])).collect(),
            };
            let body = body(labels, timeout.map(Span::from_millis), retry);
            let bytes = encode(&body);
            let meta = decode(bytes.as_deref()).unwrap();
            prop_assert_eq!((meta.labels, meta.timeout, meta.retry), (body.labels, body.timeout, body.retry));
            if let Some(bytes) = bytes {
                prop_assert_eq!(decode(Some(&bytes[..bytes.len() - 1])), None, "cut short");
            }
        }

        #[test]
        fn no_bytes_break_it(bytes in proptest::collection::vec(any::<u8>(), 0..60)) {
            decode(Some(&bytes));
        }
    }
}
