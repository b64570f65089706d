//! The kinds of values as JSON Schema: names, times, durations, enums. Bounds come from `task::limits`, the words of an
//! enum from its `ALL`, so that the document cannot say anything else than the code does.

use serde_json::{Value, json};
use utoipa::openapi::extensions::Extensions;
use utoipa::openapi::schema::{AdditionalProperties, Schema, SchemaType};
use utoipa::openapi::{KnownFormat, Object, ObjectBuilder, OneOfBuilder, Ref, SchemaFormat, Type};

use crate::security::scope::Scope;
use crate::task::limits::{LABEL_VALUE_LEN_MAX, LABELS_MAX, NAME_LEN_MAX, TASK_NAME_LEN_MAX};
use crate::task::outcome::{DeadReason, OutcomeClass, StatusAction};
use crate::task::{Span, Status, StopWhen};

/// What may stand in the name of a queue, a type or a label.
pub(super) const NAME_PATTERN: &str = "^[A-Za-z0-9._-]+$";
/// What may stand in a `task_id`.
pub(super) const TASK_ID_PATTERN: &str = "^[A-Za-z0-9._:~-]+$";
/// A status that `on_status` can speak of.
pub(super) const STATUS_PATTERN: &str = "^[2-5][0-9]{2}$";
/// A duration as answers show it: largest unit first, each at most once, whole numbers.
const DURATION_PATTERN: &str = "^(?=.)([0-9]+d)?([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?$";
/// A duration as requests may write it: fractions too, or a bare number of seconds.
const DURATION_GIVEN_PATTERN: &str = concat!(
    r"^(?=.)([0-9]+(\.[0-9]+)?d)?([0-9]+(\.[0-9]+)?h)?([0-9]+(\.[0-9]+)?m)?([0-9]+(\.[0-9]+)?s)?([0-9]+ms)?$",
    r"|^[0-9]+(\.[0-9]{1,3})?$"
);

/// A scope, and to which queues it reaches.
const SCOPE_PATTERN: &str = "^((enqueue|read|read_payload|manage|redrive)(:[A-Za-z0-9._*-]{1,128})?|metrics|admin)$";

component!(
    /// A moment, in answers and requests.
    Time = text("A moment: RFC 3339. Answers are in UTC with milliseconds.")
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
        .examples([json!("2026-12-01T00:00:00.000Z")])
);
component!(
    /// A duration, in answers.
    Duration = text("A duration: days, hours, minutes, seconds, milliseconds.")
        .pattern(Some(DURATION_PATTERN))
        .examples([json!("1h30m"), json!("250ms"), json!("7d")])
);
component!(
    /// What clients call a task.
    TaskId = text("What clients call a task: their own name for it, else a UUIDv7.")
        .pattern(Some(TASK_ID_PATTERN))
        .min_length(Some(1))
        .max_length(Some(TASK_NAME_LEN_MAX))
        .examples([json!("order:7"), json!("019ab5c2-7c00-7000-8000-000000000000")])
);
component!(
    /// The name of a queue.
    QueueName = name("The name of a queue.").examples([json!("default")])
);
component!(
    /// The name of a credential.
    CredentialName = name("The name of a credential.").examples([json!("billing")])
);
component!(
    /// The name of a task type.
    TaskType = name("What runs a task.").examples([json!("http_request")])
);
component!(
    /// The public part of an API key.
    KeyId = text("The public part of an API key, `so_<id>_<secret>`.").examples([json!("7fK2pQx0")])
);
component!(
    /// What an API key may do.
    KeyScope = text(&format!(
        "`{}`; those of tasks and queues may be limited to queues by a pattern, in which `*` stands for any run of \
         characters: `enqueue:mail-*`.",
        Scope::ALL.map(Scope::as_str).join("`, `")
    ))
    .pattern(Some(SCOPE_PATTERN))
    .examples([json!("read"), json!("enqueue:mail-*")])
);
component!(
    /// Where a task stands.
    TaskStatus = one_of_words(
        "Where a task stands. The last four are ends.",
        Status::ALL.map(Status::as_str)
    )
);
component!(
    /// Why a task is a dead letter.
    DeadLetterReason = one_of_words("Why a task is a dead letter.", DeadReason::ALL.map(DeadReason::as_str))
);
component!(
    /// What happened in an attempt.
    AttemptClass = one_of_words("What happened in an attempt.", OutcomeClass::ALL.map(OutcomeClass::as_str))
);
component!(
    /// Which bound ends a series.
    StopRule = one_of_words(
        "Whether a series ends at `any` bound that is reached, or when `all` are.",
        [StopWhen::Any, StopWhen::All].map(StopWhen::as_str)
    )
);
component!(
    /// The answer to a repeat: the task, or what is still known of it.
    RepeatedTask = OneOfBuilder::new()
        .item(Ref::from_schema_name("Task"))
        .item(Ref::from_schema_name("RemovedTask"))
        .description(Some("The first task as it is now; what is still known of it, if its record was removed."))
);
component!(
    /// The public keys of our ID tokens.
    JsonWebKeySet = {
        let word = |word: &str| ObjectBuilder::new().schema_type(Type::String).enum_values(Some([word]));
        let text = |what: &str| text(what).pattern(Some("^[A-Za-z0-9_-]{43}$"));
        let key = ObjectBuilder::new()
            .schema_type(Type::Object)
            .property("use", word("sig"))
            .property("alg", word("ES256"))
            .property("kid", text("Which key it is: its thumbprint (RFC 7638)."))
            .property("kty", word("EC"))
            .property("crv", word("P-256"))
            .property("x", text("Of the point."))
            .property("y", text("Of the point."));
        let key = ["use", "alg", "kid", "kty", "crv", "x", "y"].into_iter().fold(key, ObjectBuilder::required);
        let keys = utoipa::openapi::ArrayBuilder::new().items(key.build()).min_items(Some(1));
        ObjectBuilder::new()
            .schema_type(Type::Object)
            .description(Some("Public keys (RFC 7517)."))
            .property("keys", keys)
            .required("keys")
    }
);
component!(
    /// One task a line.
    TaskLines = text("A `NewTask` on each line (newline-delimited JSON).")
        .examples([json!("{\"task_type\":\"http_request\",\"payload\":{\"url\":\"https://api.example.com/a\"}}\n")])
);
component!(
    /// A header that says yes.
    True = text("").description(None::<String>).enum_values(Some(["true"]))
);
component!(
    /// Any JSON object.
    AnyObject = ObjectBuilder::new().schema_type(Type::Object)
);
component!(
    /// What is made of a status.
    StatusVerdict = one_of_words(
        "What is made of an answer with a status.",
        [StatusAction::Done, StatusAction::Retry, StatusAction::Dead].map(StatusAction::as_str)
    )
);

/// A string.
pub(super) fn text(description: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::String).description(Some(description))
}

/// A name of the kind that queues, types and labels have.
pub(super) fn name(description: &str) -> ObjectBuilder {
    text(description).pattern(Some(NAME_PATTERN)).min_length(Some(1)).max_length(Some(NAME_LEN_MAX))
}

/// One of these words.
pub(super) fn one_of_words<const N: usize>(description: &str, words: [&str; N]) -> ObjectBuilder {
    text(description).enum_values(Some(words))
}

/// A whole number from `min` to `max`.
pub(super) fn integer(description: &str, min: u32, max: u32) -> ObjectBuilder {
    let number = ObjectBuilder::new().schema_type(Type::Integer).description(Some(description));
    number.minimum(Some(min)).maximum(Some(max))
}

/// `true` or `false`.
pub(super) fn boolean(description: &str) -> ObjectBuilder {
    ObjectBuilder::new().schema_type(Type::Boolean).description(Some(description))
}

/// A field that may also be `null`, which means "not given".
pub(super) fn optional(value: ObjectBuilder) -> Schema {
    let mut value = value.build();
    let SchemaType::Type(kind) = value.schema_type.clone() else { return value.into() };
    value.schema_type = SchemaType::Array(vec![kind, Type::Null]);
    if let Some(words) = &mut value.enum_values {
        words.push(Value::Null);
    }
    value.into()
}

/// A duration in a request, or `null`: text, or a number of seconds.
pub(super) fn duration_given(description: &str, min: Span, max: Span) -> Schema {
    let seconds = |span: Span| std::time::Duration::as_secs_f64(&span.to_duration());
    let text = ObjectBuilder::new()
        .schema_type(Type::String)
        .description(Some(format!("Units `d h m s ms`, each at most once, largest first: {min} to {max}.")))
        .pattern(Some(DURATION_GIVEN_PATTERN));
    let number = ObjectBuilder::new()
        .schema_type(Type::Number)
        .description(Some("Seconds, in steps of a millisecond."))
        .minimum(Some(seconds(min)))
        .maximum(Some(seconds(max)));
    let either = OneOfBuilder::new().description(Some(format!("{description} {min} to {max}.")));
    either.item(text).item(number).item(Object::with_type(Type::Null)).build().into()
}

/// An object with any of these fields, and no others.
pub(super) fn object(description: &str, fields: Vec<(&str, Schema)>) -> ObjectBuilder {
    let object = ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some(description))
        .additional_properties(Some(AdditionalProperties::<Schema>::FreeForm(false)));
    fields.into_iter().fold(object, |object, (name, schema)| object.property(name, schema))
}

/// Labels by name.
pub(super) fn labels(description: &str) -> ObjectBuilder {
    let value = ObjectBuilder::new().schema_type(Type::String).max_length(Some(LABEL_VALUE_LEN_MAX)).build();
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some(description))
        .property_names(Some(Schema::from(name("").description(None::<String>).build())))
        .additional_properties(Some(Schema::from(value)))
        .max_properties(Some(LABELS_MAX))
        .examples([json!({"tenant": "42"})])
}

/// A string of this pattern, for the names of fields.
pub(super) fn bare_name(pattern: &str) -> Schema {
    ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern)).build().into()
}

/// `on_status`: what is made of which status.
pub(in crate::api) fn on_status() -> ObjectBuilder {
    let status = ObjectBuilder::new().schema_type(Type::String).pattern(Some(STATUS_PATTERN)).build();
    ObjectBuilder::new()
        .schema_type(Type::Object)
        .description(Some("Statuses (200 to 599) that are treated otherwise than by default."))
        .property_names(Some(Schema::from(status)))
        .additional_properties(Some(Ref::from_schema_name("StatusVerdict")))
        .examples([json!({"404": "retry"})])
}

/// How many tasks are in each state.
pub(in crate::api) fn count_by_status() -> ObjectBuilder {
    let words = Status::ALL.map(Status::as_str);
    words.iter().fold(counts("How many tasks are in each state.", &words), |object, word| object.required(*word))
}

/// How many dead letters there are for each reason; a reason that nothing died for may be left out.
pub(in crate::api) fn count_by_reason() -> ObjectBuilder {
    counts("How many dead letters there are, by reason.", &DeadReason::ALL.map(DeadReason::as_str))
}

fn counts(description: &str, words: &[&str]) -> ObjectBuilder {
    let count = || ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(0_u32)).build();
    object(description, words.iter().map(|word| (*word, count().into())).collect())
}

/// The payload in answers: any JSON, as it was given.
pub(in crate::api) fn any_json() -> ObjectBuilder {
    let description = "As it was given; in its `headers` the values of `authorization`, `proxy-authorization` and `cookie` are \
                       `\"[redacted]\"`. `null` if the record is damaged, or without the scope `read_payload`.";
    ObjectBuilder::new().schema_type(SchemaType::AnyValue).description(Some(description))
}

/// A keyword of JSON Schema that the builders have no method for.
pub(super) fn keyword(name: &str, value: Value) -> Extensions {
    Extensions::from_iter([(name, value)])
}
