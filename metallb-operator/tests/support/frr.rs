//! A real FRR router (zebra and bgpd, bfdd on demand) in a namespace of the lab.

use std::path::PathBuf;
use std::time::Duration;

use super::netns::{Namespace, Process, eventually, which};

/// The programs that [`Frr::start`] needs.
pub(crate) const PROGRAMS: [&str; 3] = ["zebra", "bgpd", "vtysh"];

/// A running router.
#[derive(Debug)]
pub(crate) struct Frr {
    namespace: Namespace,
    directory: tempfile::TempDir,
    daemons: Vec<Process>,
}

impl Frr {
    /// Starts zebra, bgpd and the `extra` daemons with one integrated configuration, and waits until they listen to vtysh.
    pub(crate) fn start(namespace: &Namespace, configuration: &str, extra: &[&str]) -> Self {
        // FRR refuses to run with sockets in a directory that its user cannot enter.
        let directory = tempfile::Builder::new().prefix("mlb-frr-").tempdir_in("/tmp").expect("temporary directory");
        std::process::Command::new("chown").args(["-R", "frr:frr"]).arg(directory.path()).status().expect("chown runs");
        std::process::Command::new("chmod").arg("755").arg(directory.path()).status().expect("chmod runs");
        let mut frr = Self { namespace: namespace.clone(), directory, daemons: Vec::new() };
        for daemon in ["zebra", "bgpd"].iter().chain(extra) {
            frr.spawn(daemon);
        }
        let file = frr.directory.path().join("frr.conf");
        std::fs::write(&file, configuration).expect("configuration written");
        let loaded = frr.vtysh_command().arg("-f").arg(&file).output().expect("vtysh runs");
        assert!(loaded.status.success(), "vtysh -f: {}", String::from_utf8_lossy(&loaded.stdout));
        frr
    }

    /// What vtysh prints for one command.
    pub(crate) fn show(&self, command: &str) -> String {
        let output = self.vtysh_command().args(["-c", command]).output().expect("vtysh runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What vtysh prints for one `… json` command, parsed.
    pub(crate) fn json(&self, command: &str) -> serde_json::Value {
        serde_json::from_str(&self.show(command)).unwrap_or(serde_json::Value::Null)
    }

    /// The next hops of a route in the router's table, sorted; empty when there is no such route.
    pub(crate) fn next_hops(&self, prefix: &str) -> Vec<String> {
        let family = if prefix.contains(':') { "ipv6" } else { "ip" };
        let routes = self.json(&format!("show {family} route {prefix} json"));
        let mut hops: Vec<String> = routes[prefix]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|route| route["selected"] == true)
            .flat_map(|route| route["nexthops"].as_array().cloned().unwrap_or_default())
            .filter(|hop| hop["active"] == true)
            .filter_map(|hop| hop["ip"].as_str().map(str::to_owned))
            .collect();
        hops.sort();
        hops.dedup();
        hops
    }

    fn spawn(&mut self, daemon: &str) {
        let program = which(daemon).expect("checked by missing_part");
        let directory = self.path("");
        let log = self.directory.path().join(format!("{daemon}.log"));
        let zserv = self.path("zserv.api");
        let pid = self.path(&format!("{daemon}.pid"));
        let mut arguments =
            vec!["--vty_socket", &directory, "-z", &zserv, "-i", &pid, "-A", "127.0.0.1", "-f", "/dev/null"];
        let control = self.path("bfdd.sock");
        if daemon == "bfdd" {
            arguments.extend(["--bfdctl", &control]);
        }
        let process = self.namespace.spawn(&log, program, &arguments);
        self.daemons.push(process);
        let socket = self.directory.path().join(format!("{daemon}.vty"));
        eventually(&format!("{daemon} listens"), Duration::from_secs(20), || {
            if socket.exists() { Ok(()) } else { Err(std::fs::read_to_string(&log).unwrap_or_default()) }
        });
    }

    fn path(&self, file: &str) -> String {
        let path: PathBuf = self.directory.path().join(file);
        path.to_str().expect("temporary paths are text").trim_end_matches('/').to_owned()
    }

    fn vtysh_command(&self) -> std::process::Command {
        let mut command = self.namespace.command("vtysh");
        command.arg("--vty_socket").arg(self.directory.path()).stdin(std::process::Stdio::null());
        command
    }
}
