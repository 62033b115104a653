//! UPDATE is encoded and decoded, and a changed route sent, without an allocation.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net};
use metallb_bgp::rib::{AdjRibOut, NextHops};
use metallb_bgp::types::{Asn, Attributes, Family};
use metallb_bgp::wire::template::{Encoding, Template};
use metallb_bgp::wire::update::Outcome;
use metallb_bgp::wire::{DecodeContext, Message, decode};

struct Counting;

thread_local! {
    static COUNT: Cell<usize> = const { Cell::new(0) };
}

// SAFETY: every call is forwarded unchanged to the system allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        COUNT.with(|count| count.set(count.get() + 1));
        // SAFETY: as above.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn allocations<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = COUNT.with(Cell::get);
    let result = work();
    (result, COUNT.with(Cell::get) - before)
}

#[test]
fn updates_are_encoded_and_decoded_without_allocation() {
    let encoding = Encoding { asn: Asn(65001), internal: false, four_octet_asn: true };
    let attributes = Attributes::default().with_communities([1, 2, 3]);
    let template = Template::announce(&encoding, &attributes, "10.0.0.1".parse().unwrap(), Family::Ipv4);
    let hosts: Vec<Ipv4Net> = "10.0.0.0/20".parse::<Ipv4Net>().unwrap().hosts().map(Ipv4Net::from).collect();
    let mut out = vec![0; 4096];
    let ((bytes, count), written) = allocations(|| template.fill(&mut out, hosts.iter().copied()));
    assert_eq!((written, count), (0, 807));
    let context = DecodeContext::new(Asn(64512), Asn(65001));
    let (seen, read) = allocations(|| match decode(&out[..bytes], &context) {
        Ok(Some((Message::Update(update), _))) if update.outcome() == Outcome::Accept => update.announced_v4().count(),
        other => panic!("{other:?}"),
    });
    assert_eq!((read, seen), (0, 807));
    let (boxed, counted) = allocations(|| Box::new(7));
    assert_eq!((*boxed, counted), (7, 1), "the counter works");
}

#[test]
fn changed_routes_are_sent_without_allocation() {
    let encoding = Encoding { asn: Asn(65001), internal: false, four_octet_asn: true };
    let next_hops = NextHops { v4: Some([10, 0, 0, 1].into()), v6: None };
    let (plain, other) = (Arc::new(Attributes::default()), Arc::new(Attributes::default().with_med(1)));
    let hosts: Vec<IpNet> = "10.0.0.0/20".parse::<IpNet>().unwrap().hosts().map(IpNet::from).collect();
    let mut rib = AdjRibOut::default();
    rib.set(hosts.iter().map(|host| (*host, Arc::clone(&plain))));
    let mut out = vec![0; 4096];
    let mut change = |prefix: IpNet, attributes: &Arc<Attributes>| {
        rib.change(prefix, Some(attributes));
        while rib.poll_transmit(&mut out, &encoding, &next_hops, 4096).bytes > 0 {}
        rib.advertised()
    };
    // All routes are advertised, and both attribute sets were encoded once.
    change(hosts[7], &other);
    for attributes in [&plain, &other, &plain] {
        assert_eq!(allocations(|| change(hosts[7], attributes)), (hosts.len(), 0));
    }
    assert_eq!(allocations(|| change(hosts[8], &other)), (hosts.len(), 0), "another prefix");
}
