//! Network namespaces for labs: made by a test, named after its process, removed when it ends.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

/// Says why a lab cannot run here, in the form that the test command counts.
pub(crate) fn skip(test: &str, missing: &str) {
    println!("SKIPPED {test}: {missing}");
}

/// What a lab needs from the host, or the name of the first part that is missing.
pub(crate) fn missing_part(programs: &[&str]) -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("root".to_owned());
    }
    programs.iter().chain(&["ip"]).find(|program| which(program).is_none()).map(|program| (*program).to_owned())
}

/// The path of a program, from `PATH` or from where Debian keeps daemons.
pub(crate) fn which(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // FRR's daemons first: OpenBGPD has a bgpd too.
    [std::path::PathBuf::from("/usr/lib/frr")]
        .into_iter()
        .chain(std::env::split_paths(&path))
        .chain(["/usr/sbin", "/sbin"].map(Into::into))
        .map(|directory| directory.join(program))
        .find(|candidate| candidate.is_file())
}

/// A set of namespaces that live and die together.
#[derive(Debug)]
pub(crate) struct Lab {
    prefix: String,
    namespaces: Vec<String>,
}

impl Lab {
    /// An empty lab with a prefix of its own.
    pub(crate) fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        Self { prefix: format!("mlb{}x{serial}", std::process::id()), namespaces: Vec::new() }
    }

    /// Makes a namespace with loopback up.
    pub(crate) fn namespace(&mut self, name: &str) -> Namespace {
        let full = format!("{}-{name}", self.prefix);
        must(Command::new("ip").args(["netns", "add", &full]));
        self.namespaces.push(full.clone());
        let namespace = Namespace { name: full };
        namespace.ip("link set lo up");
        namespace
    }

    /// Joins two namespaces by a veth pair; returns nothing, the interfaces are up and have no addresses.
    pub(crate) fn link(&self, left: &Namespace, left_interface: &str, right: &Namespace, right_interface: &str) {
        must(Command::new("ip").args([
            "-n",
            &left.name,
            "link",
            "add",
            left_interface,
            "type",
            "veth",
            "peer",
            "name",
            right_interface,
            "netns",
            &right.name,
        ]));
        left.ip(&format!("link set {left_interface} up"));
        right.ip(&format!("link set {right_interface} up"));
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.namespaces {
            // Removing what may be gone already: a failure here must not hide the test's own.
            let _ = Command::new("ip").args(["netns", "delete", name]).stderr(Stdio::null()).status();
        }
    }
}

/// One namespace: a host of the lab.
#[derive(Clone, Debug)]
pub(crate) struct Namespace {
    name: String,
}

impl Namespace {
    /// Runs `ip -n NAME ARGS`, which must succeed.
    pub(crate) fn ip(&self, args: &str) -> String {
        text(&must(Command::new("ip").args(["-n", &self.name]).args(args.split_whitespace())))
    }

    /// A command that will run inside.
    pub(crate) fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program);
        command
    }

    /// Runs a shell line inside; the output is returned whatever the exit code.
    pub(crate) fn shell(&self, line: &str) -> Output {
        self.command("sh").args(["-c", line]).stdin(Stdio::null()).output().expect("sh runs")
    }

    /// Runs a shell line inside, which must succeed; returns its standard output.
    pub(crate) fn must(&self, line: &str) -> String {
        text(&must(self.command("sh").args(["-c", line])))
    }

    /// Starts a program inside; it is ended when the value is dropped. Its output goes to `log`.
    pub(crate) fn spawn(&self, log: &Path, program: impl AsRef<OsStr>, args: &[&str]) -> Process {
        let output = std::fs::File::create(log).expect("log file");
        let errors = output.try_clone().expect("log file");
        let mut command = self.command(program);
        command.args(args).stdin(Stdio::null()).stdout(output).stderr(errors);
        Process { child: command.spawn().expect("program starts"), log: log.to_owned() }
    }

    /// Where it can be entered.
    #[allow(dead_code, reason = "shared with labs that do not enter namespaces")]
    pub(crate) fn path(&self) -> std::path::PathBuf {
        Path::new("/run/netns").join(&self.name)
    }

    /// The hardware address of an interface.
    pub(crate) fn mac(&self, interface: &str) -> String {
        self.must(&format!("cat /sys/class/net/{interface}/address")).trim().to_owned()
    }
}

/// A process of the lab. `ip netns exec` replaces itself, so the pid is the program's own.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    log: std::path::PathBuf,
}

impl Process {
    /// The pid of the program itself.
    pub(crate) fn pid(&self) -> nix::unistd::Pid {
        nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("pids fit"))
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        nix::sys::signal::kill(self.pid(), signal).expect("the process is ours and alive");
    }

    /// Waits for the end, at most `patience`.
    pub(crate) fn wait(&mut self, patience: Duration) -> Option<std::process::ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.child.try_wait().expect("wait works") {
                return Some(status);
            }
            if Instant::now() >= deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// What it printed so far.
    pub(crate) fn output(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Polls until `probe` gives a value. Panics with `what` and the last `evidence` after `patience`.
pub(crate) fn eventually<T>(what: &str, patience: Duration, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + patience;
    loop {
        match probe() {
            Ok(value) => return value,
            Err(evidence) if Instant::now() >= deadline => panic!("{what}: not within {patience:?}; last: {evidence}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

fn must(command: &mut Command) -> Output {
    let output = command.stdin(Stdio::null()).output().expect("the program exists");
    if !output.status.success() {
        let mut message = format!("{command:?} failed: {}\n", output.status);
        let _ = write!(message, "{}{}", text(&output), String::from_utf8_lossy(&output.stderr));
        panic!("{message}");
    }
    output
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}
