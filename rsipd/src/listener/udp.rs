//! Datagrams: one message each, answered from the address that was asked.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::sync::mpsc;

use super::Input;

/// Reads until the daemon listens no more. While the channel is full the kernel's buffer fills, and then drops: hosts
/// send again.
pub async fn serve(socket: Arc<UdpSocket>, inputs: mpsc::Sender<Input>) {
    // The largest datagram there is: one that is cut off would look like a message with a wrong length.
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        match socket.recv_from(&mut buffer).await {
            Ok((length, SocketAddr::V4(from))) => {
                let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                if inputs.send(Input::Datagram { from, bytes }).await.is_err() {
                    return;
                }
            }
            Ok((_, SocketAddr::V6(_))) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot receive datagrams");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}
