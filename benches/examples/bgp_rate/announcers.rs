//! The announcers: how each is started and controlled.

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Stdio};
use std::time::Duration;

use super::stage::{ASN, Error, Process, RECEIVER_ASN, Stage, patiently};

pub(crate) trait Announcer {
    fn name(&self) -> &'static str;

    /// The command that starts the time, for the table.
    fn command(&self) -> &'static str;

    /// Its processes.
    fn pids(&self) -> Vec<u32>;

    /// Whether it opens the connection; otherwise the receiver does.
    fn connects(&self) -> bool {
        false
    }

    /// Sends the command to announce or withdraw the single route, without waiting for a response.
    fn one(&mut self, there: bool) -> Result<(), Error>;

    /// As above, for all other routes.
    fn all(&mut self, there: bool) -> Result<(), Error>;

    /// Reads the response to a command. Some announcers report the time of their decision.
    fn answer(&mut self) -> Result<Option<Duration>, Error>;
}

/// metallb-bgp.
pub(crate) struct Ours {
    process: Process,
    answers: BufReader<ChildStdout>,
    routes: u32,
}

impl Ours {
    pub(crate) fn start(stage: &Stage, routes: u32) -> Result<Self, Error> {
        let program = std::env::current_exe()?;
        let program = program.to_str().ok_or("a path that is no text")?;
        let mut command = stage.there(program, &["announce"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let answers = BufReader::new(child.stdout.take().ok_or("no output")?);
        let mut ours = Self { process: Process(child), answers, routes };
        ours.all(true)?;
        ours.answer()?;
        Ok(ours)
    }

    fn tell(&mut self, line: &str) -> Result<(), Error> {
        self.process.0.stdin.as_mut().ok_or("no input")?.write_all(format!("{line}\n").as_bytes())?;
        Ok(())
    }
}

impl Announcer for Ours {
    fn name(&self) -> &'static str {
        "metallb-bgp"
    }

    fn command(&self) -> &'static str {
        "a line to its input"
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.process.id()]
    }

    fn connects(&self) -> bool {
        true
    }

    fn one(&mut self, there: bool) -> Result<(), Error> {
        self.tell(if there { "+" } else { "-" })
    }

    fn all(&mut self, there: bool) -> Result<(), Error> {
        let count = if there { self.routes } else { 0 };
        self.tell(&count.to_string())
    }

    fn answer(&mut self) -> Result<Option<Duration>, Error> {
        let mut line = String::new();
        self.answers.read_line(&mut line)?;
        Ok(Some(Duration::from_nanos(line.trim().parse()?)))
    }
}

/// BIRD 2, by one connection to its control socket.
pub(crate) struct Bird {
    process: Process,
    control: BufReader<UnixStream>,
}

impl Bird {
    pub(crate) fn start(stage: &Stage, routes: u32) -> Result<Self, Error> {
        let mut config = format!(
            "log stderr all;\nrouter id 10.99.0.2;\nprotocol device {{}}\n\
             protocol bgp {{ local 10.99.0.2 as {ASN}; neighbor 10.99.0.1 as {RECEIVER_ASN}; passive; error wait time 1, 1;\n \
             ipv4 {{ import none; export all; next hop self; }}; }}\n\
             protocol static single {{ disabled; ipv4; route 10.128.0.1/32 blackhole; }}\nprotocol static many {{\n ipv4;\n"
        );
        addresses(routes).try_for_each(|address| writeln!(config, " route {address}/32 blackhole;"))?;
        config += "}\n";
        std::fs::write(stage.path("bird.conf"), config)?;
        let socket = stage.at("bird.ctl");
        let arguments = ["-f", "-c", &stage.at("bird.conf"), "-s", &socket, "-P", &stage.at("bird.pid")];
        let process = stage.daemon("bird", &arguments)?;
        let control = patiently("BIRD", || Ok(UnixStream::connect(&socket)?))?;
        let mut bird = Self { process, control: BufReader::new(control) };
        bird.answer()?;
        Ok(bird)
    }

    fn tell(&mut self, there: bool, what: &str) -> Result<(), Error> {
        let word = if there { "enable" } else { "disable" };
        self.control.get_mut().write_all(format!("{word} {what}\n").as_bytes())?;
        Ok(())
    }
}

impl Announcer for Bird {
    fn name(&self) -> &'static str {
        "BIRD 2"
    }

    fn command(&self) -> &'static str {
        "`enable` of a static protocol, over an open control socket"
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.process.id()]
    }

    fn one(&mut self, there: bool) -> Result<(), Error> {
        self.tell(there, "single")
    }

    fn all(&mut self, there: bool) -> Result<(), Error> {
        self.tell(there, "many")
    }

    /// The last line of a response has a space after its number.
    fn answer(&mut self) -> Result<Option<Duration>, Error> {
        loop {
            let mut line = String::new();
            self.control.read_line(&mut line)?;
            match line.as_bytes() {
                [b'0'..=b'9', _, _, _, b' ', ..] => return Ok(None),
                [] => return Err("BIRD has ended".into()),
                _ => {}
            }
        }
    }
}

/// FRR's zebra and bgpd. The many routes are kernel routes, the single one is a `network`.
pub(crate) struct Frr {
    daemons: Vec<Process>,
    /// The connection that its shell uses.
    control: UnixStream,
}

impl Frr {
    pub(crate) fn start(stage: &Stage, routes: u32) -> Result<Self, Error> {
        let mut batch = String::new();
        addresses(routes).try_for_each(|address| writeln!(batch, "route add {address}/32 dev eth0"))?;
        std::fs::write(stage.path("routes"), batch)?;
        // Routes of an earlier run.
        stage.there("ip", &["route", "flush", "scope", "link", "proto", "boot"]).status()?;
        stage.there("ip", &["-batch", &stage.at("routes")]).status()?;
        std::fs::write(stage.path("zebra.conf"), "")?;
        let config = format!(
            "router bgp {ASN}\n bgp router-id 10.99.0.2\n no bgp ebgp-requires-policy\n no bgp network import-check\n \
             neighbor 10.99.0.1 remote-as {RECEIVER_ASN}\n neighbor 10.99.0.1 passive\n address-family ipv4 unicast\n  \
             redistribute kernel\n exit-address-family\n"
        );
        std::fs::write(stage.path("bgpd.conf"), config)?;
        let directory = stage.directory.path().display().to_string();
        std::process::Command::new("chown").args(["-R", "frr:frr", &directory]).status()?;
        let mut daemons = Vec::new();
        for name in ["zebra", "bgpd"] {
            let (config, api, pid) =
                (stage.at(&format!("{name}.conf")), stage.at("zserv.api"), stage.at(&format!("{name}.pid")));
            let socket = stage.path(&format!("{name}.vty"));
            // A socket of an earlier run would be taken for the new one.
            let _ = std::fs::remove_file(&socket);
            let arguments =
                ["--vty_socket", &directory, "-z", &api, "-i", &pid, "-A", "127.0.0.1", "-f", &config, "-P", "0"];
            daemons.push(stage.daemon(&format!("/usr/lib/frr/{name}"), &arguments)?);
            patiently(name, || socket.exists().then_some(()).ok_or_else(|| "no socket".into()))?;
        }
        let control = patiently("bgpd", || Ok(UnixStream::connect(stage.path("bgpd.vty"))?))?;
        let mut frr = Self { daemons, control };
        frr.tell("enable")?;
        patiently("routes of the kernel", || {
            frr.tell("show bgp ipv4 unicast statistics json")?;
            let answer = frr.text()?;
            let has = |line: &str| line.contains("totalPrefixes\":") && line.contains(&format!(":{routes},"));
            answer.lines().any(has).then_some(()).ok_or_else(|| answer.into())
        })?;
        for command in ["configure terminal", &format!("router bgp {ASN}"), "address-family ipv4 unicast"] {
            frr.tell(command)?;
            frr.text()?;
        }
        Ok(frr)
    }

    /// A command ends with a zero octet.
    fn tell(&mut self, command: &str) -> Result<(), Error> {
        Ok(self.control.write_all(format!("{command}\0").as_bytes())?)
    }

    /// A response ends with three zero octets and a status.
    fn text(&mut self) -> Result<String, Error> {
        let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
        loop {
            match self.control.read(&mut buffer)? {
                0 => return Err("bgpd has ended".into()),
                length => answer.extend_from_slice(&buffer[..length]),
            }
            if let [text @ .., 0, 0, 0, status] = answer.as_slice() {
                let text = String::from_utf8_lossy(text).into_owned();
                return if *status == 0 { Ok(text) } else { Err(format!("bgpd refuses: {text}").into()) };
            }
        }
    }
}

impl Announcer for Frr {
    fn name(&self) -> &'static str {
        "FRR (bgpd and zebra)"
    }

    fn command(&self) -> &'static str {
        "`network`, over an open connection as its shell has it"
    }

    fn pids(&self) -> Vec<u32> {
        self.daemons.iter().map(Process::id).collect()
    }

    fn one(&mut self, there: bool) -> Result<(), Error> {
        self.tell(if there { "network 10.128.0.1/32" } else { "no network 10.128.0.1/32" })
    }

    fn all(&mut self, there: bool) -> Result<(), Error> {
        self.tell(if there { "redistribute kernel" } else { "no redistribute kernel" })
    }

    fn answer(&mut self) -> Result<Option<Duration>, Error> {
        self.text().map(|_| None)
    }
}

/// GoBGP, by its command line: each command is a process.
pub(crate) struct Gobgp {
    process: Process,
    namespace: String,
    table: String,
    command: Option<Child>,
}

impl Gobgp {
    pub(crate) fn start(stage: &Stage, routes: u32) -> Result<Self, Error> {
        let config = format!(
            "[global.config]\nas = {ASN}\nrouter-id = \"10.99.0.2\"\n[[neighbors]]\n[neighbors.config]\n\
             neighbor-address = \"10.99.0.1\"\npeer-as = {RECEIVER_ASN}\n[neighbors.transport.config]\npassive-mode = true\n\
             [neighbors.timers.config]\nidle-hold-time-after-reset = 1\n"
        );
        std::fs::write(stage.path("gobgp.toml"), config)?;
        std::fs::write(stage.path("table.mrt"), table(routes))?;
        let process = stage.daemon("gobgpd", &["-l", "warn", "-f", &stage.at("gobgp.toml")])?;
        let (namespace, table) = (stage.namespace("a"), stage.at("table.mrt"));
        let mut gobgp = Self { process, namespace, table, command: None };
        patiently("gobgpd", || {
            gobgp.run(&["neighbor", "10.99.0.1"])?;
            gobgp.answer()
        })?;
        if routes > 0 {
            gobgp.all(true)?;
            gobgp.answer()?;
        }
        Ok(gobgp)
    }

    fn run(&mut self, arguments: &[&str]) -> Result<(), Error> {
        let mut command = std::process::Command::new("ip");
        command.args(["netns", "exec", &self.namespace, "gobgp"]).args(arguments);
        self.command = Some(command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?);
        Ok(())
    }
}

impl Announcer for Gobgp {
    fn name(&self) -> &'static str {
        "GoBGP"
    }

    fn command(&self) -> &'static str {
        "the start of a process `gobgp global rib add`, for it has no connection that stays"
    }

    fn pids(&self) -> Vec<u32> {
        vec![self.process.id()]
    }

    fn one(&mut self, there: bool) -> Result<(), Error> {
        self.run(&["global", "rib", if there { "add" } else { "del" }, "10.128.0.1/32"])
    }

    fn all(&mut self, there: bool) -> Result<(), Error> {
        if there {
            let table = self.table.clone();
            self.run(&["mrt", "inject", "global", &table])
        } else {
            self.run(&["global", "rib", "del", "all"])
        }
    }

    fn answer(&mut self) -> Result<Option<Duration>, Error> {
        let status = self.command.take().ok_or("no command")?.wait()?;
        status.success().then_some(None).ok_or_else(|| "gobgp refuses".into())
    }
}

fn addresses(count: u32) -> impl Iterator<Item = std::net::Ipv4Addr> {
    (0..count).map(|n| std::net::Ipv4Addr::from(0x0a00_0000 + n))
}

/// An MRT table dump (RFC 6396 §4.3) with the routes of one peer.
fn table(routes: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut record = |subtype: u16, body: &[u8]| {
        // Timestamp 0, TABLE_DUMP_V2.
        out.extend_from_slice(&[0, 0, 0, 0, 0, 13]);
        out.extend_from_slice(&subtype.to_be_bytes());
        out.extend_from_slice(&(body.len() as u32).to_be_bytes());
        out.extend_from_slice(body);
    };
    // The collector without a view name, and one peer with a four-octet AS number.
    record(1, &[10, 99, 0, 2, 0, 0, 0, 1, 2, 10, 99, 0, 2, 10, 99, 0, 2, 0, 0, 0xfd, 0xe8]);
    // GoBGP 3.10 loses the last routes when its command ends, so the first ones are repeated at the end.
    for (number, address) in (0_u32..).zip(addresses(routes).chain(addresses(routes / 10))) {
        let mut body = number.to_be_bytes().to_vec();
        body.push(32);
        body.extend_from_slice(&address.octets());
        // One entry of the first peer with ORIGIN, an empty AS_PATH and NEXT_HOP.
        body.extend_from_slice(&[0, 1, 0, 0, 0, 0, 0, 0, 0, 14]);
        body.extend_from_slice(&[0x40, 1, 1, 0, 0x40, 2, 0, 0x40, 3, 4, 10, 99, 0, 2]);
        record(2, &body);
    }
    out
}
