//! The election as upstream does it: sort all nodes, two hashes per comparison, the text built anew each time.

use std::net::IpAddr;

use sha2::{Digest, Sha256};

/// All nodes, best first, for one address.
#[must_use]
pub fn sorted(nodes: &[String], ip: IpAddr) -> Vec<&String> {
    let mut order: Vec<&String> = nodes.iter().collect();
    #[expect(
        clippy::unnecessary_sort_by,
        reason = "upstream hashes in every comparison, and that is what is measured"
    )]
    order.sort_by(|a, b| digest(a, ip).cmp(&digest(b, ip)));
    order
}

fn digest(node: &str, ip: IpAddr) -> [u8; 32] {
    Sha256::digest(format!("{node}#{ip}")).into()
}
