//! The code points of BFD: those that IANA registers, and the fields of RFC 5880 that have no registry.

use std::fmt;

/// Why the local state changed last: five bits (RFC 5880 §4.1). Unassigned values are legal on the wire.
///
/// <https://www.iana.org/assignments/bfd-parameters/bfd-parameters.xhtml#bfd-parameters-1>
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Diagnostic(pub u8);

impl Diagnostic {
    /// No Diagnostic.
    pub const NONE: Self = Self(0);
    /// Control Detection Time Expired.
    pub const DETECTION_TIME_EXPIRED: Self = Self(1);
    /// Echo Function Failed.
    pub const ECHO_FAILED: Self = Self(2);
    /// Neighbor Signaled Session Down.
    pub const NEIGHBOR_DOWN: Self = Self(3);
    /// Forwarding Plane Reset.
    pub const FORWARDING_PLANE_RESET: Self = Self(4);
    /// Path Down.
    pub const PATH_DOWN: Self = Self(5);
    /// Concatenated Path Down.
    pub const CONCATENATED_PATH_DOWN: Self = Self(6);
    /// Administratively Down.
    pub const ADMIN_DOWN: Self = Self(7);
    /// Reverse Concatenated Path Down.
    pub const REVERSE_CONCATENATED_PATH_DOWN: Self = Self(8);
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match *self {
            Self::NONE => "no diagnostic",
            Self::DETECTION_TIME_EXPIRED => "control detection time expired",
            Self::ECHO_FAILED => "echo function failed",
            Self::NEIGHBOR_DOWN => "neighbor signaled session down",
            Self::FORWARDING_PLANE_RESET => "forwarding plane reset",
            Self::PATH_DOWN => "path down",
            Self::CONCATENATED_PATH_DOWN => "concatenated path down",
            Self::ADMIN_DOWN => "administratively down",
            Self::REVERSE_CONCATENATED_PATH_DOWN => "reverse concatenated path down",
            Self(other) => return write!(f, "diagnostic {other}"),
        })
    }
}

/// The state of one side of a session: two bits (RFC 5880 §4.1, §6.2).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum State {
    /// Held down by the administrator, which says nothing about the path.
    AdminDown = 0,
    /// No packets of the neighbour are received.
    Down = 1,
    /// Packets of the neighbour are received, but it does not yet receive ours.
    Init = 2,
    /// Both sides receive each other's packets.
    Up = 3,
}

impl State {
    /// All states, in the order of their codes.
    pub const ALL: [Self; 4] = [Self::AdminDown, Self::Down, Self::Init, Self::Up];

    /// The code on the wire.
    #[must_use]
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// From the lower two bits of a code.
    pub(super) const fn from_code(code: u8) -> Self {
        match code & 3 {
            0 => Self::AdminDown,
            1 => Self::Down,
            2 => Self::Init,
            _ => Self::Up,
        }
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AdminDown => "AdminDown",
            Self::Down => "Down",
            Self::Init => "Init",
            Self::Up => "Up",
        })
    }
}

/// The protocol version (RFC 5880 §4.1).
pub(super) const VERSION: u8 = 1;

/// Flags of a control packet (RFC 5880 §4.1).
pub(super) mod flags {
    /// P
    pub(in crate::bfd) const POLL: u8 = 1 << 5;
    /// F
    pub(in crate::bfd) const FINAL: u8 = 1 << 4;
    /// C
    pub(in crate::bfd) const CONTROL_PLANE_INDEPENDENT: u8 = 1 << 3;
    /// A
    pub(in crate::bfd) const AUTHENTICATION: u8 = 1 << 2;
    /// D
    pub(in crate::bfd) const DEMAND: u8 = 1 << 1;
    /// M
    pub(in crate::bfd) const MULTIPOINT: u8 = 1;
}

/// UDP port `bfd-control` of control packets over a single hop (RFC 5881 §4).
///
/// <https://www.iana.org/assignments/service-names-port-numbers/service-names-port-numbers.xhtml>
pub const SINGLE_HOP_PORT: u16 = 3784;
/// UDP port `bfd-echo` of echo packets (RFC 5881 §4).
pub const ECHO_PORT: u16 = 3785;
/// UDP port `bfd-multi-ctl` of control packets over multiple hops (RFC 5883 §5).
pub const MULTI_HOP_PORT: u16 = 4784;
