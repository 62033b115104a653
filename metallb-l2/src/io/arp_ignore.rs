//! The kernel setting `arp_ignore`, which decides whether the kernel answers ARP for addresses of other interfaces.

/// Whether the kernel answers on one interface for addresses that are configured on another one.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum ArpIgnore {
    /// It answers: values 0 and 3, and undefined values.
    #[default]
    Nothing,
    /// It does not: values 1 and 2 answer only for addresses of the receiving interface, 8 never answers.
    OtherInterfaces,
}

impl ArpIgnore {
    /// Combines the value for all interfaces and that of one interface; the kernel uses the larger one.
    pub(super) fn combine(all: u8, interface: u8) -> Self {
        // 3 hides addresses of scope `host` only, which those of Services are not.
        match all.max(interface) {
            1 | 2 | 8 => Self::OtherInterfaces,
            _ => Self::Nothing,
        }
    }
}

/// Reads the value for an interface or for `all`. An unreadable file counts as 0, the kernel's default.
pub(super) fn read(interface: &str) -> u8 {
    let text = std::fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{interface}/arp_ignore"));
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn larger_of_the_two_values_decides_whether_the_kernel_answers_for_other_interfaces() {
        use ArpIgnore::{Nothing, OtherInterfaces};
        for (all, interface, expected) in [
            (0, 0, Nothing),
            (1, 0, OtherInterfaces),
            (0, 1, OtherInterfaces),
            (2, 1, OtherInterfaces),
            (0, 8, OtherInterfaces),
            (3, 1, Nothing),
            (0, 5, Nothing),
        ] {
            assert_eq!(ArpIgnore::combine(all, interface), expected, "{all} {interface}");
        }
    }
}
