//! Services that share addresses are elected together, so that no address ever has two owners.

use std::collections::BTreeMap;
use std::net::IpAddr;

/// Groups holders of addresses: two are in one group when they share an address, or when both share one with a third. Returns
/// the group of each holder; groups are numbered by their first holder.
pub(super) fn groups<'a>(holders: impl IntoIterator<Item = &'a [IpAddr]>) -> Vec<usize> {
    let mut parents: Vec<usize> = Vec::new();
    let mut first_holder: BTreeMap<IpAddr, usize> = BTreeMap::new();
    for (index, ips) in holders.into_iter().enumerate() {
        parents.push(index);
        for &ip in ips {
            let other = *first_holder.entry(ip).or_insert(index);
            let (a, b) = (root(&mut parents, other), root(&mut parents, index));
            let (low, high) = (a.min(b), a.max(b));
            parents[high] = low;
        }
    }
    (0..parents.len()).map(|index| root(&mut parents, index)).collect()
}

/// The first member of a group; shortens the path to it.
fn root(parents: &mut [usize], mut index: usize) -> usize {
    while parents[index] != index {
        parents[index] = parents[parents[index]];
        index = parents[index];
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn holders_that_a_later_one_links_are_one_group() {
        let ip = |last: u8| IpAddr::from([10, 0, 0, last]);
        let holders: [&[IpAddr]; 6] =
            [&[ip(1)], &[ip(2)], &[ip(9)], &[ip(2), ip(1)], &[], &[ip(9), IpAddr::from([0xfd; 16])]];
        assert_eq!(groups(holders), [0, 0, 2, 0, 4, 2]);
    }
}
