//! A host and a router with FRR, each in a network namespace of its own, joined by a cable.

use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

/// The host's addresses are those of the customer's example.
pub(crate) const HOST_V4: &str = "172.16.1.11";
pub(crate) const HOST_V6: &str = "fd00:1::11";
pub(crate) const ROUTER_V4: &str = "172.16.1.254";
pub(crate) const ROUTER_V6: &str = "fd00:1::254";

/// Everything is removed when it is dropped.
pub(crate) struct Lab {
    host: String,
    router: String,
    directory: TempDir,
    daemons: Vec<Child>,
}

impl Lab {
    /// Starts FRR with `config`, or prints which part is missing.
    pub(crate) fn start(test: &str, config: &str) -> Option<Self> {
        if let Some(part) = missing() {
            println!("SKIPPED {test}: {part}");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |role| format!("mlb-{}-{number}-{role}", std::process::id());
        let directory = TempDir::new().unwrap();
        let mut lab = Self { host: name("h"), router: name("r"), directory, daemons: Vec::new() };
        lab.cable();
        lab.daemons(config);
        Some(lab)
    }

    /// Runs `work` on the host.
    pub(crate) fn on_host<F: Future<Output = ()>>(&self, work: impl FnOnce() -> F + Send) {
        let namespace = File::open(Path::new("/run/netns").join(&self.host)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                // It concerns this thread and those that it starts.
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                runtime.block_on(work());
            });
            thread.join().unwrap();
        });
    }

    /// What the router's shell answers.
    pub(crate) fn vtysh(&self, command: &str) -> String {
        let output = Command::new("vtysh")
            .arg("--vty_socket")
            .arg(self.directory.path())
            .args(["-c", command])
            .output()
            .unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
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

    /// What the router says of its session with us.
    pub(crate) fn neighbor(&self, address: &str) -> Value {
        self.json(&format!("show bgp neighbors {address}"))[address].clone()
    }

    /// Whether the router's kernel sends traffic for a prefix to `next_hop`.
    pub(crate) fn forwards(&self, prefix: &str, next_hop: &str) -> bool {
        let flag = if prefix.contains(':') { "-6" } else { "-4" };
        let routes = output("ip", &["-n", &self.router, flag, "route", "show", "proto", "bgp"]);
        let prefix = prefix.trim_end_matches("/32").trim_end_matches("/128");
        routes.lines().any(|line| line.starts_with(prefix) && line.contains(&format!("via {next_hop}")))
    }

    /// Stops or continues the router's BGP daemon; its kernel goes on.
    pub(crate) fn freeze(&self, frozen: bool) {
        let signal = if frozen { Signal::SIGSTOP } else { Signal::SIGCONT };
        let bgpd = self.daemons.last().expect("it runs");
        kill(Pid::from_raw(bgpd.id() as i32), signal).unwrap();
    }

    fn cable(&self) {
        let (host, router) = (self.host.as_str(), self.router.as_str());
        ip(&["netns", "add", host]);
        ip(&["netns", "add", router]);
        ip(&["-n", host, "link", "add", "eth0", "type", "veth", "peer", "name", "eth0", "netns", router]);
        for (namespace, v4, v6) in [(host, HOST_V4, HOST_V6), (router, ROUTER_V4, ROUTER_V6)] {
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
            ip(&["-n", namespace, "link", "set", "eth0", "up"]);
            ip(&["-n", namespace, "address", "add", &format!("{v4}/24"), "dev", "eth0"]);
            ip(&["-n", namespace, "address", "add", &format!("{v6}/64"), "dev", "eth0", "nodad"]);
        }
    }

    fn daemons(&mut self, config: &str) {
        let directory = self.directory.path().to_owned();
        let at = |name: &str| directory.join(name).display().to_string();
        std::fs::write(at("frr.conf"), config).unwrap();
        // The daemons become the user `frr`.
        output("chown", &["-R", "frr:frr", &directory.display().to_string()]);
        for daemon in ["zebra", "bgpd"] {
            let log = File::create(at(&format!("{daemon}.log"))).unwrap();
            let child = Command::new("ip")
                .args(["netns", "exec", &self.router, &format!("/usr/lib/frr/{daemon}")])
                .args(["--vty_socket", &directory.display().to_string(), "-z", &at("zserv.api")])
                .args(["-i", &at(&format!("{daemon}.pid")), "-A", "127.0.0.1", "-f", "/dev/null"])
                .stdin(Stdio::null())
                .stdout(log.try_clone().unwrap())
                .stderr(log)
                .spawn()
                .unwrap();
            self.daemons.push(child);
            let deadline = Instant::now() + Duration::from_secs(20);
            while !directory.join(format!("{daemon}.vty")).exists() {
                assert!(
                    Instant::now() < deadline,
                    "{daemon} does not start: {:?}",
                    std::fs::read_to_string(at(&format!("{daemon}.log")))
                );
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        output("vtysh", &["--vty_socket", &directory.display().to_string(), "-f", &at("frr.conf")]);
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for mut daemon in self.daemons.drain(..).rev() {
            // Both fail only for a daemon that is gone already.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        for namespace in [&self.host, &self.router] {
            output("ip", &["netns", "delete", namespace]);
        }
    }
}

/// Waits until the router, or whatever is asked, agrees.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn missing() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("root");
    }
    let parts = ["/usr/lib/frr/bgpd", "/usr/lib/frr/zebra", "/usr/bin/vtysh"];
    if let Some(part) = parts.into_iter().find(|part| !Path::new(part).exists()) {
        return Some(part);
    }
    let probe = || {
        let name = format!("mlb-{}-probe", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).stderr(Stdio::null()).status();
        output("ip", &["netns", "delete", &name]);
        made.is_ok_and(|status| status.success())
    };
    (!*NAMESPACES.get_or_init(probe)).then_some("network namespaces")
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}");
}

fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

static NAMESPACES: OnceLock<bool> = OnceLock::new();
static NEXT: AtomicU32 = AtomicU32::new(0);
