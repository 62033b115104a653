//! FRR on the lab's router: zebra, bgpd and bfdd with one configuration.

use std::process::Command;

use serde_json::Value;

use crate::support::lab::{Lab, output};

pub(crate) const PROGRAMS: [&str; 4] =
    ["/usr/lib/frr/bgpd", "/usr/lib/frr/zebra", "/usr/lib/frr/bfdd", "/usr/bin/vtysh"];

/// A lab whose router is FRR.
#[derive(Debug)]
pub(crate) struct Frr {
    pub(crate) lab: Lab,
}

impl Frr {
    /// Starts FRR with `config`. `None`, with a line of output, if a part is missing.
    pub(crate) fn start(test: &str, config: &str) -> Option<Self> {
        Some(Self::start_in(Lab::new(test, &PROGRAMS)?, config))
    }

    pub(crate) fn start_in(mut lab: Lab, config: &str) -> Self {
        let config = lab.write("frr.conf", config);
        // The daemons become the user `frr`.
        output("chown", &["-R", "frr:frr", &lab.at("")]);
        // Last the one that the labs freeze; zebra first, which the others connect to.
        for daemon in ["zebra", "bfdd", "bgpd"] {
            let (sockets, zebra, pid) = (lab.at(""), lab.at("zserv.api"), lab.at(&format!("{daemon}.pid")));
            let mut arguments = vec!["--vty_socket", &sockets, "-z", &zebra, "-i", &pid];
            arguments.extend(["-A", "127.0.0.1", "-f", "/dev/null"]);
            let control = lab.at("bfdd.sock");
            if daemon == "bfdd" {
                arguments.extend(["--bfdctl", &control]);
            }
            lab.daemon(daemon, format!("/usr/lib/frr/{daemon}"), &arguments);
            let socket = lab.path(&format!("{daemon}.vty"));
            lab.until_ready(daemon, || socket.exists());
        }
        output("vtysh", &["--vty_socket", &lab.at(""), "-f", &config]);
        Self { lab }
    }

    /// What the router's shell answers.
    pub(crate) fn vtysh(&self, command: &str) -> String {
        self.configure(&[command])
    }

    /// What it answers to several commands, as those that configure.
    pub(crate) fn configure(&self, commands: &[&str]) -> String {
        let mut vtysh = Command::new("vtysh");
        // Only the daemon that is asked: one that is frozen would never answer.
        let daemon = if commands.iter().any(|command| command.contains("bfd peers")) { "bfdd" } else { "bgpd" };
        vtysh.args(["-d", daemon, "--vty_socket"]).arg(self.lab.at(""));
        for command in commands {
            vtysh.args(["-c", command]);
        }
        String::from_utf8_lossy(&vtysh.output().unwrap().stdout).into_owned()
    }

    /// The same, as JSON.
    pub(crate) fn json(&self, command: &str) -> Value {
        serde_json::from_str(&self.vtysh(&format!("{command} json"))).unwrap_or(Value::Null)
    }

    /// The router's only path to a prefix, if it has one.
    pub(crate) fn path(&self, prefix: &str) -> Option<Value> {
        let family = if prefix.contains(':') { "ipv6" } else { "ipv4" };
        let answer = self.json(&format!("show bgp {family} unicast {prefix}"));
        match answer.get("paths").and_then(Value::as_array).map(Vec::as_slice) {
            Some([path]) => Some(path.clone()),
            _ => None,
        }
    }

    /// The BGP session of the router with an address.
    pub(crate) fn neighbor(&self, name: &str) -> Value {
        self.json(&format!("show bgp neighbors {name}"))[name].clone()
    }

    /// The BFD session of the router with an address.
    pub(crate) fn bfd_peer(&self, address: &str) -> Value {
        let peers = self.json("show bfd peers");
        let found = peers.as_array().and_then(|peers| peers.iter().find(|peer| peer["peer"] == address));
        found.cloned().unwrap_or(Value::Null)
    }
}
