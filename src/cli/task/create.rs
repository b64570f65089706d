//! `sendoff task create`: a task from words, as `curl` takes a request.

use std::collections::BTreeMap;
use std::io::Read;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use reqwest::Method;
use reqwest::header::HeaderValue;
use serde::Serialize;
use serde_json::value::RawValue;

use crate::cli::args::{duration, label, queue_name, task_type};
use crate::cli::bulk::create::{self, FromFile};
use crate::cli::context::Context;
use crate::cli::exit::{Exit, Failed};
use crate::task::limits::PAYLOAD_BYTES_MAX;
use crate::task::{Span, WallMs};

use super::follow::{How, to_its_end};
use super::seen::{TaskSeen, task_id};

/// What the task is.
#[derive(Debug, Args)]
#[command(
    override_usage = "sendoff task create URL [OPTIONS]\n       sendoff task create --type TYPE --payload JSON [OPTIONS]\n       sendoff task create --file FILE [--salt TEXT] [--skip-invalid REJECTS] [--retry-for DURATION]",
    after_help = "\
Examples:
  sendoff task create https://api.example.com/charge -d '{\"order\":7}' --delay 90s
  sendoff task create https://api.example.com/ping -X GET --queue mail --label tenant=42
  echo '{\"order\":8}' | sendoff task create https://api.example.com/charge -d @- -o name
  sendoff task create --type http_request --payload '{\"url\":\"https://api.example.com/\"}'
  sendoff task create https://api.example.com/ -H 'X-Plan: pro' --id order:9 --max-attempts 3
  sendoff task create -f tasks.ndjson"
)]
pub(in crate::cli) struct Create {
    /// The URL to call.
    #[arg(value_name = "URL", required_unless_present_any = ["task_type", "payload", "file"])]
    target: Option<String>,
    #[command(flatten)]
    call: CallOptions,
    #[command(flatten)]
    task: NewTaskOptions,
    // Without a number: longer than anybody waits.
    /// Wait until it has ended, at most for so long; the exit code is that of `task watch`.
    #[arg(long, value_name = "DURATION", value_parser = duration, num_args = 0..=1, require_equals = true, default_missing_value = "366d")]
    wait: Option<Duration>,
    #[command(flatten)]
    from: FromFile,
}

/// What is called, and with what.
#[derive(Debug, Args)]
#[command(next_help_heading = "What is called")]
struct CallOptions {
    /// The method [default: POST].
    #[arg(short = 'X', long, value_name = "METHOD", conflicts_with = "payload")]
    method: Option<String>,
    /// A header; may be repeated.
    #[arg(short = 'H', long = "header", value_name = "NAME: VALUE", value_parser = header, conflicts_with = "payload")]
    headers: Vec<(String, String)>,
    /// The body: text (JSON is sent as JSON), @FILE, or @- for standard input.
    #[arg(short, long, value_name = "BODY|@FILE", conflicts_with = "payload", allow_hyphen_values = true)]
    data: Option<String>,
    /// The task type, in place of a URL [default: `http_request`].
    #[arg(long = "type", value_name = "TYPE", value_parser = task_type, conflicts_with = "target", requires = "payload")]
    task_type: Option<String>,
    /// The whole payload as JSON, @FILE, or @- for standard input, in place of a URL.
    #[arg(long, value_name = "JSON|@FILE", conflicts_with = "target")]
    payload: Option<String>,
}

/// When and how it is to run.
#[derive(Debug, Args)]
#[command(next_help_heading = "When and how")]
struct NewTaskOptions {
    /// The queue [default: default].
    #[arg(long, value_name = "QUEUE", value_parser = queue_name)]
    queue: Option<String>,
    /// 0 to 9, 9 most urgent [default: 5].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: Option<u8>,
    /// How long from now.
    #[arg(long, value_name = "DURATION", value_parser = span, conflicts_with = "run_at")]
    delay: Option<String>,
    /// When (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = time)]
    run_at: Option<String>,
    /// From when on it is not started any more (RFC 3339).
    #[arg(long, value_name = "TIME", value_parser = time)]
    expires_at: Option<String>,
    /// How long one attempt may take [default: 30s].
    #[arg(long, value_name = "DURATION", value_parser = span)]
    timeout: Option<String>,
    /// How often it is tried at most [default: the queue's].
    #[arg(long, value_name = "N")]
    max_attempts: Option<u32>,
    /// A label; may be repeated.
    #[arg(long = "label", value_name = "NAME=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// Your own id for it, unique in the server.
    #[arg(long, value_name = "ID", value_parser = task_id)]
    id: Option<String>,
    /// Makes a repeat of this very command create nothing new.
    #[arg(long, value_name = "KEY", value_parser = idempotency_key)]
    idempotency_key: Option<HeaderValue>,
}

/// `POST /tasks`, as far as words can say it.
#[derive(Debug, Serialize)]
struct NewTask<'a> {
    task_type: &'a str,
    payload: Box<RawValue>,
    #[serde(flatten)]
    texts: BTreeMap<&'static str, &'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<u8>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<&'a str, &'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    retry: BTreeMap<&'static str, u32>,
}

/// The payload of an `http_request`.
#[derive(Debug, Serialize)]
struct HttpPayload<'a> {
    url: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'a str>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    headers: BTreeMap<&'a str, &'a str>,
    #[serde(flatten)]
    body: Option<Body>,
}

/// Its body, under the name that says what it is.
#[derive(Debug, Serialize)]
enum Body {
    #[serde(rename = "body")]
    Json(Box<RawValue>),
    #[serde(rename = "body_text")]
    Text(String),
    #[serde(rename = "body_base64")]
    Base64(String),
}

pub(super) async fn run(create: Create, context: &Context) -> Result<Exit, Failed> {
    if let Some(path) = &create.from.file {
        return create::run(&create.from, path, context).await;
    }
    let body = serde_json::to_string(&task(&create)?)
        .map_err(|error| Failed::told(Exit::Failure, format!("failed to write the task as JSON: {error}")))?;
    let mut request = context.client.request(Method::POST, &["tasks"]).json(body);
    if let Some(key) = create.task.idempotency_key.clone() {
        request = request.header("idempotency-key", key);
    }
    let answer = request.send().await?;
    if answer.headers.contains_key("idempotency-replayed") {
        context.printer.note("A repeat: nothing new was created");
    }
    let item = answer.item::<TaskSeen>()?;
    match create.wait {
        None => context.printer.one(&item).map(|()| Exit::Ok),
        within @ Some(_) => {
            context.printer.note(&format!("{}: created", item.seen.task_id));
            to_its_end(context, &item.seen.task_id, How { interval: Duration::from_secs(1), within }).await
        }
    }
}

fn task(create: &Create) -> Result<NewTask<'_>, Failed> {
    let (call, task) = (&create.call, &create.task);
    let payload = match (&create.target, &call.payload) {
        (Some(url), _) => http_payload(url, call)?,
        (None, Some(given)) => json(given)?,
        (None, None) => return Err(Failed::Usage("a URL, or --payload, has to say what is called".to_owned())),
    };
    let texts = [
        ("task_id", &task.id),
        ("queue", &task.queue),
        ("delay", &task.delay),
        ("run_at", &task.run_at),
        ("expires_at", &task.expires_at),
        ("timeout", &task.timeout),
    ];
    Ok(NewTask {
        task_type: call.task_type.as_deref().unwrap_or("http_request"),
        payload,
        texts: texts.into_iter().filter_map(|(name, text)| Some((name, text.as_deref()?))).collect(),
        priority: task.priority,
        labels: pairs("--label", &task.labels)?,
        retry: task.max_attempts.map(|count| ("max_attempts", count)).into_iter().collect(),
    })
}

fn http_payload(url: &str, call: &CallOptions) -> Result<Box<RawValue>, Failed> {
    let body = call.data.as_deref().map(bytes).transpose()?.map(body);
    let headers = pairs("--header", &call.headers)?;
    let payload = HttpPayload { url, method: call.method.as_deref(), headers, body };
    serde_json::value::to_raw_value(&payload)
        .map_err(|error| Failed::told(Exit::Failure, format!("failed to write the payload as JSON: {error}")))
}

/// JSON stays as it was written; other text, and what is no text, goes out as it is.
fn body(bytes: Vec<u8>) -> Body {
    match String::from_utf8(bytes) {
        Ok(text) => match serde_json::from_str::<Box<RawValue>>(&text) {
            Ok(json) => Body::Json(json),
            Err(_) => Body::Text(text),
        },
        Err(error) => Body::Base64(STANDARD.encode(error.as_bytes())),
    }
}

fn json(given: &str) -> Result<Box<RawValue>, Failed> {
    serde_json::from_slice(&bytes(given)?).map_err(|error| Failed::Usage(format!("--payload is not JSON: {error}")))
}

/// What a word stands for: itself, the content of `@FILE`, or standard input for `@-`.
fn bytes(given: &str) -> Result<Vec<u8>, Failed> {
    let Some(path) = given.strip_prefix('@') else { return Ok(given.as_bytes().to_vec()) };
    let unreadable = |error: std::io::Error| Failed::Usage(format!("failed to read {path}: {error}"));
    let source: Box<dyn Read> = match path {
        "-" => Box::new(std::io::stdin()),
        path => Box::new(std::fs::File::open(path).map_err(unreadable)?),
    };
    let mut content = Vec::new();
    source.take(PAYLOAD_BYTES_MAX + 1).read_to_end(&mut content).map_err(unreadable)?;
    if content.len() as u64 > PAYLOAD_BYTES_MAX {
        return Err(Failed::Usage(format!("{path} has more than {PAYLOAD_BYTES_MAX} bytes, more than any payload")));
    }
    Ok(content)
}

/// As an object; a name that is given twice is a mistake, not a choice.
fn pairs<'a>(flag: &str, given: &'a [(String, String)]) -> Result<BTreeMap<&'a str, &'a str>, Failed> {
    let mut object = BTreeMap::new();
    for (name, value) in given {
        if object.insert(name.as_str(), value.as_str()).is_some() {
            return Err(Failed::Usage(format!("{flag}: `{name}` is given twice")));
        }
    }
    Ok(object)
}

fn header(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("expected `NAME: VALUE`, such as 'X-Plan: pro'")?;
    Ok((name.trim().to_owned(), value.trim().to_owned()))
}

/// A duration, checked here and sent as it was written.
fn span(text: &str) -> Result<String, String> {
    Span::parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

/// A time, checked here and sent as it was written.
fn time(text: &str) -> Result<String, String> {
    WallMs::parse(text).map(|_| text.to_owned()).map_err(|error| error.to_string())
}

fn idempotency_key(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_kind| "expected 1 to 256 visible ASCII characters".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_called_what_they_are() {
        let shown = |bytes: &[u8]| serde_json::to_string(&body(bytes.to_vec())).unwrap();
        assert_eq!(shown(b"{\"a\": 1.0e0}\n"), r#"{"body":{"a": 1.0e0}}"#);
        assert_eq!(shown(b"hello"), r#"{"body_text":"hello"}"#);
        assert_eq!(shown(b"\xff"), r#"{"body_base64":"/w=="}"#);
    }

    #[test]
    fn headers_and_what_stands_for_a_file() {
        assert_eq!(header("X-Plan:  pro: yes "), Ok(("X-Plan".to_owned(), "pro: yes".to_owned())));
        assert!(header("X-Plan").is_err());
        assert_eq!(bytes("plain").unwrap(), b"plain");
        let missing = bytes("@no/such/file").unwrap_err().to_string();
        assert!(missing.starts_with("failed to read no/such/file: "), "{missing}");
        let twice = [("a".to_owned(), "1".to_owned()), ("a".to_owned(), "2".to_owned())];
        assert_eq!(pairs("--label", &twice).unwrap_err().to_string(), "--label: `a` is given twice");
    }
}
