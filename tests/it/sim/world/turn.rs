//! One turn of the engine: what has piled up goes in, the commit does what the disk lets it, and what was decided leaves.

use sendoff::queue::command::{Accepted, Answer, PublicId};
use sendoff::queue::engine::Step;
use sendoff::queue::store::CommitError;
use sendoff::task::TaskId;

use super::*;

/// What somebody sent in this turn.
#[derive(Debug)]
enum Mail {
    Letter(Rc<Letter>, u32),
    Act(Act),
    Configure(Arc<Config>),
}

/// What has piled up for one turn.
#[derive(Debug, Default)]
struct Pile {
    mail: Vec<Mail>,
    settlements: Vec<(Settlement, bool)>,
    crash: bool,
}

/// What became of a commit.
#[derive(Debug, PartialEq)]
enum Fate {
    Durable,
    /// Nothing may be acknowledged any more: the process stops.
    Unknown {
        applied: bool,
    },
}

/// How often a client sends the same again.
const TRIES: u32 = 4;

impl World {
    pub(super) fn turn(&mut self) {
        self.report.turns += 1;
        let pile = self.gather();
        let now = self.moment();
        self.oracle.hear(now, Fact::Turn);
        let (inputs, mut mail) = self.send(now, pile.mail, pile.settlements);
        let quiet = inputs.is_empty();
        let engine_now = self.now();
        let machine = self.machine.as_mut().expect("a process runs");
        let mut step =
            machine.decide(engine_now, inputs).now_or_never().expect("memory never waits").expect("readable");
        if quiet && step.changes.is_empty() && step.events.is_empty() {
            return self.oracle.hear(now, Fact::Idle);
        }
        if self.acknowledges_early {
            self.answer(&mut step, &mut mail);
        }
        // A crash strikes before the commit, or between it, the answers and the requests, or after all of it.
        let strikes = if pile.crash { self.chance.below(4) } else { 4 };
        if strikes == 0 {
            return self.lose(mail, "before the commit");
        }
        let fate = self.commit(&mut step);
        self.witness(now);
        if fate != (Fate::Unknown { applied: false }) {
            self.in_force(now, &mail);
        }
        if fate != Fate::Durable {
            return self.lose(mail, "the outcome of a commit is unknown");
        }
        for event in std::mem::take(&mut step.events) {
            self.trace.note(self.at, &format!("{event:?}"));
        }
        if strikes == 1 {
            return self.lose(mail, "after the commit");
        }
        self.answer(&mut step, &mut mail);
        if strikes == 2 {
            return self.lose(mail, "before the requests");
        }
        self.abort(&step.aborts);
        for work in &step.leases {
            self.call(now, work);
        }
        if strikes == 3 {
            self.lose(mail, "after the requests");
        }
    }

    /// Everything whose time has come; clocks and disks change before the engine looks at them.
    fn gather(&mut self) -> Pile {
        let mut pile = Pile::default();
        while let Some(event) = self.agenda.pop(self.at) {
            match event {
                Event::Arrive => pile.mail.push(Mail::Letter(self.clients.letter(WALL_START + self.at), 1)),
                Event::Again(letter, tries) => pile.mail.push(Mail::Letter(letter, tries)),
                Event::Act => pile.mail.extend(self.clients.act().map(Mail::Act)),
                Event::Settle(process, settlement) if process == self.process => {
                    self.calls.remove(&settlement.key);
                    self.haunt(&settlement, 25);
                    pile.settlements.push((settlement, false));
                }
                Event::Settle(_, settlement) => self.haunt(&settlement, 3),
                Event::Ghost(settlement) => pile.settlements.push((settlement, true)),
                Event::Fault(Fault::Crash) => pile.crash = true,
                Event::Fault(Fault::Trouble(trouble)) => self.trouble = Some(trouble),
                Event::Fault(Fault::Pressure(pressure)) => self.store.set_pressure(pressure),
                Event::Fault(Fault::Jump(by)) => self.jump(by),
                Event::Fault(Fault::Configure(config)) => pile.mail.push(Mail::Configure(Arc::new(*config))),
                Event::Calm => {
                    // From here on nothing goes wrong any more: nobody would ask a second time for what follows.
                    (self.trouble, pile.crash) = (None, false);
                    self.store.set_pressure(Pressure::Normal);
                    self.jump(-self.skew);
                    pile.mail.push(Mail::Configure(Arc::new(config())));
                    pile.mail.extend(QUEUES.map(|name| Mail::Act(Act::Pause(queue(name), false))));
                }
            }
        }
        pile
    }

    fn jump(&mut self, by: i64) {
        if by != 0 {
            self.report.jumps += 1;
            self.skew += by;
            self.trace.note(self.at, &format!("the clock jumps by {by}"));
            self.oracle.hear(self.moment(), Fact::Trouble);
        }
    }

    /// One outcome in so many will come once more, from nobody who holds the lease.
    fn haunt(&mut self, settlement: &Settlement, one_in: u64) {
        if self.chance.below(one_in) == 0 {
            let Settlement { key, epoch, outcome } = settlement;
            let ghost = Settlement { key: *key, epoch: *epoch, outcome: outcome.clone() };
            let at = self.at + i64::try_from(self.chance.below(90_000)).unwrap();
            self.agenda.plan(at, Event::Ghost(ghost));
        }
    }

    fn send(
        &mut self,
        now: Moment,
        mail: Vec<Mail>,
        settlements: Vec<(Settlement, bool)>,
    ) -> (Inputs, Vec<Option<Mail>>) {
        let mut inputs = Inputs::default();
        for (settlement, ghost) in settlements {
            if !ghost {
                let fact = Fact::Settled(settlement.key, settlement.epoch, heard(&settlement.outcome));
                self.oracle.hear(now, fact);
            }
            inputs.settlements.push(settlement);
        }
        for mail in &mail {
            inputs.requests.push(match mail {
                Mail::Letter(letter, _) => {
                    letter.facts().for_each(|fact| self.oracle.hear(now, fact));
                    letter.request()
                }
                Mail::Act(act) => {
                    act.facts().into_iter().for_each(|fact| self.oracle.hear(now, fact));
                    act.request()
                }
                Mail::Configure(config) => {
                    // The file is what it is, whether or not the process lives to read it.
                    self.config = Config::clone(config);
                    Request::Configure(Arc::clone(config))
                }
            });
        }
        (inputs, mail.into_iter().map(Some).collect())
    }

    /// Commits as far as the disk lets it; time goes on meanwhile.
    fn commit(&mut self, step: &mut Step) -> Fate {
        if let Some(trouble) = self.trouble.take_if(|_| !step.changes.is_empty()) {
            self.trace.note(self.at, &format!("{trouble:?}"));
            self.report.troubles += 1;
            match trouble {
                Trouble::Slow(ms) => self.at += ms,
                Trouble::Full(times) => (0..times).for_each(|_| self.wait_for_room(step)),
                Trouble::Unknown { applied } => self.strike(applied),
            }
            self.oracle.hear(self.moment(), Fact::Trouble);
        }
        match self.try_commit(step) {
            Ok(()) => Fate::Durable,
            Err(CommitError::Unknown(_)) => Fate::Unknown { applied: self.applies },
            Err(error @ (CommitError::Full | CommitError::Fenced { .. })) => {
                self.report.violations.push(format!("at {}: a commit was refused: {error}", self.at));
                Fate::Unknown { applied: false }
            }
        }
    }

    fn try_commit(&mut self, step: &mut Step) -> Result<(), CommitError> {
        let machine = self.machine.as_mut().expect("a process runs");
        machine.commit(step).now_or_never().expect("memory never waits")
    }

    /// The disk is full: the batch is kept and comes again, and whoever asks meanwhile is put off.
    fn wait_for_room(&mut self, step: &mut Step) {
        self.store.fail_next(CommitFault::Full);
        assert!(matches!(self.try_commit(step), Err(CommitError::Full)));
        self.at += LOOK_AGAIN;
        let now = self.moment();
        for event in self.agenda.take_mail(self.at) {
            let (letter, tries) = match event {
                Event::Arrive => (self.clients.letter(WALL_START + self.at), 1),
                Event::Again(letter, tries) => (letter, tries),
                Event::Act | Event::Settle(..) | Event::Ghost(_) | Event::Fault(_) | Event::Calm => continue,
            };
            letter.facts().for_each(|fact| self.oracle.hear(now, fact));
            self.refused(now, &letter, tries);
        }
    }

    /// Pauses and limits that a commit has put in force.
    fn in_force(&mut self, now: Moment, mail: &[Option<Mail>]) {
        for mail in mail.iter().flatten() {
            match mail {
                Mail::Act(Act::Pause(queue, paused)) => {
                    self.oracle.hear(now, Fact::Paused(queue.as_str().to_owned(), *paused));
                }
                Mail::Configure(config) => self.oracle.hear(now, Fact::Limits(limits(config))),
                Mail::Letter(..) | Mail::Act(_) => {}
            }
        }
    }

    /// The process dies: whoever has no answer yet gets none.
    fn lose(&mut self, mail: Vec<Option<Mail>>, why: &str) {
        for mail in mail.into_iter().flatten() {
            if let Mail::Letter(letter, tries) = mail
                && letter.may_be_repeated()
            {
                self.again(letter, tries);
            }
        }
        self.crash(why);
    }

    fn again(&mut self, letter: Rc<Letter>, tries: u32) {
        if tries < TRIES {
            let at = self.at + 500 + i64::try_from(self.chance.below(20_000)).unwrap();
            self.agenda.plan(at, Event::Again(letter, tries + 1));
        }
    }

    fn answer(&mut self, step: &mut Step, mail: &mut [Option<Mail>]) {
        let now = self.moment();
        for (ticket, answer) in std::mem::take(&mut step.answers) {
            let letter = mail.get_mut(ticket).and_then(|mail| mail.take_if(|mail| matches!(mail, Mail::Letter(..))));
            let Some(Mail::Letter(letter, tries)) = letter else { continue };
            match answer {
                Answer::Accept(Ok(Accepted::New { ids, first })) => {
                    let ids = ids_of(&ids, first.header.id());
                    self.clients.known.extend(&ids);
                    self.acknowledged(now, &letter, ids.iter().map(|id| id.key).collect());
                    // The answer is lost on its way, and the client asks again.
                    let lost = letter.may_be_repeated() && self.chance.below(20) == 0;
                    lost.then(|| self.again(letter, tries));
                }
                Answer::Accept(Ok(Accepted::Repeat { range, .. })) => {
                    let keys = (0..range.count).map(|place| range.first.offset(place)).collect();
                    self.acknowledged(now, &letter, keys);
                }
                Answer::Accept(Err(_)) => self.refused(now, &letter, tries),
                Answer::Accept(Ok(Accepted::Existing { .. }))
                | Answer::Task(_)
                | Answer::Chunk(_)
                | Answer::Queues(_)
                | Answer::Configured => self.report.violations.push(format!("{letter:?} was answered {answer:?}")),
            }
        }
    }

    fn acknowledged(&mut self, now: Moment, letter: &Letter, keys: Vec<TaskKey>) {
        assert_eq!(letter.wishes.len(), keys.len(), "one id for each");
        self.report.acknowledged += keys.len() as u64;
        for (wish, key) in letter.wishes.iter().zip(keys) {
            self.oracle.hear(now, Fact::Acknowledged(*wish, key));
        }
    }

    /// A client is told no: nothing was accepted, so that it may ask again in any case.
    fn refused(&mut self, now: Moment, letter: &Rc<Letter>, tries: u32) {
        for wish in &letter.wishes {
            self.oracle.hear(now, Fact::Refused(*wish));
        }
        if self.chance.below(2) == 0 {
            self.again(Rc::clone(letter), tries);
        }
    }

    /// The target gets the request, and does with it what the seed says.
    fn call(&mut self, decided: Moment, work: &Work) {
        let header = &work.header;
        self.report.attempts += 1;
        self.trace.note(self.at, &format!("call {:?} attempt {}", header.key, header.attempts));
        self.oracle.hear(decided, Fact::Started(header.key, header.epoch));
        let answer = self.targets.answer(work.lane.as_str(), self.at, work.timeout.as_millis());
        self.settle_later(header.key, header.epoch, answer);
    }

    fn settle_later(&mut self, key: TaskKey, epoch: u32, (outcome, took): (Outcome, u64)) {
        let at = self.at + i64::try_from(took).unwrap();
        let settlement = Settlement { key, epoch, outcome };
        let place = self.agenda.plan(at, Event::Settle(self.process, settlement));
        self.calls.insert(key, place);
    }

    /// Cuts attempts off whose tasks were cancelled.
    fn abort(&mut self, keys: &[TaskKey]) {
        for key in keys {
            let call = self.calls.get(key).and_then(|place| self.agenda.strike_out(*place));
            if let Some(Event::Settle(_, settlement)) = call {
                let answer = self.targets.cut_off();
                self.settle_later(settlement.key, settlement.epoch, answer);
            }
        }
    }
}

/// The ids that we gave; a client's own name only ever stands alone, for the first task.
fn ids_of(told: &[PublicId], first: TaskId) -> Vec<TaskId> {
    let id = |id: &PublicId| if let PublicId::Id(id) = id { *id } else { first };
    told.iter().map(id).collect()
}
