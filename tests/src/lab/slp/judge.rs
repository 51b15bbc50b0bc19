//! What tshark's dissector for SLP (`srvloc`) sees on the wire.

use super::super::capture::Capture;
use super::super::error::{LabError, Result};

/// Everything that is about SLP. An ICMP error quotes a packet, which makes it none of its own.
const SLP: &str = "srvloc && !icmp";
/// Of TCP, a segment in the middle of a message is no error; a datagram that is no SLP is one.
const NOT_SLP: &str = "udp.port == 427 && !srvloc && !icmp";

/// A packet as tshark reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Where it comes from.
    pub source: String,
    /// Where it goes.
    pub destination: String,
    /// Time to live, in hops.
    pub ttl: u8,
    /// The message type (RFC 2608 section 8).
    pub function: u8,
    /// Transaction ID.
    pub xid: u16,
    /// The URLs in it.
    pub urls: String,
    /// Its service type, scope list and predicate, in a SrvRqst; its attributes in what has them.
    pub strings: [String; 4],
}

/// All SLP packets of a capture.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// Those that tshark read.
    pub packets: Vec<Packet>,
    /// What it could not read, or found malformed.
    pub bad: Vec<String>,
}

/// Lets tshark judge every SLP packet of a capture.
///
/// # Errors
/// Where tshark fails.
pub fn judge(capture: &Capture) -> Result<Verdict> {
    const FIELDS: [&str; 15] = [
        "ip.src",
        "ip.dst",
        "ip.ttl",
        "srvloc.function",
        "srvloc.xid",
        "srvloc.url.url",
        "srvloc.attrreq.url",
        "srvloc.daadvert.url",
        "srvloc.saadvert.url",
        "srvloc.srvreq.srvtypelist",
        "srvloc.srvreq.scopelist",
        "srvloc.srvreq.predicate",
        "srvloc.srvreq.attrlist",
        "srvloc.attrrply.attrlist",
        "srvloc.version",
    ];
    let mut verdict = Verdict::default();
    for row in capture.fields(SLP, &FIELDS)? {
        let field = |at: usize| row.get(at).cloned().unwrap_or_default();
        let first = |at: usize| field(at).split(',').next().unwrap_or_default().to_owned();
        if field(14).split(',').any(|version| version != "2") {
            verdict.bad.push(format!("version {}: {row:?}", field(14)));
        }
        let strings = [field(9), field(10), field(11), field(12) + &field(13)];
        verdict.packets.push(Packet {
            source: first(0),
            destination: first(1),
            ttl: first(2).parse().unwrap_or_default(),
            function: first(3).parse().unwrap_or_default(),
            xid: first(4).parse().unwrap_or_default(),
            urls: [field(5), field(6), field(7), field(8)].concat(),
            strings,
        });
    }
    for filter in ["_ws.malformed && !icmp", NOT_SLP] {
        for row in
            capture.fields(filter, &["frame.number", "ip.src", "ip.dst", "udp.payload", "tcp.payload"])?
        {
            verdict.bad.push(format!("{filter}: {}", row.join(" ")));
        }
    }
    Ok(verdict)
}

impl Verdict {
    /// Fails unless there were packets and tshark found each of them well formed.
    ///
    /// # Errors
    /// [`LabError::Unexpected`].
    pub fn expect_clean(&self) -> Result<()> {
        if !self.packets.is_empty() && self.bad.is_empty() {
            return Ok(());
        }
        Err(LabError::Unexpected {
            what: "SLP on the wire, as tshark sees it".into(),
            expected: "some packets, all of them well formed".into(),
            seen: format!("{self:?}"),
        })
    }

    /// The packets of a type that a machine sent.
    #[must_use]
    pub fn sent(&self, source: std::net::Ipv4Addr, function: u8) -> Vec<&Packet> {
        let source = source.to_string();
        self.packets.iter().filter(|one| one.source == source && one.function == function).collect()
    }
}
