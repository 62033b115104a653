//! Two network namespaces and the processes in them.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::time::{ClockId, clock_gettime};
use tempfile::TempDir;

/// Why a measurement failed.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

/// The AS number of the announcer.
pub(crate) const ASN: u32 = 65_000;
/// The AS number of the receiver.
pub(crate) const RECEIVER_ASN: u32 = 65_001;
pub(crate) const RECEIVER: [u8; 4] = [10, 99, 0, 1];
pub(crate) const ANNOUNCER: [u8; 4] = [10, 99, 0, 2];
/// The single route that is announced and withdrawn.
pub(crate) const ONE: [u8; 4] = [10, 128, 0, 1];

/// Two namespaces, which are removed when this is dropped. The calling thread is in the namespace of the receiver.
pub(crate) struct Stage {
    name: String,
    pub(crate) directory: TempDir,
}

impl Stage {
    pub(crate) fn new() -> Result<Self, Error> {
        let name = format!("bgp-rate-{}", std::process::id());
        let directory = tempfile::Builder::new().prefix(&format!("{name}-")).tempdir_in("/tmp")?;
        fs::set_permissions(directory.path(), std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        let stage = Self { name, directory };
        let (receiver, announcer) = (stage.namespace("r"), stage.namespace("a"));
        ip(&format!("netns add {receiver}"))?;
        ip(&format!("netns add {announcer}"))?;
        ip(&format!("-n {receiver} link add eth0 type veth peer name eth0 netns {announcer}"))?;
        for (namespace, [a, b, c, d]) in [(&receiver, RECEIVER), (&announcer, ANNOUNCER)] {
            ip(&format!("-n {namespace} link set lo up"))?;
            ip(&format!("-n {namespace} link set eth0 up"))?;
            ip(&format!("-n {namespace} address add {a}.{b}.{c}.{d}/24 dev eth0"))?;
        }
        setns(File::open(Path::new("/run/netns").join(receiver))?, CloneFlags::CLONE_NEWNET)?;
        Ok(stage)
    }

    pub(crate) fn namespace(&self, role: &str) -> String {
        format!("{}-{role}", self.name)
    }

    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.directory.path().join(file)
    }

    pub(crate) fn at(&self, file: &str) -> String {
        self.path(file).display().to_string()
    }

    /// A command in the namespace of the announcer.
    pub(crate) fn there(&self, program: &str, arguments: &[&str]) -> Command {
        // `ip netns exec` replaces itself by the program, so the process id is that of the program.
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.namespace("a"), program]).args(arguments).stdin(Stdio::null());
        command
    }

    /// Starts a program that runs until it is dropped, with its output in a file.
    pub(crate) fn daemon(&self, program: &str, arguments: &[&str]) -> Result<Process, Error> {
        let name = program.rsplit('/').next().unwrap_or(program);
        let log = File::create(self.path(&format!("{name}.log")))?;
        Ok(Process(self.there(program, arguments).stdout(log.try_clone()?).stderr(log).spawn()?))
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        for role in ["r", "a"] {
            let _ = ip(&format!("netns delete {}", self.namespace(role)));
        }
    }
}

/// A process that is ended when this is dropped.
pub(crate) struct Process(pub(crate) Child);

impl Process {
    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only if the process has ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The monotonic clock, which all processes share.
pub(crate) fn now() -> Duration {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map(Duration::from).unwrap_or_default()
}

/// Retries for a minute.
pub(crate) fn patiently<T>(what: &str, mut attempt: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    let begun = now();
    loop {
        match attempt() {
            Ok(value) => return Ok(value),
            Err(error) if now() - begun > Duration::from_secs(60) => return Err(format!("{what}: {error}").into()),
            Err(_) => std::thread::sleep(Duration::from_millis(20)),
        }
    }
}

fn ip(arguments: &str) -> Result<(), Error> {
    let done = Command::new("ip").args(arguments.split(' ')).status()?;
    done.success().then_some(()).ok_or_else(|| format!("ip {arguments}").into())
}
