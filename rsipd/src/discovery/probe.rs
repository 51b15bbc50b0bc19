//! Whether an SLP daemon listens on this host.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rsip_slp::wire::message::SrvRqst;
use rsip_slp::wire::{Body, Flags, Message};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// A daemon of this host answers at once, or there is none.
const PATIENCE: Duration = Duration::from_secs(1);
/// Transaction ID of the only request ever sent from its socket.
const XID: u16 = 1;

/// How a daemon takes registrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// By connections: that is what programs usually do.
    Stream,
    /// By datagrams alone.
    Datagram,
}

/// The way to the daemon at `at`; nothing: there is none.
pub(super) async fn find(at: SocketAddrV4) -> Option<Way> {
    if let Ok(Ok(_)) = timeout(PATIENCE, TcpStream::connect(at)).await {
        return Some(Way::Stream);
    }
    let answers = timeout(PATIENCE, answers(at)).await;
    matches!(answers, Ok(Ok(true))).then_some(Way::Datagram)
}

/// Whoever speaks SLP answers a unicast request, if only that there is nothing (RFC 2608 section 8.2).
async fn answers(at: SocketAddrV4) -> std::io::Result<bool> {
    let request = SrvRqst { service_type: "service:directory-agent".to_owned(), ..SrvRqst::default() };
    let language = "en".to_owned();
    let message = Message { flags: Flags::default(), xid: XID, language, body: Body::SrvRqst(request) };
    let bytes = message.encode().map_err(std::io::Error::other)?;
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    // Connected: where nobody listens the kernel says so at once.
    socket.connect(at).await?;
    socket.send(&bytes).await?;
    let mut buffer = [0; 2048];
    let length = socket.recv(&mut buffer).await?;
    let xid = match Message::parse(buffer.get(..length).unwrap_or_default()) {
        Ok(message) => Some(message.xid),
        Err(error) => error.header.map(|header| header.xid),
    };
    Ok(xid == Some(XID))
}
