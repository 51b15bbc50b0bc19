//! RSIP over TCP: a stream, cut into messages by their own lengths.

use std::net::SocketAddrV4;
use std::time::Duration;

use rsip_proto::wire::Framer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;

use super::{CONNECT_TIMEOUT, Events, TransportError, TransportEvent};

/// A gateway that takes nothing for this long is lost.
const WRITE_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn run(gateway: SocketAddrV4, messages: mpsc::Receiver<Vec<u8>>, events: Events) {
    if let Err(error) = talk(gateway, messages, &events).await {
        events.tell(TransportEvent::Down(error)).await;
    }
}

async fn talk(
    gateway: SocketAddrV4,
    mut messages: mpsc::Receiver<Vec<u8>>,
    events: &Events,
) -> Result<(), TransportError> {
    let mut stream = timeout(CONNECT_TIMEOUT, TcpStream::connect(gateway))
        .await
        .map_err(|_| TransportError::ConnectTimeout)??;
    // Requests are small, and each waits for its answer.
    stream.set_nodelay(true)?;
    if !events.tell(TransportEvent::Up).await {
        return Ok(());
    }
    let (mut reader, mut writer) = stream.split();
    let mut framer = Framer::new();
    let mut buffer = vec![0; 4096];
    loop {
        tokio::select! {
            outgoing = messages.recv() => {
                let Some(bytes) = outgoing else { return Ok(()) };
                timeout(WRITE_TIMEOUT, writer.write_all(&bytes))
                    .await
                    .map_err(|_| TransportError::Io(std::io::ErrorKind::TimedOut.into()))??;
            }
            read = reader.read(&mut buffer) => {
                let count = read?;
                if count == 0 {
                    return Err(TransportError::Closed);
                }
                framer.push(buffer.get(..count).unwrap_or_default());
                while let Some(message) = framer.next_message() {
                    let message = message.map_err(TransportError::NotRsip)?;
                    if !events.message(&message).await {
                        return Ok(());
                    }
                }
            }
        }
    }
}
