//! Connections: those of hosts with requests that do not fit into datagrams, and those to directory agents and daemons.

use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::time::Duration;

use rsip_slp::agent::CLOSE_IDLE;
use rsip_slp::wire::Framer;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::session::Input;

/// Connections at the same time.
const CONNECTIONS: usize = 32;
/// Of one host.
const PER_HOST: usize = 4;
/// Answers that wait for a slow host.
const ANSWERS: usize = 4;
/// The longest message that is taken, in bytes.
const LONGEST: usize = 64 * 1024;
/// Bytes that are read at a time.
const PIECE: usize = 4096;
/// Connections that are opened get so long: CONFIG_RETRY_MAX.
const PATIENCE: Duration = Duration::from_secs(15);

/// Accepts connections as long as somebody takes what comes.
pub(super) async fn accept(listener: TcpListener, inputs: mpsc::Sender<Input>) {
    let mut open: BTreeMap<Ipv4Addr, usize> = BTreeMap::new();
    let mut tasks = JoinSet::new();
    let mut last = 0;
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = tasks.join_next() => {
                if let Ok(host) = ended
                    && let Some(count) = open.get_mut(&host)
                {
                    *count -= 1;
                    if *count == 0 {
                        open.remove(&host);
                    }
                }
                continue;
            }
            () = inputs.closed() => return,
        };
        match accepted {
            Ok((stream, SocketAddr::V4(from))) => {
                let count = open.entry(*from.ip()).or_default();
                if tasks.len() >= CONNECTIONS || *count >= PER_HOST {
                    tracing::debug!(%from, "too many SLP connections: closed");
                    if *count == 0 {
                        open.remove(from.ip());
                    }
                    continue;
                }
                *count += 1;
                last += 1;
                tasks.spawn(serve(last, from, stream, inputs.clone()));
            }
            Ok((_, SocketAddr::V6(_))) => {}
            Err(error) => {
                tracing::debug!(%error, "cannot accept SLP connections");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// One connection, until it ends or rests too long; answers whose it was.
async fn serve(id: u64, from: SocketAddrV4, stream: TcpStream, inputs: mpsc::Sender<Input>) -> Ipv4Addr {
    let (outbox, answers) = mpsc::channel(ANSWERS);
    if inputs.send(Input::Opened { id, outbox }).await.is_ok() {
        if let Err(error) = converse(id, from, stream, answers, &inputs).await {
            tracing::debug!(%from, %error, "SLP connection ended");
        }
        // Where nobody takes it any more, nobody has to know.
        drop(inputs.send(Input::Closed { id }).await);
    }
    *from.ip()
}

async fn converse(
    id: u64,
    from: SocketAddrV4,
    mut stream: TcpStream,
    mut answers: mpsc::Receiver<Vec<u8>>,
    inputs: &mpsc::Sender<Input>,
) -> io::Result<()> {
    let mut framer = Framer::new(LONGEST);
    let mut piece = [0; PIECE];
    loop {
        tokio::select! {
            read = timeout(CLOSE_IDLE, stream.read(&mut piece)) => {
                let length = read??;
                if length == 0 {
                    return Ok(());
                }
                framer.push(piece.get(..length).unwrap_or_default());
                while let Some(bytes) = framer.next_message().map_err(io::Error::other)? {
                    if inputs.send(Input::Request { id, from, bytes }).await.is_err() {
                        return Ok(());
                    }
                }
            }
            answer = answers.recv() => {
                let Some(bytes) = answer else { return Ok(()) };
                timeout(CLOSE_IDLE, stream.write_all(&bytes)).await??;
            }
        }
    }
}

/// Sends a message over a new connection, and hands in what comes back.
pub(super) async fn ask(
    to: SocketAddrV4,
    bytes: Vec<u8>,
    device: Option<String>,
    inputs: mpsc::Sender<Input>,
) {
    let input = match timeout(PATIENCE, ask_once(to, &bytes, device.as_deref())).await {
        Ok(Ok(bytes)) => Input::Reply { from: to, bytes },
        Ok(Err(error)) => {
            tracing::debug!(%to, %error, "SLP connection failed");
            Input::Failed { to }
        }
        Err(_) => Input::Failed { to },
    };
    // Where nobody takes it any more, nobody has to know.
    drop(inputs.send(input).await);
}

async fn ask_once(to: SocketAddrV4, bytes: &[u8], device: Option<&str>) -> io::Result<Vec<u8>> {
    let socket = TcpSocket::new_v4()?;
    if let Some(device) = device {
        socket.bind_device(Some(device.as_bytes()))?;
    }
    let mut stream = socket.connect(SocketAddr::V4(to)).await?;
    stream.write_all(bytes).await?;
    let mut framer = Framer::new(LONGEST);
    let mut piece = [0; PIECE];
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
