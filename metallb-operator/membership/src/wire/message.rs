//! What members say to each other, inside the seal.
//!
//! Every body begins with the session of the receiver as the sender knows it (8), and what the sender has to say about itself (1).
//! Only who was answered lately knows the receiver's session: a recorded datagram is worthless to another life, and the window of
//! sequence numbers makes it worthless to the same one.

use std::net::IpAddr;

use metallb_core::model::NodeName;
use serde::{Deserialize, Serialize};

use crate::wire::identity::{Identity, name};
use crate::wire::seal::{DATAGRAM_MAX, OVERHEAD};

/// One message.
#[derive(Clone, Debug, Eq, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// "Who is there?" It is believed nothing.
    Hello,
    /// "It is me." Answers a `Hello`, and any datagram that names another session than ours.
    Welcome(Identity),
    /// "I know a later life of your node." A clock that was set back makes this happen; the number is that of the later life.
    Outlived(u64),
    /// A datagram of the gossip protocol.
    Gossip(Vec<u8>),
    /// "Are you there?"
    Ping,
    /// "I am."
    Pong,
    /// "Does this node answer you?"
    Ask {
        /// Which.
        #[serde(deserialize_with = "name")]
        about: NodeName,
        /// Comes back with the verdict.
        token: u32,
    },
    /// The answer to `Ask`, after having tried.
    Verdict {
        /// Which.
        #[serde(deserialize_with = "name")]
        about: NodeName,
        /// As asked.
        token: u32,
        /// Whether it answered.
        heard: bool,
    },
    /// "These are yours now. I answer for them until you have announced them."
    Yielding {
        /// Which.
        ips: Vec<IpAddr>,
        /// For how many microseconds the sender has announced none of them.
        since: u32,
    },
    /// "I have announced these."
    Taken(Vec<IpAddr>),
    /// Says nothing beyond what the sender says about itself.
    Standing,
    /// "I answer with these."
    Hardware(Vec<Hardware>),
    /// "I watch this node for all of us. It is gone, says another one, too." To the node itself: "I held you for gone, and leave."
    Missing {
        /// Which.
        #[serde(deserialize_with = "name")]
        about: NodeName,
        /// For how many milliseconds it has not been heard.
        silent: u32,
    },
    /// "These would be mine, and I don't announce them."
    Refused(Vec<IpAddr>),
    /// "Are you there? You did not answer." Whoever says so may be deaf.
    Call,
}

/// The address of a network card.
pub type Hardware = [u8; 6];

/// What a member says about itself in every datagram.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Standing {
    /// It can announce.
    #[default]
    Able,
    /// It has no interface to announce on.
    Unable,
    /// It is about to end.
    Leaving,
}

/// A body, taken apart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Body {
    /// The session of the receiver as the sender knows it; 0 when it does not.
    pub to: u64,
    /// What the sender says about itself.
    pub standing: Standing,
    /// The message.
    pub message: Message,
}

impl Body {
    /// The bytes; `None` when the message is too long for one datagram.
    #[must_use]
    pub fn encode(&self) -> Option<Vec<u8>> {
        let mut bytes = self.to.to_be_bytes().to_vec();
        bytes.push(match self.standing {
            Standing::Able => 0,
            Standing::Unable => 1,
            Standing::Leaving => 2,
        });
        let bytes = postcard::to_extend(&self.message, bytes).ok()?;
        (bytes.len() + OVERHEAD <= DATAGRAM_MAX).then_some(bytes)
    }

    /// Takes bytes apart; `None` when they are not exactly one body.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (to, rest) = bytes.split_first_chunk::<8>()?;
        let (&standing, rest) = rest.split_first()?;
        let standing = match standing {
            0 => Standing::Able,
            1 => Standing::Unable,
            2 => Standing::Leaving,
            _ => return None,
        };
        let (message, rest) = postcard::take_from_bytes(rest).ok()?;
        rest.is_empty().then_some(Self { to: u64::from_be_bytes(*to), standing, message })
    }
}

/// How many addresses fit a datagram: each takes at most 17 bytes.
pub const ADDRESSES_MAX: usize = 64;

/// How many hardware addresses a member tells of.
pub const HARDWARE_MAX: usize = 128;

/// Room for a datagram of the gossip protocol.
pub(crate) const GOSSIP_MAX: usize = DATAGRAM_MAX - OVERHEAD - 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_the_way_and_junk_does_not() {
        let identity = Identity::new("n1".into(), "[fd00::1]:7946".parse().unwrap(), 3);
        let ips: Vec<IpAddr> = (0..ADDRESSES_MAX).map(|n| IpAddr::from([n as u16; 8])).collect();
        for message in [
            Message::Hello,
            Message::Welcome(identity),
            Message::Gossip(vec![1; GOSSIP_MAX]),
            Message::Ask { about: "n2".into(), token: 4 },
            Message::Verdict { about: "n2".into(), token: 4, heard: true },
            Message::Refused(ips.clone()),
            Message::Yielding { ips, since: 40_000 },
            Message::Standing,
            Message::Call,
            Message::Hardware(vec![[2, 0, 0, 0, 0, 1]; HARDWARE_MAX]),
            Message::Missing { about: "n2".into(), silent: 370 },
        ] {
            let body = Body { to: 5, standing: Standing::Leaving, message };
            let bytes = body.encode().unwrap();
            assert_eq!(Body::decode(&bytes), Some(body));
            assert_eq!(Body::decode(&[&bytes[..], &[0]].concat()), None);
            assert_eq!(Body::decode(&bytes[..bytes.len() - 1]), None);
        }
        let long = Body { to: 0, standing: Standing::Able, message: Message::Gossip(vec![0; DATAGRAM_MAX]) };
        assert_eq!(long.encode(), None);
    }
}
