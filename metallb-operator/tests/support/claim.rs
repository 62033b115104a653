//! "This address is mine", said on the segment by whoever is made to say it.

use super::netns::Namespace;

/// Announces an IPv4 address from the card of a namespace, as its owner would (RFC 5227 §3).
pub(crate) fn claim(namespace: &Namespace, ip: &str) {
    let mac = namespace.mac("eth0");
    let script = format!(
        "import socket; m = bytes.fromhex('{}'); ip = socket.inet_aton('{ip}'); \
         s = socket.socket(socket.AF_PACKET, socket.SOCK_RAW); s.bind(('eth0', 0)); \
         s.send(b'\\xff' * 6 + m + bytes([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]) + m + ip + bytes(6) + ip)",
        mac.replace(':', "")
    );
    namespace.must(&format!("python3 -c \"{script}\""));
}
