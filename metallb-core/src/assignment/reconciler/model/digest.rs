//! Worlds that differ in nothing but numbers have one digest: versions and times only compare.

use std::hash::{DefaultHasher, Hash, Hasher};

use super::flaws::Flaw;
use super::world::{Answer, Controller, Flight, Object, Role, SERVICES, Wish, World, key};
use crate::assignment::reconciler::Sent;
use crate::model::{Service, Uid, WRITE_SETTLED};

/// Two hashes of different beginnings.
pub(super) type Digest = [u64; 2];

/// What a world is made of; the budget counts apart, as more of it allows more.
pub(super) fn digest(world: &World) -> Digest {
    let mut words = Words(Vec::with_capacity(256));
    words.world(world);
    words.rank();
    [1_u64, 2].map(|seed| {
        let mut hasher = DefaultHasher::new();
        (seed, &words.0).hash(&mut hasher);
        hasher.finish()
    })
}

/// Small values as they are, numbers of versions and times above [`NUMBER`].
struct Words(Vec<u32>);

impl Words {
    /// Replaces each number by its rank.
    fn rank(&mut self) {
        let mut numbers: Vec<u32> = self.0.iter().copied().filter(|&word| word >= NUMBER).collect();
        numbers.sort_unstable();
        numbers.dedup();
        for word in self.0.iter_mut().filter(|word| **word >= NUMBER) {
            *word = NUMBER + numbers.partition_point(|number| number < word) as u32;
        }
    }

    fn small(&mut self, value: usize) {
        self.0.push(value as u32);
    }

    fn number(&mut self, number: u32) {
        self.0.push(NUMBER + number);
    }

    fn flag(&mut self, value: bool) {
        self.0.push(value.into());
    }

    fn maybe(&mut self, value: Option<usize>) {
        self.small(value.map_or(0, |value| value + 1));
    }

    fn text(&mut self, text: Option<&str>) {
        match text {
            Some(text) => self.number(text.parse().expect("versions and uids are numbers here")),
            None => self.small(0),
        }
    }

    fn uid(&mut self, uid: Option<&Uid>) {
        self.text(uid.map(Uid::as_str));
    }

    fn world(&mut self, world: &World) {
        world.api.iter().for_each(|object| self.object(object.as_deref()));
        self.small(world.pool as usize);
        world.contested.iter().for_each(|&contested| self.flag(contested));
        self.small(world.late.len());
        let mut late = world.late.clone();
        late.sort_unstable();
        for it in late {
            self.small(it.address);
            self.small(it.index);
            self.number(it.version);
        }
        // Controllers are alike: the leader comes first.
        let mut order = [0, 1];
        order.sort_by_key(|&place| {
            let controller = &world.controllers[place];
            (controller.role != Role::Leading, controller.reconciler.writes.is_empty())
        });
        for place in order {
            self.controller(world, &world.controllers[place]);
            if world.follows(place) {
                let unseen = &world.history[world.controllers[place].position..];
                self.small(unseen.len());
                for change in unseen {
                    self.small(change.index);
                    self.number(change.version);
                    self.object(change.object.as_deref());
                }
            }
            if world.flaw == Some(Flaw::BelievesOldLists) {
                for change in &world.history[..world.controllers[place].position] {
                    self.small(change.index);
                    self.number(change.version);
                    self.object(change.object.as_deref());
                }
            }
            self.flights(world, |flight| flight.awaited && flight.sender.0 == place);
        }
        self.flights(world, |flight| !flight.awaited);
    }

    fn object(&mut self, object: Option<&Object>) {
        let Some(object) = object else { return self.small(0) };
        self.number(object.version);
        self.small(match object.wish {
            Wish::Any => 0,
            Wish::Nothing => 1,
            Wish::Only(address) => 2 + address,
        });
        self.service(&object.service, object.shown);
    }

    fn service(&mut self, service: &Service, shown: Option<usize>) {
        self.maybe(shown);
        self.uid(service.uid.as_ref());
        self.flag(service.annotations.contains_key(WRITE_SETTLED));
        match service.assigned {
            Some(time) => self.number(time.unix() as u32),
            None => self.small(0),
        }
    }

    fn controller(&mut self, world: &World, controller: &Controller) {
        self.small(controller.role as usize);
        let view = &controller.view;
        view.objects.iter().for_each(|object| self.object(object.as_deref()));
        view.newest.iter().for_each(|&version| self.number(version));
        let reconciler = &controller.reconciler;
        for index in 0..SERVICES {
            let Some(writes) = reconciler.writes.get(&key(index)) else {
                self.small(0);
                continue;
            };
            self.small(1);
            self.uid(writes.uid.as_ref());
            self.flag(writes.paused);
            self.flag(writes.under_way.is_some());
            if let Some(sent) = &writes.under_way {
                let is_it = |flight: &Flight| flight.awaited && flight.index == index && flight.write.id == sent.id;
                self.flag(world.network.iter().any(is_it));
                self.sent(sent);
            }
            let mut unknown: Vec<&Sent> = writes.unknown.iter().collect();
            unknown.sort_unstable_by_key(|sent| (sent.version.clone(), sent.ips.clone()));
            self.small(unknown.len());
            unknown.into_iter().for_each(|sent| self.sent(sent));
        }
        let Some(assigner) = &reconciler.assigner else { return };
        for index in 0..SERVICES {
            let held = assigner.allocator.holding(&key(index));
            self.ips(held.map_or(&[][..], |held| held.ips.as_slice()));
            self.ips(assigner.allocator.standing_on(&key(index)));
        }
        self.small(assigner.waiting.iter().count());
        for service in assigner.waiting.iter() {
            self.small(super::world::index_of(&service.key));
            let shown = service.ingress_ips().flatten().next();
            self.maybe(shown.and_then(|ip| super::world::address_of(&ip)));
            let wish = service.load_balancer_ip.as_deref().and_then(|text| text.parse().ok());
            self.maybe(wish.and_then(|ip| super::world::address_of(&ip)));
        }
        self.small(reconciler.duplicates.len());
        for (key, ip) in &reconciler.duplicates {
            self.small(super::world::index_of(key));
            self.ips(&[*ip]);
        }
    }

    fn sent(&mut self, sent: &Sent) {
        self.text(sent.version.as_ref().map(crate::model::ObjectVersion::as_str));
        self.ips(&sent.ips);
        self.flag(sent.is_void);
    }

    fn ips(&mut self, ips: &[std::net::IpAddr]) {
        let mut places: Vec<Option<usize>> = ips.iter().map(super::world::address_of).collect();
        places.sort_unstable();
        places.dedup();
        self.small(places.len());
        places.into_iter().for_each(|place| self.maybe(place));
    }

    fn flights(&mut self, world: &World, is_meant: impl Fn(&Flight) -> bool) {
        let mut flights: Vec<Vec<u32>> = Vec::new();
        for flight in world.network.iter().filter(|flight| is_meant(flight)) {
            let mut words = Self(Vec::new());
            words.small(flight.index);
            words.uid(flight.write.uid.as_ref());
            words.text(flight.write.version.as_ref().map(crate::model::ObjectVersion::as_str));
            words.small(match &flight.write.status {
                None => 0,
                Some(_) => 1 + flight.address().map_or(0, |address| address + 1),
            });
            words.small(flight.write.settle as usize);
            words.flag(flight.hangs);
            words.flag(world.is_of_leader(flight));
            match &flight.answer {
                None => words.small(0),
                Some(Answer::Conflict) => words.small(1),
                Some(Answer::Gone) => words.small(2),
                Some(Answer::Written(object)) => {
                    words.small(3);
                    words.object(Some(object));
                }
            }
            flights.push(words.0);
        }
        flights.sort_unstable();
        self.small(flights.len());
        flights.into_iter().for_each(|words| self.0.extend(words));
    }
}

const NUMBER: u32 = 1 << 16;
