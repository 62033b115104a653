//! The codec of SWIM gossip: postcard, with two checks on reports about other members. A second host under the
//! name of a live member is rejected, and so is an incarnation that a live member has not announced itself.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, PostcardCodec};
use metallb_core::model::NodeName;

use super::identity::{INCARNATION_MAX, Identity, NameKey};

/// Postcard plus the identities that were heard recently. The SWIM library owns its codec, so the engine keeps a second
/// handle.
#[derive(Clone, Debug, Default)]
pub(crate) struct GossipCodec(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    heard: BTreeMap<NameKey, Identity>,
    /// At most [`CLASHES_MAX`]; further ones are dropped, as the log already shows that names clash.
    clashes: Vec<(NodeName, SocketAddr)>,
}

impl GossipCodec {
    /// Replaces the identities that were heard recently: each one owns its name.
    pub(crate) fn set_heard(&self, heard: impl Iterator<Item = Identity>) {
        self.lock().heard = heard.map(|identity| (identity.key(), identity)).collect();
    }

    /// Adds an identity that was heard just now.
    pub(crate) fn add_heard(&self, identity: Identity) {
        self.lock().heard.insert(identity.key(), identity);
    }

    /// Names that a second host used, with its address, since the last call.
    pub(crate) fn take_clashes(&self) -> Vec<(NodeName, SocketAddr)> {
        std::mem::take(&mut self.lock().clashes)
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Codec<Identity> for GossipCodec {
    type Error = postcard::Error;

    fn encode_header(&mut self, header: &Header<Identity>, buf: impl BufMut) -> Result<(), postcard::Error> {
        PostcardCodec.encode_header(header, buf)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Identity>, postcard::Error> {
        PostcardCodec.decode_header(buf)
    }

    fn encode_member(&mut self, member: &Member<Identity>, buf: impl BufMut) -> Result<(), postcard::Error> {
        PostcardCodec.encode_member(member, buf)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Identity>, postcard::Error> {
        let member = PostcardCodec.decode_member(buf)?;
        let reported: &Identity = member.id();
        if reported.incarnation > INCARNATION_MAX {
            return Err(postcard::Error::SerdeDeCustom);
        }
        let mut guard = self.lock();
        let Known { heard, clashes } = &mut *guard;
        match heard.get(&reported.key()) {
            Some(known) if known.address != reported.address => {
                if clashes.len() < CLASHES_MAX {
                    clashes.push((reported.node().clone(), reported.address));
                }
                // Repeating what is known changes nothing.
                Ok(Member::alive(known.clone()))
            }
            // The member itself will announce its new incarnation.
            Some(known) if reported.incarnation > known.incarnation => Ok(Member::alive(known.clone())),
            _ => Ok(member),
        }
    }
}

const CLASHES_MAX: usize = 16;
