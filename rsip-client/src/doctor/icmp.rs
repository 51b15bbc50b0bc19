//! Echo requests that may not be fragmented, of a size of choice: what comes through, and what the network says where it does not.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg};
use socket2::{Domain, Protocol, Socket, Type};

/// IPv4 header without options, and the header of an echo request.
const HEADERS: usize = 20 + 8;
/// The smallest that is sent.
pub(super) const SMALL: u32 = 84;

/// What became of an echo request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Echo {
    /// It was answered.
    Answered,
    /// Something on the way says that it is too big, and what would fit (0: not told). `None`: this host itself.
    TooBig {
        /// Largest packet.
        mtu: u32,
        /// Who says so.
        by: Option<Ipv4Addr>,
    },
    /// The network says that there is no way.
    Unreachable(String),
    /// Nothing was heard.
    Silence,
}

/// A socket for echo requests to one destination.
#[derive(Debug)]
pub(super) struct Pinger {
    socket: Socket,
    identifier: u16,
    sequence: u16,
}

impl Pinger {
    /// From `source`, where one is given. Needs CAP_NET_RAW.
    ///
    /// # Errors
    ///
    /// Not allowed, or no way there.
    pub(super) fn open(source: Option<Ipv4Addr>, destination: Ipv4Addr) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
        if let Some(source) = source {
            socket.bind(&SocketAddrV4::new(source, 0).into())?;
        }
        set_int(&socket, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE)?;
        set_int(&socket, libc::IP_RECVERR, 1)?;
        socket.connect(&SocketAddrV4::new(destination, 0).into())?;
        let [low, high, ..] = std::process::id().to_le_bytes();
        Ok(Self { socket, identifier: u16::from_le_bytes([low, high]), sequence: 0 })
    }

    /// Sends one of `size` bytes, headers included, and waits.
    ///
    /// # Errors
    ///
    /// The socket does not work.
    pub(super) fn ping(&mut self, size: u32, patience: Duration) -> io::Result<Echo> {
        self.sequence = self.sequence.wrapping_add(1);
        let length = usize::try_from(size).map_err(io::Error::other)?.saturating_sub(HEADERS);
        // What an earlier one still has to say is not heard.
        while self.error()?.is_some() {}
        match self.socket.send(&request(self.identifier, self.sequence, length)) {
            Ok(_) => {}
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                return Ok(self.error()?.unwrap_or(Echo::TooBig { mtu: 0, by: None }));
            }
            Err(error) if is_no_way(&error) => return Ok(Echo::Unreachable(error.to_string())),
            // A full queue, or a firewall of this host: EPERM, ENOBUFS.
            Err(error) => return Ok(Echo::Unreachable(format!("cannot be sent: {error}"))),
        }
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Echo::Silence);
            }
            self.socket.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
            let mut buffer = [0; 512];
            match io::Read::read(&mut &self.socket, &mut buffer) {
                Ok(length) => {
                    let packet = buffer.get(..length).unwrap_or_default();
                    if is_reply(packet, self.identifier, self.sequence) {
                        return Ok(Echo::Answered);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                }
                // The error itself waits in the queue.
                Err(_) => {
                    if let Some(echo) = self.error()? {
                        return Ok(echo);
                    }
                }
            }
        }
    }

    /// What the network said.
    fn error(&self) -> io::Result<Option<Echo>> {
        let mut data = [0; 512];
        let mut space = nix::cmsg_space!(libc::sock_extended_err, libc::sockaddr_in);
        let mut buffers = [IoSliceMut::new(&mut data)];
        let flags = MsgFlags::MSG_ERRQUEUE | MsgFlags::MSG_DONTWAIT;
        let message =
            match recvmsg::<SockaddrIn>(self.socket.as_raw_fd(), &mut buffers, Some(&mut space), flags) {
                Ok(message) => message,
                Err(nix::errno::Errno::EAGAIN) => return Ok(None),
                Err(errno) => return Err(errno.into()),
            };
        for control in message.cmsgs()? {
            if let ControlMessageOwned::Ipv4RecvErr(error, from) = control {
                let by = from
                    .filter(|_| error.ee_origin == libc::SO_EE_ORIGIN_ICMP)
                    .map(|from| Ipv4Addr::from(u32::from_be(from.sin_addr.s_addr)));
                let errno = i32::try_from(error.ee_errno).unwrap_or_default();
                return Ok(Some(if errno == libc::EMSGSIZE {
                    Echo::TooBig { mtu: error.ee_info, by }
                } else {
                    Echo::Unreachable(io::Error::from_raw_os_error(errno).to_string())
                }));
            }
        }
        Ok(None)
    }
}

fn is_no_way(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES))
}

fn set_int(socket: &Socket, option: libc::c_int, value: libc::c_int) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(&value)).map_err(io::Error::other)?;
    // SAFETY: the option's value is an int, which lives until the call has returned; its size is told.
    let result = unsafe {
        libc::setsockopt(socket.as_raw_fd(), libc::SOL_IP, option, (&raw const value).cast(), length)
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// An echo request (RFC 792) with so many bytes of data.
fn request(identifier: u16, sequence: u16, length: usize) -> Vec<u8> {
    let mut packet = vec![8, 0, 0, 0];
    packet.extend(identifier.to_be_bytes());
    packet.extend(sequence.to_be_bytes());
    packet.extend((0..length).map(|i| u8::try_from(i % 256).unwrap_or_default()));
    let sum = checksum(&packet).to_be_bytes();
    packet.splice(2..4, sum);
    packet
}

/// RFC 1071.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = bytes.chunks(2).fold(0_u32, |sum, pair| {
        let word =
            u16::from_be_bytes([pair.first().copied().unwrap_or(0), pair.get(1).copied().unwrap_or(0)]);
        sum.wrapping_add(word.into())
    });
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(u16::MAX)
}

/// A raw socket gives the IPv4 header too.
fn is_reply(packet: &[u8], identifier: u16, sequence: u16) -> bool {
    let Some(length) = packet.first().map(|first| usize::from(first & 0xf) * 4) else { return false };
    let Some(icmp) = packet.get(length..) else { return false };
    icmp.first() == Some(&0)
        && icmp.get(4..6) == Some(&identifier.to_be_bytes())
        && icmp.get(6..8) == Some(&sequence.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_sums_up_to_nothing() {
        for length in [0, 1, 56, 1472] {
            assert_eq!(checksum(&request(7, 9, length)), 0, "{length}");
        }
    }

    #[test]
    fn hears_the_answer_to_its_own_question() {
        let mut packet = vec![0x45; 20];
        packet.extend([0, 0, 0, 0, 0, 7, 0, 9]);
        assert!(is_reply(&packet, 7, 9));
        assert!(!is_reply(&packet, 7, 8) && !is_reply(&packet, 8, 9));
        packet[20] = 8;
        assert!(!is_reply(&packet, 7, 9), "that is the request");
        assert!(!is_reply(&packet[..20], 7, 9) && !is_reply(&[], 7, 9));
    }

    #[test]
    fn loopback_answers_up_to_its_size_and_says_what_fits() {
        let mut pinger = Pinger::open(None, Ipv4Addr::LOCALHOST).expect("needs CAP_NET_RAW");
        let patience = Duration::from_secs(10);
        assert_eq!(pinger.ping(SMALL, patience).expect("sent"), Echo::Answered);
        assert_eq!(pinger.ping(9000, patience).expect("sent"), Echo::Answered);
        // The largest IPv4 packet has 65,535 bytes, and the loopback device takes 65,536.
        let loopback = std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("needs root");
            Pinger::open(None, Ipv4Addr::LOCALHOST).map(|mut pinger| pinger.ping(SMALL, patience))
        });
        let down = loopback.join().expect("no panic");
        assert!(!matches!(down, Ok(Ok(Echo::Answered))), "{down:?}");
    }
}
