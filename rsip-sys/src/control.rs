//! Control socket of a daemon: a unix stream socket in its run directory; one request a connection.
//!
//! ```text
//! client: {"dump":null}\n          one line of JSON, at most 64 KiB
//! daemon: {"ok":{…}}\n             or {"error":"why"}\n
//! ```
//!
//! The caller must be root or the daemon's own user. A caller that is slow or sends nonsense costs one of a few places
//! for a few seconds and nothing else. The daemon's owner task gets [`Call`]s over a bounded channel and answers each
//! when it can; a call that is dropped unanswered becomes an error at the caller.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;

use crate::exit::{ExitCode, Failure};

/// Longest request line, in bytes.
const MAX_REQUEST: u64 = 64 * 1024;
/// Longest answer line that a client takes, in bytes: the table of a gateway with a million bindings fits.
const MAX_ANSWER: u64 = 512 * 1024 * 1024;
/// Callers served at the same time.
const MAX_CALLERS: usize = 16;
/// A request has to be there, and its answer to be read, within this.
const PEER_TIMEOUT: Duration = Duration::from_secs(5);

/// One line from the daemon.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Envelope<T> {
    Ok(T),
    Error(String),
}

/// A request on its way to the owner task.
#[derive(Debug)]
pub struct Call<Req, Resp> {
    /// What is asked.
    pub request: Req,
    reply: oneshot::Sender<Result<Resp, String>>,
}

impl<Req, Resp> Call<Req, Resp> {
    /// Answers; a caller that has gone is no error.
    pub fn answer(self, answer: Result<Resp, String>) {
        drop(self.reply.send(answer));
    }

    /// The request, and a place to put the answer later.
    pub fn split(self) -> (Req, Reply<Resp>) {
        (self.request, Reply(self.reply))
    }
}

/// Where one answer goes.
#[derive(Debug)]
pub struct Reply<Resp>(oneshot::Sender<Result<Resp, String>>);

impl<Resp> Reply<Resp> {
    /// Answers; a caller that has gone is no error.
    pub fn answer(self, answer: Result<Resp, String>) {
        drop(self.0.send(answer));
    }
}

/// Serves the socket at `path` until dropped: calls arrive on `calls`. A file left there by a dead daemon is replaced:
/// only the holder of the run directory's lock calls this.
///
/// # Errors
/// When the socket cannot be made.
pub fn serve<Req, Resp>(path: &Path, calls: mpsc::Sender<Call<Req, Resp>>) -> io::Result<ControlServer>
where
    Req: DeserializeOwned + Send + 'static,
    Resp: Serialize + Send + 'static,
{
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    let task = tokio::spawn(accept(listener, calls));
    Ok(ControlServer { path: path.to_owned(), task })
}

/// A served control socket; dropping it removes the socket.
#[derive(Debug)]
pub struct ControlServer {
    path: PathBuf,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for ControlServer {
    fn drop(&mut self) {
        self.task.abort();
        drop(std::fs::remove_file(&self.path));
    }
}

async fn accept<Req, Resp>(listener: UnixListener, calls: mpsc::Sender<Call<Req, Resp>>)
where
    Req: DeserializeOwned + Send + 'static,
    Resp: Serialize + Send + 'static,
{
    let places = Arc::new(Semaphore::new(MAX_CALLERS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _)) => {
                let calls = calls.clone();
                tokio::spawn(async move {
                    if let Err(error) = serve_caller(stream, calls).await {
                        tracing::debug!(%error, "control connection");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                // Out of descriptors, most likely: they come back.
                tracing::warn!(%error, "cannot accept on the control socket");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

async fn serve_caller<Req, Resp>(
    mut stream: UnixStream,
    calls: mpsc::Sender<Call<Req, Resp>>,
) -> io::Result<()>
where
    Req: DeserializeOwned,
    Resp: Serialize,
{
    let caller = stream.peer_cred()?.uid();
    let answer = if caller == 0 || caller == nix::unistd::geteuid().as_raw() {
        match timeout(PEER_TIMEOUT, read_request(&mut stream))
            .await
            .map_err(|_| io::ErrorKind::TimedOut)??
        {
            Ok(request) => ask(request, &calls).await,
            Err(why) => Err(why),
        }
    } else {
        Err(format!("user {caller} may not control this daemon"))
    };
    let envelope = match answer {
        Ok(answer) => Envelope::Ok(answer),
        Err(why) => Envelope::Error(why),
    };
    let mut line = serde_json::to_vec(&envelope)?;
    line.push(b'\n');
    timeout(PEER_TIMEOUT, stream.write_all(&line)).await.map_err(|_| io::ErrorKind::TimedOut)?
}

async fn read_request<Req: DeserializeOwned>(stream: &mut UnixStream) -> io::Result<Result<Req, String>> {
    let mut line = Vec::new();
    tokio::io::BufReader::new(stream.take(MAX_REQUEST)).read_until(b'\n', &mut line).await?;
    if line.last() != Some(&b'\n') {
        return Ok(Err("the request is no complete line, or too long".to_owned()));
    }
    Ok(serde_json::from_slice(&line).map_err(|error| format!("the request is not understood: {error}")))
}

async fn ask<Req, Resp>(request: Req, calls: &mpsc::Sender<Call<Req, Resp>>) -> Result<Resp, String> {
    let stopping = || "the daemon is stopping".to_owned();
    let (reply, answer) = oneshot::channel();
    calls.send(Call { request, reply }).await.map_err(|_| stopping())?;
    answer.await.map_err(|_| stopping())?
}

/// Why a call did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// No daemon listens there.
    #[error("not running: nothing answers at {}", .path.display())]
    NotRunning {
        /// The control socket.
        path: PathBuf,
    },
    /// Not allowed to look.
    #[error("no access to {}", .path.display())]
    NoAccess {
        /// The control socket.
        path: PathBuf,
    },
    /// The daemon answered with an error.
    #[error("{0}")]
    Refused(String),
    /// The daemon did not answer in time.
    #[error("no answer within {} s at {}", .after.as_secs_f32(), .path.display())]
    Timeout {
        /// The control socket.
        path: PathBuf,
        /// What the caller was willing to wait.
        after: Duration,
    },
    /// The answer is of another version, or not from a daemon of ours.
    #[error("the answer from {} is not understood", .path.display())]
    BadAnswer {
        /// The control socket.
        path: PathBuf,
        /// Where it stopped making sense.
        source: serde_json::Error,
    },
    /// The connection broke.
    #[error("talking to {}", .path.display())]
    Io {
        /// The control socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

impl CallError {
    /// The same for the end of `main`; `daemon` is what should be running.
    #[must_use]
    pub fn into_failure(self, daemon: &str) -> Failure {
        let failure = Failure::new(ExitCode::Failure, format!("{daemon} {self}"));
        match self {
            Self::NotRunning { .. } => {
                failure.hint("start it first, in this network namespace, or give its --run-dir")
            }
            Self::NoAccess { .. } => failure.hint("run as root"),
            Self::Refused(why) => Failure::new(ExitCode::Failure, daemon.to_owned()).why(why),
            Self::Timeout { .. } => failure.hint("try again; if it stays so, look at the daemon's log"),
            Self::BadAnswer { source, .. } => {
                failure.why(source.to_string()).hint("daemon and control program must be of one version")
            }
            Self::Io { source, .. } => failure.why(source.to_string()),
        }
    }
}

/// Asks the daemon at `path`, and waits for its answer at most `patience`. Blocks: for control programs.
///
/// # Errors
/// [`CallError`].
pub fn call<Req, Resp>(path: &Path, request: &Req, patience: Duration) -> Result<Resp, CallError>
where
    Req: Serialize,
    Resp: DeserializeOwned,
{
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            CallError::NotRunning { path: path.to_owned() }
        }
        io::ErrorKind::PermissionDenied => CallError::NoAccess { path: path.to_owned() },
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
            CallError::Timeout { path: path.to_owned(), after: patience }
        }
        _ => CallError::Io { path: path.to_owned(), source },
    };
    let bad = |source| CallError::BadAnswer { path: path.to_owned(), source };
    let mut line = serde_json::to_vec(request).map_err(bad)?;
    line.push(b'\n');
    let mut stream = StdUnixStream::connect(path).map_err(failed)?;
    stream.set_read_timeout(Some(patience)).map_err(failed)?;
    stream.set_write_timeout(Some(patience)).map_err(failed)?;
    // A daemon that refuses the caller closes without reading: what it said is still to be read.
    match stream.write_all(&line) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return Err(failed(error)),
        _ => {}
    }
    let mut answer = Vec::new();
    BufReader::new(stream.take(MAX_ANSWER)).read_until(b'\n', &mut answer).map_err(failed)?;
    if answer.is_empty() {
        return Err(failed(io::ErrorKind::UnexpectedEof.into()));
    }
    match serde_json::from_slice(&answer).map_err(bad)? {
        Envelope::Ok(answer) => Ok(answer),
        Envelope::Error(why) => Err(CallError::Refused(why)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(rename_all = "lowercase", deny_unknown_fields)]
    enum Request {
        Double(u32),
        Ignore,
    }

    async fn echo(path: &Path) -> ControlServer {
        let (sender, mut calls) = mpsc::channel::<Call<Request, u32>>(1);
        let server = serve(path, sender).unwrap();
        tokio::spawn(async move {
            while let Some(call) = calls.recv().await {
                let (request, reply) = call.split();
                match request {
                    Request::Double(n) => reply.answer(n.checked_mul(2).ok_or_else(|| "too big".to_owned())),
                    Request::Ignore => {}
                }
            }
        });
        server
    }

    async fn ask(path: &Path, request: Request) -> Result<u32, CallError> {
        let path = path.to_owned();
        tokio::task::spawn_blocking(move || call(&path, &request, Duration::from_secs(10))).await.unwrap()
    }

    async fn raw(path: &Path, bytes: &[u8]) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        // A long request is refused before it is read to its end.
        drop(stream.write_all(bytes).await);
        drop(stream.shutdown().await);
        let mut answer = Vec::new();
        drop(stream.read_to_end(&mut answer).await);
        String::from_utf8(answer).unwrap()
    }

    #[tokio::test]
    async fn answers_and_refuses() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("control.sock");
        std::fs::write(&path, "left by a dead daemon").unwrap();
        let server = echo(&path).await;
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(ask(&path, Request::Double(21)).await.unwrap(), 42);
        assert!(
            matches!(ask(&path, Request::Double(u32::MAX)).await, Err(CallError::Refused(why)) if why == "too big")
        );
        assert!(
            matches!(ask(&path, Request::Ignore).await, Err(CallError::Refused(why)) if why.contains("stopping"))
        );
        drop(server);
        assert!(matches!(ask(&path, Request::Double(1)).await, Err(CallError::NotRunning { .. })));
    }

    #[tokio::test]
    async fn nonsense_is_answered_and_harms_nobody() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("control.sock");
        let _server = echo(&path).await;
        for nonsense in
            [&b"\n"[..], b"{}\n", b"{\"triple\":1}\n", b"\xff\xfe\n", b"{\"double\":-1}\n", b"no end"]
        {
            let answer = raw(&path, nonsense).await;
            assert!(answer.starts_with("{\"error\":") && answer.ends_with('\n'), "{answer}");
        }
        raw(&path, &vec![b'['; 1 << 20]).await;
        assert_eq!(ask(&path, Request::Double(4)).await.unwrap(), 8);
    }

    #[tokio::test]
    async fn silent_callers_do_not_shut_others_out() {
        let base = tempfile::tempdir().unwrap();
        let path = base.path().join("control.sock");
        let _server = echo(&path).await;
        let mut silent = Vec::new();
        for _ in 0..MAX_CALLERS + 4 {
            silent.push(UnixStream::connect(&path).await.unwrap());
        }
        // Waits until the first of the silent ones is given up, no longer.
        assert_eq!(ask(&path, Request::Double(5)).await.unwrap(), 10);
    }
}
