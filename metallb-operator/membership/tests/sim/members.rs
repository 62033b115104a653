//! Membership of many nodes in virtual time: how soon all know each other, what it costs, how soon a dead one is found, and whom a
//! lossy network kills.
//!
//! `METALLB_SIM_MEMBERS` says how many members (several numbers, if need be), `METALLB_SIM_ADDRESSES` how many addresses they own,
//! `METALLB_SIM_SECONDS` for how long is counted. Each size gives a row of the table that `scripts/membership-table.sh` prints.

use super::cluster::{Cluster, Load, MS, SECOND, Tally, Traffic};

#[test]
fn sim_members_find_each_other_and_the_dead_however_many_they_are() {
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
        assert_eq!(row.deaths, [0, 0], "a lossy network kills nobody");
        assert!(row.found.last().is_some_and(|&found| found < 1000), "found after {:?} ms", row.found);
    }
    if let [few, .., many] = rows.as_slice() {
        let cost = |row: &Row| (row.gossip.bytes + row.watching.bytes + row.greetings.bytes) / row.size as u64;
        // Five watch fewer than the six whom each of many watches.
        assert!(cost(many) < 4 * cost(few), "each sends {} bytes among many, {} among few", cost(many), cost(few));
    }
}

/// What was measured with so many members.
struct Row {
    size: usize,
    addresses: u32,
    seconds: u64,
    /// Until all knew all, when all started at once.
    joined: Option<u64>,
    /// What each sent for it, in bytes.
    joining: u64,
    overflows: u64,
    gossip: Load,
    watching: Load,
    greetings: Load,
    longest: u64,
    /// Milliseconds until the next owner knew of a death, sorted.
    found: Vec<u64>,
    /// Milliseconds until everybody knew.
    known: Vec<u64>,
    /// For how many seconds 1 % and 5 % were lost, and what came of it.
    lossy: [u64; 2],
    suspicions: [u64; 2],
    deaths: [u64; 2],
}

const HEAD: &str = "\
| members, addresses | all start at once: all know all after, bytes sent by each, datagrams that found a socket full | gossip per node and second | watching per node and second | longest datagram | a dead owner is found after, p50 / p99 / max | all know after, p50 / max | 1 % loss, per node and hour: suspicions, false deaths | 5 % loss |
|---|---|---|---|---|---|---|---|---|";

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
            per_second(self.watching),
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

/// How many owners die, and for how many of them we wait until everybody knows.
const DEATHS: usize = 20;
const KNOWN: usize = 2;

/// For how long 5 % are lost at least: whom gossip suspects among 5,000 it declares dead after 16 s.
const WORST: u64 = 20;

/// More members than this are not simulated joining: that all greet all takes an hour.
const JOINING: usize = 2000;

/// Seconds until nothing of the start is told any more. Nobody joined where all knew all.
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
        assert!(cluster.now < 120 * SECOND, "they don't find each other");
    }
    let joined = (size <= JOINING).then_some(cluster.now / MS);
    let joining = total(&cluster, |sent| sent.gossip.bytes + sent.watching.bytes + sent.greetings.bytes) / size as u64;
    let overflows = cluster.overflows;
    progress(&cluster, "all know all");
    let owners = cluster.elect(addresses);
    // What the start left behind is told to its end.
    cluster.run((seconds + settling(size)) * SECOND);
    cluster.reset();
    cluster.run(seconds * SECOND);
    let load = |part: fn(&Traffic) -> Load| Load {
        datagrams: total(&cluster, |sent| part(sent).datagrams),
        bytes: total(&cluster, |sent| part(sent).bytes),
    };
    let (gossip, watching, greetings) =
        (load(|sent| sent.gossip), load(|sent| sent.watching), load(|sent| sent.greetings));
    let longest = cluster.hosts.iter().map(|host| host.sent.longest).max().unwrap();
    progress(
        &cluster,
        &format!("in {seconds} s all sent: gossip {gossip:?}, watching {watching:?}, greetings {greetings:?}"),
    );
    let spells = [(10, seconds), (50, if size <= JOINING { seconds } else { seconds.max(WORST) })];
    let lossy = spells.map(|(loss, seconds)| {
        cluster.loss = loss;
        cluster.reset();
        cluster.run(seconds * SECOND);
        cluster.loss = 0;
        let (suspicions, deaths) = cluster.hosts.iter().fold((0, 0), |(suspicions, deaths), host| {
            let Tally { suspected, gone, lost, .. } = host.events;
            (suspicions + suspected, deaths + gone.max(lost))
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
        let living: Vec<&(usize, usize)> = owners
            .iter()
            .filter(|(owner, heir)| [owner, heir].iter().all(|&&index| cluster.seen_by(index) > 0))
            .collect();
        if living.is_empty() {
            break;
        }
        let chosen = living.len() as u64;
        let &&(owner, _) = &living[cluster.below(chosen) as usize];
        let heirs: Vec<usize> = owners.iter().filter(|pair| pair.0 == owner).map(|pair| pair.1).collect();
        let pause = cluster.below(SECOND);
        cluster.run(pause);
        cluster.kill(owner);
        let died = cluster.now;
        let mut pending = heirs;
        while pending.iter().any(|&heir| cluster.believes(heir, owner)) {
            cluster.run(MS);
            pending.retain(|&heir| cluster.believes(heir, owner));
            assert!(cluster.now < died + 60 * SECOND, "nobody finds it");
        }
        found.push((cluster.now - died) / MS);
        progress(&cluster, &format!("a death was found after {} ms", (cluster.now - died) / MS));
        if known.len() == waited_for {
            continue;
        }
        while (0..size).any(|index| cluster.believes(index, owner)) {
            cluster.run(50 * MS);
            assert!(cluster.now < died + 120 * SECOND, "not everybody hears of it");
        }
        known.push((cluster.now - died) / MS);
        progress(&cluster, &format!("all knew of it after {} ms", (cluster.now - died) / MS));
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
        watching,
        greetings,
        longest,
        found,
        known,
        lossy: lossy.map(|(_, seconds)| seconds),
        suspicions: lossy.map(|((suspicions, _), _)| suspicions),
        deaths: lossy.map(|((_, deaths), _)| deaths),
    }
}

/// Large clusters take their time: with `METALLB_SIM_PROGRESS` it is told where they are.
fn progress(cluster: &Cluster, what: &str) {
    if std::env::var_os("METALLB_SIM_PROGRESS").is_some() {
        println!("at {:.1} s: {what}", cluster.now as f64 / SECOND as f64);
    }
}

fn total(cluster: &Cluster, part: impl Fn(&Traffic) -> u64) -> u64 {
    cluster.hosts.iter().map(|host| part(&host.sent)).sum()
}
