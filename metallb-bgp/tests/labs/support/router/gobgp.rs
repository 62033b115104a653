//! GoBGP and its command line.

use std::net::IpAddr;

use serde_json::Value;

use super::{ASN, Neighbor, Router, Routes, Seen, number, parse, preference, text};
use crate::support::lab::Lab;

pub(super) const PROGRAMS: [&str; 2] = ["/usr/bin/gobgpd", "/usr/bin/gobgp"];

/// A lab whose router is GoBGP.
#[derive(Debug)]
pub(crate) struct Gobgp {
    lab: Lab,
}

impl Gobgp {
    pub(crate) fn start(mut lab: Lab, neighbors: &[Neighbor]) -> Self {
        let mut config = format!("[global.config]\nas = {ASN}\nrouter-id = \"172.16.1.254\"\n");
        for Neighbor { address, asn, .. } in neighbors {
            config += &format!(
                "[[neighbors]]\n[neighbors.config]\nneighbor-address = \"{address}\"\npeer-as = {asn}\n\
                 [neighbors.transport.config]\npassive-mode = true\n"
            );
            for family in ["ipv4-unicast", "ipv6-unicast"] {
                config +=
                    &format!("[[neighbors.afi-safis]]\n[neighbors.afi-safis.config]\nafi-safi-name = \"{family}\"\n");
            }
        }
        let config = lab.write("gobgp.toml", &config);
        lab.daemon("gobgpd", PROGRAMS[0], &["-f", &config]);
        let gobgp = Self { lab };
        let known = || gobgp.json(&["neighbor"]).as_array().map_or(0, Vec::len);
        gobgp.lab.until_ready("gobgpd", || known() == neighbors.len());
        gobgp
    }

    /// What it answers, as JSON.
    fn json(&self, arguments: &[&str]) -> Value {
        let answer = self.lab.on_router(PROGRAMS[1], &[&["-j"], arguments].concat());
        serde_json::from_str(&answer).unwrap_or(Value::Null)
    }
}

impl Router for Gobgp {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn established(&self, neighbor: IpAddr) -> bool {
        let neighbors = self.json(&["neighbor"]);
        let state = |found: &&Value| found["state"]["neighbor_address"] == neighbor.to_string();
        let found = neighbors.as_array().and_then(|neighbors| neighbors.iter().find(state));
        found.is_some_and(|found| found["state"]["session_state"] == ESTABLISHED)
    }

    fn routes(&self) -> Routes {
        let mut routes = Routes::new();
        for family in ["ipv4", "ipv6"] {
            let table = self.json(&["global", "rib", "-a", family]);
            for (prefix, paths) in table.as_object().into_iter().flatten() {
                for path in paths.as_array().into_iter().flatten() {
                    routes.insert((parse(text(&path["neighbor-ip"])), parse(prefix)), seen(&path["attrs"]));
                }
            }
        }
        routes
    }
}

/// Attributes by their codes.
fn seen(attributes: &Value) -> Seen {
    let attribute = |code: u8| {
        let found = attributes.as_array().and_then(|all| all.iter().find(|one| one["type"] == code));
        found.cloned().unwrap_or(Value::Null)
    };
    let all = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let hop = match attribute(14) {
        Value::Null => attribute(3),
        multiprotocol => multiprotocol,
    };
    let segments = all(&attribute(2)["as_paths"]);
    let as_path: Vec<u32> =
        segments.iter().flat_map(|segment| all(&segment["asns"])).filter_map(|n| number(&n)).collect();
    Seen {
        next_hop: parse(text(&hop["nexthop"])),
        med: number(&attribute(4)["metric"]),
        local_pref: preference(number(&attribute(5)["value"]), as_path.is_empty()),
        communities: all(&attribute(8)["communities"]).iter().filter_map(number).collect(),
        large_communities: all(&attribute(32)["value"])
            .iter()
            .filter_map(|one| Some((number(&one["ASN"])?, number(&one["LocalData1"])?, number(&one["LocalData2"])?)))
            .collect(),
        as_path,
    }
}

const ESTABLISHED: u8 = 6;
