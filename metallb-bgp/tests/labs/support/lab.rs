//! A host and a router in two network namespaces with a veth pair.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

/// Addresses of the host.
pub(crate) const HOST_V4: &str = "172.16.1.11";
pub(crate) const HOST_V6: &str = "fd00:1::11";
pub(crate) const ROUTER_V4: &str = "172.16.1.254";
pub(crate) const ROUTER_V6: &str = "fd00:1::254";

/// A lab, which is removed when this is dropped.
#[derive(Debug)]
pub(crate) struct Lab {
    host: String,
    router: String,
    directory: TempDir,
    daemons: Vec<(String, Child)>,
}

impl Lab {
    /// Two namespaces with a link between them. `None`, with a line of output, if a part is missing.
    pub(crate) fn new(test: &str, programs: &[&str]) -> Option<Self> {
        if let Some(part) = missing(programs) {
            println!("SKIPPED {test}: {part}");
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = |role| format!("mlb-{}-{number}-{role}", std::process::id());
        // Some daemons refuse to run with sockets in a directory that their user cannot enter.
        let directory = tempfile::Builder::new().prefix("mlb-").tempdir_in("/tmp").unwrap();
        let lab = Self { host: name("h"), router: name("r"), directory, daemons: Vec::new() };
        std::fs::set_permissions(lab.directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        for namespace in [&lab.host, &lab.router] {
            ip(&["netns", "add", namespace]);
            ip(&["-n", namespace, "link", "set", "lo", "up"]);
        }
        lab.cable("eth0", str::to_owned);
        Some(lab)
    }

    /// Runs `work` on the host.
    pub(crate) fn on_host<F: Future<Output = ()>>(&self, work: impl FnOnce() -> F + Send) {
        self.in_host(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(work());
        });
    }

    /// The same for work that brings a runtime of its own, or none.
    pub(crate) fn in_host<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(Path::new("/run/netns").join(&self.host)).unwrap();
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                // It concerns this thread and those that it starts.
                setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                work()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Starts a daemon on the router.
    pub(crate) fn daemon(&mut self, name: &str, program: impl AsRef<Path>, arguments: &[&str]) {
        let log = File::create(self.path(&format!("{name}.log"))).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", &self.router])
            .arg(program.as_ref())
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        self.daemons.push((name.to_owned(), child));
    }

    /// Waits until the daemon is ready.
    pub(crate) fn until_ready(&self, name: &str, ready: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(30);
        while !ready() {
            let log = || std::fs::read_to_string(self.path(&format!("{name}.log")));
            assert!(Instant::now() < deadline, "{name} does not start: {:?}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Stops or continues a daemon; the kernel below it goes on.
    pub(crate) fn freeze(&self, name: &str, frozen: bool) {
        self.signal(name, if frozen { Signal::SIGSTOP } else { Signal::SIGCONT });
    }

    pub(crate) fn signal(&self, name: &str, signal: Signal) {
        let (_, daemon) = self.daemons.iter().find(|(daemon, _)| daemon == name).expect("it runs");
        kill(Pid::from_raw(daemon.id() as i32), signal).unwrap();
    }

    /// `ip -n ROUTER …`
    pub(crate) fn router_ip(&self, arguments: &str) -> String {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        output("ip", &[&["-n", &self.router], &arguments[..]].concat())
    }

    /// `ip -n HOST …`
    pub(crate) fn host_ip(&self, arguments: &str) -> String {
        let arguments: Vec<&str> = arguments.split_whitespace().collect();
        output("ip", &[&["-n", &self.host], &arguments[..]].concat())
    }

    /// What a program prints that runs on the router.
    pub(crate) fn on_router(&self, program: &str, arguments: &[&str]) -> String {
        output("ip", &[&["netns", "exec", &self.router, program], arguments].concat())
    }

    /// The same on the host.
    pub(crate) fn on_this_side(&self, program: &str, arguments: &[&str]) -> String {
        output("ip", &[&["netns", "exec", &self.host, program], arguments].concat())
    }

    /// Joins both once more, as `eth1`: an address in which the second block is 2 instead of 1.
    pub(crate) fn second_cable(&self) {
        self.cable("eth1", |address| address.replace("16.1.", "16.2.").replace("00:1:", "00:2:"));
    }

    /// Whether the router's kernel sends traffic for a prefix to `next_hop`.
    pub(crate) fn forwards(&self, prefix: &str, next_hop: &str) -> bool {
        let flag = if prefix.contains(':') { "-6" } else { "-4" };
        let routes = self.router_ip(&format!("{flag} route show proto bgp"));
        let prefix = prefix.trim_end_matches("/32").trim_end_matches("/128");
        routes.lines().any(|line| line.starts_with(prefix) && line.contains(&format!("via {next_hop}")))
    }

    /// A file of this lab.
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    /// The same, as text; no file means the directory.
    pub(crate) fn at(&self, file: &str) -> String {
        self.path(file).display().to_string().trim_end_matches('/').to_owned()
    }

    /// Writes a file that any user may read.
    pub(crate) fn write(&self, file: &str, text: &str) -> String {
        std::fs::write(self.path(file), text).unwrap();
        self.at(file)
    }

    fn cable(&self, name: &str, address: impl Fn(&str) -> String) {
        let (host, router) = (self.host.as_str(), self.router.as_str());
        ip(&["-n", host, "link", "add", name, "type", "veth", "peer", "name", name, "netns", router]);
        for (namespace, addresses) in [(host, [HOST_V4, HOST_V6]), (router, [ROUTER_V4, ROUTER_V6])] {
            ip(&["-n", namespace, "link", "set", name, "up"]);
            for at in addresses {
                let (length, nodad) = if at.contains(':') { (64, &["nodad"][..]) } else { (24, &[][..]) };
                let at = format!("{}/{length}", address(at));
                ip(&[&["-n", namespace, "address", "add", &at, "dev", name], nodad].concat());
            }
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for (_, mut daemon) in self.daemons.drain(..).rev() {
            // Both fail only for a daemon that is gone already.
            let _ = daemon.kill();
            let _ = daemon.wait();
        }
        for namespace in [&self.host, &self.router] {
            for pid in output("ip", &["netns", "pids", namespace]).lines() {
                // Children that a daemon left behind.
                let _ = pid.trim().parse().map(|pid| kill(Pid::from_raw(pid), Signal::SIGKILL));
            }
            output("ip", &["netns", "delete", namespace]);
        }
    }
}

/// Waits until the router, or whatever is asked, agrees.
pub(crate) async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !condition() {
        assert!(Instant::now() < deadline, "{what}: timeout");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn missing(programs: &[&str]) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("root".to_owned());
    }
    if let Some(part) = programs.iter().find(|part| !Path::new(part).exists()) {
        return Some((*part).to_owned());
    }
    let probe = || {
        let name = format!("mlb-{}-probe", std::process::id());
        let made = Command::new("ip").args(["netns", "add", &name]).stderr(Stdio::null()).status();
        output("ip", &["netns", "delete", &name]);
        made.is_ok_and(|status| status.success())
    };
    (!*NAMESPACES.get_or_init(probe)).then(|| "network namespaces".to_owned())
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().unwrap();
    assert!(status.success(), "ip {arguments:?}");
}

pub(crate) fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default()
}

static NAMESPACES: OnceLock<bool> = OnceLock::new();
static NEXT: AtomicU32 = AtomicU32::new(0);
