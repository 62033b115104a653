//! Nodes with speakers, and a client, on one bridge; a client that never stops asking.

use std::net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV6, UdpSocket};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::netns::{Lab, Namespace, Process, eventually};

/// The addresses that move.
pub(crate) const VIPS: [&str; 2] = ["192.168.10.100", "fc00:f853:ccd:e799::100"];

const PORT: u16 = 9000;

/// The number of the host that asks who has an address.
const OBSERVER: usize = 50;
const PATIENCE: Duration = Duration::from_secs(30);

const CONFIG: &str = "
apiVersion: metallb.io/v1beta1
kind: IPAddressPool
metadata: {name: pool, namespace: metallb-system}
spec: {addresses: [192.168.10.100/32, 'fc00:f853:ccd:e799::100/128']}
---
apiVersion: metallb.io/v1beta1
kind: L2Advertisement
metadata: {name: all, namespace: metallb-system}
---
apiVersion: v1
kind: Service
metadata: {name: echo, namespace: default}
spec:
  type: LoadBalancer
  ipFamilyPolicy: RequireDualStack
  ipFamilies: [IPv4, IPv6]
  ports: [{port: 9000, protocol: UDP}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: echo-1, namespace: default, labels: {kubernetes.io/service-name: echo}}
addressType: IPv4
endpoints: [{addresses: [172.20.166.20], nodeName: node-1, conditions: {ready: true}}]
";

/// A node of the segment.
pub(crate) struct Node {
    pub(crate) name: String,
    pub(crate) number: usize,
    pub(crate) namespace: Namespace,
    pub(crate) process: Option<Process>,
    _echo: Worker,
}

/// All of them.
pub(crate) struct Segment {
    directory: tempfile::TempDir,
    _lab: Lab,
    pub(crate) switch: Namespace,
    pub(crate) client: Namespace,
    /// A host of its own, so that what it asks teaches the client nothing.
    observer: Namespace,
    pub(crate) nodes: Vec<Node>,
}

/// A thread that ends with the value.
struct Worker {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    fn spawn(mut step: impl FnMut() + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        let run = move || {
            hurry();
            while !stopped.load(Ordering::Relaxed) {
                step();
            }
        };
        Self { stop, thread: Some(std::thread::spawn(run)) }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Opens a UDP socket inside a namespace: on a thread of its own, since a thread that enters one stays there.
fn socket_in(namespace: &Namespace, bind: SocketAddr) -> UdpSocket {
    let path = namespace.path();
    std::thread::spawn(move || {
        let file = std::fs::File::open(path).expect("the namespace exists");
        nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).expect("root may enter it");
        UdpSocket::bind(bind).expect("the port is free")
    })
    .join()
    .expect("the thread ends")
}

/// The hardware addresses of all that answer a solicitation for an address. (`ndisc6` sees only who answers from that address.)
fn neighbours(client: &Namespace, vip: Ipv6Addr) -> String {
    let (path, mac) = (client.path(), client.mac("eth0"));
    let ask = move || -> std::io::Result<String> {
        nix::sched::setns(std::fs::File::open(path)?, nix::sched::CloneFlags::CLONE_NEWNET)?;
        let interface = nix::net::if_::if_nametoindex("eth0")?;
        let socket = Socket::new(Domain::IPV6, Type::RAW, Some(Protocol::ICMPV6))?;
        socket.set_multicast_hops_v6(255)?;
        socket.set_multicast_if_v6(interface)?;
        socket.set_read_timeout(Some(Duration::from_millis(150)))?;
        let octets = vip.octets();
        let mut solicitation = vec![135, 0, 0, 0, 0, 0, 0, 0];
        solicitation.extend(octets);
        solicitation.extend([1, 1]);
        solicitation.extend(mac.split(':').map(|byte| u8::from_str_radix(byte, 16).unwrap()));
        let mut group = [0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff, 0, 0, 0];
        group[13..].copy_from_slice(&octets[13..]);
        socket.send_to(&solicitation, &SocketAddrV6::new(group.into(), 0, 0, interface).into())?;
        let (mut socket, mut buffer, mut answers) = (socket, [0; 1500], String::new());
        while let Ok(length) = std::io::Read::read(&mut socket, &mut buffer) {
            if length >= 32 && buffer[0] == 136 && buffer[8..24] == octets && buffer[24..26] == [2, 1] {
                let mac: Vec<String> = buffer[26..32].iter().map(|byte| format!("{byte:02x}")).collect();
                answers += &(mac.join(":") + "\n");
            }
        }
        Ok(answers)
    };
    std::thread::spawn(ask).join().unwrap().unwrap()
}

impl Segment {
    /// So many nodes, whose speakers run and agree.
    pub(crate) fn start(size: usize) -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("manifests")).unwrap();
        std::fs::create_dir(directory.path().join("keys")).unwrap();
        std::fs::write(directory.path().join("keys/secretkey"), "a secret of the lab").unwrap();
        std::fs::write(directory.path().join("manifests/config.yaml"), CONFIG).unwrap();
        let mut lab = Lab::new();
        let switch = lab.namespace("switch");
        switch.ip("link add br0 type bridge");
        switch.ip("link set br0 up");
        let mut host = |name: &str, number: usize| {
            let namespace = lab.namespace(name);
            lab.link(&namespace, "eth0", &switch, &format!("port{number}"));
            switch.ip(&format!("link set port{number} master br0"));
            namespace.ip(&format!("address add 192.168.10.{}/24 dev eth0", 200 + number));
            namespace.ip(&format!("address add fc00:f853:ccd:e799::{:x}/64 dev eth0 nodad", 0x200 + number));
            namespace
        };
        let client = host("client", 0);
        let observer = host("observer", OBSERVER);
        let nodes = (1..=size).map(|number| {
            let name = format!("node-{number}");
            let namespace = host(&name, number);
            let mut rules = String::from("table inet lab {\nchain in {\ntype nat hook prerouting priority dstnat;\n");
            for vip in VIPS {
                let family = if vip.contains(':') { "ip6" } else { "ip" };
                rules += &format!("{family} daddr {vip} udp dport {PORT} redirect to :{PORT}\n");
            }
            let file = directory.path().join(format!("{name}.nft"));
            std::fs::write(&file, rules + "}\n}\n").unwrap();
            namespace.must(&format!("nft -f {}", file.display()));
            let socket = socket_in(&namespace, SocketAddr::new(IpAddr::from([0; 16]), PORT));
            socket.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
            let mut buffer = [0; 64];
            let echo = Worker::spawn(move || {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    // A link that is down refuses; the client counts what is lost.
                    let _ = socket.send_to(&buffer[..length], from);
                }
            });
            Node { name, number, namespace, process: None, _echo: echo }
        });
        let nodes = nodes.collect();
        let mut segment = Self { directory, _lab: lab, switch, client, observer, nodes };
        for index in 0..size {
            segment.write_node(index, "");
        }
        for index in 0..size {
            segment.start_speaker(index);
        }
        segment.settle();
        segment
    }

    /// Writes the Node object, with a further label.
    pub(crate) fn write_node(&self, index: usize, label: &str) {
        let name = &self.nodes[index].name;
        let text = format!(
            "apiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{kubernetes.io/hostname: {name}{label}}}}}\n"
        );
        // By renaming, so that nobody reads half of it.
        let beside = self.directory.path().join(format!("{name}.new"));
        std::fs::write(&beside, text).unwrap();
        std::fs::rename(beside, self.directory.path().join(format!("manifests/{name}.yaml"))).unwrap();
    }

    pub(crate) fn start_speaker(&mut self, index: usize) {
        let join: Vec<String> = self.nodes.iter().map(|node| format!("192.168.10.{}", 200 + node.number)).collect();
        let path = |name: &str| self.directory.path().join(name).to_str().unwrap().to_owned();
        let node = &mut self.nodes[index];
        let (state, log) = (path(&format!("{}.json", node.name)), path(&format!("{}.log", node.name)));
        let address = format!("192.168.10.{}", 200 + node.number);
        let arguments = [
            "standalone",
            "--manifests",
            &path("manifests"),
            "--state",
            &state,
            "--node-name",
            &node.name,
            "--log-format",
            "text",
            "--ml-bindaddr",
            &address,
            "--ml-secret-key-path",
            &path("keys"),
            "--join",
            &join.join(","),
        ];
        // What an earlier life said is kept.
        let old = std::fs::read(&log).unwrap_or_default();
        node.process = Some(node.namespace.spawn(Path::new(&log), env!("CARGO_BIN_EXE_metallb"), &arguments));
        std::fs::write(format!("{log}.old"), old).unwrap();
    }

    /// The log of a node.
    pub(crate) fn log(&self, index: usize) -> PathBuf {
        self.directory.path().join(format!("{}.log", self.nodes[index].name))
    }

    /// All logs, for a message of failure.
    pub(crate) fn logs(&self) -> String {
        (0..self.nodes.len())
            .map(|index| {
                let text = std::fs::read_to_string(self.log(index)).unwrap_or_default();
                format!("--- {}\n{text}", self.nodes[index].name)
            })
            .collect()
    }

    /// Has somebody ask all the time who has an address.
    pub(crate) fn observe(&self, vip: &str) -> Observer {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/owners.py");
        let own = match vip.contains(':') {
            true => format!("fc00:f853:ccd:e799::{:x}", 0x200 + OBSERVER),
            false => format!("192.168.10.{}", 200 + OBSERVER),
        };
        let log = self.directory.path().join(format!("owners-{}.log", vip.replace(':', "_")));
        let process = self.observer.spawn(&log, "python3", &[script, "eth0", vip, &own]);
        eventually("the observer asks", PATIENCE, || match process.output() {
            text if text.is_empty() => Err(text),
            _ => Ok(()),
        });
        Observer { process }
    }

    /// Waits until each address has exactly one owner, the same for both, and the client reaches it.
    pub(crate) fn settle(&self) -> usize {
        eventually("one node answers for each address", PATIENCE, || {
            let owners: Vec<Vec<usize>> = VIPS.iter().map(|vip| self.owners(vip)).collect();
            match owners.as_slice() {
                [v4, v6] if v4.len() == 1 && v4 == v6 => Ok(v4[0]),
                _ => Err(format!("owners {owners:?}\n{}", self.logs())),
            }
        })
    }

    /// Who answers for an address, asked by the client.
    pub(crate) fn owners(&self, vip: &str) -> Vec<usize> {
        let text = match vip.parse().unwrap() {
            IpAddr::V6(vip) => neighbours(&self.client, vip),
            IpAddr::V4(_) => {
                let output = self.client.shell(&format!("arping -I eth0 -c 2 -w 1 {vip}"));
                String::from_utf8_lossy(&output.stdout).to_lowercase()
            }
        };
        let answers = |node: &Node| text.contains(&node.namespace.mac("eth0"));
        (0..self.nodes.len()).filter(|&index| answers(&self.nodes[index])).collect()
    }
}

/// Asks who has an address.
pub(crate) struct Observer {
    process: Process,
}

impl Observer {
    /// For how long since then more than one host answered.
    pub(crate) fn two_owners(&self, since: Duration) -> Duration {
        let text = self.process.output();
        let parse = |line: &str| {
            let mut words = line.split(' ');
            let at = Duration::from_nanos(words.next()?.parse().ok()?);
            Some((at, words.count()))
        };
        let told: Vec<(Duration, usize)> = text.lines().filter_map(parse).collect();
        assert!(!told.is_empty(), "nobody was asked: {text}");
        let periods = told.windows(2).filter(|pair| pair[0].0 >= since && pair[0].1 > 1);
        periods.map(|pair| pair[1].0 - pair[0].0).sum()
    }
}

/// The clock that the observers use.
pub(crate) fn monotonic() -> Duration {
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC).unwrap().into()
}

/// Who measures a network must not wait for a busy machine.
fn hurry() {
    let thread = nix::unistd::gettid().to_string();
    // Without the right to do so the client is late at times, and says so.
    let _ = std::process::Command::new("chrt").args(["-f", "-p", "20", &thread]).output();
}

/// A client that asks an address every five milliseconds.
pub(crate) struct Prober {
    asked: Arc<Mutex<Vec<(Instant, bool)>>>,
    _worker: Worker,
}

/// What the client saw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Requests without an answer.
    pub(crate) lost: usize,
    /// The longest time from one answered request to the next one.
    pub(crate) gap: Duration,
    /// The longest time from one request to the next one: how late the client itself was.
    pub(crate) pause: Duration,
}

impl Prober {
    pub(crate) fn start(client: &Namespace, vip: &str) -> Self {
        let to = SocketAddr::new(vip.parse().unwrap(), PORT);
        let from: IpAddr = if to.is_ipv4() { [0; 4].into() } else { [0; 16].into() };
        let socket = socket_in(client, SocketAddr::new(from, 0));
        socket.set_nonblocking(true).unwrap();
        let asked: Arc<Mutex<Vec<(Instant, bool)>>> = Arc::default();
        let shared = Arc::clone(&asked);
        let mut next = Instant::now();
        let worker = Worker::spawn(move || {
            std::thread::sleep(next.saturating_duration_since(Instant::now()));
            next += Duration::from_millis(5);
            let mut asked = shared.lock().unwrap();
            let mut buffer = [0; 64];
            while let Ok(length) = socket.recv(&mut buffer) {
                if let Ok(number) = buffer[..length].try_into().map(usize::from_be_bytes)
                    && let Some((_, answered)) = asked.get_mut(number)
                {
                    *answered = true;
                }
            }
            let number = asked.len();
            asked.push((Instant::now(), false));
            let _ = socket.send_to(&number.to_be_bytes(), to);
        });
        Self { asked, _worker: worker }
    }

    /// Waits until the last requests were answered, and forgets what was before.
    pub(crate) fn begin(&self) {
        self.flowing();
        let mut asked = self.asked.lock().unwrap();
        // Numbers must stay places: everything before counts as answered.
        asked.iter_mut().for_each(|(_, answered)| *answered = true);
    }

    /// Waits until requests are answered without a break for a while.
    pub(crate) fn flowing(&self) {
        eventually("requests are answered", PATIENCE, || {
            let asked = self.asked.lock().unwrap();
            // The very last ones may be on their way.
            let settled = asked.len().saturating_sub(10);
            let recent = &asked[settled.saturating_sub(100)..settled];
            if recent.len() == 100 && recent.iter().all(|(_, answered)| *answered) {
                Ok(())
            } else {
                Err(format!("{} of {} answered", recent.iter().filter(|(_, answered)| *answered).count(), recent.len()))
            }
        });
    }

    /// What was seen between two moments; `until` is now.
    pub(crate) fn seen(&self, since: Instant) -> Seen {
        let asked = self.asked.lock().unwrap();
        let settled = &asked[..asked.len().saturating_sub(10)];
        let start = settled.iter().rposition(|(at, answered)| *answered && *at <= since).unwrap_or(0);
        let window = &settled[start..];
        let lost = window.iter().filter(|(_, answered)| !answered).count();
        let answered: Vec<Instant> = window.iter().filter(|(_, answered)| *answered).map(|(at, _)| *at).collect();
        let gap = answered.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        let pause = window.windows(2).map(|pair| pair[1].0 - pair[0].0).max().unwrap_or_default();
        Seen { lost, gap, pause }
    }
}
