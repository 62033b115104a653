//! Allocation as upstream shapes it: walk each prefix from its first address, print the address, look the text up in maps, and make
//! an error text for every address in use. It leaves out metrics and objects, which flatters it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use ipnet::IpNet;

/// Text-keyed maps, one for each question.
#[derive(Default)]
pub struct LinearAllocator {
    pools: Vec<(String, IpNet)>,
    allocated: HashMap<String, (String, String)>,
    sharing_keys: HashMap<String, String>,
    services_on_ip: HashMap<String, HashSet<String>>,
    ports_in_use: HashMap<String, HashMap<String, String>>,
    pool_ips: HashMap<String, HashMap<String, usize>>,
}

impl LinearAllocator {
    /// Pools of one prefix each.
    #[must_use]
    pub fn new(pools: &[(String, IpNet)]) -> Self {
        Self { pools: pools.to_vec(), ..Self::default() }
    }

    /// The lowest free address of the first pool that has one.
    ///
    /// # Errors
    /// What was wrong with the last address that was looked at.
    pub fn allocate(&mut self, service: &str) -> Result<IpAddr, String> {
        let mut last = "no available IPs".to_owned();
        for index in 0..self.pools.len() {
            let net = self.pools[index].1;
            for ip in net_addresses(net) {
                match self.check(service, &ip.to_string(), "TCP/80") {
                    Ok(()) => {
                        self.assign(service, ip)?;
                        return Ok(ip);
                    }
                    Err(error) => last = error,
                }
            }
        }
        Err(last)
    }

    /// Gives one address.
    ///
    /// # Errors
    /// No pool has it, or another Service does.
    pub fn assign(&mut self, service: &str, ip: IpAddr) -> Result<(), String> {
        let (pool, _) =
            self.pools.iter().find(|(_, net)| net.contains(&ip)).ok_or_else(|| format!("{ip} is not allowed"))?;
        let pool = pool.clone();
        self.check(service, &ip.to_string(), "TCP/80")?;
        self.release(service);
        self.allocated.insert(service.to_owned(), (pool.clone(), ip.to_string()));
        self.sharing_keys.insert(ip.to_string(), String::new());
        self.services_on_ip.entry(ip.to_string()).or_default().insert(service.to_owned());
        self.ports_in_use.entry(ip.to_string()).or_default().insert("TCP/80".to_owned(), service.to_owned());
        *self.pool_ips.entry(pool).or_default().entry(ip.to_string()).or_default() += 1;
        Ok(())
    }

    /// Takes back what a Service has.
    pub fn release(&mut self, service: &str) {
        let Some((pool, ip)) = self.allocated.remove(service) else { return };
        self.sharing_keys.remove(&ip);
        self.services_on_ip.remove(&ip);
        self.ports_in_use.remove(&ip);
        if let Some(ips) = self.pool_ips.get_mut(&pool) {
            ips.remove(&ip);
        }
    }

    fn check(&self, service: &str, ip: &str, port: &str) -> Result<(), String> {
        if self.sharing_keys.contains_key(ip)
            && let Some(others) = self.services_on_ip.get(ip)
            && others.iter().any(|other| other != service)
        {
            let others: Vec<&str> = others.iter().map(String::as_str).collect();
            return Err(format!(
                "can't change sharing key for {service:?}, address also in use by {}",
                others.join(",")
            ));
        }
        match self.ports_in_use.get(ip).and_then(|ports| ports.get(port)) {
            Some(holder) if holder != service => Err(format!("port {port} is already in use on {ip:?}")),
            _ => Ok(()),
        }
    }
}

fn net_addresses(net: IpNet) -> impl Iterator<Item = IpAddr> {
    let next = |ip: &IpAddr| match ip {
        IpAddr::V4(v4) => v4.to_bits().checked_add(1).map(|bits| IpAddr::V4(bits.into())),
        IpAddr::V6(v6) => v6.to_bits().checked_add(1).map(|bits| IpAddr::V6(bits.into())),
    };
    std::iter::successors(Some(net.network()), next).take_while(move |ip| net.contains(ip))
}
