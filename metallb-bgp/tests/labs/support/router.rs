//! The routers of the labs: how each is started, and its sessions and routes.

mod bird;
mod exabgp;
mod gobgp;
mod openbgpd;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde_json::Value;

pub(crate) use self::bird::Bird;
use self::exabgp::Exabgp;
use self::gobgp::Gobgp;
use self::openbgpd::Openbgpd;
use crate::support::frr::{self, Frr};
use crate::support::lab::Lab;

/// The AS number of the router.
pub(crate) const ASN: u32 = 7675;

/// A session that the router waits for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Neighbor {
    /// The address of the speaker.
    pub(crate) address: IpAddr,
    /// The router's end.
    pub(crate) local: IpAddr,
    /// The AS number of the speaker.
    pub(crate) asn: u32,
}

/// A route as the router sees it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Seen {
    pub(crate) next_hop: IpAddr,
    pub(crate) as_path: Vec<u32>,
    pub(crate) med: Option<u32>,
    /// Routers put their default of 100 in for what an external neighbour does not say: that is `None`.
    pub(crate) local_pref: Option<u32>,
    pub(crate) communities: BTreeSet<u32>,
    pub(crate) large_communities: BTreeSet<(u32, u32, u32)>,
}

/// Routes by peer and prefix.
pub(crate) type Routes = BTreeMap<(IpAddr, IpNet), Seen>;

/// A router in a lab; it stops when it is dropped.
pub(crate) trait Router: Send + Sync {
    fn lab(&self) -> &Lab;

    /// Whether the router reports the session with this address as established.
    fn established(&self, neighbor: IpAddr) -> bool;

    /// Every route that the router has learned by BGP.
    fn routes(&self) -> Routes;
}

/// A kind of router.
pub(crate) struct Kind {
    pub(crate) name: &'static str,
    pub(crate) programs: &'static [&'static str],
    /// Starts it with sessions of both families for all neighbours, and returns when it waits for them.
    pub(crate) start: fn(Lab, &[Neighbor]) -> Box<dyn Router>,
}

pub(crate) const KINDS: [Kind; 5] = [
    Kind { name: "FRR", programs: &frr::PROGRAMS, start: |lab, neighbors| Box::new(start_frr(lab, neighbors)) },
    Kind {
        name: "BIRD",
        programs: &bird::PROGRAMS,
        start: |lab, neighbors| Box::new(Bird::start(lab, neighbors, "", "")),
    },
    Kind { name: "GoBGP", programs: &gobgp::PROGRAMS, start: |lab, neighbors| Box::new(Gobgp::start(lab, neighbors)) },
    Kind {
        name: "OpenBGPD",
        programs: &openbgpd::PROGRAMS,
        start: |lab, neighbors| Box::new(Openbgpd::start(lab, neighbors)),
    },
    Kind {
        name: "ExaBGP",
        programs: &exabgp::PROGRAMS,
        start: |lab, neighbors| Box::new(Exabgp::start(lab, neighbors)),
    },
];

fn start_frr(lab: Lab, neighbors: &[Neighbor]) -> Frr {
    let each = |line: &dyn Fn(&Neighbor) -> String| neighbors.iter().map(line).collect::<String>();
    let sessions = each(&|Neighbor { address, asn, .. }| {
        format!(" neighbor {address} remote-as {asn}\n neighbor {address} passive\n")
    });
    let active = each(&|neighbor| format!("  neighbor {} activate\n", neighbor.address));
    let config = format!(
        "router bgp {ASN}\n bgp router-id 172.16.1.254\n no bgp ebgp-requires-policy\n no bgp default ipv4-unicast\n\
         {sessions} address-family ipv4 unicast\n{active} exit-address-family\n \
         address-family ipv6 unicast\n{active} exit-address-family\n"
    );
    Frr::start_in(lab, &config)
}

impl Router for Frr {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn established(&self, neighbor: IpAddr) -> bool {
        self.neighbor(&neighbor.to_string())["bgpState"] == "Established"
    }

    fn routes(&self) -> Routes {
        let mut routes = Routes::new();
        for family in ["ipv4", "ipv6"] {
            // The list has no communities; all its prefixes are asked for in one go.
            let list = self.json(&format!("show bgp {family} unicast"));
            let prefixes = list["routes"].as_object().into_iter().flat_map(|routes| routes.keys());
            let commands: Vec<String> =
                prefixes.map(|prefix| format!("show bgp {family} unicast {prefix} json")).collect();
            if commands.is_empty() {
                continue;
            }
            let answer = self.configure(&commands.iter().map(String::as_str).collect::<Vec<_>>());
            for route in serde_json::Deserializer::from_str(&answer).into_iter::<Value>() {
                let Ok(route) = route else { break };
                for path in route["paths"].as_array().into_iter().flatten() {
                    let hops = path["nexthops"].as_array().unwrap();
                    let hop = hops.iter().find(|hop| hop["scope"] != "link-local").unwrap();
                    let internal = path["aspath"]["string"] == "Local";
                    let as_path = if internal { "" } else { text(&path["aspath"]["string"]) };
                    let seen = Seen {
                        next_hop: parse(text(&hop["ip"])),
                        as_path: words(as_path),
                        med: number(&path["metric"]),
                        local_pref: preference(number(&path["locPrf"]), internal),
                        communities: text(&path["community"]["string"]).split_whitespace().map(community).collect(),
                        large_communities: text(&path["largeCommunity"]["string"])
                            .split_whitespace()
                            .map(large_community)
                            .collect(),
                    };
                    routes.insert((parse(text(&path["peer"]["peerId"])), parse(text(&route["prefix"]))), seen);
                }
            }
        }
        routes
    }
}

/// What is left of a preference: see [`Seen::local_pref`].
fn preference(value: Option<u32>, internal: bool) -> Option<u32> {
    value.filter(|value| internal || *value != 100)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64().and_then(|value| value.try_into().ok())
}

fn parse<T: FromStr>(text: &str) -> T {
    text.parse().ok().unwrap_or_else(|| panic!("unexpected output {text:?}"))
}

fn words<T: FromStr>(text: &str) -> Vec<T> {
    text.split_whitespace().map(parse).collect()
}

/// `7776:7`
fn community(text: &str) -> u32 {
    let (high, low) = text.split_once(':').unwrap_or_else(|| panic!("unexpected output {text:?}"));
    parse::<u32>(high) << 16 | parse::<u32>(low)
}

/// `7776:1:2`
fn large_community(text: &str) -> (u32, u32, u32) {
    match text.split(':').map(parse).collect::<Vec<u32>>()[..] {
        [global, first, second] => (global, first, second),
        _ => panic!("unexpected output {text:?}"),
    }
}
