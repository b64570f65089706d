//! What requests carry besides their body: path, query and header parameters.

use serde_json::json;
use utoipa::IntoParams;
use utoipa::openapi::path::{Parameter, ParameterBuilder, ParameterIn, ParameterStyle};
use utoipa::openapi::schema::{AdditionalProperties, Schema};
use utoipa::openapi::{ObjectBuilder, Ref, Required, Type};

use crate::task::limits::{IDEMPOTENCY_KEY_LEN_MAX, IDEMPOTENCY_WINDOW, PAGE_DEFAULT, PAGE_MAX, WAIT_MAX};

use super::words::{bare_name, integer, text};

/// A duration up to [`WAIT_MAX`], as most would write it.
const WAIT_PATTERN: &str = r"^(60|[1-5]?[0-9](\.[0-9]{1,3})?)s?$|^[0-9]{1,4}ms$|^1m$";

/// Parameters that go together.
macro_rules! parameters {
    ($(#[$doc:meta])* $name:ident = $parameters:expr) => {
        $(#[$doc])*
        pub(in crate::api) enum $name {}

        impl IntoParams for $name {
            fn into_params(_: impl Fn() -> Option<ParameterIn>) -> Vec<Parameter> {
                $parameters
            }
        }
    };
}

parameters!(
    /// `{id}`.
    TaskInPath = vec![in_path("id", "TaskId", "The task's own name, or the id it was given.")]
);
parameters!(
    /// `{queue}`.
    QueueInPath = vec![in_path("queue", "QueueName", "The queue's name.")]
);
parameters!(
    /// `{id}` of an API key.
    KeyInPath = vec![in_path("id", "KeyId", "The public part of the key.")]
);
parameters!(
    /// `{name}` of a credential.
    CredentialInPath = vec![in_path("name", "CredentialName", "The credential's name.")]
);
parameters!(
    /// `Idempotency-Key`.
    Repeatable = vec![idempotency_key()]
);
parameters!(
    /// `GET /tasks/{id}?wait=`.
    Waiting = vec![wait()]
);
parameters!(
    /// `GET /tasks`.
    TaskFilter = [filter_of("status", "TaskStatus", "In this state.")].into_iter().chain(page()).collect()
);
parameters!(
    /// `GET /dlq`.
    DeadLetterFilter = [filter_of("reason", "DeadLetterReason", "Dead for this reason.")].into_iter().chain(page()).collect()
);

/// `X-Request-Id`, which every request may carry.
pub(super) fn request_id() -> Parameter {
    let id = text("1 to 128 of `A-Z a-z 0-9 . _ : / + = @ -`; anything else is replaced by a new id.");
    let id = id.examples([json!("checkout-7f3a")]).build();
    ParameterBuilder::new()
        .name("X-Request-Id")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some("Your own id for this request; the answer and the log carry it."))
        .schema(Some(id))
        .build()
}

fn in_path(name: &str, schema: &str, description: &str) -> Parameter {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Path)
        .required(Required::True)
        .description(Some(description))
        .schema(Some(Ref::from_schema_name(schema)))
        .build()
}

fn in_query(name: &str, description: &str, schema: impl Into<utoipa::openapi::RefOr<Schema>>) -> ParameterBuilder {
    ParameterBuilder::new()
        .name(name)
        .parameter_in(ParameterIn::Query)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(schema))
}

fn filter_of(name: &str, schema: &str, description: &str) -> Parameter {
    in_query(name, description, Ref::from_schema_name(schema)).build()
}

/// The filters that all lists of tasks have, and where a page begins.
fn page() -> [Parameter; 5] {
    let limit = integer("", 1, PAGE_MAX).description(None::<String>).default(Some(json!(PAGE_DEFAULT)));
    let cursor = text("").description(None::<String>).build();
    [
        filter_of("queue", "QueueName", "Of this queue."),
        filter_of("task_type", "TaskType", "Of this type."),
        labels(),
        in_query("limit", "Tasks on one page. A page may be short, or empty, while `next` is not null.", limit).build(),
        in_query("cursor", "`next` of the page before.", cursor).build(),
    ]
}

/// `label.NAME=VALUE`: the fields of a form-style object are parameters of their own.
fn labels() -> Parameter {
    let labels = ObjectBuilder::new()
        .schema_type(Type::Object)
        .property_names(Some(bare_name("^label[.][A-Za-z0-9._-]{1,128}$")))
        .additional_properties(Some(AdditionalProperties::<Schema>::from(Schema::from(
            ObjectBuilder::new().schema_type(Type::String),
        ))));
    let description = "With all these labels: a parameter `label.NAME=VALUE` for each.";
    in_query("labels", description, labels).style(Some(ParameterStyle::Form)).explode(Some(true)).build()
}

fn wait() -> Parameter {
    let duration = text("").description(None::<String>).pattern(Some(WAIT_PATTERN)).examples([json!("30s")]);
    let description = format!(
        "Answer when the task has ended, or after this long (a duration up to {WAIT_MAX}), whichever is first."
    );
    in_query("wait", &description, duration).build()
}

fn idempotency_key() -> Parameter {
    let key = text("Visible ASCII characters.")
        .pattern(Some("^[!-~]+$"))
        .min_length(Some(1))
        .max_length(Some(IDEMPOTENCY_KEY_LEN_MAX))
        .examples([json!("order-7")])
        .build();
    let description = format!(
        "Makes the request safe to repeat: the same key with the same body (byte for byte) is answered with what was \
         accepted the first time. Remembered for {IDEMPOTENCY_WINDOW}, for the same key holder and path."
    );
    ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .required(Required::False)
        .description(Some(description))
        .schema(Some(key))
        .build()
}
