//! How gossip is written: postcard, except that a second host under a name that lives is not believed, nor what others say of a life
//! that such a one has not begun.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf, BufMut};
use foca::{Codec, Header, Member, PostcardCodec};
use metallb_core::model::NodeName;

use crate::wire::identity::{Identity, LIFE_MAX, NameKey};

/// Postcard with the addresses of those that were heard lately. The engine keeps a second handle, as the protocol owns its codec.
#[derive(Clone, Debug, Default)]
pub(crate) struct GossipCodec(Arc<Mutex<Known>>);

#[derive(Debug, Default)]
struct Known {
    heard: BTreeMap<NameKey, Identity>,
    clashes: Vec<(NodeName, SocketAddr)>,
}

impl GossipCodec {
    /// Replaces those that were heard lately: their names belong to them.
    pub(crate) fn set_heard(&self, heard: impl Iterator<Item = Identity>) {
        self.lock().heard = heard.map(|identity| (identity.key(), identity)).collect();
    }

    /// One that was heard just now.
    pub(crate) fn hear(&self, identity: Identity) {
        self.lock().heard.insert(identity.key(), identity);
    }

    /// Names that a second host used since the last call.
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
        let told: &Identity = member.id();
        if told.life > LIFE_MAX {
            return Err(postcard::Error::SerdeDeCustom);
        }
        let mut guard = self.lock();
        let Known { heard, clashes } = &mut *guard;
        match heard.get(&told.key()) {
            Some(known) if known.address != told.address => {
                if clashes.len() < CLASHES_MAX {
                    clashes.push((told.node().clone(), told.address));
                }
                // What is known already changes nothing.
                Ok(Member::alive(known.clone()))
            }
            // It will tell us itself.
            Some(known) if told.life > known.life => Ok(Member::alive(known.clone())),
            _ => Ok(member),
        }
    }
}

const CLASHES_MAX: usize = 16;
