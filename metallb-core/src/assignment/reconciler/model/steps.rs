//! What can happen.

use std::sync::Arc;

use super::flaws::{self, Flaw};
use super::world::{
    ADDRESSES, Answer, Budget, Controller, Flight, Late, OLD_LISTS, Object, Pool, Role, SERVICES, View, Wish, World,
    config, index_of, key,
};
use crate::assignment::{Effect, Pace, Reconciler, Write, WriteEnd, processing_order};

/// One step of a run. Controllers, Services and writes are named by their places.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Step {
    /// A user creates, changes or deletes a Service.
    Create(usize),
    Wish(usize, Wish),
    Delete(usize),
    /// A user spoils, deletes, repairs or creates the pool.
    Pool(Pool),
    /// A controller sees the next change.
    Watch(usize),
    /// It lists all Services, and sees many changes at once.
    List(usize),
    /// It lists them from a server that lags by a number of changes.
    OldList(usize, usize),
    /// It may write a Service again after a pause.
    Resume(usize, usize),
    /// The API server receives a write.
    Deliver(usize),
    /// A controller receives the answer.
    Answer(usize),
    /// A write is not answered in time.
    Hang(usize),
    /// Its deadline passes; then the object is read, if that works.
    Expire(usize, bool),
    /// A policy refuses a write.
    Refuse(usize),
    /// A controller takes the Lease.
    TakeOver(usize),
    /// The leader is stopped, and the other controller takes the Lease. When it goes on, it steps down; nothing else that it does
    /// can be seen before, so it steps down at once here.
    Depose(usize),
    /// A process is killed and started again.
    Kill(usize),
    /// The leader gives the Lease back.
    HandOver(usize),
}

impl Step {
    pub(super) fn is_costly(self) -> bool {
        self.cost() != Budget { changes: 0, faults: 0 }
    }

    fn cost(self) -> Budget {
        let (changes, faults) = match self {
            Self::Create(_) | Self::Wish(..) | Self::Delete(_) | Self::Pool(_) => (1, 0),
            Self::OldList(..) | Self::Hang(_) | Self::Refuse(_) => (0, 1),
            Self::Depose(_) | Self::Kill(_) | Self::HandOver(_) => (0, 1),
            _ => (0, 0),
        };
        Budget { changes, faults }
    }
}

impl World {
    /// Everything that can happen now.
    pub(super) fn steps(&self) -> Vec<Step> {
        let mut steps = Vec::new();
        for flight in 0..self.network.len() {
            self.steps_of_write(flight, &mut steps);
        }
        for controller in 0..2 {
            self.steps_of_controller(controller, &mut steps);
        }
        for index in 0..SERVICES {
            match &self.api[index] {
                None => steps.push(Step::Create(index)),
                Some(object) => {
                    steps.push(Step::Delete(index));
                    let wishes = [Wish::Any, Wish::Nothing].into_iter().chain((0..ADDRESSES).map(Wish::Only));
                    steps.extend(wishes.filter(|wish| *wish != object.wish).map(|wish| Step::Wish(index, wish)));
                }
            }
        }
        if self.pool_changes {
            let states = [Pool::Valid, Pool::Invalid, Pool::Departed].into_iter();
            steps.extend(states.filter(|state| *state != self.pool).map(Step::Pool));
        }
        let Budget { changes, faults } = self.budget;
        steps.retain(|step| step.cost().changes <= changes && step.cost().faults <= faults);
        steps
    }

    fn steps_of_write(&self, place: usize, steps: &mut Vec<Step>) {
        let flight = &self.network[place];
        if flight.answer.is_none() {
            steps.push(Step::Deliver(place));
        } else if flight.awaited && !flight.hangs {
            steps.push(Step::Answer(place));
        }
        if flight.awaited && !flight.hangs {
            steps.push(Step::Hang(place));
            if flight.answer.is_none() {
                steps.push(Step::Refuse(place));
            }
        }
        if flight.awaited && flight.hangs {
            steps.extend([Step::Expire(place, false), Step::Expire(place, true)]);
        }
    }

    fn steps_of_controller(&self, place: usize, steps: &mut Vec<Step>) {
        let controller = &self.controllers[place];
        let unseen = self.history.len() - controller.position;
        if self.follows(place) {
            if unseen > 0 {
                steps.push(Step::Watch(place));
            }
            if unseen > 1 {
                steps.push(Step::List(place));
            }
            if controller.role == Role::Leading {
                steps.extend((1..=OLD_LISTS.min(controller.position)).map(|back| Step::OldList(place, back)));
            }
        }
        let has_state = !controller.reconciler.writes.is_empty();
        match controller.role {
            Role::Leading => {
                let is_paused =
                    |index: &usize| controller.reconciler.writes.get(&key(*index)).is_some_and(|writes| writes.paused);
                steps.extend((0..SERVICES).filter(is_paused).map(|index| Step::Resume(place, index)));
                steps.extend([Step::HandOver(place), Step::Kill(place), Step::Depose(place)]);
            }
            Role::Standby => {
                if self.leader().is_none() {
                    steps.push(Step::TakeOver(place));
                }
                if has_state {
                    steps.push(Step::Kill(place));
                }
            }
        }
    }

    /// The world after a step, or what went wrong in it.
    pub(super) fn after(&self, step: Step) -> Result<Self, String> {
        let mut next = self.clone();
        next.budget.changes -= step.cost().changes;
        next.budget.faults -= step.cost().faults;
        next.take(step)?;
        next.tidy();
        for address in 0..ADDRESSES {
            if next.is_double(address) && !next.late.iter().any(|late| late.address == address) {
                return Err(format!("address {address} is on two Services"));
            }
        }
        Ok(next)
    }

    fn take(&mut self, step: Step) -> Result<(), String> {
        match step {
            Step::Create(index) => {
                let version = self.tick();
                self.store(index, Some(Object::created(index, version)));
            }
            Step::Wish(index, wish) => {
                let version = self.tick();
                let object = self.api[index].as_ref().map(|object| object.wishing(wish, version));
                self.store(index, object);
            }
            Step::Delete(index) => {
                self.tick();
                self.store(index, None);
            }
            Step::Pool(state) => {
                self.pool = state;
                let config = config(state, self.flaw);
                if let Some(leader) = self.leader() {
                    self.drive(leader, |reconciler, view| reconciler.set_config(&config, view))?;
                }
            }
            Step::Watch(place) => {
                let controller = &mut self.controllers[place];
                let change = self.history[controller.position].clone();
                controller.position += 1;
                if controller.view.observe(change.index, change.version, change.object.as_ref()) {
                    self.update(place, vec![change.index])?;
                }
            }
            Step::List(place) => {
                let controller = &mut self.controllers[place];
                controller.position = self.history.len();
                let news = controller.view.observe_list(&self.api, self.clock);
                self.update(place, news)?;
            }
            Step::OldList(place, back) => self.list_from_the_past(place, back)?,
            Step::Resume(place, index) => {
                self.drive(place, |reconciler, view| reconciler.resume(&key(index), view))?;
            }
            Step::Deliver(place) => self.deliver(place)?,
            Step::Answer(place) => self.answer(place)?,
            Step::Hang(place) => self.network[place].hangs = true,
            Step::Expire(place, is_read) => {
                let flight = self.network[place].clone();
                self.network[place].awaited = false;
                if is_read {
                    self.read(&flight);
                }
                let is_trusted = self.flaw == Some(Flaw::TakesUnknownForRejected);
                let end = if is_trusted { WriteEnd::Rejected } else { WriteEnd::Unknown };
                self.end(&flight, end, Pace::Now)?;
            }
            Step::Refuse(place) => {
                let flight = self.network.remove(place);
                self.end(&flight, WriteEnd::Rejected, Pace::Later)?;
            }
            Step::TakeOver(place) => self.take_over(place)?,
            Step::Depose(place) => {
                self.step_down(place)?;
                self.take_over(1 - place)?;
            }
            Step::HandOver(place) => self.step_down(place)?,
            Step::Kill(place) => {
                let term = self.controllers[place].term + 1;
                self.controllers[place] = Controller { term, ..Controller::new(Reconciler::new(None)) };
                let network = self.network.iter_mut();
                network.filter(|flight| flight.sender.0 == place).for_each(|flight| flight.awaited = false);
            }
        }
        Ok(())
    }

    fn list_from_the_past(&mut self, place: usize, back: usize) -> Result<(), String> {
        let controller = &mut self.controllers[place];
        controller.position -= back;
        let (mut listed, mut version) = self.origin.clone();
        for change in &self.history[..controller.position] {
            listed[change.index].clone_from(&change.object);
            version = change.version;
        }
        if self.flaw == Some(Flaw::BelievesOldLists) {
            for (index, object) in listed.into_iter().enumerate() {
                controller.view.newest[index] = object.as_ref().map_or(version, |object| object.version);
                controller.view.objects[index] = object;
            }
            return self.update(place, (0..SERVICES).collect());
        }
        let news = controller.view.observe_list(&listed, version);
        if news.is_empty() { Ok(()) } else { Err(format!("an old LIST is news of {news:?}")) }
    }

    fn step_down(&mut self, place: usize) -> Result<(), String> {
        self.controllers[place].role = Role::Standby;
        if self.flaw == Some(Flaw::StandbyDecides) {
            return Ok(());
        }
        self.drive(place, |reconciler, _| reconciler.step_down())
    }

    fn take_over(&mut self, place: usize) -> Result<(), String> {
        let config = config(self.pool, self.flaw);
        let end = self.history.len();
        self.controllers[1 - place].term += 1;
        let controller = &mut self.controllers[place];
        controller.role = Role::Leading;
        controller.position = end;
        controller.view.observe_list(&self.api, self.clock);
        if self.flaw == Some(Flaw::StandbyDecides) && controller.reconciler.assigner.is_some() {
            return self.drive(place, |reconciler, view| reconciler.set_config(&config, &view.without_statuses()));
        }
        self.drive(place, |reconciler, view| reconciler.take_over(&config, view))
    }

    fn deliver(&mut self, place: usize) -> Result<(), String> {
        let flight = self.network[place].clone();
        let index = flight.index;
        let answer = match self.api[index].clone() {
            None => Answer::Gone,
            Some(object) if !object.is_meant(&flight.write) => Answer::Conflict,
            Some(object) => {
                let version = self.tick();
                let written = object.written(&flight.write, version);
                let is_excused =
                    |address| self.contested[index] || self.late.iter().any(|late| late.address == address);
                if let Some(address) = object.established()
                    && written.shown != Some(address)
                    && !is_excused(address)
                {
                    return Err(format!("Service {index} loses the address {address} for no reason"));
                }
                if let Some(address) = flight.address()
                    && !self.is_of_leader(&flight)
                {
                    self.late.push(Late { address, index, version });
                }
                Answer::Written(self.store(index, Some(written)).expect("it was stored"))
            }
        };
        self.network[place].answer = Some(answer);
        Ok(())
    }

    fn answer(&mut self, place: usize) -> Result<(), String> {
        let flight = self.network.remove(place);
        let view = &mut self.controllers[flight.sender.0].view;
        let end = match &flight.answer {
            Some(Answer::Written(object)) => {
                view.observe(flight.index, object.version, Some(object));
                WriteEnd::Written
            }
            Some(Answer::Conflict) => {
                self.read(&flight);
                WriteEnd::Rejected
            }
            Some(Answer::Gone) => {
                if self.flaw == Some(Flaw::SkipsNamesakes) {
                    return self.forget_flight(&flight);
                }
                view.observe_gone(flight.index, flight.write.uid.as_ref());
                WriteEnd::Rejected
            }
            None => return Err("an answer came from nowhere".to_owned()),
        };
        self.end(&flight, end, Pace::Now)
    }

    /// The sender of a write reads the object.
    fn read(&mut self, flight: &Flight) {
        let view = &mut self.controllers[flight.sender.0].view;
        match &self.api[flight.index] {
            Some(object) => {
                view.observe(flight.index, object.version, Some(object));
            }
            None => view.observe_gone(flight.index, flight.write.uid.as_ref()),
        }
    }

    fn end(&mut self, flight: &Flight, end: WriteEnd, pace: Pace) -> Result<(), String> {
        let forgets = self.flaw == Some(Flaw::ForgetsChanges) && end == WriteEnd::Written;
        if forgets || self.is_left_alone(flight.sender.0, flight.index) {
            return self.forget_flight(flight);
        }
        let (key, id) = (key(flight.index), flight.write.id);
        self.drive(flight.sender.0, |reconciler, view| reconciler.write_ended(&key, id, end, pace, view))
    }

    /// A controller decides on Services of which it has news.
    fn update(&mut self, place: usize, mut news: Vec<usize>) -> Result<(), String> {
        // The driver's order is any; this one differs from that of creation.
        news.reverse();
        let is_awaited = |index: usize| {
            let mut network = self.network.iter();
            network.any(|flight| flight.awaited && flight.sender.0 == place && flight.index == index)
        };
        let is_skipped = |index: usize| match self.flaw {
            Some(Flaw::ForgetsChanges | Flaw::SkipsNamesakes) => is_awaited(index),
            _ => self.is_left_alone(place, index),
        };
        let keys: Vec<_> = news.into_iter().filter(|&index| !is_skipped(index)).map(key).collect();
        self.drive(place, |reconciler, view| reconciler.update(keys, view))
    }

    /// Lets a controller do something, and sends what it wants to write.
    pub(super) fn drive(&mut self, place: usize, act: impl FnOnce(&mut Reconciler, &View)) -> Result<(), String> {
        let flaw = self.flaw;
        let controller = &mut self.controllers[place];
        let reconciler = Arc::make_mut(&mut controller.reconciler);
        act(reconciler, &controller.view);
        if flaw == Some(Flaw::FreesAtOnce) {
            flaws::free_at_once(reconciler, &controller.view);
        }
        let mut writes = Vec::new();
        while let Some(effect) = reconciler.poll_effect() {
            if let Effect::Write(write) = effect {
                writes.push(write);
            }
        }
        if controller.role != Role::Leading && flaw == Some(Flaw::StandbyDecides) {
            reconciler.writes.clear();
            return Ok(());
        }
        writes.into_iter().try_for_each(|write| self.send(place, write))
    }

    fn send(&mut self, place: usize, write: Write) -> Result<(), String> {
        let controller = &self.controllers[place];
        let index = index_of(&write.key);
        if controller.role != Role::Leading {
            return Err(format!("controller {place} does not lead and writes Service {index}"));
        }
        let Some(object) = &controller.view.objects[index] else {
            return Err(format!("Service {index} is written, which is not there"));
        };
        if !object.is_meant(&write) {
            return Err(format!("the write of Service {index} does not name what was decided on"));
        }
        if self.flaw.is_some() {
            // Such a controller is caught by what comes of it.
            self.network.push(flight_of(place, controller.term, index, write));
            return Ok(());
        }
        let mut awaited = self.network.iter().filter(|flight| flight.awaited && flight.sender.0 == place);
        if awaited.any(|flight| flight.index == index && flight.write.uid == write.uid) {
            return Err(format!("two writes of Service {index} are under way"));
        }
        let flight = flight_of(place, controller.term, index, write);
        if let Some(address) = object.established()
            && flight.write.status.is_some()
            && flight.address() != Some(address)
        {
            let has_better_claim = |other: &&Arc<Object>| {
                other.shown == Some(address) && processing_order(&other.service, &object.service).is_lt()
            };
            if !controller.view.objects.iter().flatten().any(|other| has_better_claim(&other)) {
                return Err(format!("Service {index} is to lose the address {address} to nobody"));
            }
        }
        self.network.push(flight);
        Ok(())
    }
}

fn flight_of(place: usize, term: u32, index: usize, write: Write) -> Flight {
    Flight { write: Arc::new(write), index, sender: (place, term), awaited: true, hangs: false, answer: None }
}
