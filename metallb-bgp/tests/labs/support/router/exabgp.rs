//! ExaBGP, which has no routing table: sessions and routes are reconstructed from the events that it prints.

use std::collections::BTreeSet;
use std::net::IpAddr;

use ipnet::IpNet;
use serde_json::Value;

use super::{ASN, Neighbor, Router, Routes, Seen, number, parse, preference, text};
use crate::support::lab::Lab;

pub(super) const PROGRAMS: [&str; 2] = ["/usr/sbin/exabgp", "/usr/bin/env"];

/// A lab whose router is ExaBGP.
#[derive(Debug)]
pub(crate) struct Exabgp {
    lab: Lab,
}

impl Exabgp {
    pub(crate) fn start(mut lab: Lab, neighbors: &[Neighbor]) -> Self {
        let events = lab.write("events.json", "");
        let mut config = format!("process events {{\nrun /usr/bin/tee -a {events};\nencoder json;\n}}\n");
        for Neighbor { address, local, asn } in neighbors {
            config += &format!(
                "neighbor {address} {{\nrouter-id 172.16.1.254;\nlocal-address {local};\nlocal-as {ASN};\npeer-as {asn};\n\
                 passive true;\nfamily {{ ipv4 unicast; ipv6 unicast; }}\n\
                 api {{ processes [ events ]; neighbor-changes; receive {{ parsed; update; }} }}\n}}\n"
            );
        }
        let config = lab.write("exabgp.conf", &config);
        let addresses: Vec<String> = neighbors.iter().map(|neighbor| neighbor.local.to_string()).collect();
        let bind = format!("exabgp.tcp.bind={}", addresses.join(" "));
        let settings = [&bind, "exabgp.tcp.port=179", "exabgp.daemon.user=root", "exabgp.api.cli=false"];
        lab.daemon("exabgp", PROGRAMS[1], &[&settings[..], &[PROGRAMS[0], &config]].concat());
        let exabgp = Self { lab };
        let listening = || exabgp.lab.on_router("ss", &["-Hltn", "sport = 179"]).lines().count();
        exabgp.lab.until_ready("exabgp", || listening() == neighbors.len());
        exabgp
    }

    /// The established sessions and the routes, from all events since its start.
    fn heard(&self) -> (BTreeSet<IpAddr>, Routes) {
        let (mut up, mut routes) = (BTreeSet::new(), Routes::new());
        let events = std::fs::read_to_string(self.lab.path("events.json")).unwrap();
        // The last line may be on the way.
        for event in events.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok()) {
            let from: IpAddr = parse(text(&event["neighbor"]["address"]["peer"]));
            match (text(&event["type"]), text(&event["neighbor"]["state"])) {
                ("state", "up") => {
                    up.insert(from);
                }
                ("state", "down") => {
                    up.remove(&from);
                    routes.retain(|(neighbor, _), _| *neighbor != from);
                }
                ("update", _) => update(from, &event["neighbor"]["message"]["update"], &mut routes),
                _ => {}
            }
        }
        (up, routes)
    }
}

impl Router for Exabgp {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn established(&self, neighbor: IpAddr) -> bool {
        self.heard().0.contains(&neighbor)
    }

    fn routes(&self) -> Routes {
        self.heard().1
    }
}

fn update(from: IpAddr, update: &Value, routes: &mut Routes) {
    let prefixes = |list: &Value| -> Vec<IpNet> {
        list.as_array().into_iter().flatten().map(|one| parse(text(&one["nlri"]))).collect()
    };
    for (_, list) in update["withdraw"].as_object().into_iter().flatten() {
        for prefix in prefixes(list) {
            routes.remove(&(from, prefix));
        }
    }
    let attributes = &update["attribute"];
    let numbers = |value: &Value| -> Vec<u32> { value.as_array().into_iter().flatten().filter_map(number).collect() };
    let lists =
        |key: &str| -> Vec<Vec<u32>> { attributes[key].as_array().into_iter().flatten().map(numbers).collect() };
    let as_path = numbers(&attributes["as-path"]);
    let hops = update["announce"].as_object().into_iter().flatten().filter_map(|(_, hops)| hops.as_object());
    for (hop, list) in hops.flatten() {
        let seen = Seen {
            next_hop: parse(hop),
            med: number(&attributes["med"]),
            local_pref: preference(number(&attributes["local-preference"]), as_path.is_empty()),
            communities: lists("community").iter().map(|pair| pair[0] << 16 | pair[1]).collect(),
            large_communities: lists("large-community").iter().map(|three| (three[0], three[1], three[2])).collect(),
            as_path: as_path.clone(),
        };
        routes.extend(prefixes(list).into_iter().map(|prefix| ((from, prefix), seen.clone())));
    }
}
