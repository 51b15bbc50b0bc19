//! A connection between two namespaces that a test keeps open while things happen.

use std::io::{self, BufRead as _, BufReader, Write as _};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::time::Duration;

use super::error::{IoContext, Result};
use super::netns::Inside;
use super::wait;

/// How long a line may take, retransmissions included.
const PATIENCE: Duration = Duration::from_secs(20);

/// A TCP connection, both ends of it.
#[derive(Debug)]
pub struct Talk {
    here: BufReader<TcpStream>,
    there: BufReader<TcpStream>,
}

impl Talk {
    /// Listens at `at` on one side, connects from the other.
    ///
    /// # Errors
    /// Where either refuses.
    pub fn begin(listener: &Inside, at: SocketAddrV4, caller: &Inside) -> Result<Self> {
        let listening = listener.enter(|| TcpListener::bind(at))?.cannot(|| format!("listen at {at}"))?;
        let here = caller.enter(|| TcpStream::connect(at))?.cannot(|| format!("connect to {at}"))?;
        let (there, _) = listening.accept().cannot(|| format!("accept at {at}"))?;
        for stream in [&here, &there] {
            stream.set_read_timeout(Some(wait::limit(PATIENCE))).cannot(|| "set a time-out".into())?;
        }
        Ok(Self { here: BufReader::new(here), there: BufReader::new(there) })
    }

    /// A line each way.
    ///
    /// # Errors
    /// Where one does not arrive.
    pub fn go_on(&mut self) -> Result<()> {
        self.exchange().cannot(|| "go on talking".into())
    }

    fn exchange(&mut self) -> io::Result<()> {
        let mut line = String::new();
        self.here.get_mut().write_all(b"hello\n")?;
        self.there.read_line(&mut line)?;
        self.there.get_mut().write_all(b"answer\n")?;
        self.here.read_line(&mut line)?;
        if line == "hello\nanswer\n" { Ok(()) } else { Err(io::Error::other(format!("heard {line:?}"))) }
    }

    /// Says something on the caller's side, and gives what the kernel answers: an error where the connection was ended.
    ///
    /// # Errors
    /// The connection is ended.
    pub fn say(&mut self) -> io::Result<()> {
        self.here.get_mut().write_all(b"hello\n")
    }
}
