//! What counts as taken, and what follows from each end of a write.

use std::collections::BTreeMap;
use std::net::IpAddr;

use metallb_core::assignment::{Pace, Settle, StatusWrite, Write, WriteEnd};
use metallb_core::model::{Protocol, Service, ServicePort, ServiceType, Timestamp, WRITE_SETTLED};

use crate::support::desk::{Desk, key};
use crate::support::pools::{ips, pool, service};
use crate::support::scene::{annotated, holding};

const V4: &[&str] = &["10.0.0.1"];

/// A Service with a uid, created at some time.
fn named(name: &str, created: i64) -> Service {
    let uid = Some(format!("uid-of-{name}-{created}").into());
    Service { uid, created: Some(Timestamp::from_unix(created)), ..service(name, V4) }
}

/// The same, with an address in its status since some time.
fn holder(name: &str, created: i64, ip: &str, assigned: Option<i64>) -> Service {
    let mut service = annotated(holding(named(name, created), &[ip]), "ip-allocated-from-pool", "p");
    service.assigned = assigned.map(Timestamp::from_unix);
    service
}

fn wishing(service: Service, ip: &str) -> Service {
    Service { load_balancer_ip: Some(ip.to_owned()), ..service }
}

fn sharing(service: Service, key: &str, port: u16) -> Service {
    Service { ports: vec![ServicePort { protocol: Protocol::Tcp, port }], ..annotated(service, "allow-shared-ip", key) }
}

fn brings(write: &Write) -> Option<Vec<IpAddr>> {
    write.status.as_ref().map(|status| status.ips.clone())
}

fn one_pool(addresses: &str) -> [metallb_core::config::spec::PoolSpec; 1] {
    [pool("p", &[addresses])]
}

#[test]
fn wish_that_changes_during_a_write_is_served_whatever_the_end_of_the_write() {
    for end in [WriteEnd::Written, WriteEnd::Rejected, WriteEnd::Unknown] {
        let mut desk = Desk::new(&one_pool("1.0.0.0/30"), [named("web", 1)]);
        let first = desk.write_of("web");
        assert_eq!(brings(&first), Some(ips(&["1.0.0.0"])));
        if end == WriteEnd::Written {
            desk.store(&first);
        }
        desk.change("web", |service| service.load_balancer_ip = Some("1.0.0.2".to_owned()));
        desk.expect_quiet();
        desk.end(&first, end, Pace::Now);
        let second = desk.write_of("web");
        assert_eq!(brings(&second), Some(ips(&["1.0.0.2"])), "{end:?}");
        assert_eq!(second.version.as_ref().unwrap().as_str(), if end == WriteEnd::Written { "3" } else { "2" });
        desk.complete(&second);
        desk.expect_quiet();
        assert_eq!(desk.shown("web"), ips(&["1.0.0.2"]));
    }
}

#[test]
fn service_that_becomes_cluster_ip_during_its_write_keeps_no_address_and_no_record() {
    for is_stored in [true, false] {
        let mut desk = Desk::new(&one_pool("1.0.0.0/30"), [named("web", 1)]);
        let first = desk.write_of("web");
        if is_stored {
            desk.store(&first);
        }
        desk.change("web", |service| service.service_type = ServiceType::Other);
        desk.end(&first, if is_stored { WriteEnd::Written } else { WriteEnd::Rejected }, Pace::Now);
        desk.run();
        assert_eq!((desk.shown("web"), desk.service("web").recorded_pool()), (Vec::new(), None));
    }
}

#[test]
fn namesake_created_during_the_write_of_the_first_one_is_served_at_once() {
    let mut desk = Desk::new(&one_pool("1.0.0.0/32"), [named("web", 1)]);
    let first = desk.write_of("web");
    desk.delete("web");
    desk.put(named("web", 2));
    let second = desk.write_of("web");
    assert_eq!((&second.uid, brings(&second)), (&named("web", 2).uid, Some(ips(&["1.0.0.0"]))));
    // The first one is gone; its end changes nothing.
    desk.end(&first, WriteEnd::Rejected, Pace::Now);
    desk.expect_quiet();
    desk.complete(&second);
    assert_eq!(desk.shown("web"), ips(&["1.0.0.0"]));
}

#[test]
fn address_whose_release_is_refused_stays_taken_and_counts_until_the_release_is_stored() {
    let mut desk = Desk::new(&one_pool("1.0.0.0/31"), [holder("web", 1, "1.0.0.0", Some(1))]);
    desk.change("web", |service| service.load_balancer_ip = Some("1.0.0.1".to_owned()));
    let release = desk.write_of("web");
    desk.put(wishing(named("thief", 2), "1.0.0.0"));
    desk.end(&release, WriteEnd::Rejected, Pace::Later);
    desk.expect_quiet();
    assert_eq!(desk.count("thief", "AllocationFailed"), 1);
    let counters = desk.reconciler.assigner().unwrap().allocator().counters(&"p".into()).unwrap();
    assert_eq!((counters.assigned_v4, counters.available_v4, counters.services), (2, 0, 1));

    desk.reconciler.resume(&key("web"), &desk.picture);
    let again = desk.write_of("web");
    desk.expect_quiet();
    desk.store(&again);
    desk.end(&again, WriteEnd::Written, Pace::Now);
    // Within one write of the release.
    assert_eq!(brings(&desk.write_of("thief")), Some(ips(&["1.0.0.0"])));
}

#[test]
fn holder_takes_its_own_address_back_at_any_time() {
    let mut desk = Desk::new(&one_pool("1.0.0.0/31"), [holder("web", 1, "1.0.0.0", Some(1))]);
    desk.change("web", |service| service.load_balancer_ip = Some("1.0.0.1".to_owned()));
    let release = desk.write_of("web");
    desk.put(wishing(named("other", 2), "1.0.0.0"));
    desk.change("web", |service| service.load_balancer_ip = None);
    desk.end(&release, WriteEnd::Rejected, Pace::Now);
    desk.expect_quiet();
    assert_eq!(desk.shown("web"), ips(&["1.0.0.0"]));
}

#[test]
fn write_of_unknown_end_is_repeated_on_the_same_version_and_void_on_another() {
    let mut desk = Desk::new(&one_pool("1.0.0.0/31"), [holder("web", 1, "1.0.0.0", Some(1))]);
    desk.change("web", |service| service.load_balancer_ip = Some("1.0.0.1".to_owned()));
    let lost = desk.write_of("web");
    desk.end(&lost, WriteEnd::Unknown, Pace::Now);
    // One of the two is stored at most.
    let again = desk.write_of("web");
    assert_eq!((&again.version, brings(&again)), (&lost.version, brings(&lost)));
    desk.end(&again, WriteEnd::Unknown, Pace::Later);
    desk.put(wishing(named("other", 2), "1.0.0.1"));
    desk.expect_quiet();
    // The wish is taken back: the version is another one, and the writes can no longer be stored.
    desk.change("web", |service| service.load_balancer_ip = None);
    assert_eq!(brings(&desk.write_of("other")), Some(ips(&["1.0.0.1"])));
    desk.expect_quiet();
    assert_eq!(desk.shown("web"), ips(&["1.0.0.0"]));
}

#[test]
fn settling_write_sets_the_annotation_and_the_next_one_removes_it() {
    // Nothing is to be written: the pools went away while the write that was to give the address was under way, and came back.
    let mut desk = Desk::new(&one_pool("1.0.0.0/32"), [named("web", 1), named("late", 2)]);
    let lost = desk.write_of("web");
    desk.set_pools(&[]);
    desk.end(&lost, WriteEnd::Unknown, Pace::Now);
    let settling = desk.write_of("web");
    assert_eq!((&settling.status, settling.settle, &settling.version), (&None, Settle::Set, &lost.version));
    desk.set_pools(&one_pool("1.0.0.0/32"));
    // The address may still come to stand on `web`, so nobody else gets it.
    desk.expect_quiet();
    desk.complete(&settling);
    let removing = desk.write_of("web");
    assert_eq!(removing.settle, Settle::Remove);
    desk.complete(&removing);
    desk.run();
    assert!(!desk.service("web").annotations.contains_key(WRITE_SETTLED));
    assert_eq!((desk.shown("web"), desk.shown("late")), (ips(&["1.0.0.0"]), Vec::new()));
}

#[test]
fn address_of_an_unknown_write_stays_taken_through_loss_of_leadership_pools_and_quarantine() {
    let mut desk = Desk::new(&one_pool("1.0.0.0/31"), [named("web", 1)]);
    let lost = desk.write_of("web");
    desk.reconciler.step_down();
    desk.end(&lost, WriteEnd::Unknown, Pace::Now);
    desk.put(named("other", 2));
    desk.expect_quiet();

    desk.take_over();
    desk.set_pools(&one_pool("1.0.0.0/30"));
    desk.reconciler
        .set_quarantined(BTreeMap::from([(ips(&["1.0.0.1"])[0], "02:00:00:00:00:01".into())]), &desk.picture);
    assert_eq!(brings(&desk.write_of("web")), Some(ips(&["1.0.0.0"])), "its own");
    assert_eq!(brings(&desk.write_of("other")), Some(ips(&["1.0.0.1"])), "decided before the quarantine");
    // Another version: the lost write is void.
    desk.change("web", |service| service.load_balancer_ip = Some("1.0.0.3".to_owned()));
    let counters = desk.reconciler.assigner().unwrap().allocator().counters(&"p".into()).unwrap();
    assert_eq!(counters.assigned_v4, 2);
}

#[test]
fn standby_decides_nothing_and_begins_with_the_statuses_alone() {
    let pools = one_pool("1.0.0.0/31");
    let mut desk = Desk::standby(&pools, []);
    desk.put_all([named("a", 2), named("z", 1)]);
    desk.delete("a");
    desk.put(named("a", 2));
    desk.expect_quiet();
    assert!(desk.reconciler.assigner().is_none());
    // The leader saw them in another order.
    desk.put_all([holder("z", 1, "1.0.0.1", Some(4)), holder("a", 2, "1.0.0.0", Some(5)), named("waiting", 3)]);
    desk.take_over();
    desk.expect_quiet();
    assert_eq!((desk.shown("z"), desk.shown("a")), (ips(&["1.0.0.1"]), ips(&["1.0.0.0"])));
}

#[test]
fn write_that_was_not_taken_from_the_queue_is_forgotten_when_the_leader_steps_down() {
    let mut desk = Desk::new(&one_pool("1.0.0.0/31"), [named("web", 1)]);
    desk.reconciler.step_down();
    desk.expect_quiet();
    desk.take_over();
    assert_eq!(brings(&desk.write_of("web")), Some(ips(&["1.0.0.0"])));
}

#[test]
fn older_assignment_keeps_an_address_that_stands_on_two_services() {
    let at = |name, created, assigned| holder(name, created, "1.0.0.0", assigned);
    let rows = [
        ("the earlier assignment", at("z", 9, Some(1)), at("a", 1, Some(2))),
        ("a known assignment before an unknown one", at("z", 9, Some(1)), at("a", 1, None)),
        ("equal times: the older Service", at("z", 1, Some(1)), at("a", 2, Some(1))),
        ("no times: the older Service", at("z", 1, None), at("a", 2, None)),
        ("equal age: the smaller uid", Service { uid: Some("0".into()), ..at("z", 1, None) }, at("a", 1, None)),
    ];
    for (why, keeper, loser) in rows {
        let names = (keeper.key.to_string(), loser.key.to_string());
        let loser_name = loser.key.name.to_string();
        // Seen at a take-over, and seen one after the other in both orders.
        for order in 0..3 {
            let mut desk = match order {
                0 => Desk::new(&one_pool("1.0.0.0/31"), [keeper.clone(), loser.clone()]),
                1 => Desk::new(&one_pool("1.0.0.0/31"), [keeper.clone()]),
                _ => Desk::new(&one_pool("1.0.0.0/31"), [loser.clone()]),
            };
            match order {
                0 => {}
                1 => desk.put(loser.clone()),
                _ => desk.put(keeper.clone()),
            }
            let repair = desk.write_of(&loser_name);
            assert_eq!(brings(&repair), Some(ips(&["1.0.0.1"])), "{why}, {order}");
            desk.expect_quiet();
            assert_eq!(desk.repairs, std::slice::from_ref(&names), "{why}, {order}");
            assert_eq!(desk.count(&loser_name, "duplicateAddress"), 1);
            // Refused: told once more by the driver, and tried again.
            desk.end(&repair, WriteEnd::Rejected, Pace::Later);
            desk.expect_quiet();
            desk.reconciler.resume(&repair.key, &desk.picture);
            desk.run();
            assert_eq!(desk.shown(&loser_name), ips(&["1.0.0.1"]), "{why}, {order}");
            assert_eq!(desk.repairs.len(), 1);
        }
    }
}

#[test]
fn address_that_another_service_shows_is_not_written_though_it_was_decided_on() {
    let mut desk = Desk::new(&one_pool("1.0.0.0/31"), [named("web", 1)]);
    let write = desk.write_of("web");
    // A write of an earlier leader arrives.
    desk.put(named("late", 2));
    let second = desk.write_of("late");
    desk.picture.put(holder("late", 2, "1.0.0.0", Some(9)));
    desk.reconciler.update([key("late")], &desk.picture);
    desk.end(&write, WriteEnd::Rejected, Pace::Now);
    desk.expect_quiet();
    desk.end(&second, WriteEnd::Rejected, Pace::Now);
    desk.run();
    assert_eq!((desk.shown("web"), desk.shown("late")), (ips(&["1.0.0.1"]), ips(&["1.0.0.0"])));
}

#[test]
fn nobody_joins_an_address_that_is_being_released_and_the_others_stay() {
    let at = |name: &str, created, port| sharing(holder(name, created, "1.0.0.0", Some(created)), "k", port);
    let mut desk = Desk::new(&one_pool("1.0.0.0/31"), [at("first", 1, 80), at("second", 2, 81)]);
    desk.change("second", |service| {
        _ = service.annotations.insert("metallb.io/allow-shared-ip".to_owned(), "l".to_owned());
    });
    let leaving = desk.write_of("second");
    assert_eq!(brings(&leaving), Some(ips(&["1.0.0.1"])));
    // Its key is of the crowd, but one stands there that is no longer of it.
    desk.put(sharing(wishing(named("third", 3), "1.0.0.0"), "k", 82));
    desk.put(sharing(named("fourth", 4), "l", 83));
    desk.expect_quiet_but(&["fourth"]);
    assert_eq!(desk.shown("first"), ips(&["1.0.0.0"]));
    desk.complete(&leaving);
    assert_eq!(brings(&desk.write_of("third")), Some(ips(&["1.0.0.0"])));
}

#[test]
fn services_behind_one_whose_write_hangs_are_served() {
    let mut desk = Desk::new(
        &one_pool("1.0.0.0/31"),
        [holder("a", 1, "1.0.0.0", Some(1)), holder("b", 2, "1.0.0.1", Some(2)), named("hanging", 3), named("next", 4)],
    );
    // Its status is wrong, and the write that clears it hangs.
    desk.change("hanging", |service| *service = holding(service.clone(), &["9.9.9.9"]));
    let hanging = desk.write_of("hanging");
    assert_eq!(hanging.status, Some(StatusWrite { ips: Vec::new(), pool: None }));
    desk.delete("a");
    assert_eq!(brings(&desk.write_of("next")), Some(ips(&["1.0.0.0"])));
    desk.delete("b");
    desk.end(&hanging, WriteEnd::Unknown, Pace::Now);
    assert_eq!(brings(&desk.write_of("hanging")), Some(ips(&["1.0.0.1"])));
}

#[test]
fn service_that_declines_what_it_waited_for_hands_it_on() {
    let mut desk = Desk::new(
        &one_pool("1.0.0.0/31"),
        [
            holder("a", 1, "1.0.0.0", Some(1)),
            holder("b", 2, "1.0.0.1", Some(2)),
            wishing(named("picky", 3), "1.0.0.0"),
            wishing(named("next", 4), "1.0.0.0"),
        ],
    );
    desk.expect_quiet();
    desk.picture.put(wishing(named("picky", 3), "1.0.0.1"));
    desk.delete("a");
    assert_eq!(brings(&desk.write_of("next")), Some(ips(&["1.0.0.0"])));
    desk.expect_quiet();
}

#[test]
fn event_of_an_assignment_is_reported_once_whatever_became_of_its_writes() {
    // Stored at once; refused first; a conflict first; the answer is lost, and the write was stored or was not.
    for case in ["stored", "refused", "conflict", "lost but stored", "lost"] {
        let mut desk = Desk::new(&one_pool("1.0.0.0/31"), [named("web", 1)]);
        let first = desk.write_of("web");
        match case {
            "stored" => desk.complete(&first),
            "refused" => {
                desk.end(&first, WriteEnd::Rejected, Pace::Later);
                desk.reconciler.resume(&key("web"), &desk.picture);
            }
            "conflict" => {
                desk.change("web", |service| _ = service.labels.insert("a".to_owned(), "b".to_owned()));
                desk.end(&first, WriteEnd::Rejected, Pace::Now);
            }
            "lost but stored" => {
                desk.end(&first, WriteEnd::Unknown, Pace::Now);
                desk.store(&first);
                let second = desk.write_of("web");
                desk.end(&second, WriteEnd::Rejected, Pace::Now);
            }
            _ => desk.end(&first, WriteEnd::Unknown, Pace::Now),
        }
        desk.run();
        assert_eq!(desk.shown("web"), ips(&["1.0.0.0"]));
        assert_eq!(desk.count("web", "IPAllocated"), 1, "{case}");
    }
}
