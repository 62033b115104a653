//! Who answers for an address, who is next, and what moves when a node goes: `cargo run -p metallb-core --example elect`.
#![expect(clippy::print_stdout, reason = "an example shows what it does")]

use std::net::{IpAddr, Ipv4Addr};

use metallb_core::election::{Electorate, Standings};
use metallb_core::model::NodeName;

fn main() {
    let nodes: Vec<NodeName> = ["node-a", "node-b", "node-c"].map(NodeName::from).into();
    let addresses: Vec<IpAddr> = (0..6).map(|last| Ipv4Addr::new(192, 168, 10, last).into()).collect();

    // No preferences: every score is 0, and the lowest sha256 of `node#ip` wins.
    let electorate = Electorate::new(nodes.iter().map(|node| (node.clone(), 0)));
    let mut table = Standings::new(electorate, addresses.iter().copied());
    for &ip in &addresses {
        let name = |node: Option<&NodeName>| node.map_or("nobody".to_owned(), ToString::to_string);
        println!("{ip}: {} answers, then {}", name(table.owner(ip)), name(table.successor(ip)));
    }

    // Only what node-b owned moves, and to the nodes that were next.
    for ip in table.leave(&"node-b".into()) {
        let owner = table.owner(ip).map_or("nobody", NodeName::as_str);
        println!("node-b is gone: {ip} moves to {owner}");
    }
}
