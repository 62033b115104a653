//! The code points of BGP that IANA registers: one enum per registry, with the registry's URL at each.
//!
//! No other module writes such a number. A code that a peer sent stays a plain integer until `from_code` has found its
//! entry, because a receiver must keep or skip what is registered later.

use std::fmt;

/// Defines the enum of one registry from its table: the code point, the registered name and the specification of each
/// entry.
macro_rules! registry {
    (
        $(#[$meta:meta])*
        $name:ident: $repr:ident {
            $($variant:ident = $code:literal, $text:literal, $specification:literal;)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        #[non_exhaustive]
        #[repr($repr)]
        pub enum $name {
            $(
                #[doc = concat!($text, " (", $specification, ").")]
                $variant = $code,
            )*
        }

        impl $name {
            /// The code point on the wire.
            #[must_use]
            #[inline]
            pub const fn code(self) -> $repr {
                self as $repr
            }

            /// The entry of a code point; `None` if it has no entry here.
            #[must_use]
            #[inline]
            pub const fn from_code(code: $repr) -> Option<Self> {
                match code {
                    $($code => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// The registered name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)*
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.name())
            }
        }
    };
}

registry! {
    /// Message types.
    ///
    /// <https://www.iana.org/assignments/bgp-parameters/bgp-parameters.xhtml#bgp-parameters-1>
    MessageType: u8 {
        Open = 1, "OPEN", "RFC 4271";
        Update = 2, "UPDATE", "RFC 4271";
        Notification = 3, "NOTIFICATION", "RFC 4271";
        Keepalive = 4, "KEEPALIVE", "RFC 4271";
        RouteRefresh = 5, "ROUTE-REFRESH", "RFC 2918";
    }
}

registry! {
    /// Path attributes, by type code.
    ///
    /// <https://www.iana.org/assignments/bgp-parameters/bgp-parameters.xhtml#bgp-parameters-2>
    AttributeType: u8 {
        Origin = 1, "ORIGIN", "RFC 4271";
        AsPath = 2, "AS_PATH", "RFC 4271";
        NextHop = 3, "NEXT_HOP", "RFC 4271";
        MultiExitDisc = 4, "MULTI_EXIT_DISC", "RFC 4271";
        LocalPref = 5, "LOCAL_PREF", "RFC 4271";
        AtomicAggregate = 6, "ATOMIC_AGGREGATE", "RFC 4271";
        Aggregator = 7, "AGGREGATOR", "RFC 4271";
        Communities = 8, "COMMUNITIES", "RFC 1997";
        OriginatorId = 9, "ORIGINATOR_ID", "RFC 4456";
        ClusterList = 10, "CLUSTER_LIST", "RFC 4456";
        MpReachNlri = 14, "MP_REACH_NLRI", "RFC 4760";
        MpUnreachNlri = 15, "MP_UNREACH_NLRI", "RFC 4760";
        ExtendedCommunities = 16, "EXTENDED COMMUNITIES", "RFC 4360";
        As4Path = 17, "AS4_PATH", "RFC 6793";
        As4Aggregator = 18, "AS4_AGGREGATOR", "RFC 6793";
        Ipv6ExtendedCommunities = 25, "IPv6 Address Specific Extended Community", "RFC 5701";
        LargeCommunity = 32, "LARGE_COMMUNITY", "RFC 8092";
    }
}

/// Flags of a path attribute (RFC 4271 §4.3).
pub mod attribute_flags {
    /// Optional; otherwise well-known.
    pub const OPTIONAL: u8 = 0x80;
    /// Transitive.
    pub const TRANSITIVE: u8 = 0x40;
    /// A router on the path did not recognise the attribute.
    pub const PARTIAL: u8 = 0x20;
    /// The length field has two octets.
    pub const EXTENDED_LENGTH: u8 = 0x10;
}

registry! {
    /// Values of ORIGIN, which have no registry of their own: RFC 4271 §4.3.
    Origin: u8 {
        Igp = 0, "IGP", "RFC 4271";
        Egp = 1, "EGP", "RFC 4271";
        Incomplete = 2, "INCOMPLETE", "RFC 4271";
    }
}

registry! {
    /// Segment types of AS_PATH and AS4_PATH, which have no registry of their own: RFC 4271 §4.3, RFC 5065 §3.
    SegmentType: u8 {
        AsSet = 1, "AS_SET", "RFC 4271, deprecated by RFC 9774";
        AsSequence = 2, "AS_SEQUENCE", "RFC 4271";
        AsConfedSequence = 3, "AS_CONFED_SEQUENCE", "RFC 5065";
        AsConfedSet = 4, "AS_CONFED_SET", "RFC 5065, deprecated by RFC 9774";
    }
}

registry! {
    /// Optional parameters of OPEN.
    ///
    /// <https://www.iana.org/assignments/bgp-parameters/bgp-parameters.xhtml#bgp-parameters-11>
    ParameterType: u8 {
        Capabilities = 2, "Capabilities", "RFC 5492";
        ExtendedLength = 255, "Extended Length", "RFC 9072";
    }
}

registry! {
    /// Capabilities.
    ///
    /// <https://www.iana.org/assignments/capability-codes/capability-codes.xhtml#capability-codes-2>
    CapabilityCode: u8 {
        Multiprotocol = 1, "Multiprotocol Extensions", "RFC 4760";
        RouteRefresh = 2, "Route Refresh", "RFC 2918";
        ExtendedNextHop = 5, "Extended Next Hop Encoding", "RFC 8950";
        ExtendedMessage = 6, "BGP Extended Message", "RFC 8654";
        GracefulRestart = 64, "Graceful Restart", "RFC 4724";
        FourOctetAsn = 65, "Support for 4-octet AS number capability", "RFC 6793";
        EnhancedRouteRefresh = 70, "Enhanced Route Refresh", "RFC 7313";
    }
}

/// Flags of the Graceful Restart capability: the first two octets of its value hold flags and the restart time.
///
/// <https://www.iana.org/assignments/bgp-parameters/bgp-parameters.xhtml#bgp-graceful-restart-flags>
pub mod graceful_restart {
    /// R: the sender has restarted (RFC 4724 §3).
    pub const RESTART_STATE: u16 = 0x8000;
    /// N: NOTIFICATION and hold timer expiry are handled gracefully too (RFC 8538 §2).
    pub const NOTIFICATION: u16 = 0x4000;
    /// The restart time in seconds, the lower twelve bits.
    pub const RESTART_TIME_MASK: u16 = 0x0fff;
    /// F, for each address family: forwarding state is preserved over the restart (RFC 4724 §3).
    ///
    /// <https://www.iana.org/assignments/bgp-parameters/bgp-parameters.xhtml#bgp-graceful-restart-flags-address-family>
    pub const FORWARDING_STATE: u8 = 0x80;
}

registry! {
    /// Address family identifiers.
    ///
    /// <https://www.iana.org/assignments/address-family-numbers/address-family-numbers.xhtml#address-family-numbers-2>
    Afi: u16 {
        Ipv4 = 1, "IPv4", "RFC 4760";
        Ipv6 = 2, "IPv6", "RFC 4760";
    }
}

registry! {
    /// Subsequent address family identifiers.
    ///
    /// <https://www.iana.org/assignments/safi-namespace/safi-namespace.xhtml#safi-namespace-2>
    Safi: u8 {
        Unicast = 1, "Unicast", "RFC 4760";
    }
}

registry! {
    /// Subtypes of ROUTE-REFRESH.
    ///
    /// <https://www.iana.org/assignments/bgp-parameters/bgp-parameters.xhtml#route-refresh-subcodes>
    RefreshSubtype: u8 {
        Request = 0, "Normal Route Refresh", "RFC 2918";
        BeginOfRefresh = 1, "BoRR", "RFC 7313";
        EndOfRefresh = 2, "EoRR", "RFC 7313";
    }
}

registry! {
    /// Error codes of NOTIFICATION.
    ///
    /// <https://www.iana.org/assignments/bgp-parameters/bgp-parameters.xhtml#bgp-parameters-3>
    ErrorCode: u8 {
        MessageHeader = 1, "Message Header Error", "RFC 4271";
        OpenMessage = 2, "OPEN Message Error", "RFC 4271";
        UpdateMessage = 3, "UPDATE Message Error", "RFC 4271";
        HoldTimerExpired = 4, "Hold Timer Expired", "RFC 4271";
        FiniteStateMachine = 5, "Finite State Machine Error", "RFC 4271";
        Cease = 6, "Cease", "RFC 4271";
        RouteRefreshMessage = 7, "ROUTE-REFRESH Message Error", "RFC 7313";
        SendHoldTimerExpired = 8, "Send Hold Timer Expired", "RFC 9687";
    }
}

registry! {
    /// Subcodes of Message Header Error.
    ///
    /// <https://www.iana.org/assignments/bgp-parameters/bgp-parameters.xhtml#bgp-parameters-5>
    HeaderSubcode: u8 {
        ConnectionNotSynchronized = 1, "Connection Not Synchronized", "RFC 4271";
        BadMessageLength = 2, "Bad Message Length", "RFC 4271";
        BadMessageType = 3, "Bad Message Type", "RFC 4271";
    }
}

registry! {
    /// Subcodes of OPEN Message Error.
    ///
    /// <https://www.iana.org/assignments/bgp-parameters/bgp-parameters.xhtml#bgp-parameters-6>
    OpenSubcode: u8 {
        Unspecific = 0, "Unspecific", "RFC 4271";
        UnsupportedVersionNumber = 1, "Unsupported Version Number", "RFC 4271";
        BadPeerAs = 2, "Bad Peer AS", "RFC 4271";
        BadBgpIdentifier = 3, "Bad BGP Identifier", "RFC 4271";
        UnsupportedOptionalParameter = 4, "Unsupported Optional Parameter", "RFC 4271";
        UnacceptableHoldTime = 6, "Unacceptable Hold Time", "RFC 4271";
        UnsupportedCapability = 7, "Unsupported Capability", "RFC 5492";
    }
}

registry! {
    /// Subcodes of UPDATE Message Error.
    ///
    /// <https://www.iana.org/assignments/bgp-parameters/bgp-parameters.xhtml#bgp-parameters-7>
    UpdateSubcode: u8 {
        MalformedAttributeList = 1, "Malformed Attribute List", "RFC 4271";
        UnrecognizedWellKnownAttribute = 2, "Unrecognized Well-known Attribute", "RFC 4271";
        MissingWellKnownAttribute = 3, "Missing Well-known Attribute", "RFC 4271";
        AttributeFlags = 4, "Attribute Flags Error", "RFC 4271";
        AttributeLength = 5, "Attribute Length Error", "RFC 4271";
        InvalidOrigin = 6, "Invalid ORIGIN Attribute", "RFC 4271";
        InvalidNextHop = 8, "Invalid NEXT_HOP Attribute", "RFC 4271";
        OptionalAttribute = 9, "Optional Attribute Error", "RFC 4271";
        InvalidNetworkField = 10, "Invalid Network Field", "RFC 4271";
        MalformedAsPath = 11, "Malformed AS_PATH", "RFC 4271";
    }
}

registry! {
    /// Subcodes of Finite State Machine Error: the state in which the unexpected message arrived.
    ///
    /// <https://www.iana.org/assignments/bgp-parameters/bgp-parameters.xhtml#bgp-finite-state-machine-error-subcodes>
    FsmSubcode: u8 {
        Unspecified = 0, "Unspecified Error", "RFC 6608";
        OpenSent = 1, "Receive Unexpected Message in OpenSent State", "RFC 6608";
        OpenConfirm = 2, "Receive Unexpected Message in OpenConfirm State", "RFC 6608";
        Established = 3, "Receive Unexpected Message in Established State", "RFC 6608";
    }
}

registry! {
    /// Subcodes of Cease.
    ///
    /// <https://www.iana.org/assignments/bgp-parameters/bgp-parameters.xhtml#bgp-parameters-8>
    CeaseSubcode: u8 {
        MaximumPrefixes = 1, "Maximum Number of Prefixes Reached", "RFC 4486";
        AdministrativeShutdown = 2, "Administrative Shutdown", "RFC 4486, RFC 9003";
        PeerDeconfigured = 3, "Peer De-configured", "RFC 4486";
        AdministrativeReset = 4, "Administrative Reset", "RFC 4486, RFC 9003";
        ConnectionRejected = 5, "Connection Rejected", "RFC 4486";
        OtherConfigurationChange = 6, "Other Configuration Change", "RFC 4486";
        ConnectionCollision = 7, "Connection Collision Resolution", "RFC 4486";
        OutOfResources = 8, "Out of Resources", "RFC 4486";
        HardReset = 9, "Hard Reset", "RFC 8538";
        BfdDown = 10, "BFD Down", "RFC 9384";
    }
}

registry! {
    /// Subcodes of ROUTE-REFRESH Message Error.
    ///
    /// <https://www.iana.org/assignments/bgp-parameters/bgp-parameters.xhtml#route-refresh-error-subcodes>
    RefreshSubcode: u8 {
        InvalidMessageLength = 1, "Invalid Message Length", "RFC 7313";
    }
}

/// The well-known community GRACEFUL_SHUTDOWN (RFC 8326).
///
/// <https://www.iana.org/assignments/bgp-well-known-communities/bgp-well-known-communities.xhtml>
pub const GRACEFUL_SHUTDOWN: u32 = 0xffff_0000;

/// The AS number that stands in two-octet fields for one that needs four octets (RFC 6793 §9).
///
/// <https://www.iana.org/assignments/iana-as-numbers-special-registry/iana-as-numbers-special-registry.xhtml>
pub const AS_TRANS: u16 = 23_456;

/// The protocol version in OPEN (RFC 4271 §4.2).
pub const VERSION: u8 = 4;
