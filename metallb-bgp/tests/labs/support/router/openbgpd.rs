//! OpenBGPD and its control socket.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use super::{ASN, Neighbor, Router, Routes, Seen, community, large_community, number, parse, preference, text, words};
use crate::support::lab::{Lab, output};

pub(super) const PROGRAMS: [&str; 2] = ["/usr/sbin/bgpd", "/usr/sbin/bgpctl"];

/// A lab whose router is OpenBGPD.
#[derive(Debug)]
pub(crate) struct Openbgpd {
    lab: Lab,
}

impl Openbgpd {
    pub(crate) fn start(mut lab: Lab, neighbors: &[Neighbor]) -> Self {
        // Two of its three processes chroot to this directory, the home of their user. Nothing is written there.
        std::fs::create_dir_all("/run/openbgpd").unwrap();
        let socket = lab.at("bgpd.sock");
        let mut config = format!(
            "AS {ASN}\nrouter-id 172.16.1.254\nfib-update no\nsocket \"{socket}\"\nallow from any\nallow to any\n"
        );
        for Neighbor { address, local, asn } in neighbors {
            config += &format!(
                "listen on {local}\nneighbor {address} {{\nremote-as {asn}\npassive\nannounce IPv4 unicast\n\
                 announce IPv6 unicast\n}}\n"
            );
        }
        let config = lab.write("bgpd.conf", &config);
        std::fs::set_permissions(&config, std::fs::Permissions::from_mode(0o600)).unwrap();
        lab.daemon("bgpd", PROGRAMS[0], &["-d", "-f", &config]);
        let bgpd = Self { lab };
        let known = || bgpd.json(&["show", "neighbor"])["neighbors"].as_array().map_or(0, Vec::len);
        bgpd.lab.until_ready("bgpd", || known() == neighbors.len());
        bgpd
    }

    /// What it answers, as JSON.
    fn json(&self, arguments: &[&str]) -> Value {
        let socket = self.lab.at("bgpd.sock");
        let answer = output(PROGRAMS[1], &[&["-j", "-s", &socket], arguments].concat());
        serde_json::from_str(&answer).unwrap_or(Value::Null)
    }
}

impl Router for Openbgpd {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn established(&self, neighbor: IpAddr) -> bool {
        let answer = self.json(&["show", "neighbor"]);
        let is_it = |one: &&Value| one["remote_addr"] == neighbor.to_string();
        let found = answer["neighbors"].as_array().and_then(|all| all.iter().find(is_it));
        found.is_some_and(|found| found["state"] == "Established")
    }

    fn routes(&self) -> Routes {
        let answer = self.json(&["show", "rib", "detail"]);
        let route = |route: &Value| {
            let all = |key: &str| route[key].as_array().cloned().unwrap_or_default();
            let seen = Seen {
                next_hop: parse(text(&route["exit_nexthop"])),
                as_path: words(text(&route["aspath"])),
                // It makes no difference between none and zero.
                med: number(&route["metric"]).filter(|med| *med != 0),
                local_pref: preference(number(&route["localpref"]), route["source"] == "internal"),
                communities: all("communities").iter().map(|one| community(text(one))).collect(),
                large_communities: all("large_communities").iter().map(|one| large_community(text(one))).collect(),
            };
            ((parse(text(&route["neighbor"]["remote_addr"])), parse(text(&route["prefix"]))), seen)
        };
        answer["rib"].as_array().into_iter().flatten().map(route).collect()
    }
}
