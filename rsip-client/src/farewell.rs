//! Ending a registration that belongs to a private address which the host has no more.
//!
//! Only the address that registered may end a registration (RFC 3103 section 10.6), and until it is ended the gateway keeps its
//! ports from everybody, the same host at its new address included. So the farewell is said in datagrams with the old address
//! as their source (IP_TRANSPARENT; that of another host by now harms nobody: the client ID names a registration of ours).
//! While the old address is still there an answer comes back; after that nobody hears it.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket as StdSocket};
use std::time::Duration;
use std::{io, net::IpAddr};

use rsip_proto::ids::{ClientId, MessageCounter};
use rsip_proto::wire::{Body, MAX_MESSAGE_LEN, Message};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::UdpSocket;

/// Before each copy but the first, and after the last one.
const PAUSES: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(100), Duration::from_millis(200)];

/// How it ended.
#[derive(Debug)]
pub enum Farewell {
    /// The gateway answered: it has let go of everything.
    Confirmed,
    /// It was said, and no answer could come or came.
    Said,
    /// It could not be said.
    Failed(io::Error),
}

/// De-registers `client_id` from the address `from`.
pub async fn say(gateway: SocketAddrV4, client_id: ClientId, from: Ipv4Addr) -> Farewell {
    match exchange(gateway, client_id, from).await {
        Ok(true) => Farewell::Confirmed,
        Ok(false) => Farewell::Said,
        Err(error) => Farewell::Failed(error),
    }
}

async fn exchange(gateway: SocketAddrV4, client_id: ClientId, from: Ipv4Addr) -> io::Result<bool> {
    let socket = open(from)?;
    let message = Message::new(MessageCounter::FIRST, Body::DeRegisterRequest { client_id });
    let bytes = message.encode().map_err(io::Error::other)?;
    for pause in PAUSES {
        socket.send_to(&bytes, gateway).await?;
        if tokio::time::timeout(pause, answer(&socket, gateway)).await.unwrap_or(false) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Whether the gateway says something: that it is done, or that it does not know the registration any more, which is as good.
async fn answer(socket: &UdpSocket, gateway: SocketAddrV4) -> bool {
    let mut buffer = vec![0; MAX_MESSAGE_LEN];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((count, SocketAddr::V4(peer))) if peer == gateway => {
                if buffer.get(..count).is_some_and(|bytes| Message::parse(bytes).is_ok()) {
                    return true;
                }
            }
            Ok(_) => {}
            Err(_) => return false,
        }
    }
}

fn open(from: Ipv4Addr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_ip_transparent_v4(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SocketAddr::new(IpAddr::V4(from), 0).into())?;
    UdpSocket::from_std(StdSocket::from(socket))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_answer_ends_it_and_silence_does_not_hold_it_up() {
        let gateway = UdpSocket::bind("127.0.0.1:0").await.expect("free");
        let SocketAddr::V4(address) = gateway.local_addr().expect("bound") else { panic!("IPv4") };
        let silent = say(address, ClientId(7), Ipv4Addr::LOCALHOST).await;
        if let Farewell::Failed(error) = &silent {
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "it takes CAP_NET_ADMIN");
            return;
        }
        assert!(matches!(silent, Farewell::Said), "{silent:?}");
        let answering = async {
            let mut buffer = vec![0; MAX_MESSAGE_LEN];
            loop {
                let (count, peer) = gateway.recv_from(&mut buffer).await.expect("a datagram");
                let asked = Message::parse(&buffer[..count]).expect("a message");
                assert_eq!(asked.body, Body::DeRegisterRequest { client_id: ClientId(7) });
                gateway.send_to(b"rubbish", peer).await.expect("sent");
                let body = Body::DeRegisterResponse { client_id: ClientId(7) };
                let bytes = Message { counter: asked.counter, body }.encode().expect("it can be written");
                gateway.send_to(&bytes, peer).await.expect("sent");
            }
        };
        tokio::select! {
            () = answering => {}
            outcome = say(address, ClientId(7), Ipv4Addr::LOCALHOST) => {
                assert!(matches!(outcome, Farewell::Confirmed), "{outcome:?}");
            }
        }
    }
}
