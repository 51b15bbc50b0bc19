//! A host that speaks RSIP by hand: no agent decides what it asks for or sends, so it can do what an agent never would.
//!
//! Its network is a real one all the same: [`ManualHost::attach`] gives a leased address to the kernel of its namespace, so
//! ordinary programs use it.

mod tunnel;

use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::time::{Duration, Instant};

use rsip_proto::ids::{BindId, ClientId, MessageCounter};
use rsip_proto::lease::Remote;
use rsip_proto::wire::message::{AssignRequestRsaIp, AssignRequestRsapIp, ListenRequest};
use rsip_proto::wire::{Address, Body, ErrorCode, Message, Ports, RsipMethod};
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use self::tunnel::Tunnel;
use super::error::{IoContext, LabError, Result};
use super::link;
use super::netns::Inside;
use super::topology::{GATEWAY, HOST_IF, Host, Lab};
use crate::bpf::packet::{IPIP, Ip};

/// The service.
const SERVICE: SocketAddrV4 = SocketAddrV4::new(GATEWAY, 4555);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long one look at the socket takes.
const LOOK: Duration = Duration::from_millis(50);

/// What a binding gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub bind_id: BindId,
    /// The public address.
    pub address: Ipv4Addr,
    /// The ports; empty: all of them.
    pub ports: Vec<u16>,
}

/// The host.
#[derive(Debug)]
pub struct ManualHost {
    inside: Inside,
    rsip: UdpSocket,
    counter: MessageCounter,
    client_id: ClientId,
    /// What the gateway said without being asked.
    news: Vec<Body>,
    tunnels: Vec<Tunnel>,
}

impl ManualHost {
    /// A host that has not said anything yet. The internet host writes whole checksums from now on, since its packets are
    /// read in user space.
    ///
    /// # Errors
    /// Where it gets no socket.
    pub fn new(lab: &Lab, host: Host) -> Result<Self> {
        link::finish_checksums((&lab.internet, HOST_IF))?;
        let inside = lab.host(host).clone();
        let rsip = inside
            .enter(|| {
                let socket = UdpSocket::bind((host.address(), 0))?;
                socket.set_read_timeout(Some(LOOK))?;
                Ok::<_, std::io::Error>(socket)
            })?
            .cannot(|| "make a socket".into())?;
        Ok(Self {
            inside,
            rsip,
            counter: MessageCounter::FIRST,
            client_id: ClientId(0),
            news: Vec::new(),
            tunnels: Vec::new(),
        })
    }

    /// Registers; gives the methods on offer.
    ///
    /// # Errors
    /// Where it is refused.
    pub fn register(&mut self) -> Result<Vec<RsipMethod>> {
        match self.request(Body::RegisterRequest)? {
            Body::RegisterResponse { client_id, methods, .. } => {
                self.client_id = client_id;
                Ok(methods)
            }
            other => Err(unexpected("REGISTER_RESPONSE", &other)),
        }
    }

    /// Leases a whole address.
    ///
    /// # Errors
    /// Where it is refused.
    pub fn assign_address(&mut self, remote: Remote, lease_time: Option<u32>) -> Result<Lease> {
        let (remote_address, remote_ports) = words(remote);
        let request = AssignRequestRsaIp {
            client_id: self.client_id,
            local_address: Address::ANY,
            remote_address,
            remote_ports,
            lease_time,
            tunnel_type: None,
        };
        match self.request(Body::AssignRequestRsaIp(request))? {
            Body::AssignResponseRsaIp(response) => {
                let address = address(&response.local_address)?;
                Ok(Lease { bind_id: response.bind_id, address, ports: Vec::new() })
            }
            other => Err(unexpected("ASSIGN_RESPONSE_RSA-IP", &other)),
        }
    }

    /// Leases ports of the gateway's choice.
    ///
    /// # Errors
    /// Where it is refused.
    pub fn assign_ports(&mut self, count: u8, remote: Remote, lease_time: Option<u32>) -> Result<Lease> {
        let (remote_address, remote_ports) = words(remote);
        let request = AssignRequestRsapIp {
            client_id: self.client_id,
            local_address: Address::ANY,
            local_ports: Ports::DontCare { count },
            remote_address,
            remote_ports,
            lease_time,
            tunnel_type: None,
        };
        match self.request(Body::AssignRequestRsapIp(request))? {
            Body::AssignResponseRsapIp(binding) => Ok(Lease {
                bind_id: binding.bind_id,
                address: address(&binding.local_address)?,
                ports: binding.local_ports.iter().collect(),
            }),
            other => Err(unexpected("ASSIGN_RESPONSE_RSAP-IP", &other)),
        }
    }

    /// Leases this port, for servers.
    ///
    /// # Errors
    /// Where it is refused.
    pub fn listen(&mut self, port: u16, remote: Remote) -> Result<Lease> {
        let (remote_address, remote_ports) = words(remote);
        let request = ListenRequest {
            client_id: self.client_id,
            local_address: Address::ANY,
            local_ports: Ports::single(port),
            remote_address,
            remote_ports,
            lease_time: None,
            tunnel_types: Vec::new(),
        };
        match self.request(Body::ListenRequest(request))? {
            Body::ListenResponse(binding) => Ok(Lease {
                bind_id: binding.bind_id,
                address: address(&binding.local_address)?,
                ports: binding.local_ports.iter().collect(),
            }),
            other => Err(unexpected("LISTEN_RESPONSE", &other)),
        }
    }

    /// Gives a lease back.
    ///
    /// # Errors
    /// Where it is refused.
    pub fn free(&mut self, lease: &Lease) -> Result<()> {
        let request = Body::FreeRequest { client_id: self.client_id, bind_id: lease.bind_id };
        match self.request(request)? {
            Body::FreeResponse { .. } => Ok(()),
            other => Err(unexpected("FREE_RESPONSE", &other)),
        }
    }

    /// Asks the gateway something; what it says unasked meanwhile is kept for [`Self::errors`].
    ///
    /// # Errors
    /// [`LabError::Timeout`] where it does not answer.
    pub fn request(&mut self, body: Body) -> Result<Body> {
        let counter = self.counter;
        self.counter = counter.next();
        let bytes = Message::new(counter, body)
            .encode()
            .map_err(|error| unexpected("a message that can be written", &error))?;
        self.rsip.send_to(&bytes, SERVICE).cannot(|| "send a message".into())?;
        let start = Instant::now();
        while start.elapsed() < PATIENCE {
            match self.receive()? {
                Some(message) if message.counter == Some(counter) => return Ok(message.body),
                Some(message) => self.news.push(message.body),
                None => {}
            }
        }
        Err(LabError::Timeout {
            what: "an answer".into(),
            waited: PATIENCE,
            last: format!("{:?}", self.news),
        })
    }

    /// The errors that the gateway sent unasked until now and within `time` from now, with counter 0 and for this client.
    ///
    /// # Errors
    /// Where it said anything else.
    pub fn errors(&mut self, time: Duration) -> Result<Vec<ErrorCode>> {
        let start = Instant::now();
        while start.elapsed() < time {
            let Some(message) = self.receive()? else { continue };
            if message.counter != Some(MessageCounter::ASYNCHRONOUS) {
                return Err(unexpected("counter 0", &message));
            }
            self.news.push(message.body);
        }
        let own = Some(self.client_id);
        self.news
            .drain(..)
            .map(|body| match body {
                Body::ErrorResponse { error, client_id, bind_id: None } if client_id == own => Ok(error),
                other => Err(unexpected("ERROR_RESPONSE", &other)),
            })
            .collect()
    }

    fn receive(&self) -> Result<Option<Message>> {
        let mut buffer = [0; 2048];
        let length = match self.rsip.recv(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error).cannot(|| "receive a message".into()),
        };
        let bytes = buffer.get(..length).unwrap_or_default();
        Message::parse(bytes).map(Some).map_err(|error| unexpected("a message of RSIP", &error))
    }

    /// Gives an address to the kernel of the host, with a tunnel to the gateway behind it, as long as this value lives.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn attach(&mut self, address: Ipv4Addr) -> Result<()> {
        let tunnel = Tunnel::new(&self.inside, address, self.tunnels.len())?;
        self.tunnels.push(tunnel);
        Ok(())
    }

    /// Takes every attached address away from the kernel.
    pub fn detach(&mut self) {
        self.tunnels.clear();
    }

    /// Sends a datagram through the tunnel, whatever it is.
    ///
    /// # Errors
    /// Where the kernel does not send it.
    pub fn send(&self, inner: &Ip) -> Result<()> {
        self.send_to_gateway(IPIP, &inner.bytes())
    }

    /// Sends something of any protocol to the gateway.
    ///
    /// # Errors
    /// Where the kernel does not send it.
    pub fn send_to_gateway(&self, protocol: u8, payload: &[u8]) -> Result<()> {
        let sent = self.inside.enter(|| {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(i32::from(protocol))))?;
            socket.send_to(payload, &SockAddr::from(SocketAddrV4::new(GATEWAY, 0)))
        })?;
        sent.map(drop).cannot(|| format!("send a packet of protocol {protocol}"))
    }
}

/// The remote parameters of a request.
fn words(remote: Remote) -> (Address, Ports) {
    (remote.address().map_or(Address::ANY, Address::Ipv4), remote.port().map_or(Ports::ANY, Ports::single))
}

fn address(address: &Address) -> Result<Ipv4Addr> {
    address.ipv4().ok_or_else(|| unexpected("an IPv4 address", address))
}

fn unexpected(expected: &str, seen: &impl std::fmt::Debug) -> LabError {
    LabError::Unexpected {
        what: "what the gateway says".into(),
        expected: expected.into(),
        seen: format!("{seen:?}"),
    }
}
