//! The control packet (RFC 5880 §4.1).

use std::fmt;
use std::num::NonZeroU8;
use std::time::Duration;

use thiserror::Error;

use super::Discriminator;

/// A control packet that passed the checks which need no session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ControlPacket {
    /// Why the sender's state changed last.
    pub diagnostic: Diagnostic,
    /// The sender's state.
    pub state: State,
    /// P: the sender asks for an answer.
    pub poll: bool,
    /// F: this is that answer.
    pub is_final: bool,
    /// C: the sender's BFD survives a restart of its control plane.
    pub control_plane_independent: bool,
    /// A: an authentication section follows. It is not decoded, and [`encode`](Self::encode) never writes one.
    pub authentication: bool,
    /// D: the sender wants no periodic packets.
    pub demand: bool,
    /// How many packets in a row may be lost.
    pub detect_multiplier: NonZeroU8,
    /// The sender's discriminator.
    pub my_discriminator: Discriminator,
    /// The receiver's discriminator, once the sender knows it.
    pub your_discriminator: Option<Discriminator>,
    /// The sender would like to send no more often.
    pub desired_min_tx: Interval,
    /// The sender can receive no more often; zero: wants none.
    pub required_min_rx: Interval,
    /// The same for echo packets; zero: does not return them.
    pub required_min_echo_rx: Interval,
}

impl ControlPacket {
    /// Octets of a packet without authentication.
    pub const LENGTH: usize = 24;

    /// Reads a UDP payload; what follows the packet is ignored. The checks run in the order of RFC 5880 §6.8.6.
    ///
    /// # Errors
    /// The first rule that the payload breaks. Always the sender's fault.
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
        let state = State::from_bits(flags >> 6);
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

    /// The packet in octets.
    #[must_use]
    pub fn encode(&self) -> [u8; Self::LENGTH] {
        let mut flags = (self.state as u8) << 6;
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

/// The state of one side of a session (RFC 5880 §6.2).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum State {
    /// Held down by the administrator: says nothing about the path.
    AdminDown = 0,
    /// Nothing is heard.
    Down = 1,
    /// The neighbour is heard.
    Init = 2,
    /// Both hear each other.
    Up = 3,
}

impl State {
    /// All of them, by their number.
    pub const ALL: [Self; 4] = [Self::AdminDown, Self::Down, Self::Init, Self::Up];

    fn from_bits(bits: u8) -> Self {
        match bits & 3 {
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

/// Why a state changed last (RFC 5880 §4.1). Five bits; unassigned values are legal on the wire.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Diagnostic(pub u8);

impl Diagnostic {
    /// Nothing to tell.
    pub const NONE: Self = Self(0);
    /// No packet came for the detection time.
    pub const DETECTION_TIME_EXPIRED: Self = Self(1);
    /// Echo packets no longer come back.
    pub const ECHO_FAILED: Self = Self(2);
    /// The neighbour said that the session is down.
    pub const NEIGHBOR_DOWN: Self = Self(3);
    /// The administrator took it down.
    pub const ADMIN_DOWN: Self = Self(7);
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            0 => "no diagnostic",
            1 => "control detection time expired",
            2 => "echo function failed",
            3 => "neighbor signaled session down",
            4 => "forwarding plane reset",
            5 => "path down",
            6 => "concatenated path down",
            7 => "administratively down",
            8 => "reverse concatenated path down",
            _ => return write!(f, "diagnostic {}", self.0),
        })
    }
}

/// An interval as the wire has it: microseconds in 32 bits.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Interval(pub u32);

impl Interval {
    /// No packets at all.
    pub const ZERO: Self = Self(0);

    /// The interval as a length of time.
    #[must_use]
    pub fn duration(self) -> Duration {
        Duration::from_micros(self.0.into())
    }
}

/// The nearest value that the wire can carry, about 71 minutes at most.
impl From<Duration> for Interval {
    fn from(duration: Duration) -> Self {
        Self(u32::try_from(duration.as_micros()).unwrap_or(u32::MAX))
    }
}

/// Why a payload is no control packet that anybody may act on.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum DecodeError {
    /// Fewer octets than the mandatory section has.
    #[error("{octets} octets are no control packet")]
    Truncated {
        /// Octets received.
        octets: usize,
    },
    /// Not version 1.
    #[error("version {0}")]
    Version(u8),
    /// The length field does not cover the mandatory section.
    #[error("length field {0} is too short")]
    LengthTooShort(u8),
    /// The length field promises more than was received.
    #[error("length field {0} exceeds the payload")]
    LengthBeyondPayload(u8),
    /// A multiplier of zero.
    #[error("detect multiplier is zero")]
    DetectMultiplierZero,
    /// M is reserved.
    #[error("multipoint bit is set")]
    Multipoint,
    /// No sender.
    #[error("my discriminator is zero")]
    MyDiscriminatorZero,
    /// A state that implies knowing the receiver.
    #[error("your discriminator is zero in state {0}")]
    YourDiscriminatorZero(State),
}

const VERSION: u8 = 1;
const POLL: u8 = 1 << 5;
const FINAL: u8 = 1 << 4;
const CONTROL_PLANE_INDEPENDENT: u8 = 1 << 3;
const AUTHENTICATION: u8 = 1 << 2;
const DEMAND: u8 = 1 << 1;
const MULTIPOINT: u8 = 1;

fn words_of(octets: [u8; 20]) -> [u32; 5] {
    let mut words = [0; 5];
    for (word, chunk) in words.iter_mut().zip(octets.as_chunks::<4>().0) {
        *word = u32::from_be_bytes(*chunk);
    }
    words
}
