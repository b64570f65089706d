//! The handle that everybody else holds: cheap to clone, one question, one answer.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use crate::clock::Clock;
use crate::config::Config;
use crate::task::limits::{CHUNK_TASKS_MAX, COMMANDS_QUEUED_BYTES_MAX, PAGE_ROWS_SCANNED_MAX};
use crate::task::{QueueName, Status, TaskId, TaskKey, TaskRef};

use super::command::{
    Accept, AcceptError, Accepted, Answer, BulkAction, BulkReport, EngineError, PublicId, QueueView, Request,
    TaskAction, TaskActionError,
};
use super::store::{IdRange, ListPage, ListQuery, Row, Store, StoreError, TaskFilter, TaskRecord};

/// A request on its way to the engine, with the way back.
#[derive(Debug)]
pub(crate) enum Envelope {
    /// A question for the decision core.
    Ask {
        /// The question.
        request: Request,
        /// Roughly how many bytes it holds: commits are bounded by them.
        bytes: usize,
        /// Their room among all that wait for the engine; given back when it takes them.
        room: Option<OwnedSemaphorePermit>,
        /// Where the answer goes.
        reply: oneshot::Sender<Result<Answer, EngineError>>,
    },
    /// Somebody waits for the end of a task.
    Wait {
        /// The task.
        key: TaskKey,
        /// Told when it has ended.
        ended: oneshot::Sender<()>,
        /// Told at once whether the wait is registered.
        registered: oneshot::Sender<Result<(), EngineError>>,
    },
}

/// A cheap handle on the engine and on the store's read side.
///
/// Commands go to the engine through a bounded channel and come back after their commit; reads go to the store, which
/// holds only what was committed.
#[derive(Clone)]
pub struct Queues {
    commands: mpsc::Sender<Envelope>,
    chunks: mpsc::Sender<Envelope>,
    room: Arc<Semaphore>,
    store: Arc<dyn Store>,
    clock: Clock,
}

impl std::fmt::Debug for Queues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Queues")
    }
}

impl Queues {
    pub(crate) fn new(
        commands: mpsc::Sender<Envelope>,
        chunks: mpsc::Sender<Envelope>,
        store: Arc<dyn Store>,
        clock: Clock,
    ) -> Self {
        Self { commands, chunks, room: Arc::new(Semaphore::new(COMMANDS_QUEUED_BYTES_MAX)), store, clock }
    }

    /// Accepts tasks, all or none; durable when this returns.
    pub async fn accept(&self, accept: Accept) -> Result<Accepted, AcceptError> {
        let bytes = accept.specs.iter().map(|spec| spec.payload.len() + 512).sum();
        match self.ask(Request::Accept(Box::new(accept)), bytes).await? {
            Answer::Accept(result) => result,
            Answer::Task(_) | Answer::Chunk(_) | Answer::Queues(_) | Answer::Configured => {
                Err(EngineError::Unknown.into())
            }
        }
    }

    /// Cancels, runs, redrives or purges one task; durable when this returns. Gives the task as it is then.
    pub async fn act(&self, action: TaskAction, task: TaskRef) -> Result<Row, TaskActionError> {
        match self.ask(Request::Task(action, task), 0).await? {
            Answer::Task(result) => result.map(|row| *row),
            Answer::Accept(_) | Answer::Chunk(_) | Answer::Queues(_) | Answer::Configured => {
                Err(EngineError::Unknown.into())
            }
        }
    }

    /// Redrives or purges every dead letter that matches, newest first, in chunks; `dry_run` only counts. What was done
    /// before an error stays done: repeat the call.
    pub async fn bulk(&self, action: BulkAction, filter: TaskFilter, dry_run: bool) -> Result<BulkReport, BulkError> {
        let mut report = BulkReport::default();
        let mut query = ListQuery {
            filter: TaskFilter { status: Some(Status::Dead), ..filter },
            before: None,
            limit: CHUNK_TASKS_MAX,
            scan_max: PAGE_ROWS_SCANNED_MAX,
        };
        loop {
            let page = self.store.list(query.clone()).await?;
            let ids: Vec<TaskId> = page.rows.iter().map(|row| row.header.id()).collect();
            report.matched += ids.len() as u64;
            if !dry_run && !ids.is_empty() {
                report.done += self.chunk(action, ids).await?;
            }
            query.before = page.next;
            if query.before.is_none() {
                return Ok(report);
            }
        }
    }

    async fn chunk(&self, action: BulkAction, ids: Vec<TaskId>) -> Result<u64, EngineError> {
        let (reply, answer) = oneshot::channel();
        let envelope = Envelope::Ask { request: Request::Chunk(action, ids), bytes: 0, room: None, reply };
        self.chunks.send(envelope).await.map_err(|_closed| EngineError::Stopping)?;
        match answer.await.map_err(|_dropped| EngineError::Unknown)?? {
            Answer::Chunk(done) => Ok(done),
            Answer::Accept(_) | Answer::Task(_) | Answer::Queues(_) | Answer::Configured => Err(EngineError::Unknown),
        }
    }

    /// Pauses or resumes a queue; `None` when there is no such queue.
    pub async fn pause(&self, queue: QueueName, paused: bool) -> Result<Option<QueueView>, EngineError> {
        self.ask_queues(Request::Pause(queue, paused)).await.map(|views| views.into_iter().next())
    }

    /// Puts what `config` says of queues, workers and hosts in force; it is, and durable, when this returns. Waits for
    /// its turn, however many commands wait; [`EngineError::Busy`] only while the disk is full.
    pub async fn configure(&self, config: Arc<Config>) -> Result<(), EngineError> {
        let (reply, answer) = oneshot::channel();
        let envelope = Envelope::Ask { request: Request::Configure(config), bytes: 0, room: None, reply };
        self.commands.send(envelope).await.map_err(|_closed| EngineError::Stopping)?;
        match answer.await.map_err(|_dropped| EngineError::Unknown)?? {
            Answer::Configured => Ok(()),
            Answer::Accept(_) | Answer::Task(_) | Answer::Chunk(_) | Answer::Queues(_) => Err(EngineError::Unknown),
        }
    }

    /// How one queue stands; `None` when there is no such queue.
    pub async fn queue(&self, queue: QueueName) -> Result<Option<QueueView>, EngineError> {
        self.ask_queues(Request::Queues(Some(queue))).await.map(|views| views.into_iter().next())
    }

    /// How all queues stand, by name.
    pub async fn queues(&self) -> Result<Vec<QueueView>, EngineError> {
        self.ask_queues(Request::Queues(None)).await
    }

    async fn ask_queues(&self, request: Request) -> Result<Vec<QueueView>, EngineError> {
        match self.ask(request, 0).await? {
            Answer::Queues(views) => Ok(views),
            Answer::Accept(_) | Answer::Task(_) | Answer::Chunk(_) | Answer::Configured => Err(EngineError::Unknown),
        }
    }

    /// One task with its attempts, as committed.
    pub async fn get(&self, task: TaskRef) -> Result<Option<TaskRecord>, StoreError> {
        self.store.record(task).await
    }

    /// A page of tasks, as committed.
    pub async fn list(&self, query: ListQuery) -> Result<ListPage, StoreError> {
        self.store.list(query).await
    }

    /// What their clients call the tasks of an accepted batch (in order; ids for those removed since).
    pub async fn public_ids(&self, range: IdRange) -> Result<Vec<PublicId>, StoreError> {
        let ids: Vec<TaskId> =
            (0..range.count).map(|offset| TaskId { key: range.first.offset(offset), tail: range.tail }).collect();
        let refs = ids.iter().copied().map(TaskRef::by_id).collect();
        let rows = self.store.gather(refs, Vec::new()).await?.rows;
        Ok(ids.into_iter().zip(rows).map(|(id, row)| row.map_or(PublicId::Id(id), |row| row.public_id())).collect())
    }

    /// One task, when it has ended or after `wait_max`, whichever comes first.
    pub async fn wait(&self, task: TaskRef, wait_max: Duration) -> Result<Option<TaskRecord>, WaitError> {
        let Some(record) = self.store.record(task.clone()).await? else { return Ok(None) };
        if record.row.header.status.has_ended() {
            return Ok(Some(record));
        }
        let (ended, told) = oneshot::channel();
        let (registered, registration) = oneshot::channel();
        let envelope = Envelope::Wait { key: record.row.header.key, ended, registered };
        self.commands.try_send(envelope).map_err(|error| refusal(&error))?;
        registration.await.map_err(|_dropped| EngineError::Stopping)??;
        // It may have ended between the first read and the registration.
        let Some(record) = self.store.record(task.clone()).await? else { return Ok(None) };
        if record.row.header.status.has_ended() {
            return Ok(Some(record));
        }
        tokio::select! {
            _told = told => {}
            () = self.clock.sleep(wait_max) => {}
        }
        Ok(self.store.record(task).await?)
    }

    async fn ask(&self, request: Request, bytes: usize) -> Result<Answer, EngineError> {
        let (reply, answer) = oneshot::channel();
        let permits = u32::try_from(bytes.min(COMMANDS_QUEUED_BYTES_MAX)).map_err(|_too_many| EngineError::Busy)?;
        let room = Arc::clone(&self.room).try_acquire_many_owned(permits).map_err(|_full| EngineError::Busy)?;
        self.commands
            .try_send(Envelope::Ask { request, bytes, room: Some(room), reply })
            .map_err(|error| refusal(&error))?;
        answer.await.map_err(|_dropped| EngineError::Unknown)?
    }
}

fn refusal(error: &mpsc::error::TrySendError<Envelope>) -> EngineError {
    if matches!(error, mpsc::error::TrySendError::Full(_)) { EngineError::Busy } else { EngineError::Stopping }
}

/// Why a bulk call stopped.
#[derive(Debug, thiserror::Error)]
pub enum BulkError {
    /// The engine did not answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why waiting failed.
#[derive(Debug, thiserror::Error)]
pub enum WaitError {
    /// The engine did not answer.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The store could not be read.
    #[error(transparent)]
    Store(#[from] StoreError),
}
