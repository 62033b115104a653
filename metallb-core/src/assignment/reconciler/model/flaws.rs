//! Errors of earlier controllers, to see that the search finds them.

use std::sync::Arc;

use super::world::{Flight, SERVICES, View, World, key};
use crate::assignment::Reconciler;

/// A way in which controllers went wrong.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Flaw {
    /// A change that came in while a write was under way is forgotten when the write is stored.
    ForgetsChanges,
    /// An address is free as soon as the decision gives it up.
    FreesAtOnce,
    /// 404 counts as success, and whatever came in meanwhile is skipped, a Service of the same name too.
    SkipsNamesakes,
    /// A standby decides as well, and what it decided outranks the statuses when it begins to lead.
    StandbyDecides,
    /// A LIST counts whatever its version.
    BelievesOldLists,
    /// A write of unknown end counts as rejected.
    TakesUnknownForRejected,
    /// Two holders of one address are left as they are.
    NeverRepairs,
    /// A pool that is invalid, or deleted a moment ago, counts as never seen.
    ForgetsPools,
}

// === impl World ===

impl World {
    /// A flaw: the end of a write leads to nothing.
    pub(super) fn forget_flight(&mut self, flight: &Flight) -> Result<(), String> {
        self.drive(flight.sender.0, |reconciler, _| {
            if let Some(writes) = reconciler.writes.get_mut(&key(flight.index)) {
                writes.under_way.take_if(|sent| sent.id == flight.write.id);
            }
        })
    }

    /// A flaw: what others hold as well is left as it is.
    pub(super) fn is_left_alone(&self, place: usize, index: usize) -> bool {
        let controller = &self.controllers[place];
        let (object, assigner) = (&controller.view.objects[index], controller.reconciler.assigner.as_ref());
        self.flaw == Some(Flaw::NeverRepairs)
            && object.as_ref().zip(assigner).is_some_and(|(object, it)| !it.rivals(&object.service).is_empty())
    }
}

impl View {
    /// A flaw: what is remembered outranks what is seen.
    pub(super) fn without_statuses(&self) -> Self {
        let mut blind = self.clone();
        blind.objects.iter_mut().flatten().for_each(|object| Arc::make_mut(object).service.ingress.clear());
        blind
    }
}

/// A flaw: nothing stands that is not held.
pub(super) fn free_at_once(reconciler: &mut Reconciler, view: &View) {
    let forget = |reconciler: &mut Reconciler| {
        let Some(assigner) = &mut reconciler.assigner else { return };
        (0..SERVICES).for_each(|index| _ = assigner.allocator.set_standing(&key(index), &[]));
    };
    forget(reconciler);
    let Some(assigner) = &reconciler.assigner else { return };
    let waiting: Vec<_> = assigner.waiting.iter().map(|service| service.key.clone()).collect();
    for key in waiting {
        reconciler.update([key], view);
        forget(reconciler);
    }
}
