//! Membership of many nodes in virtual time: the time until all know each other, the traffic, the time until a death is
//! found, and false deaths on a lossy network.
//!
//! Environment variables: `METALLB_SIM_MEMBERS` sets the number of members (one or more numbers),
//! `METALLB_SIM_ADDRESSES` the number of addresses that they own, `METALLB_SIM_SECONDS` the time that is measured. Each
//! number of members gives a row of the table that `scripts/membership-table.sh` prints.

use super::cluster::{Cluster, Load, MS, SECOND, Tally, Traffic};

#[test]
fn sim_members_join_and_find_dead_members_at_every_cluster_size() {
    let setting = |name: &str| std::env::var(name).ok();
    let sizes = setting("METALLB_SIM_MEMBERS").unwrap_or("5 100".to_owned());
    let addresses = setting("METALLB_SIM_ADDRESSES").map_or(1000, |text| text.parse().unwrap());
    let seconds = setting("METALLB_SIM_SECONDS").map_or(10, |text| text.parse().unwrap());
    println!("{HEAD}");
    let measure = |size: &str| {
        let row = measure(size.parse().unwrap(), addresses, seconds);
        println!("{}", row.text());
        row
    };
    let rows: Vec<Row> = sizes.split_whitespace().map(measure).collect();
    for row in &rows {
        assert!(row.longest <= 1400, "{} bytes in one datagram", row.longest);
        assert_eq!(row.deaths, [0, 0], "false deaths on a lossy network");
        assert!(row.found.last().is_some_and(|&found| found < 1000), "found after {:?} ms", row.found);
    }
    if let [few, .., many] = rows.as_slice() {
        let cost = |row: &Row| (row.gossip.bytes + row.detection.bytes + row.join.bytes) / row.size as u64;
        // In a cluster of five each member monitors fewer nodes than the six of a large one.
        assert!(
            cost(many) < 4 * cost(few),
            "each sends {} bytes in the large cluster, {} in the small one",
            cost(many),
            cost(few)
        );
    }
}

/// The measurements for one number of members.
struct Row {
    size: usize,
    addresses: u32,
    seconds: u64,
    /// The time until all knew all in milliseconds, if all started at once.
    joined: Option<u64>,
    /// The bytes that each sent until then.
    joining: u64,
    overflows: u64,
    gossip: Load,
    detection: Load,
    join: Load,
    longest: u64,
    /// Milliseconds until the next owner knew of a death, sorted.
    found: Vec<u64>,
    /// Milliseconds until all members knew.
    known: Vec<u64>,
    /// For how many seconds 1 % and 5 % of the datagrams were lost, and the consequences.
    lossy: [u64; 2],
    suspicions: [u64; 2],
    deaths: [u64; 2],
}

const HEAD: &str = concat!(
    "| members, addresses ",
    "| all start at once: time until all know all, bytes sent by each, datagrams lost in full sockets ",
    "| gossip per node and second | failure detector per node and second | longest datagram ",
    "| dead owner found after, p50 / p99 / max | known to all after, p50 / max ",
    "| 1 % loss, per node and hour: suspicions, false deaths | 5 % loss |\n",
    "|---|---|---|---|---|---|---|---|---|",
);

impl Row {
    fn text(&self) -> String {
        let per_second = |load: Load| {
            let per = (self.size as u64 * self.seconds) as f64;
            format!("{:.0} B in {:.1}", load.bytes as f64 / per, load.datagrams as f64 / per)
        };
        let hours = |at: usize| self.size as f64 * self.lossy[at] as f64 / 3600.0;
        let lossy = |at: usize| format!("{:.1}, {}", self.suspicions[at] as f64 / hours(at), self.deaths[at]);
        let of = |values: &[u64], percent: usize| values[(values.len() * percent).div_ceil(100).max(1) - 1];
        format!(
            "| {}, {} | {} | {} | {} | {} B | {} / {} / {} ms | {} / {} ms | {} | {} |",
            self.size,
            self.addresses,
            self.joined.map_or("–".to_owned(), |after| format!(
                "{after} ms, {} KiB, {}",
                self.joining >> 10,
                self.overflows
            )),
            per_second(self.gossip),
            per_second(self.detection),
            self.longest,
            of(&self.found, 50),
            of(&self.found, 99),
            of(&self.found, 100),
            of(&self.known, 50),
            of(&self.known, 100),
            lossy(0),
            lossy(1),
        )
    }
}

/// How many owners die, and for how many of them the time until all members know is measured.
const DEATHS: usize = 20;
const KNOWN: usize = 2;

/// The shortest time in seconds with 5 % loss: among 5,000 members gossip declares a suspected one dead after 16 s.
const WORST: u64 = 20;

/// Joining is not simulated for more members than this: it takes an hour for 5,000.
const JOINING: usize = 2000;

/// Seconds until gossip about the start has ended; fewer if no member had to join.
const fn settling(size: usize) -> u64 {
    if size <= JOINING { 10 } else { 2 }
}

fn measure(size: usize, addresses: u32, seconds: u64) -> Row {
    let mut cluster = Cluster::new(size as u64, size);
    if size <= JOINING {
        (0..size).for_each(|index| cluster.start(index));
    } else {
        cluster.start_acquainted();
    }
    while (0..size).any(|index| cluster.seen_by(index) < size) {
        cluster.run(10 * MS);
        assert!(cluster.now < 120 * SECOND, "they do not know each other");
    }
    let joined = (size <= JOINING).then_some(cluster.now / MS);
    let joining = total(&cluster, |sent| sent.gossip.bytes + sent.detection.bytes + sent.join.bytes) / size as u64;
    let overflows = cluster.overflows;
    progress(&cluster, "all know all");
    let owners = cluster.elect(addresses);
    // Gossip about the start must have ended.
    cluster.run((seconds + settling(size)) * SECOND);
    cluster.reset();
    cluster.run(seconds * SECOND);
    let load = |part: fn(&Traffic) -> Load| Load {
        datagrams: total(&cluster, |sent| part(sent).datagrams),
        bytes: total(&cluster, |sent| part(sent).bytes),
    };
    let (gossip, detection, join) = (load(|sent| sent.gossip), load(|sent| sent.detection), load(|sent| sent.join));
    let longest = cluster.hosts.iter().map(|host| host.sent.longest).max().unwrap();
    progress(
        &cluster,
        &format!("sent in {seconds} s: gossip {gossip:?}, failure detector {detection:?}, join {join:?}"),
    );
    let spells = [(10, seconds), (50, if size <= JOINING { seconds } else { seconds.max(WORST) })];
    let lossy = spells.map(|(loss, seconds)| {
        cluster.loss = loss;
        cluster.reset();
        cluster.run(seconds * SECOND);
        cluster.loss = 0;
        let (suspicions, deaths) = cluster.hosts.iter().fold((0, 0), |(suspicions, deaths), host| {
            let Tally { suspected, declared_dead, failed, .. } = host.events;
            (suspicions + suspected, deaths + declared_dead.max(failed))
        });
        progress(
            &cluster,
            &format!("{loss} of 1000 lost for {seconds} s: {suspicions} suspicions, {deaths} false deaths"),
        );
        cluster.run(5 * SECOND);
        ((suspicions, deaths), seconds)
    });
    let (mut found, mut known) = (Vec::new(), Vec::new());
    let (deaths, waited_for) = if size <= JOINING { (DEATHS, KNOWN) } else { (DEATHS / 2, 1) };
    for _ in 0..deaths.min(size / 2) {
        let running: Vec<&(usize, usize)> = owners
            .iter()
            .filter(|(owner, heir)| [owner, heir].iter().all(|&&index| cluster.seen_by(index) > 0))
            .collect();
        if running.is_empty() {
            break;
        }
        let chosen = running.len() as u64;
        let &&(owner, _) = &running[cluster.below(chosen) as usize];
        let heirs: Vec<usize> = owners.iter().filter(|pair| pair.0 == owner).map(|pair| pair.1).collect();
        let pause = cluster.below(SECOND);
        cluster.run(pause);
        cluster.kill(owner);
        let died = cluster.now;
        let mut pending = heirs;
        while pending.iter().any(|&heir| cluster.believes(heir, owner)) {
            cluster.run(MS);
            pending.retain(|&heir| cluster.believes(heir, owner));
            assert!(cluster.now < died + 60 * SECOND, "the death is not found");
        }
        found.push((cluster.now - died) / MS);
        progress(&cluster, &format!("death found after {} ms", (cluster.now - died) / MS));
        if known.len() == waited_for {
            continue;
        }
        while (0..size).any(|index| cluster.believes(index, owner)) {
            cluster.run(50 * MS);
            assert!(cluster.now < died + 120 * SECOND, "not all members know of the death");
        }
        known.push((cluster.now - died) / MS);
        progress(&cluster, &format!("death known to all after {} ms", (cluster.now - died) / MS));
    }
    found.sort_unstable();
    known.sort_unstable();
    Row {
        size,
        addresses,
        seconds,
        joined,
        joining,
        overflows,
        gossip,
        detection,
        join,
        longest,
        found,
        known,
        lossy: lossy.map(|(_, seconds)| seconds),
        suspicions: lossy.map(|((suspicions, _), _)| suspicions),
        deaths: lossy.map(|((_, deaths), _)| deaths),
    }
}

/// Prints the progress if `METALLB_SIM_PROGRESS` is set: large clusters take hours.
fn progress(cluster: &Cluster, what: &str) {
    if std::env::var_os("METALLB_SIM_PROGRESS").is_some() {
        println!("at {:.1} s: {what}", cluster.now as f64 / SECOND as f64);
    }
}

fn total(cluster: &Cluster, part: impl Fn(&Traffic) -> u64) -> u64 {
    cluster.hosts.iter().map(|host| part(&host.sent)).sum()
}
