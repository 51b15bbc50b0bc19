//! Whether an SLP daemon listens on this host, and whether it still has what was registered with it.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rsip_slp::template;
use rsip_slp::wire::message::{SrvRply, SrvRqst};
use rsip_slp::wire::{Body, Flags, Framer, Message};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// A daemon of this host answers at once, or there is none.
const PATIENCE: Duration = Duration::from_secs(1);
/// Transaction ID of the only request ever sent from its socket.
const XID: u16 = 1;
/// No answer to a question about one gateway is longer.
const LONGEST: usize = 64 * 1024;

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

/// What a daemon has of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Memory {
    /// It is there, or the answer does not say.
    Kept,
    /// It is not: the daemon was started anew.
    Lost,
    /// Nobody answers.
    Gone,
}

/// Whether the daemon at `at` has `url`, registered in `scopes`. RFC 2608 has no word for "I was started anew" to a program of
/// the daemon's own host (that is what boot times of DAAdverts tell others), so it is asked for the service.
pub(super) async fn remembers(at: SocketAddrV4, way: Way, url: &str, scopes: &str) -> Memory {
    let request = SrvRqst {
        service_type: template::SERVICE_TYPE.to_owned(),
        scopes: scopes.to_owned(),
        ..SrvRqst::default()
    };
    let exchange = async {
        let bytes = encode(request)?;
        match way {
            Way::Stream => over_stream(at, &bytes).await,
            Way::Datagram => over_datagram(at, &bytes).await,
        }
    };
    let Ok(Ok(reply)) = timeout(PATIENCE, exchange).await else { return Memory::Gone };
    match Message::parse(&reply) {
        Ok(Message { xid: XID, flags, body: Body::SrvRply(SrvRply { error: None, entries }), .. })
            if !flags.overflow && !entries.iter().any(|entry| entry.url.eq_ignore_ascii_case(url)) =>
        {
            Memory::Lost
        }
        Ok(_) | Err(_) => Memory::Kept,
    }
}

/// Whoever speaks SLP answers a unicast request, if only that there is nothing (RFC 2608 section 8.2).
async fn answers(at: SocketAddrV4) -> io::Result<bool> {
    let request = SrvRqst { service_type: "service:directory-agent".to_owned(), ..SrvRqst::default() };
    let reply = over_datagram(at, &encode(request)?).await?;
    let xid = match Message::parse(&reply) {
        Ok(message) => Some(message.xid),
        Err(error) => error.header.map(|header| header.xid),
    };
    Ok(xid == Some(XID))
}

fn encode(request: SrvRqst) -> io::Result<Vec<u8>> {
    let language = "en".to_owned();
    let message = Message { flags: Flags::default(), xid: XID, language, body: Body::SrvRqst(request) };
    message.encode().map_err(io::Error::other)
}

async fn over_datagram(at: SocketAddrV4, request: &[u8]) -> io::Result<Vec<u8>> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    // Connected: where nobody listens the kernel says so at once.
    socket.connect(at).await?;
    socket.send(request).await?;
    let mut buffer = vec![0; 2048];
    let length = socket.recv(&mut buffer).await?;
    buffer.truncate(length);
    Ok(buffer)
}

async fn over_stream(at: SocketAddrV4, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(at).await?;
    stream.write_all(request).await?;
    let mut framer = Framer::new(LONGEST);
    let mut piece = [0; 2048];
    loop {
        let length = stream.read(&mut piece).await?;
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        framer.push(piece.get(..length).unwrap_or_default());
        if let Some(message) = framer.next_message().map_err(io::Error::other)? {
            return Ok(message);
        }
    }
}
