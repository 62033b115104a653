//! Receive queues with and without a shared ring behave the same.

use std::io;
use std::time::{Duration, Instant};

use metallb_l2::interface::Scope;
use metallb_l2::io::{RawSocket, ReceiveBatch, RxQueue};
use nix::errno::Errno;

use crate::frames::{VIP4, VIP4_SENTINEL, who_has};
use crate::lab::{Lab, PATIENCE, in_namespace, ip, is_answer, is_arp, wait_for};

type Open = fn(u32) -> io::Result<(RawSocket, RxQueue)>;

const KINDS: [(&str, Open); 2] = [("shared", RxQueue::with_ring), ("queued", RxQueue::without_ring)];

/// A receive queue at one end of a link and a sending socket at the other.
struct Link {
    socket: RawSocket,
    rx_queue: RxQueue,
    batch: ReceiveBatch,
    far: RawSocket,
}

impl Link {
    fn new(open: Open) -> Self {
        ip("link add vip0 mtu 9216 type veth peer name cli0 mtu 9216");
        for card in ["vip0", "cli0"] {
            ip(&format!("link set {card} addrgenmode none arp off up"));
        }
        let index = |card| nix::net::if_::if_nametoindex(card).unwrap();
        let (socket, rx_queue) = open(index("vip0")).unwrap();
        let far = RawSocket::open(index("cli0")).unwrap();
        Self { socket, rx_queue, batch: ReceiveBatch::new(), far }
    }

    fn send(&self, frame: &[u8]) {
        assert_eq!(self.far.send(&[frame]).unwrap(), 1);
    }

    fn receive(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut frames = Vec::new();
        let count = self.rx_queue.receive(&self.socket, &mut self.batch, |bytes, _| frames.push(bytes.to_vec()))?;
        assert_eq!(count, frames.len());
        Ok(frames)
    }

    fn receive_all(&mut self) -> Vec<Vec<u8>> {
        let batches = std::iter::from_fn(|| Some(self.receive().unwrap()).filter(|frames| !frames.is_empty()));
        batches.flatten().collect()
    }
}

/// A numbered frame of length `len` that the filter accepts.
fn numbered(number: u32, len: usize) -> Vec<u8> {
    let mut frame = vec![number as u8; len];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    frame[12..14].copy_from_slice(&[0x08, 0x06]);
    frame[14..18].copy_from_slice(&number.to_be_bytes());
    frame
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_frames_of_all_lengths_are_received_in_order() {
    for (kind, open) in KINDS {
        in_namespace(move || {
            let mut link = Link::new(open);
            // Enough frames to wrap around the ring several times.
            for round in 0..50_u32 {
                let lengths = [42, 60, 86, 93, 94, 95, 96, 160, 2175, 2176, 2177, 9000];
                let frames: Vec<Vec<u8>> =
                    (0..5).flat_map(|_| lengths).zip(round * 60..).map(|(len, number)| numbered(number, len)).collect();
                frames.iter().for_each(|frame| link.send(frame));
                let kept: Vec<&[u8]> = frames.iter().map(|frame| &frame[..frame.len().min(2176)]).collect();
                assert_eq!(link.receive_all(), kept, "{kind}, round {round}");
                assert!(matches!(link.rx_queue.has_frame(), None | Some(false)), "{kind}");
            }
        });
    }
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_full_rx_queue_drops_the_newest_frames_and_recovers() {
    for (kind, open) in KINDS {
        in_namespace(move || {
            let mut link = Link::new(open);
            for round in 0..3 {
                // More frames than the queue holds.
                (0..20_000).for_each(|number| link.send(&numbered(number, 60)));
                let received = link.receive_all();
                let expected: Vec<Vec<u8>> = (0..received.len() as u32).map(|number| numbered(number, 60)).collect();
                assert_eq!(received, expected, "{kind}, round {round}");
                assert!((100..20_000).contains(&received.len()), "{kind}: {}", received.len());
            }
        });
    }
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_link_down_is_reported_and_frames_arrive_after_its_return() {
    for (kind, open) in KINDS {
        in_namespace(move || {
            let mut link = Link::new(open);
            // Too long for a slot, so it is queued in the socket buffer.
            link.send(&numbered(6, 1000));
            ip("link set vip0 down");
            let error = link.receive().expect_err(kind);
            assert_eq!(Errno::from_raw(error.raw_os_error().unwrap()), Errno::ENETDOWN, "{kind}");
            assert!(
                link.receive_all().iter().all(|frame| *frame == numbered(6, 1000)),
                "{kind}: the error is reported once"
            );
            ip("link set vip0 up");
            let ours = [numbered(7, 60), numbered(7, 500)];
            for frame in &ours {
                // The link is usable only some time after the command.
                let start = Instant::now();
                loop {
                    link.send(frame);
                    let received = link.receive_all();
                    assert!(received.iter().all(|other| ours.contains(other)), "{kind}: {received:?}");
                    if received.contains(frame) {
                        break;
                    }
                    assert!(start.elapsed() < PATIENCE, "{kind}: no frame arrives");
                    std::thread::sleep(Duration::from_millis(10));
                }
            }
        });
    }
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_command_takes_effect_before_a_later_request_during_busy_polling() {
    in_namespace(|| {
        let sentinel = (VIP4_SENTINEL.into(), Scope::All);
        let mut lab = Lab::new(vec![sentinel.clone()]);
        let handle = lab.driver.handle();
        for round in 0..600 {
            handle.announce(vec![(VIP4.into(), Scope::All), sentinel.clone()]);
            for _ in 0..3 {
                lab.send(&who_has(VIP4));
                let start = Instant::now();
                // Polls without sleeping, so that the driver keeps polling too.
                while !lab.receive().iter().any(|frame| is_answer(frame)) {
                    assert!(start.elapsed() < PATIENCE, "no answer in round {round}");
                }
            }
            handle.announce(vec![sentinel.clone()]);
            assert_eq!(lab.answers_to(&who_has(VIP4)), Vec::<Vec<u8>>::new(), "round {round}");
        }
    });
}

#[test]
#[ignore = "a lab: scripts/test.sh labs, as root"]
fn lab_interfaces_without_a_ring_are_answered_on() {
    in_namespace(|| {
        let mut lab = Lab::new(vec![(VIP4.into(), Scope::All), (VIP4_SENTINEL.into(), Scope::All)]);
        for number in 1..12 {
            ip(&format!("link add vip{number} type veth peer name cli{number} address 02:00:00:00:00:09"));
            ip(&format!("link set vip{number} up"));
            ip(&format!("link set cli{number} up"));
        }
        let handle = lab.driver.handle();
        wait_for("the interfaces", || handle.interfaces().len() == 12);
        for number in (0..12).rev() {
            lab.client = RawSocket::open(nix::net::if_::if_nametoindex(&*format!("cli{number}")).unwrap()).unwrap();
            for target in [VIP4, VIP4_SENTINEL] {
                lab.send(&who_has(target));
                let is_about = |frame: &Vec<u8>| is_arp(frame) && is_answer(frame) && frame[28..32] == target.octets();
                wait_for("the answer", || lab.receive().iter().any(is_about));
            }
        }
    });
}
