//! `POST /tasks/batch`: many tasks, all or none, in one commit.

use std::ops::ControlFlow;

use axum::body::Body as HttpBody;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use bytes::Bytes;
use serde::Serialize;
use tokio::task::{JoinError, spawn_blocking};
use utoipa::ToSchema;

use crate::queue::command::{Accept, Accepted, PublicId};
use crate::queue::store::digest;
use crate::task::WallMs;
use crate::task::limits::{BATCH_BYTES_MAX, LINES_PIECE_BYTES};

use super::access::Caller;
use super::error::Problem;
use super::extract::{
    Arriving, BatchMedia, Budget, NoQuery, Prefixed, batch_media, idempotency_key, in_time, json_body,
};
use super::lines::{Lines, ReadLines};
use super::openapi::{bodies::NewTasks, parameters, words};
use super::state::Api;
use super::tasks::{REPLAYED, idempotency, rules};
use super::wire_task::batch;

/// Which tasks were accepted.
#[derive(Serialize, ToSchema)]
#[schema(as = TaskIds)]
struct Body {
    /// In the order of the request.
    #[schema(value_type = Vec<words::TaskId>)]
    task_ids: Vec<String>,
}

impl Body {
    fn of(ids: &[PublicId]) -> Json<Self> {
        Json(Self { task_ids: ids.iter().map(PublicId::to_string).collect() })
    }
}

/// `POST /tasks/batch`.
#[utoipa::path(
    post, path = "/tasks/batch", operation_id = "create_tasks", tag = "tasks",
    summary = "Enqueue many tasks",
    description = "All are accepted in one commit, or none is. A refusal names each fault with the task's index, \
                   `/1/payload/url`, and of lines with the number of its line too. `Idempotency-Key` covers the whole batch.",
    params(parameters::Repeatable),
    request_body(content((NewTasks = "application/json"), (words::TaskLines = "application/x-ndjson"))),
    responses(
        (status = 201, description = "Accepted.", body = Body),
        (status = 200, description = "A repeat: the same ids.", body = Body, headers(
            ("Idempotency-Replayed" = words::True, description = "Always `true`."),
        )),
    ),
)]
pub(super) async fn create(
    State(api): State<Api>,
    Extension(caller): Extension<Caller>,
    at: Prefixed,
    _: NoQuery,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let key = idempotency_key(&parts.headers)?;
    let asked = Asked { api: api.clone(), now: api.clock().now().wall, keyed: key.is_some() };
    let read = match batch_media(&parts.headers)? {
        BatchMedia::Array => asked.array(&parts.headers, body).await?,
        BatchMedia::Lines => asked.lines(&parts.headers, body).await?,
    };
    caller.permit_specs(&read.specs, true).map_err(|problem| problem.on_lines(&read.line_of))?;
    let accept = Accept { specs: read.specs, idempotency: idempotency(&caller, &at, key, read.digest) };
    match api.queues().accept(accept).await.map_err(|error| caller.not_accepted(error, true).on_lines(&read.line_of))? {
        Accepted::New { ids, .. } => Ok((StatusCode::CREATED, Body::of(&ids)).into_response()),
        Accepted::Existing { ids } => Ok((StatusCode::OK, [REPLAYED], Body::of(&ids)).into_response()),
        Accepted::Repeat { range, .. } => {
            let ids = api.queues().public_ids(range).await?;
            Ok((StatusCode::OK, [REPLAYED], Body::of(&ids)).into_response())
        }
    }
}

/// What the tasks of a batch are read for.
#[derive(Clone)]
struct Asked {
    api: Api,
    now: WallMs,
    keyed: bool,
}

impl Asked {
    /// Reads an array whole. Reading 32 MiB takes long enough to hold up other requests of this thread, so it is done
    /// on one that may block. The body goes along, and with it its share of the budget, until the specs (which hold
    /// copies) are there.
    async fn array(self, headers: &HeaderMap, body: HttpBody) -> Result<ReadLines, Problem> {
        let raw = json_body(&self.api, headers, body, BATCH_BYTES_MAX).await?;
        let read = spawn_blocking(move || {
            let specs = batch(raw.text()?, &rules(&self.api, self.now, self.keyed))?;
            Ok(ReadLines { specs, line_of: Vec::new(), digest: digest(&raw.bytes) })
        });
        read.await.map_err(|panic| panicked(&panic))?
    }

    /// Reads lines as they arrive, a piece at a time on a thread that may block.
    async fn lines(self, headers: &HeaderMap, body: HttpBody) -> Result<ReadLines, Problem> {
        let arriving = Arriving::new(&self.api, headers, body, BATCH_BYTES_MAX)?;
        in_time(&self.api, self.pieces(arriving)).await
    }

    async fn pieces(&self, mut arriving: Arriving) -> Result<ReadLines, Problem> {
        let (mut lines, mut budget) = (Lines::default(), Budget::default());
        loop {
            let piece = arriving.piece(LINES_PIECE_BYTES, &mut budget).await?;
            match spawn_blocking(self.clone().feed(lines, budget, piece)).await.map_err(|panic| panicked(&panic))? {
                ControlFlow::Continue(held) => (lines, budget) = held,
                ControlFlow::Break(finished) => return finished,
            }
        }
    }

    /// Reads one piece. The budget goes along with what has been read, though the text is not kept: the tasks are about
    /// as large.
    fn feed(self, mut lines: Lines, budget: Budget, piece: Bytes) -> impl FnOnce() -> Fed + Send + 'static {
        move || {
            let rules = rules(&self.api, self.now, self.keyed);
            let is_last = piece.len() < LINES_PIECE_BYTES;
            if lines.feed(&piece, &rules) && !is_last {
                return ControlFlow::Continue((lines, budget));
            }
            ControlFlow::Break(lines.finish(&rules))
        }
    }
}

/// What has been read so far; or all of it.
type Fed = ControlFlow<Result<ReadLines, Problem>, (Lines, Budget)>;

fn panicked(panic: &JoinError) -> Problem {
    Problem::internal(format!("reading a batch failed: {panic}"))
}
