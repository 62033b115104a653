//! The driver on a real link: a veth pair in a network namespace per test, which the kernel removes with its threads.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, Command};
use std::sync::Arc;
use std::time::{Duration, Instant};

use metallb_l2::engine::{Config, Event};
use metallb_l2::interface::{Announcement, Interface, MacAddr, Scope, Stance};
use metallb_l2::io::{Driver, Handle, InterfaceFilter, Notification, RawSocket, ReceiveBatch};

use crate::frames::{CLIENT, Icmp, THIRD, US, US_GLOBAL, VIP4, VIP4_SENTINEL, VIP6, who_has};
use crate::{owned, table};

/// A driver on one end, a client on the other.
pub(crate) struct Lab {
    pub(crate) driver: Driver,
    pub(crate) client: RawSocket,
    pub(crate) batch: ReceiveBatch,
}

impl Lab {
    pub(crate) fn new(addresses: Vec<(IpAddr, Scope)>) -> Self {
        Self::with(Config::default(), addresses)
    }

    pub(crate) fn with(config: Config, addresses: Vec<(IpAddr, Scope)>) -> Self {
        ip(&format!("link add vip0 address {US} mtu 9216 type veth peer name cli0 address {CLIENT} mtu 9216"));
        for card in ["vip0", "cli0"] {
            // Without link-local addresses the kernel sends no packets of its own.
            ip(&format!("link set {card} addrgenmode none"));
            ip(&format!("link set {card} up"));
        }
        ip("addr add fe80::1/64 dev vip0 nodad");
        let only: InterfaceFilter = Arc::new(|name| name.starts_with("vip"));
        let driver = Driver::start_with(only, config, 1).unwrap();
        let handle = driver.handle();
        wait_for("the interface", || ready(&handle).is_some());
        let client = RawSocket::open(nix::net::if_::if_nametoindex("cli0").unwrap()).unwrap();
        handle.announce(addresses);
        Self { driver, client, batch: ReceiveBatch::new() }
    }

    pub(crate) fn send(&self, frame: &[u8]) {
        assert_eq!(self.client.send(&[frame]).unwrap(), 1);
    }

    /// The frames received since the last call.
    pub(crate) fn receive(&mut self) -> Vec<Vec<u8>> {
        self.client.receive(&mut self.batch).unwrap();
        self.batch.frames().map(|(bytes, _)| bytes.to_vec()).collect()
    }

    /// Sends a frame and a request for the sentinel; returns the replies received before that of the sentinel.
    pub(crate) fn answers_to(&mut self, frame: &[u8]) -> Vec<Vec<u8>> {
        self.send(frame);
        self.send(&who_has(VIP4_SENTINEL));
        let mut answers = Vec::new();
        wait_for("the reply to the last request", || {
            let mut found = false;
            for frame in self.receive().into_iter().filter(|frame| is_answer(frame)) {
                if is_arp(&frame) && frame[28..32] == VIP4_SENTINEL.octets() {
                    found = true;
                } else {
                    answers.push(frame);
                }
            }
            found
        });
        answers
    }

    /// Sends a frame and counts the replies, up to 30 ms after the first one.
    pub(crate) fn count_answers_to(&mut self, frame: &[u8]) -> usize {
        self.receive();
        self.send(frame);
        let mut count = 0;
        wait_for("an answer", || {
            count += self.receive().iter().filter(|frame| is_answer(frame)).count();
            count > 0
        });
        std::thread::sleep(Duration::from_millis(30));
        count + self.receive().iter().filter(|frame| is_answer(frame)).count()
    }

    /// Waits for gratuitous frames from `mac` about each of `addresses`.
    pub(crate) fn wait_for_announcements(&mut self, mac: MacAddr, addresses: impl IntoIterator<Item = IpAddr>) {
        let mut missing: BTreeSet<IpAddr> = addresses.into_iter().collect();
        wait_for("announcements", || {
            for frame in self.receive().into_iter().filter(|frame| frame[6..12] == mac.0 && frame[0] & 1 == 1) {
                if is_arp(&frame) {
                    missing.remove(&IpAddr::from(<[u8; 4]>::try_from(&frame[28..32]).unwrap()));
                } else if frame[54] == 136 {
                    missing.remove(&IpAddr::from(<[u8; 16]>::try_from(&frame[62..78]).unwrap()));
                }
            }
            missing.is_empty()
        });
    }
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_driver_has_the_expected_outcome_of_each_case() {
    in_namespace(|| {
        let mut lab = Lab::new(owned());
        ip(&format!("addr add {US_GLOBAL}/64 dev vip0 nodad"));
        lab.wait_for_announcements(US, [VIP4.into(), VIP6.into(), VIP4_SENTINEL.into()]);
        let own_address = Icmp { to: US, destination: US_GLOBAL, ..Icmp::solicitation(VIP6) }.frame();
        wait_for("the host address", || !lab.answers_to(&own_address).is_empty());
        for case in table().into_iter().filter(crate::Case::can_be_sent) {
            let conflicts = |lab: &Lab| lab.driver.handle().counters().conflicts.values().sum::<u64>();
            let before = conflicts(&lab);
            let expected: Vec<Vec<u8>> = case.expected.into_iter().collect();
            if let Some(reply) = expected.first().filter(|reply| !is_answer(reply)) {
                // It has the bytes of an announcement. The counter distinguishes it.
                let replies = |lab: &Lab| lab.driver.handle().counters().responses.values().sum::<u64>();
                let (before, mut seen) = (replies(&lab), false);
                lab.send(&case.frame);
                wait_for(&format!("the reply of {}: {}", case.id, case.what), || {
                    seen |= lab.receive().contains(reply);
                    seen && replies(&lab) > before
                });
            } else {
                assert_eq!(lab.answers_to(&case.frame), expected, "{}: {}", case.id, case.what);
            }
            if case.conflict {
                wait_for(&format!("the conflict of {}: {}", case.id, case.what), || conflicts(&lab) > before);
            } else {
                assert_eq!(conflicts(&lab), before, "{}: {}", case.id, case.what);
            }
        }
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_changed_hardware_address_and_returning_link_are_announced() {
    in_namespace(|| {
        let mut lab = Lab::new(vec![(VIP4.into(), Scope::All), (VIP6.into(), Scope::All)]);
        lab.wait_for_announcements(US, [VIP4.into(), VIP6.into()]);
        let moved = MacAddr([2, 0, 0, 0, 0, 0x77]);
        ip("link set vip0 address 02:00:00:00:00:77");
        lab.wait_for_announcements(moved, [VIP4.into(), VIP6.into()]);
        ip("link set cli0 down");
        let handle = lab.driver.handle();
        wait_for("the lost link", || handle.interfaces().is_empty());
        ip("link set cli0 up");
        let last = MacAddr([2, 0, 0, 0, 0, 0x78]);
        ip("link set vip0 address 02:00:00:00:00:78");
        lab.client = RawSocket::open(nix::net::if_::if_nametoindex("cli0").unwrap()).unwrap();
        lab.wait_for_announcements(last, [VIP4.into(), VIP6.into()]);
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_burst_for_ten_thousand_addresses_arrives_completely() {
    in_namespace(|| {
        let addresses: Vec<IpAddr> = (0..10_000).map(|n| Ipv4Addr::from_bits(0x0a00_0000 + n).into()).collect();
        let lab = Lab::new(Vec::new());
        let received = || std::fs::read_to_string("/sys/class/net/cli0/statistics/rx_packets").unwrap();
        let received = || received().trim().parse::<usize>().unwrap();
        let before = received();
        lab.driver.handle().announce(addresses.iter().map(|&ip| (ip, Scope::All)).collect());
        // The statistics of the interface also count frames that a socket is too slow for.
        wait_for("the burst", || received() - before >= 2 * addresses.len());
        wait_for("the counts", || {
            let gratuitous = lab.driver.handle().counters().gratuitous;
            addresses.iter().all(|ip| gratuitous.get(ip) >= Some(&2))
        });
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_interface_that_disappears_does_not_disturb_the_others() {
    // Cases ARP-28 and ARP-29.
    in_namespace(|| {
        ip("link add vip1 type veth peer name cli1");
        ip("link set vip1 up");
        ip("link set cli1 up");
        let addresses: Vec<IpAddr> = (0..100).map(|n| Ipv4Addr::from_bits(0x0a00_0000 + n).into()).collect();
        let mut lab = Lab::new(Vec::new());
        let handle = lab.driver.handle();
        wait_for("both interfaces", || handle.interfaces().len() == 2);
        handle.announce(addresses.iter().map(|&ip| (ip, Scope::All)).collect());
        ip("link del vip1");
        lab.wait_for_announcements(US, addresses);
        wait_for("the removed interface", || handle.interfaces().len() == 1);
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_group_is_joined_while_an_address_is_announced() {
    in_namespace(|| {
        let lab = Lab::new(vec![(VIP6.into(), Scope::All)]);
        let listed = |what: &str| ip("maddr show dev vip0").contains(what);
        wait_for("the groups", || listed("33:33:ff:00:00:00") && listed("ff02::1:ff00:0"));
        lab.driver.handle().announce(NOTHING);
        wait_for("the groups to be left", || !listed("33:33:ff:00:00:00") && !listed("ff02::1:ff00:0"));
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_listener_is_notified_of_announcements_and_lost_links() {
    in_namespace(|| {
        let mut lab = Lab::new(Vec::new());
        let handle = lab.driver.handle();
        let (news, told) = std::sync::mpsc::channel();
        handle.listen(move |item| drop(news.send(item.clone())));
        let next = || told.recv_timeout(PATIENCE).unwrap();
        assert!(matches!(next(), Notification::Interfaces(now) if now.len() == 1), "the present interfaces come first");
        handle.announce(vec![(VIP4.into(), Scope::All)]);
        assert_eq!(next(), Notification::Announced(vec![VIP4.into()]));
        lab.client.receive(&mut lab.batch).unwrap();
        assert!(lab.batch.frames().any(|(frame, _)| is_arp(frame) && frame[28..32] == VIP4.octets()));
        handle.announce_again(vec![VIP4.into(), VIP6.into()]);
        assert_eq!(next(), Notification::Announced(vec![VIP4.into()]));
        handle.announce(vec![Announcement { ip: VIP4.into(), scope: Scope::All, stance: Stance::Yield }]);
        handle.announce_again(vec![VIP4.into()]);
        lab.send(&who_has(VIP4));
        wait_for("the answer for a yielded address", || lab.receive().iter().any(|frame| is_answer(frame)));
        ip("link set cli0 down");
        assert_eq!(next(), Notification::Interfaces(Vec::new()), "nothing was announced in between");
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_claimed_address_is_announced_only_if_no_other_host_has_it() {
    in_namespace(|| {
        let taken: IpAddr = [192, 168, 10, 77].into();
        let mut lab = Lab::new(Vec::new());
        // Another host has one of the three addresses.
        let _other = OtherHost::new(taken);
        let handle = lab.driver.handle();
        handle.probe_first(vec![taken, VIP4.into(), VIP6.into()]);
        handle.announce([taken, VIP4.into(), VIP6.into()].map(|ip| (ip, Scope::All)).to_vec());
        lab.wait_for_announcements(US, [VIP4.into(), VIP6.into()]);
        let events = handle.take_events();
        let told = |event: &Event| matches!(event, Event::Occupied { ip, mac, .. } if *ip == taken && *mac == THIRD);
        assert!(matches!(events.as_slice(), [event] if told(event)), "{events:?}");
        assert_eq!(handle.counters().gratuitous.get(&taken), None);
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_stopped_driver_is_silent() {
    in_namespace(|| {
        let mut lab = Lab::new(owned());
        lab.answers_to(&who_has(VIP4));
        let Lab { driver, client, mut batch } = lab;
        let handle = driver.handle();
        drop(driver);
        while client.receive(&mut batch).unwrap() > 0 {}
        client.send(&[who_has(VIP4)]).unwrap();
        handle.announce(owned());
        std::thread::sleep(Duration::from_millis(50));
        client.receive(&mut batch).unwrap();
        assert!(batch.frames().all(|(frame, _)| !is_answer(frame)));
    });
}

/// A host on the same segment as the client, in its own network namespace.
struct OtherHost(Child);

impl OtherHost {
    fn new(address: IpAddr) -> Self {
        let child = Command::new("unshare").args(["--net", "sleep", "60"]).spawn().unwrap();
        let pid = child.id();
        let namespace = |of: &str| std::fs::read_link(format!("/proc/{of}/ns/net")).unwrap();
        wait_for("its namespace", || namespace(&pid.to_string()) != namespace("thread-self"));
        ip("link add clibr0 type bridge");
        ip(&format!("link add cli1 type veth peer name far0 address {THIRD} netns {pid}"));
        for card in ["cli0", "cli1"] {
            ip(&format!("link set {card} master clibr0 up"));
        }
        ip("link set clibr0 up");
        let far = |arguments: &str| run("nsenter", &format!("--net=/proc/{pid}/ns/net ip {arguments}"));
        far(&format!("addr add {address}/24 dev far0"));
        far("link set far0 up");
        Self(child)
    }
}

impl Drop for OtherHost {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

pub(crate) fn is_arp(frame: &[u8]) -> bool {
    frame[12..14] == [0x08, 0x06]
}

/// A unicast ARP reply or a solicited neighbour advertisement. The reply to a probe by NDP is not distinguishable from
/// an announcement.
pub(crate) fn is_answer(frame: &[u8]) -> bool {
    match is_arp(frame) {
        true => frame[21] == 2 && frame[0] & 1 == 0,
        false => frame[54] == 136 && frame[58] & 0x40 != 0,
    }
}

fn ready(handle: &Handle) -> Option<Interface> {
    handle.interfaces().into_iter().find(|interface| interface.link_local.is_some())
}

pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "waited too long for {what}");
        std::thread::sleep(Duration::from_micros(200));
    }
}

/// Runs `ip` in the namespace of this thread.
pub(crate) fn ip(arguments: &str) -> String {
    run("ip", arguments)
}

pub(crate) fn run(program: &str, arguments: &str) -> String {
    let output = Command::new(program).args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "{program} {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a test in a new network namespace on its own thread; prints SKIPPED if the host does not allow it.
pub(crate) fn in_namespace(test: impl FnOnce() + Send + 'static) {
    if let Err(error) = Command::new("ip").arg("-V").output() {
        println!("SKIPPED: the program `ip` (iproute2) is missing: {error}");
        return;
    }
    let result = std::thread::spawn(move || {
        let new = nix::sched::CloneFlags::CLONE_NEWNET | nix::sched::CloneFlags::CLONE_NEWNS;
        if let Err(error) = nix::sched::unshare(new) {
            println!("SKIPPED: the right to make a network namespace (root) is missing: {error}");
            return;
        }
        // sysfs shows the network namespace in which it was mounted.
        run("mount", "--make-rprivate /");
        run("mount", "-t sysfs sysfs /sys");
        test();
    });
    if let Err(panic) = result.join() {
        std::panic::resume_unwind(panic);
    }
}

pub(crate) const NOTHING: Vec<Announcement> = Vec::new();
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);
