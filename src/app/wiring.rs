//! The closures through which the API reaches what lies beside it: handlers, metrics, what is in force.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::api::{Access, PayloadError};
use crate::logging::event::RequestServed;
use crate::logging::{Fact, QueueFigures, Telemetry};
use crate::queue::command::QueueView;
use crate::security::credential::Credentials;
use crate::security::http_client::OutgoingClients;
use crate::task::{LaneName, QueueName, TaskType};
use crate::worker::handler::http::HttpHandler;
use crate::worker::handler::{CheckError, Handlers};

pub(super) fn is_set(flag: &Arc<AtomicBool>) -> crate::api::Ready {
    let flag = Arc::clone(flag);
    Arc::new(move || flag.load(Ordering::Acquire))
}

/// What is in force of a number that a reload may change.
pub(super) fn number(cell: &Arc<AtomicU64>) -> crate::api::PayloadBytesMax {
    let cell = Arc::clone(cell);
    Arc::new(move || cell.load(Ordering::Relaxed))
}

pub(super) fn handlers(clients: Arc<OutgoingClients>, credentials: Arc<Credentials>) -> Handlers {
    let handlers = Handlers::default();
    match TaskType::parse("http_request") {
        Ok(http_request) => handlers.with(http_request, Arc::new(HttpHandler::new(clients, credentials))),
        Err(_never) => handlers,
    }
}

pub(super) fn check_payload(handlers: Arc<Handlers>) -> crate::api::CheckPayload {
    Arc::new(move |task_type, payload, queue| check(&handlers, task_type, payload, queue))
}

fn check(
    handlers: &Handlers,
    task_type: &TaskType,
    payload: &[u8],
    queue: &QueueName,
) -> Result<LaneName, PayloadError> {
    handlers.check(task_type, payload, queue).map_err(|error| match error {
        CheckError::Faults(faults) => PayloadError::Faults(faults),
        CheckError::Egress(refusal) => PayloadError::EgressRefused { detail: refusal.to_string() },
        CheckError::Credential(refused) => PayloadError::CredentialRefused(refused),
        CheckError::UnknownType { nearest, .. } => {
            PayloadError::UnknownType { nearest: nearest.map(|nearest| nearest.to_string()) }
        }
    })
}

pub(super) fn metrics_text(telemetry: &Telemetry) -> crate::api::MetricsText {
    let telemetry = telemetry.clone();
    Arc::new(move |views: &[QueueView], now| {
        for view in views {
            telemetry.set_queue(&QueueFigures {
                queue: &view.name,
                tasks: view.tasks,
                oldest_ready: view.oldest_ready.map(|since| now.since(since)),
            });
        }
        telemetry.encode()
    })
}

pub(super) fn on_access(telemetry: &Telemetry) -> crate::api::OnAccess {
    let telemetry = telemetry.clone();
    Arc::new(move |access: &Access| {
        RequestServed {
            method: access.method.as_str(),
            route: access.route.as_deref().unwrap_or("none"),
            status: access.status.as_u16(),
            took: access.took,
            request_id: &access.request_id,
            caller: access.caller.as_ref().map(|caller| &*caller.id),
            cause: access.cause.as_deref(),
        }
        .emit(&telemetry);
    })
}
