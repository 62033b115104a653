//! Two namespaces joined by veth pairs: `a0`, `a1`… in the first, `b0`, `b1`… in the second; routers in the second.

use std::fs::File;
use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

pub(super) struct Lab {
    names: [String; 2],
}

impl Lab {
    /// `None`, with a line of output, if namespaces cannot be created.
    pub(super) fn new(links: u32) -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = |side| format!("mlb-{}-{number}{side}", std::process::id());
        let lab = Self { names: [name('a'), name('b')] };
        for name in &lab.names {
            if !shell(&format!("ip netns add {name} && ip -n {name} link set lo up")) {
                println!("skipped: network namespaces cannot be made here");
                return None;
            }
        }
        let [a, b] = &lab.names;
        for link in 0..links {
            assert!(shell(&format!("ip -n {a} link add a{link} type veth peer name b{link} netns {b}")));
            for (name, device) in [(a, 'a'), (b, 'b')] {
                lab.run_in(name, &format!("sysctl -q -w net.ipv6.conf.{device}{link}.accept_dad=0"));
                assert!(shell(&format!("ip -n {name} link set {device}{link} up")));
            }
        }
        Some(lab)
    }

    pub(super) fn address(&self, side: usize, link: u32, address: &str) {
        let device = ['a', 'b'][side];
        let nodad = if address.contains(':') { " nodad" } else { "" };
        assert!(shell(&format!("ip -n {} address add {address} dev {device}{link}{nodad}", self.names[side])));
    }

    pub(super) fn link_local(&self, side: usize) -> IpAddr {
        let device = ['a', 'b'][side];
        let output = Command::new("ip")
            .args([
                "-n",
                &self.names[side],
                "-6",
                "-o",
                "address",
                "show",
                "dev",
                &format!("{device}0"),
                "scope",
                "link",
            ])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.split_whitespace().find_map(|word| word.strip_suffix("/64")).unwrap().parse().unwrap()
    }

    pub(super) fn run(&self, side: usize, command: &str) -> bool {
        self.run_in(&self.names[side], command)
    }

    fn run_in(&self, name: &str, command: &str) -> bool {
        shell(&format!("ip netns exec {name} sh -c '{command}'"))
    }

    /// Runs `act` on a thread inside a namespace. Threads that it starts stay there.
    pub(super) fn inside<T: Send>(&self, side: usize, act: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(format!("/run/netns/{}", self.names[side])).unwrap();
        std::thread::scope(|scope| {
            scope
                .spawn(move || {
                    setns(namespace, CloneFlags::CLONE_NEWNET).unwrap();
                    act()
                })
                .join()
                .unwrap()
        })
    }

    pub(super) fn frr(&self, side: usize, commands: &[String]) -> Option<Router> {
        let router = self.start(
            side,
            "/usr/lib/frr/bfdd",
            |directory| {
                let path = |name: &str| directory.join(name).display().to_string();
                [
                    "--vty_socket".to_owned(),
                    directory.display().to_string(),
                    "--bfdctl".into(),
                    path("bfdd.sock"),
                    "-z".into(),
                    path("zserv.api"),
                    "-i".into(),
                    path("bfdd.pid"),
                    "-f".into(),
                    path("bfdd.conf"),
                ]
                .into()
            },
            ("bfdd.conf", ""),
        )?;
        let mut configure = vtysh(&router.directory);
        for command in commands {
            configure.args(["-c", command]);
        }
        assert!(eventually(|| vtysh(&router.directory)
            .args(["-c", "show bfd peers"])
            .output()
            .is_ok_and(|o| o.status.success())));
        assert!(configure.output().unwrap().status.success());
        Some(router)
    }

    pub(super) fn bird(&self, side: usize, config: &str) -> Option<Router> {
        self.start(
            side,
            "/usr/sbin/bird",
            |directory| {
                let path = |name: &str| directory.join(name).display().to_string();
                ["-f".to_owned(), "-c".into(), path("bird.conf"), "-s".into(), path("bird.ctl")].into()
            },
            ("bird.conf", config),
        )
    }

    fn start(
        &self,
        side: usize,
        program: &str,
        arguments: impl FnOnce(&PathBuf) -> Vec<String>,
        (file, content): (&str, &str),
    ) -> Option<Router> {
        if !std::path::Path::new(program).exists() {
            println!("skipped: {program} is not installed");
            return None;
        }
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("{}-{number}", self.names[side]));
        std::fs::create_dir_all(&directory).unwrap();
        std::fs::write(directory.join(file), content).unwrap();
        // FRR's daemons drop privileges before they create their sockets.
        std::fs::set_permissions(&directory, std::fs::Permissions::from_mode(0o777)).unwrap();
        // `ip netns exec` replaces itself by the program, so its process id is that of the router.
        let child = Command::new("ip")
            .args(["netns", "exec", &self.names[side], program])
            .args(arguments(&directory))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        Some(Router { child, directory })
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for name in &self.names {
            shell(&format!("ip netns delete {name}"));
        }
    }
}

/// A routing daemon, which is ended when this is dropped.
pub(super) struct Router {
    child: Child,
    directory: PathBuf,
}

impl Router {
    pub(super) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// The sessions of FRR, as JSON.
    pub(super) fn peers(&self) -> String {
        let output = vtysh(&self.directory).args(["-c", "show bfd peers json"]).output().unwrap();
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The sessions of BIRD.
    pub(super) fn sessions(&self) -> String {
        let output = Command::new("birdc")
            .arg("-s")
            .arg(self.directory.join("bird.ctl"))
            .args(["show", "bfd", "sessions"])
            .output();
        String::from_utf8_lossy(&output.unwrap().stdout).into_owned()
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

/// Waits for a condition, long enough for a busy machine.
pub(super) fn eventually(mut condition: impl FnMut() -> bool) -> bool {
    let give_up = Instant::now() + Duration::from_secs(20);
    while Instant::now() < give_up {
        if condition() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    condition()
}

fn vtysh(directory: &PathBuf) -> Command {
    let mut command = Command::new("vtysh");
    command.arg("--vty_socket").arg(directory).args(["-d", "bfdd"]);
    command
}

fn shell(command: &str) -> bool {
    Command::new("sh")
        .args(["-c", command])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|s| s.success())
}
