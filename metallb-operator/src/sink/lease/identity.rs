//! The identity of a process in the Lease.

use std::fmt;

/// Identity of a process, and of the Pod that it runs in.
///
/// The text is `<pod name>_<pod uid>_<nonce>`: neither a Pod's name nor its uid may contain `_`, the nonce is
/// hexadecimal. The uid is empty where it is not known, or while another process of the Pod holds the Pod's lock.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    pod: String,
    uid: Option<PodUid>,
    nonce: u64,
}

impl Identity {
    /// The identity of this process. `pod` may be empty outside of a Pod; an invalid `uid` is ignored.
    #[must_use]
    pub fn new(pod: &str, uid: Option<&str>) -> Self {
        Self { pod: pod.replace('_', "-"), uid: uid.and_then(PodUid::parse), nonce: crate::sys::seed() }
    }

    /// The name of the Pod; empty outside of a Pod.
    #[must_use]
    pub fn pod(&self) -> &str {
        &self.pod
    }

    /// The uid of the Pod, where it is known.
    pub(super) const fn uid(&self) -> Option<&PodUid> {
        self.uid.as_ref()
    }

    /// The same process with another uid of its Pod.
    pub(super) fn with_uid(&self, uid: Option<PodUid>) -> Self {
        Self { uid, ..self.clone() }
    }

    /// Reads the holder of a Lease; `None` for one that has another form.
    pub(super) fn parse(holder: &str) -> Option<Self> {
        let mut parts = holder.rsplitn(3, '_');
        let nonce = u64::from_str_radix(parts.next()?, 16).ok()?;
        let (uid, pod) = (PodUid::parse(parts.next()?), parts.next()?.to_owned());
        Some(Self { pod, uid, nonce })
    }

    /// Whether both are the same process, with or without the uid of its Pod.
    pub(super) fn is_same_process(&self, other: &Self) -> bool {
        (&self.pod, self.nonce) == (&other.pod, other.nonce)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let uid = self.uid.as_ref().map_or("", PodUid::as_str);
        write!(f, "{}_{uid}_{:x}", self.pod, self.nonce)
    }
}

/// The uid of a Pod: never empty, at most 63 letters, digits, `-` and `.`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct PodUid(String);

impl PodUid {
    /// `None` for a text that cannot be one.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.');
        let text = text.trim();
        ((1..=63).contains(&text.len()) && text.bytes().all(is_allowed)).then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_written_as_text_reads_back_the_same() {
        for uid in [Some("8a1c0d2e-1111-4222-8333-444455556666"), None] {
            for pod in ["controller-7f5d-x2x", "", "a.b"] {
                let identity = Identity::new(pod, uid);
                let read = Identity::parse(&identity.to_string()).unwrap();
                assert_eq!(read, identity, "{identity}");
                assert!(read.is_same_process(&identity.with_uid(None)), "{identity}");
            }
        }
    }

    #[test]
    fn identity_of_another_form_is_none() {
        // Of an earlier release, of client-go, and of nobody.
        for holder in ["controller-7f5d_1f", "host_8a1c0d2e-1111-4222-8333-444455556666", "", "__", "a_b_nonce"] {
            assert_eq!(Identity::parse(holder), None, "{holder}");
        }
    }

    #[test]
    fn pod_uid_that_would_break_the_text_is_none() {
        for uid in ["", " ", "a_b", "a/b", &"x".repeat(64)] {
            assert_eq!(PodUid::parse(uid), None, "{uid:?}");
        }
    }
}
