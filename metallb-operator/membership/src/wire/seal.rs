//! Sealed datagrams: XChaCha20-Poly1305 under a key derived from the cluster's Secret, so that only speakers are
//! accepted.
//!
//! Layout: version (1), key id (4), session of the sender (8), sequence number (8), then the encrypted body and its tag
//! (16). The bytes before the body are authenticated with it. Session and sequence number form the nonce. A new random
//! session is drawn at each start and its sequence numbers only grow, so no nonce is used twice.

use std::fmt;

use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{KeyInit as _, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use sha2::Sha256;
use thiserror::Error;

/// The keys of a cluster: all are accepted, the first one seals. Without a key datagrams are sent in plain text.
#[derive(Clone, Default)]
pub struct Keyring {
    keys: Vec<Key>,
}

#[derive(Clone)]
struct Key {
    id: [u8; 4],
    cipher: XChaCha20Poly1305,
}

/// Why a datagram cannot be opened.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum SealError {
    /// It is too short, too long or of an unknown version.
    #[error("malformed datagram")]
    Malformed,
    /// It is sealed where plain text is expected, or the other way round.
    #[error("sealed and plain datagrams mixed")]
    Mode,
    /// No key of the ring has this id.
    #[error("unknown key")]
    UnknownKey,
    /// It was not sealed with the key that it names, or was changed in transit.
    #[error("authentication failed")]
    Forged,
}

/// An opened datagram.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Opened {
    /// The sender's session.
    pub session: u64,
    /// The sequence number in that session.
    pub sequence: u64,
    /// The decrypted body.
    pub body: Vec<u8>,
}

impl Keyring {
    /// Derives keys from secrets; the first one seals. Empty secrets are skipped.
    #[must_use]
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Self {
        Self { keys: secrets.into_iter().filter(|secret| !secret.is_empty()).map(Key::derive).collect() }
    }

    /// Whether there is no key, so that datagrams are plain text.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.keys.is_empty()
    }

    /// Seals a body. A pair of session and sequence number must not be used twice.
    #[must_use]
    pub fn seal(&self, session: u64, sequence: u64, body: &[u8]) -> Vec<u8> {
        let mut datagram = Vec::with_capacity(OVERHEAD + body.len());
        datagram.push(if self.is_plain() { PLAIN } else { SEALED });
        datagram.extend(self.keys.first().map_or([0; 4], |key| key.id));
        datagram.extend(session.to_be_bytes());
        datagram.extend(sequence.to_be_bytes());
        match self.keys.first() {
            None => datagram.extend(body),
            Some(key) => {
                let payload = Payload { msg: body, aad: &datagram };
                match key.cipher.encrypt(&nonce(session, sequence), payload) {
                    Ok(sealed) => datagram.extend(sealed),
                    // Encryption fails only for bodies of hundreds of gigabytes. Every receiver rejects a bare header.
                    Err(_) => datagram.truncate(HEADER),
                }
            }
        }
        datagram
    }

    /// Opens a datagram.
    ///
    /// # Errors
    /// It was not sealed by a member of the cluster.
    pub fn open(&self, datagram: &[u8]) -> Result<Opened, SealError> {
        if datagram.len() > DATAGRAM_MAX {
            return Err(SealError::Malformed);
        }
        let (header, body) = datagram.split_at_checked(HEADER).ok_or(SealError::Malformed)?;
        let number = |bytes: &[u8]| bytes.iter().fold(0_u64, |number, &byte| number << 8 | u64::from(byte));
        let (&version, rest) = header.split_first().ok_or(SealError::Malformed)?;
        let (id, rest) = rest.split_at(4);
        let (session, sequence) = rest.split_at(8);
        let (session, sequence) = (number(session), number(sequence));
        match version {
            PLAIN | SEALED if (version == PLAIN) != self.is_plain() => Err(SealError::Mode),
            PLAIN => Ok(Opened { session, sequence, body: body.to_vec() }),
            SEALED => {
                let key = self.keys.iter().find(|key| key.id == id).ok_or(SealError::UnknownKey)?;
                let payload = Payload { msg: body, aad: header };
                let body = key.cipher.decrypt(&nonce(session, sequence), payload).map_err(|_| SealError::Forged)?;
                Ok(Opened { session, sequence, body })
            }
            _ => Err(SealError::Malformed),
        }
    }
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keyring").field("keys", &self.keys.len()).finish_non_exhaustive()
    }
}

impl Key {
    fn derive(secret: &[u8]) -> Self {
        let derivation = Hkdf::<Sha256>::new(None, secret);
        let (mut key, mut id) = ([0; 32], [0; 4]);
        // HKDF fails only for outputs longer than 255 hashes.
        let _ = derivation.expand(b"metallb membership v1 key", &mut key);
        let _ = derivation.expand(b"metallb membership v1 key id", &mut id);
        Self { id, cipher: XChaCha20Poly1305::new(&key.into()) }
    }
}

fn nonce(session: u64, sequence: u64) -> XNonce {
    let mut nonce = [0; 24];
    nonce[..8].copy_from_slice(&session.to_be_bytes());
    nonce[8..16].copy_from_slice(&sequence.to_be_bytes());
    nonce.into()
}

const PLAIN: u8 = 0;
const SEALED: u8 = 1;
const HEADER: usize = 21;

/// The bytes that sealing adds to a body.
pub const OVERHEAD: usize = HEADER + 16;

/// The longest datagram: it passes every link unfragmented.
pub const DATAGRAM_MAX: usize = 1400;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_datagram_opens_only_with_the_same_key() {
        let (ours, theirs) = (Keyring::new([&b"secret"[..]]), Keyring::new([&b"other"[..]]));
        let datagram = ours.seal(7, 9, b"body");
        assert_eq!(datagram.len(), OVERHEAD + 4);
        assert_eq!(ours.open(&datagram), Ok(Opened { session: 7, sequence: 9, body: b"body".to_vec() }));
        assert_eq!(theirs.open(&datagram), Err(SealError::UnknownKey));
        assert_eq!(Keyring::default().open(&datagram), Err(SealError::Mode));
        assert_eq!(ours.open(&Keyring::default().seal(7, 9, b"body")), Err(SealError::Mode));
    }

    #[test]
    fn datagram_with_a_changed_bit_or_length_is_rejected() {
        let keys = Keyring::new([&b"secret"[..]]);
        let datagram = keys.seal(7, 9, b"body");
        for bit in 0..datagram.len() * 8 {
            let mut changed = datagram.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(keys.open(&changed).is_err(), "bit {bit}");
        }
        for length in 0..datagram.len() {
            assert!(keys.open(&datagram[..length]).is_err(), "length {length}");
        }
        assert_eq!(keys.open(&[1; DATAGRAM_MAX + 1]), Err(SealError::Malformed));
    }

    #[test]
    fn key_rotation_in_two_steps_keeps_every_datagram_readable() {
        let old = Keyring::new([&b"old"[..]]);
        let both = Keyring::new([&b"old"[..], b"new"]);
        let swapped = Keyring::new([&b"new"[..], b"old"]);
        for (from, to) in [(&old, &both), (&both, &old), (&both, &swapped), (&swapped, &both)] {
            assert!(to.open(&from.seal(1, 1, b"x")).is_ok());
        }
        assert_eq!(old.open(&swapped.seal(1, 1, b"x")), Err(SealError::UnknownKey));
    }
}
