//! BIRD 2 and its control socket.

use std::net::IpAddr;

use super::{ASN, Neighbor, Router, Routes, Seen, community, large_community, parse, preference, words};
use crate::support::lab::{Lab, output};

pub(super) const PROGRAMS: [&str; 2] = ["/usr/sbin/bird", "/usr/sbin/birdc"];

/// A lab whose router is BIRD.
#[derive(Debug)]
pub(crate) struct Bird {
    lab: Lab,
}

impl Bird {
    /// Starts BIRD. `sessions` is added to the configuration of each session, `protocols` to the file.
    pub(crate) fn start(mut lab: Lab, neighbors: &[Neighbor], sessions: &str, protocols: &str) -> Self {
        let mut config = format!(
            "log stderr all;\nrouter id 172.16.1.254;\nprotocol device {{}}\nprotocol direct {{ ipv4; ipv6; }}\n\
             {protocols}\ntemplate bgp speaker {{\n local as {ASN}; passive;\n {sessions}\n \
             ipv4 {{ import all; export none; }};\n ipv6 {{ import all; export none; }};\n}}\n"
        );
        for (number, Neighbor { address, asn, .. }) in neighbors.iter().enumerate() {
            config += &format!("protocol bgp s{number} from speaker {{ neighbor {address} as {asn}; }}\n");
        }
        let (config, socket, pid) = (lab.write("bird.conf", &config), lab.at("bird.ctl"), lab.at("bird.pid"));
        lab.daemon("bird", PROGRAMS[0], &["-f", "-c", &config, "-s", &socket, "-P", &pid]);
        let bird = Self { lab };
        bird.lab.until_ready("bird", || bird.ask("show status").contains("Daemon is up and running"));
        bird
    }

    /// What its shell answers.
    pub(crate) fn ask(&self, command: &str) -> String {
        output(PROGRAMS[1], &["-s", &self.lab.at("bird.ctl"), command])
    }

    /// Whether its BFD session with an address is Up.
    pub(crate) fn bfd_is_up(&self, address: &str) -> bool {
        let answer = self.ask("show bfd sessions");
        answer.lines().any(|line| {
            let mut words = line.split_whitespace();
            words.next() == Some(address) && words.any(|word| word == "Up")
        })
    }
}

impl Router for Bird {
    fn lab(&self) -> &Lab {
        &self.lab
    }

    fn established(&self, neighbor: IpAddr) -> bool {
        let answer = self.ask("show protocols all");
        let mut state = "";
        answer.lines().any(|line| {
            let (key, value) = line.trim().split_once(':').unwrap_or_default();
            match key {
                "BGP state" => state = value.trim(),
                "Neighbor address" => return value.trim() == neighbor.to_string() && state == "Established",
                _ => {}
            }
            false
        })
    }

    /// A route is a line without indentation, then lines of attributes.
    fn routes(&self) -> Routes {
        let mut routes = Routes::new();
        let answer = self.ask("show route all where source = RTS_BGP");
        let mut lines = answer.lines().peekable();
        while let Some(line) = lines.next() {
            let Some((prefix, rest)) = line.split_once(char::is_whitespace).filter(|(word, _)| word.contains('/'))
            else {
                continue;
            };
            // `[s0 12:00:00.000 from 172.16.1.11]`; without `from` the peer is the next hop.
            let from = rest.split_once(" from ").map(|(_, rest)| parse(rest.split(']').next().unwrap_or_default()));
            let mut seen = Seen {
                next_hop: [0, 0, 0, 0].into(),
                as_path: Vec::new(),
                med: None,
                local_pref: None,
                communities: [].into(),
                large_communities: [].into(),
            };
            while let Some(line) = lines.next_if(|line| line.starts_with('\t')) {
                let Some((key, value)) = line.trim().split_once(':') else { continue };
                let value = value.trim();
                match key {
                    "BGP.next_hop" => seen.next_hop = parse(value.split(' ').next().unwrap_or_default()),
                    "BGP.as_path" => seen.as_path = words(value),
                    "BGP.med" => seen.med = Some(parse(value)),
                    "BGP.local_pref" => seen.local_pref = Some(parse(value)),
                    "BGP.community" => seen.communities = tuples(value).map(|tuple| community(&tuple)).collect(),
                    "BGP.large_community" => {
                        seen.large_communities = tuples(value).map(|tuple| large_community(&tuple)).collect();
                    }
                    _ => {}
                }
            }
            seen.local_pref = preference(seen.local_pref, seen.as_path.is_empty());
            routes.insert((from.unwrap_or(seen.next_hop), parse(prefix)), seen);
        }
        routes
    }
}

/// `(7776, 1, 2) (7776, 3, 4)` as `7776:1:2` and `7776:3:4`.
fn tuples(text: &str) -> impl Iterator<Item = String> {
    text.split(')').filter_map(|tuple| Some(tuple.split_once('(')?.1.replace(", ", ":").replace(',', ":")))
}
