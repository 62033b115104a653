//! The kernel setting `arp_ignore`.

/// Which of the addresses of a host its kernel tells to whoever asks on another interface: the setting `arp_ignore`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) enum ArpIgnore {
    /// All: values 0 and 3, and those without a meaning.
    #[default]
    Nothing,
    /// None: values 1 and 2, by which an interface answers for what it has itself, and 8, by which it never does.
    OtherInterfaces,
}

impl ArpIgnore {
    /// The setting of an interface; the stronger of its own and the one for all counts.
    #[must_use]
    pub(super) fn of(all: u8, interface: u8) -> Self {
        // 3 stands between: it hides addresses of narrow scope, which those of Services are not.
        match all.max(interface) {
            1 | 2 | 8 => Self::OtherInterfaces,
            _ => Self::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernel_keeps_addresses_of_other_interfaces_to_itself_as_the_stronger_setting_says() {
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
            assert_eq!(ArpIgnore::of(all, interface), expected, "{all} {interface}");
        }
    }
}
