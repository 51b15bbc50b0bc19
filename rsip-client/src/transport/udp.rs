//! RSIP over UDP: one message a datagram. The socket is connected, so that the kernel drops what others send, and the
//! gateway's answers come back to the port that asked.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::Duration;

use rsip_proto::wire::MAX_MESSAGE_LEN;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::{Events, TransportError, TransportEvent};

/// After an error of the socket, so that one that stays does not spin.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) async fn run(gateway: SocketAddrV4, mut messages: mpsc::Receiver<Vec<u8>>, events: Events) {
    let socket = match open(gateway).await {
        Ok(socket) => socket,
        Err(error) => {
            events.tell(TransportEvent::Down(TransportError::Io(error))).await;
            return;
        }
    };
    if !events.tell(TransportEvent::Up).await {
        return;
    }
    let mut buffer = vec![0; MAX_MESSAGE_LEN];
    loop {
        let goes_on = tokio::select! {
            outgoing = messages.recv() => {
                let Some(bytes) = outgoing else { return };
                match socket.send(&bytes).await {
                    Ok(_) => true,
                    Err(error) => trouble(&events, error).await,
                }
            }
            received = socket.recv(&mut buffer) => match received {
                Ok(count) => events.message(buffer.get(..count).unwrap_or_default()).await,
                Err(error) => trouble(&events, error).await,
            },
        };
        if !goes_on {
            return;
        }
    }
}

async fn open(gateway: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0)).await?;
    socket.connect(gateway).await?;
    Ok(socket)
}

/// ICMP errors and a network that is down show as errors of the socket; the socket itself lives on.
async fn trouble(events: &Events, error: io::Error) -> bool {
    let goes_on = events.tell(TransportEvent::Unreachable(error)).await;
    tokio::time::sleep(PAUSE).await;
    goes_on
}
