//! The engine's loop: channels in, channels out, one [`Machine`] between them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::logging::Telemetry;
use crate::logging::event::{CommitDone, Fact, StoreFull};
use crate::queue::command::{AcceptError, Answer, EngineError, Request};
use crate::queue::handle::{Envelope, Queues};
use crate::queue::lease::{Lease, Settlement, Work};
use crate::queue::store::{CommitError, Pressure, Store};
use crate::sabotage::Sin;
use crate::task::TaskKey;
use crate::task::limits::{
    COMMANDS_QUEUED_MAX, COMMIT_BYTES_MAX, COMMIT_COMMANDS_MAX, CONCURRENT_MAX, LOOK_AGAIN, WAITERS_MAX,
};

use super::{Fatal, Inputs, Machine, Step};

/// How far the server has come in stopping; it only ever grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Everything runs.
    Run,
    /// No attempt starts any more; everything else goes on.
    Drain,
    /// Attempts in flight are aborted.
    Cut,
    /// Long polls are answered, and new ones refused.
    Hush,
    /// What is in the inbox is done, then the engine ends.
    Stop,
}

/// What the rest of the server holds of the engine.
#[derive(Debug)]
pub struct EnginePorts {
    /// The handle for callers.
    pub queues: Queues,
    /// Attempts to run.
    pub leases: mpsc::Receiver<Lease>,
    /// Where their ends go.
    pub settles: mpsc::Sender<Settlement>,
    /// How the server is stopped.
    pub phase: watch::Sender<Phase>,
    /// How far the engine has come.
    pub progress: watch::Receiver<Progress>,
}

/// How far the engine has come, as of its last turn: what it says of attempts holds under the phase it says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// The phase that the turn obeyed.
    pub phase: Phase,
    /// Attempts that hold a slot after it.
    pub in_flight: usize,
}

/// The engine with its channels.
#[derive(Debug)]
pub struct Engine {
    machine: Machine,
    clock: Clock,
    telemetry: Telemetry,
    commands: mpsc::Receiver<Envelope>,
    chunks: mpsc::Receiver<Envelope>,
    settles: mpsc::Receiver<Settlement>,
    leases: mpsc::Sender<Lease>,
    phase: watch::Receiver<Phase>,
    progress: watch::Sender<Progress>,
    obeyed: Phase,
    aborts: BTreeMap<TaskKey, (u32, CancellationToken)>,
    waiters: BTreeMap<TaskKey, Vec<oneshot::Sender<()>>>,
    waiters_held: usize,
}

/// What was taken from the channels for one turn.
#[derive(Default)]
struct Inbox {
    inputs: Inputs,
    replies: Vec<oneshot::Sender<Result<Answer, EngineError>>>,
    bytes: usize,
}

impl Engine {
    /// Puts channels around a machine that has opened.
    pub fn new(machine: Machine, store: Arc<dyn Store>, clock: Clock, telemetry: Telemetry) -> (Self, EnginePorts) {
        let (commands_in, commands) = mpsc::channel(COMMANDS_QUEUED_MAX);
        let (chunks_in, chunks) = mpsc::channel(1);
        let slots = CONCURRENT_MAX as usize;
        let (settles_in, settles) = mpsc::channel(slots);
        let (leases, leases_out) = mpsc::channel(slots);
        let (phase_in, phase) = watch::channel(Phase::Run);
        let began = Progress { phase: Phase::Run, in_flight: machine.in_flight() };
        let (progress, progress_out) = watch::channel(began);
        let queues = Queues::new(commands_in, chunks_in, store, clock.clone());
        let engine = Self {
            machine,
            clock,
            telemetry,
            commands,
            chunks,
            settles,
            leases,
            phase,
            progress,
            obeyed: Phase::Run,
            aborts: BTreeMap::new(),
            waiters: BTreeMap::new(),
            waiters_held: 0,
        };
        let ports =
            EnginePorts { queues, leases: leases_out, settles: settles_in, phase: phase_in, progress: progress_out };
        (engine, ports)
    }

    /// Runs until the phase is [`Phase::Stop`] and the inbox is empty, or until the store fails.
    pub async fn run(mut self) -> Result<(), Fatal> {
        loop {
            let mut inbox = Inbox::default();
            self.wait(&mut inbox).await;
            self.take(&mut inbox);
            let phase = *self.phase.borrow_and_update();
            self.obey(phase);
            let idle = inbox.inputs.is_empty();
            self.turn(inbox).await?;
            if phase == Phase::Stop && idle {
                return Ok(());
            }
        }
    }

    /// Sleeps until something arrives, something comes due, or a second has passed.
    async fn wait(&mut self, inbox: &mut Inbox) {
        let now = self.clock.now();
        let look_again = LOOK_AGAIN.to_duration();
        let until = self.machine.next_look(now).map_or(look_again, |at| at.saturating_sub(now.mono).min(look_again));
        if *self.phase.borrow() == Phase::Stop {
            self.commands.close();
            return;
        }
        tokio::select! {
            biased;
            Some(settlement) = self.settles.recv() => self.settled(inbox, settlement),
            _changed = self.phase.changed() => {}
            Some(envelope) = self.commands.recv() => self.receive(inbox, envelope),
            Some(envelope) = self.chunks.recv() => self.receive(inbox, envelope),
            () = self.clock.sleep(until) => {}
        }
    }

    /// Takes what else has piled up, as much as one commit may hold.
    fn take(&mut self, inbox: &mut Inbox) {
        while let Ok(settlement) = self.settles.try_recv() {
            self.settled(inbox, settlement);
        }
        let full = |inbox: &Inbox| inbox.replies.len() >= COMMIT_COMMANDS_MAX || inbox.bytes >= COMMIT_BYTES_MAX;
        while !full(inbox)
            && let Ok(envelope) = self.commands.try_recv()
        {
            self.receive(inbox, envelope);
        }
        // Bulk work comes last, and one chunk at a time.
        if !full(inbox)
            && let Ok(envelope) = self.chunks.try_recv()
        {
            self.receive(inbox, envelope);
        }
    }

    fn settled(&mut self, inbox: &mut Inbox, settlement: Settlement) {
        if self.aborts.get(&settlement.key).is_some_and(|(epoch, _)| *epoch == settlement.epoch) {
            self.aborts.remove(&settlement.key);
        }
        inbox.inputs.settlements.push(settlement);
    }

    fn receive(&mut self, inbox: &mut Inbox, envelope: Envelope) {
        match envelope {
            Envelope::Ask { request, bytes, room, reply } => {
                drop(room);
                inbox.inputs.requests.push(request);
                inbox.replies.push(reply);
                inbox.bytes += bytes;
            }
            Envelope::Wait { key, ended, registered } => {
                let result = self.register(key, ended);
                tell(registered, result);
            }
        }
    }

    fn register(&mut self, key: TaskKey, ended: oneshot::Sender<()>) -> Result<(), EngineError> {
        if *self.phase.borrow() >= Phase::Hush {
            return Err(EngineError::Stopping);
        }
        if self.waiters_held >= WAITERS_MAX {
            self.forget_gone_waiters();
        }
        if self.waiters_held >= WAITERS_MAX {
            return Err(EngineError::Busy);
        }
        self.waiters.entry(key).or_default().push(ended);
        self.waiters_held += 1;
        Ok(())
    }

    fn forget_gone_waiters(&mut self) {
        self.waiters.retain(|_, waiters| {
            waiters.retain(|waiter| !waiter.is_closed());
            !waiters.is_empty()
        });
        self.waiters_held = self.waiters.values().map(Vec::len).sum();
    }

    fn obey(&mut self, phase: Phase) {
        self.obeyed = phase;
        if phase >= Phase::Drain {
            self.machine.stop_starting();
        }
        if phase >= Phase::Cut {
            for (_epoch, abort) in self.aborts.values() {
                abort.cancel();
            }
        }
        if phase >= Phase::Hush {
            self.waiters.clear();
            self.waiters_held = 0;
        }
    }

    async fn turn(&mut self, inbox: Inbox) -> Result<(), Fatal> {
        let now = self.clock.now();
        let mut replies: Vec<Option<oneshot::Sender<_>>> = inbox.replies.into_iter().map(Some).collect();
        let mut step = self.machine.decide(now, inbox.inputs).await?;
        if crate::sabotage::commits(Sin::AcknowledgeBeforeCommit) {
            answer(&mut step, &mut replies);
            // A quick commit would hide the sin from anybody who cannot strike within microseconds.
            self.clock.sleep(Duration::from_millis(20)).await;
        }
        self.commit(&mut step).await?;
        self.act(step, replies);
        Ok(())
    }

    /// Commits, again and again while the disk is full: nothing that was decided is taken back, and outcomes wait
    /// rather than get lost.
    async fn commit(&mut self, step: &mut Step) -> Result<(), Fatal> {
        let changes = step.changes.len();
        if changes == 0 {
            return Ok(());
        }
        let began = self.clock.now().mono;
        loop {
            match self.machine.commit(step).await {
                Ok(()) => break,
                Err(CommitError::Full) if self.wait_for_room().await => {}
                Err(error) => return Err(Fatal::Commit(error)),
            }
        }
        let took: Duration = self.clock.now().mono.saturating_sub(began);
        CommitDone { took, changes }.emit(&self.telemetry);
        Ok(())
    }

    /// Waits a moment for room on the disk, and meanwhile says so to whoever asks. False when the server has come to its
    /// end: what was decided is then forgotten, as after a crash; nobody was told of it.
    async fn wait_for_room(&mut self) -> bool {
        StoreFull.emit(&self.telemetry);
        let mut retry = self.clock.sleep(LOOK_AGAIN.to_duration());
        loop {
            if *self.phase.borrow() == Phase::Stop {
                return false;
            }
            tokio::select! {
                () = &mut retry => return true,
                _changed = self.phase.changed() => {}
                Some(envelope) = self.commands.recv() => self.put_off(envelope),
                Some(envelope) = self.chunks.recv() => self.put_off(envelope),
            }
        }
    }

    fn put_off(&self, envelope: Envelope) {
        match envelope {
            Envelope::Wait { registered, .. } => tell(registered, Err(EngineError::Busy)),
            Envelope::Ask { request: Request::Queues(queue), reply, .. } => {
                tell(reply, Ok(Answer::Queues(self.machine.views(queue.as_ref()))));
            }
            Envelope::Ask { request: Request::Accept(_), reply, .. } => {
                let (free, reserve) = match self.machine.pressure() {
                    Pressure::Normal => (0, 0),
                    Pressure::BelowReserve { free, reserve } => (free, reserve),
                };
                tell(reply, Ok(Answer::Accept(Err(AcceptError::StorageFull { free, reserve }))));
            }
            Envelope::Ask {
                request: Request::Task(..) | Request::Chunk(..) | Request::Pause(..) | Request::Configure(_),
                reply,
                ..
            } => tell(reply, Err(EngineError::Busy)),
        }
    }

    /// Lets out what was decided, now that it is durable.
    fn act(&mut self, mut step: Step, mut replies: Vec<Option<oneshot::Sender<Result<Answer, EngineError>>>>) {
        answer(&mut step, &mut replies);
        for key in &step.aborts {
            if let Some((_epoch, abort)) = self.aborts.get(key) {
                abort.cancel();
            }
        }
        for work in step.leases {
            self.hand_over(work);
        }
        for key in &step.ended {
            let waiters = self.waiters.remove(key).unwrap_or_default();
            self.waiters_held -= waiters.len();
            for waiter in waiters {
                tell(waiter, ());
            }
        }
        for event in step.events {
            event.emit(&self.telemetry);
        }
        let progress = Progress { phase: self.obeyed, in_flight: self.machine.in_flight() };
        self.progress.send_if_modified(|told| std::mem::replace(told, progress) != progress);
    }

    fn hand_over(&mut self, work: Work) {
        let (key, epoch) = (work.header.key, work.header.epoch);
        let abort = CancellationToken::new();
        self.aborts.insert(key, (epoch, abort.clone()));
        // There is room: the channel holds as many leases as there can be slots. Without a pool the server is going
        // down, and the attempt is closed as interrupted at the next start.
        drop(self.leases.try_send(Lease { work, abort }));
    }
}

/// Tells whoever asked. They may have gone meanwhile: what was done stays done.
fn tell<T>(reply: oneshot::Sender<T>, answer: T) {
    if reply.send(answer).is_err() {
        tracing::trace!("whoever asked has gone");
    }
}

fn answer(step: &mut Step, replies: &mut [Option<oneshot::Sender<Result<Answer, EngineError>>>]) {
    for (ticket, answer) in step.answers.drain(..) {
        if let Some(reply) = replies.get_mut(ticket).and_then(Option::take) {
            tell(reply, Ok(answer));
        }
    }
}
