//! The BFD control packet (RFC 5880 §4.1).

use std::num::NonZeroU8;
use std::time::Duration;

use thiserror::Error;

use super::Discriminator;
use super::iana::flags::{AUTHENTICATION, CONTROL_PLANE_INDEPENDENT, DEMAND, FINAL, MULTIPOINT, POLL};
use super::iana::{Diagnostic, State, VERSION};

/// A control packet that passed all checks that do not depend on a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ControlPacket {
    /// Why the sender's state changed last.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// P: the sender requests a packet with the F bit.
    pub poll: bool,
    /// F: the response to a packet with the P bit.
    pub is_final: bool,
    /// C: the BFD implementation of the sender survives a restart of its control plane.
    pub control_plane_independent: bool,
    /// A: an authentication section follows. It is not decoded, and [`encode`](Self::encode) never writes one.
    pub authentication: bool,
    /// D: the sender asks for no periodic packets (demand mode).
    pub demand: bool,
    /// Number of consecutive lost packets after which the session fails.
    pub detect_multiplier: NonZeroU8,
    /// The sender's discriminator.
    pub my_discriminator: Discriminator,
    /// The receiver's discriminator, once the sender knows it.
    pub your_discriminator: Option<Discriminator>,
    /// The minimum interval at which the sender wants to transmit.
    pub desired_min_tx: Interval,
    /// The minimum interval at which the sender can receive; zero: it wants no packets.
    pub required_min_rx: Interval,
    /// The minimum interval at which the sender returns echo packets; zero: it does not return them.
    pub required_min_echo_rx: Interval,
}

impl ControlPacket {
    /// Length of a packet without authentication, in octets.
    pub const LENGTH: usize = 24;

    /// Decodes a UDP payload and ignores bytes after the packet. The checks are in the order of RFC 5880 §6.8.6.
    ///
    /// # Errors
    /// The first check that failed.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let Some((octets, _)) = payload.split_first_chunk::<{ Self::LENGTH }>() else {
            return Err(DecodeError::Truncated { octets: payload.len() });
        };
        let [version_and_diagnostic, flags, multiplier, length, words @ ..] = *octets;
        if version_and_diagnostic >> 5 != VERSION {
            return Err(DecodeError::Version(version_and_diagnostic >> 5));
        }
        let authentication = flags & AUTHENTICATION != 0;
        let minimum = if authentication { Self::LENGTH + 2 } else { Self::LENGTH };
        if usize::from(length) < minimum {
            return Err(DecodeError::LengthTooShort(length));
        }
        if usize::from(length) > payload.len() {
            return Err(DecodeError::LengthBeyondPayload(length));
        }
        let detect_multiplier = NonZeroU8::new(multiplier).ok_or(DecodeError::DetectMultiplierZero)?;
        if flags & MULTIPOINT != 0 {
            return Err(DecodeError::Multipoint);
        }
        let [my, your, tx, rx, echo] = words_of(words);
        let state = State::from_code(flags >> 6);
        let packet = Self {
            diagnostic: Diagnostic(version_and_diagnostic & 0x1f),
            state,
            poll: flags & POLL != 0,
            is_final: flags & FINAL != 0,
            control_plane_independent: flags & CONTROL_PLANE_INDEPENDENT != 0,
            authentication,
            demand: flags & DEMAND != 0,
            detect_multiplier,
            my_discriminator: Discriminator::new(my).ok_or(DecodeError::MyDiscriminatorZero)?,
            your_discriminator: Discriminator::new(your),
            desired_min_tx: Interval(tx),
            required_min_rx: Interval(rx),
            required_min_echo_rx: Interval(echo),
        };
        if packet.your_discriminator.is_none() && matches!(state, State::Init | State::Up) {
            return Err(DecodeError::YourDiscriminatorZero(state));
        }
        Ok(packet)
    }

    /// The packet on the wire.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut flags = self.state.code() << 6;
        for (set, bit) in [
            (self.poll, POLL),
            (self.is_final, FINAL),
            (self.control_plane_independent, CONTROL_PLANE_INDEPENDENT),
            (self.demand, DEMAND),
        ] {
            flags |= if set { bit } else { 0 };
        }
        let head = [VERSION << 5 | self.diagnostic.0 & 0x1f, flags, self.detect_multiplier.get(), Self::LENGTH as u8];
        let words = [
            self.my_discriminator.get(),
            self.your_discriminator.map_or(0, Discriminator::get),
            self.desired_min_tx.0,
            self.required_min_rx.0,
            self.required_min_echo_rx.0,
        ];
        let mut octets = [0; Self::LENGTH];
        let fields = [head].into_iter().chain(words.map(u32::to_be_bytes));
        for (target, field) in octets.chunks_exact_mut(4).zip(fields) {
            target.copy_from_slice(&field);
        }
        octets
    }
}

/// An interval on the wire: microseconds in 32 bits.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Interval(pub u32);

impl Interval {
    /// No packets at all.
    pub const ZERO: Self = Self(0);

    /// The interval as a duration.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_micros(self.0.into())
    }
}

/// Truncated to microseconds and limited to the maximum on the wire, about 71 minutes.
impl From<Duration> for Interval {
    fn from(duration: Duration) -> Self {
        Self(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX))
    }
}

/// Why a payload is not a valid control packet.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum DecodeError {
    /// The payload is shorter than the mandatory section.
    #[error("payload of {octets} octets is too short")]
    Truncated {
        /// Length of the payload.
        octets: usize,
    },
    /// The version is not 1.
    #[error("unsupported version {0}")]
    Version(u8),
    /// The length field does not cover the mandatory section.
    #[error("length field {0} is too short")]
    LengthTooShort(u8),
    /// The length field exceeds the payload.
    #[error("length field {0} exceeds the payload")]
    LengthBeyondPayload(u8),
    /// The detect multiplier is zero.
    #[error("detect multiplier is zero")]
    DetectMultiplierZero,
    /// The M bit is reserved.
    #[error("multipoint bit is set")]
    Multipoint,
    /// My discriminator is zero.
    #[error("my discriminator is zero")]
    MyDiscriminatorZero,
    /// Your discriminator is zero, in a state in which the sender must know it.
    #[error("your discriminator is zero in state {0}")]
    YourDiscriminatorZero(State),
}

fn words_of(octets: [u8; 20]) -> [u32; 5] {
    let mut words = [0; 5];
    for (word, chunk) in words.iter_mut().zip(octets.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*chunk);
    }
    words
}
