//! Reads the table of cases, for the decoder's test and for any test that plays a peer.

use metallb_bgp::types::Asn;
use metallb_bgp::wire::DecodeContext;

/// One row of the table.
pub(crate) struct Case {
    pub(crate) id: &'static str,
    pub(crate) context: DecodeContext,
    /// The whole message; `None` where one message alone shows nothing.
    pub(crate) bytes: Option<Vec<u8>>,
    pub(crate) reaction: String,
}

/// All rows.
pub(crate) fn cases() -> Vec<Case> {
    include_str!("bgp.txt").lines().filter(|line| !line.is_empty() && !line.starts_with('#')).map(parse).collect()
}

/// Bytes of the table's notation.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let mut text: String = text.chars().filter(|c| !c.is_whitespace()).collect();
    for (name, meaning) in NAMES {
        text = text.replace(name, meaning);
    }
    // The innermost repetition first.
    while let Some(close) = text.find(')') {
        let open = text[..close].rfind('(').expect("an opening parenthesis");
        let (what, times) = text[open + 1..close].split_once('*').expect("a count");
        let repeated = what.repeat(times.parse().expect("a number"));
        text.replace_range(open..=close, &repeated);
    }
    assert!(text.len().is_multiple_of(2), "{text}");
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).expect("hex")).collect()
}

fn parse(line: &'static str) -> Case {
    let mut columns = line.split(" | ").map(str::trim);
    let (id, context, message, reaction) = (columns.next(), columns.next(), columns.next(), columns.next());
    let message = message.expect("a message");
    Case {
        id: id.expect("an id"),
        context: parse_context(context.expect("a context")),
        bytes: (message != "-").then(|| parse_message(message)),
        reaction: reaction.unwrap_or_else(|| panic!("{line}")).to_owned(),
    }
}

fn parse_context(text: &str) -> DecodeContext {
    let mut parts = text.split('+');
    let kind = parts.next().expect("a kind");
    let mut context = DecodeContext {
        local_asn: Asn(64512),
        remote_asn: Asn(if kind.starts_with('i') { 64512 } else { 65001 }),
        four_octet_asn: kind.ends_with('4'),
        ..DecodeContext::default()
    };
    for part in parts {
        match part {
            "x" => context.extended_messages = true,
            "r" => context.enhanced_refresh = true,
            "n" => context.extended_next_hop = true,
            "4" => context.ipv6 = false,
            other => panic!("{other}"),
        }
    }
    context
}

fn parse_message(text: &str) -> Vec<u8> {
    let (kind, rest) = text.split_once(' ').expect("a kind");
    let (code, body) = match kind {
        "raw" => return hex(rest),
        "open" => (1, hex(rest)),
        "notify" => (3, hex(rest)),
        "body" => (2, hex(rest)),
        "update" => {
            let parts: Vec<Vec<u8>> = rest.split('/').map(hex).collect();
            let [withdrawn, attributes, prefixes] = parts.as_slice() else { panic!("{text}") };
            let length = |part: &[u8]| (part.len() as u16).to_be_bytes();
            (2, [&length(withdrawn), withdrawn.as_slice(), &length(attributes), attributes, prefixes].concat())
        }
        other => panic!("{other}"),
    };
    message(code, &body)
}

/// A message with its header.
pub(crate) fn message(code: u8, body: &[u8]) -> Vec<u8> {
    let length = (19 + body.len()) as u16;
    [&[0xff; 16][..], &length.to_be_bytes(), &[code], body].concat()
}

const NAMES: [(&str, &str); 9] = [
    ("MK", "ffffffffffffffffffffffffffffffff"),
    ("$A", "$O$P$H"),
    ("$O", "40010100"),
    ("$P", "40020602010000fde9"),
    ("$2", "4002040201fde9"),
    ("$I", "400200"),
    ("$H", "4003040a000001"),
    ("$N", "18c00002"),
    ("$F", "04fde9005a0a000001"),
];
