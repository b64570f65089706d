//! The bodies of requests as JSON Schema. They are read by hand (`wire_task`, `dlq`), for the sake of good messages;
//! the tests hold both together.
//!
//! No field has a `default` here: generators of clients take that for "always there".

use serde_json::{Value, json};
use utoipa::openapi::schema::{Schema, SchemaType};
use utoipa::openapi::{ArrayBuilder, KnownFormat, ObjectBuilder, Ref, SchemaFormat, Type};

use crate::task::limits::{
    ATTEMPTS_MAX, BACKOFF_MAX, BATCH_TASKS_MAX, DOUBLINGS_MAX, KEY_SCOPES_MAX, RUN_AHEAD_MAX, TARGET_HEADERS_MAX,
    TARGET_METHOD_LEN_MAX, TARGET_URL_LEN_MAX, TASK_NAME_LEN_MAX, TIMEOUT_MAX, TIMEOUT_MIN,
};
use crate::task::outcome::DeadReason;
use crate::task::{Priority, Span, StopWhen};

use super::words::{
    TASK_ID_PATTERN, boolean, duration_given, integer, keyword, labels, name, object, on_status, one_of_words,
    optional, text,
};
use crate::api::wire_task::{QUEUE_DEFAULT, RESERVED_NAMES};

component!(
    /// `POST /tasks`.
    NewTask = new_task()
);
component!(
    /// `POST /tasks/batch`.
    NewTasks = ArrayBuilder::new()
        .items(Ref::from_schema_name("NewTask"))
        .description(Some("Tasks that are accepted in one commit, or not at all."))
        .min_items(Some(1))
        .max_items(Some(BATCH_TASKS_MAX))
        .examples([json!([example_task()])])
);
component!(
    /// `retry` of a new task.
    RetryOverrides = retry()
);
component!(
    /// `payload` of a task of type `http_request`.
    HttpRequest = http_request()
);
component!(
    /// `POST /keys`.
    NewKey = new_key()
);
component!(
    /// `POST /dlq/redrive`, `POST /dlq/purge`.
    DeadLetterFilter = dead_letter_filter()
);

fn example_task() -> Value {
    json!({
        "task_type": "http_request",
        "payload": {"url": "https://api.example.com/charge", "body": {"order": 7}},
        "delay": "90s",
        "labels": {"tenant": "42"},
        "retry": {"max_attempts": 20, "on_status": {"404": "retry"}}
    })
}

fn new_task() -> ObjectBuilder {
    let task_id = text("Your own name for it, unique in the server while its record exists.")
        .pattern(Some(TASK_ID_PATTERN))
        .min_length(Some(1))
        .max_length(Some(TASK_NAME_LEN_MAX))
        .extensions(Some(keyword("not", json!({"enum": RESERVED_NAMES}))));
    let level = Priority::default().get();
    let priority = integer(&format!("9 is most urgent; {level} if none is given."), 0, u32::from(Priority::MAX.get()));
    let fields = vec![
        ("task_type", one_of_words("What runs it.", ["http_request"]).into()),
        ("payload", Schema::from(reference("HttpRequest", "What its handler is given; kept byte for byte."))),
        ("queue", optional(name(&format!("A queue that is configured; `{QUEUE_DEFAULT}` if none is named.")))),
        ("priority", optional(priority)),
        ("delay", duration_given("When it is due, from now. Excludes `run_at`.", Span::default(), RUN_AHEAD_MAX)),
        (
            "run_at",
            optional(time(
                "When it is due; a time that has passed means now. Excludes `delay`.",
                "2029-12-31T23:00:00Z",
            )),
        ),
        (
            "expires_at",
            optional(time("It is not started any more from then on. Later than it is due.", "2030-01-01T00:00:00Z")),
        ),
        ("timeout", duration_given("Of one attempt: connect, headers and body.", TIMEOUT_MIN, TIMEOUT_MAX)),
        ("labels", optional(labels("Your own words for finding it again."))),
        ("retry", optional_reference("RetryOverrides")),
        ("task_id", optional(task_id)),
    ];
    let task = object("A task to accept. `null` stands for \"not given\" where a field is optional.", fields);
    // Both are given, and neither is null.
    let both = json!({"required": ["delay", "run_at"], "properties": {"delay": {"not": {"type": "null"}}, "run_at": {"type": "string"}}});
    task.required("task_type").required("payload").extensions(Some(keyword("not", both))).examples([example_task()])
}

/// A time in a request.
fn time(description: &str, example: &str) -> ObjectBuilder {
    let format = SchemaFormat::KnownFormat(KnownFormat::DateTime);
    let bound = format!("{description} RFC 3339, at most {RUN_AHEAD_MAX} ahead.");
    text(&bound).format(Some(format)).examples([json!(example)])
}

fn reference(schema: &str, description: &str) -> utoipa::openapi::AllOf {
    let item = utoipa::openapi::AllOfBuilder::new().item(Ref::from_schema_name(schema));
    item.description(Some(description)).build()
}

fn optional_reference(schema: &str) -> Schema {
    let null = utoipa::openapi::Object::with_type(Type::Null);
    utoipa::openapi::OneOfBuilder::new().item(Ref::from_schema_name(schema)).item(null).build().into()
}

fn retry() -> ObjectBuilder {
    let backoff = |description: &str| duration_given(description, Span::default(), BACKOFF_MAX);
    let jitter = ObjectBuilder::new()
        .schema_type(Type::Number)
        .description(Some("A delay is shortened by up to this fraction."))
        .minimum(Some(0_u32))
        .maximum(Some(1_u32));
    let stop_when = one_of_words(
        "Whether a series ends at `any` bound that is reached, or when `all` are.",
        [StopWhen::Any, StopWhen::All].map(StopWhen::as_str),
    );
    let fields = vec![
        ("max_attempts", optional(integer("Requests of one series.", 1, ATTEMPTS_MAX))),
        ("min_backoff", backoff("The first delay.")),
        ("max_backoff", backoff("The longest delay.")),
        ("max_doublings", optional(integer("So often the delay doubles; then it grows linearly.", 0, DOUBLINGS_MAX))),
        (
            "max_retry_duration",
            duration_given("Since the first attempt of the series.", Span::from_millis(1), RUN_AHEAD_MAX),
        ),
        ("jitter", optional(jitter)),
        ("stop_when", optional(stop_when)),
        ("credential_wait_max", backoff("So long it may wait for a credential.")),
        ("on_status", optional(on_status())),
    ];
    object("What a task says about retrying; the rest comes from its queue.", fields)
}

fn http_request() -> ObjectBuilder {
    let url = text("Where the request goes: http or https.")
        .format(Some(SchemaFormat::Custom("uri".to_owned())))
        .max_length(Some(TARGET_URL_LEN_MAX))
        .examples([json!("https://api.example.com/charge")]);
    let method = text("A token (RFC 9110 section 9.1), but not CONNECT; POST if none is given.")
        .pattern(Some("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$"))
        .max_length(Some(TARGET_METHOD_LEN_MAX));
    let headers = ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some("Headers of the request. An empty value switches a default of sendoff off."))
        .additional_properties(Some(ObjectBuilder::new().schema_type(Type::String)))
        .max_properties(Some(TARGET_HEADERS_MAX));
    let body = ObjectBuilder::new().schema_type(SchemaType::AnyValue).description(Some("Sent as JSON, as it stands."));
    let fields = vec![
        ("url", url.into()),
        ("method", method.into()),
        ("headers", headers.into()),
        ("body", body.into()),
        ("body_text", text("Sent as text. At most one of the three bodies may be given.").into()),
        (
            "body_base64",
            text("Sent as the bytes it encodes: standard base64 with padding.").content_encoding("base64").into(),
        ),
        (
            "auth",
            text("The name of the credential that the request carries; its queue's if none is named.")
                .pattern(Some("^[A-Za-z0-9._-]{1,128}$"))
                .examples([json!("billing")])
                .into(),
        ),
    ];
    let two = [["body", "body_text"], ["body", "body_base64"], ["body_text", "body_base64"]]
        .map(|two| json!({"required": two}));
    let request = object("The payload of `http_request`: one HTTP request.", fields).required("url");
    request.extensions(Some(keyword("not", json!({"anyOf": two}))))
}

/// Either all dead letters are meant and the filter says so, or it names something.
fn all_or_some() -> Value {
    let absent = || json!({"type": "null"});
    let no_labels = json!({"type": ["object", "null"], "maxProperties": 0});
    let named = |field: &str, value: Value| json!({"required": [field], "properties": {field: value}});
    json!([
        {
            "title": "All",
            "required": ["all"],
            "properties": {
                "all": {"const": true}, "queue": absent(), "task_type": absent(), "reason": absent(), "labels": no_labels,
            },
        },
        {
            "title": "Some",
            "properties": {"all": {"enum": [false, null]}},
            "anyOf": [
                named("queue", json!({"type": "string"})),
                named("task_type", json!({"type": "string"})),
                named("reason", json!({"type": "string"})),
                named("labels", json!({"type": "object", "minProperties": 1})),
            ],
        },
    ])
}

fn new_key() -> ObjectBuilder {
    let scopes = ArrayBuilder::new()
        .items(Ref::from_schema_name("KeyScope"))
        .description(Some("What it may do. What is not named is denied."))
        .min_items(Some(1))
        .max_items(Some(KEY_SCOPES_MAX));
    let fields = vec![
        ("name", name("What it is for. Several keys may have one name.").into()),
        ("scopes", scopes.into()),
        ("expires_at", optional(time("From when on it is void; never, if none is given.", "2029-12-31T23:00:00Z"))),
    ];
    let key = object("A new API key.", fields).required("name").required("scopes");
    key.examples([json!({"name": "mail-service", "scopes": ["enqueue:mail-*", "read:mail-*"]})])
}

fn dead_letter_filter() -> ObjectBuilder {
    let reason = one_of_words("Why they died.", DeadReason::ALL.map(DeadReason::as_str));
    let fields = vec![
        ("queue", optional(name("Of this queue."))),
        ("task_type", optional(name("Of this type."))),
        ("reason", optional(reason)),
        ("labels", optional(labels("With all these labels."))),
        ("dry_run", optional(boolean("Only count."))),
        ("all", optional(boolean("All dead letters: true exactly when nothing else narrows the filter."))),
    ];
    let filter = object("Which dead letters.", fields).extensions(Some(keyword("oneOf", all_or_some())));
    filter.examples([json!({"queue": "default", "reason": "permanent_status", "dry_run": true})])
}
