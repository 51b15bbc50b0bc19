//! A whole daemon on loopback: real sockets, the real machine, a data path that only remembers.

#![allow(dead_code, reason = "each test program uses a part of it")]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test that cannot go on should say so")]

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::PathBuf;
use std::time::Duration;

use rsip_capture::{Collection, Spoken, Transport};
use rsip_proto::gateway::{Gateway, GatewayConfig};
use rsip_proto::ids::{BindId, ClientId, MessageCounter};
use rsip_proto::pool::PoolConfig;
use rsip_proto::wire::message::{AssignRequestRsapIp, ListenRequest, PortBinding};
use rsip_proto::wire::{Address, Body, ErrorCode, Message, Ports};
use rsip_sys::control as socket;
use rsipd::config::{Config, Settings};
use rsipd::control::view::{Answer, Request, State};
use rsipd::daemon::{Context, Daemon, DaemonError, Sources};
use rsipd::datapath::fake::FakeDatapath;
use rsipd::listener::{self, Audience, Input, Sockets, tcp};
use rsipd::signals::Signal;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// The public address that is leased.
pub(crate) const PUBLIC: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Long enough for a busy machine, and then it is a failure.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct TestGateway {
    pub(crate) address: SocketAddrV4,
    pub(crate) datapath: FakeDatapath,
    pub(crate) signals: mpsc::Sender<Signal>,
    pub(crate) directory: tempfile::TempDir,
    /// For what no host can cause.
    pub(crate) inputs: mpsc::Sender<Input>,
    task: JoinHandle<Result<(), DaemonError>>,
    _control: socket::ControlServer,
}

pub(crate) fn config() -> GatewayConfig {
    GatewayConfig::new(PoolConfig {
        addresses: vec![PUBLIC],
        whole: Vec::new(),
        port_range: 10000..=10999,
        listen_range: 1..=32767,
        reserved: vec![22],
        rest: Duration::from_secs(120),
    })
}

pub(crate) fn limits() -> tcp::Limits {
    tcp::Limits::new(&Settings { max_clients: 16, ..Settings::default() })
}

impl TestGateway {
    pub(crate) fn start() -> Self {
        Self::with(config(), limits())
    }

    pub(crate) fn with(config: GatewayConfig, limits: tcp::Limits) -> Self {
        Self::heard_by(config, limits, Audience::All)
    }

    pub(crate) fn heard_by(config: GatewayConfig, limits: tcp::Limits, audience: Audience) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("rsipd.conf");
        std::fs::write(&file, "INT_IF = \"in0\"\nEXT_IF = \"ext0\"\n").unwrap();
        let sockets = Sockets::bind(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0), None).unwrap();
        let SocketAddr::V4(address) = sockets.udp.local_addr().unwrap() else { panic!("bound to IPv4") };
        let (inputs_in, inputs) = mpsc::channel(listener::WAITING);
        let (calls_in, calls) = mpsc::channel(1);
        let (signals_in, signals) = mpsc::channel(1);
        let control = socket::serve(&directory.path().join("control.sock"), calls_in).unwrap();
        let udp = sockets.serve(inputs_in.clone(), limits, audience);
        let datapath = FakeDatapath::default();
        let context = Context {
            config: Config::read(&file).unwrap(),
            log: None,
            default_status_file: directory.path().join("rsipd.status"),
            listening: address,
            discovery: None,
        };
        let gateway = Gateway::new(config, 1).unwrap();
        let daemon = Daemon::new(gateway, datapath.clone(), udp, Sources { inputs, calls, signals }, context);
        let task = tokio::spawn(daemon.run());
        Self { address, datapath, signals: signals_in, directory, inputs: inputs_in, task, _control: control }
    }

    pub(crate) fn control_socket(&self) -> PathBuf {
        self.directory.path().join("control.sock")
    }

    pub(crate) async fn ask(&self, request: Request) -> Result<Answer, socket::CallError> {
        let path = self.control_socket();
        tokio::task::spawn_blocking(move || socket::call(&path, &request, PATIENCE)).await.unwrap()
    }

    pub(crate) async fn state(&self) -> State {
        match self.ask(Request::Dump).await.unwrap() {
            Answer::State(state) => *state,
            Answer::Done => panic!("not a state"),
        }
    }

    /// Waits until `condition` holds of the state.
    pub(crate) async fn until(&self, what: &str, condition: impl Fn(&State) -> bool) -> State {
        let wait = async {
            loop {
                let state = self.state().await;
                if condition(&state) {
                    return state;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"))
    }

    pub(crate) async fn stopped(self) -> Result<(), DaemonError> {
        timeout(PATIENCE, self.task).await.expect("the daemon ends in time").unwrap()
    }

    pub(crate) async fn udp(&self) -> Udp {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        socket.connect(self.address).await.unwrap();
        Udp { socket, counter: MessageCounter::FIRST }
    }

    /// As another host: all of 127.0.0.0/8 is on loopback.
    pub(crate) async fn udp_from(&self, host: Ipv4Addr) -> Udp {
        let socket = UdpSocket::bind((host, 0)).await.unwrap();
        socket.connect(self.address).await.unwrap();
        Udp { socket, counter: MessageCounter::FIRST }
    }

    pub(crate) async fn tcp(&self) -> Tcp {
        Tcp { stream: TcpStream::connect(self.address).await.unwrap(), counter: MessageCounter::FIRST }
    }

    pub(crate) async fn tcp_from(&self, host: Ipv4Addr) -> std::io::Result<Tcp> {
        self.connect(host, None).await
    }

    /// With room for few answers that are not read.
    pub(crate) async fn deaf_tcp_from(&self, host: Ipv4Addr) -> std::io::Result<Tcp> {
        self.connect(host, Some(2048)).await
    }

    async fn connect(&self, host: Ipv4Addr, receive_buffer: Option<u32>) -> std::io::Result<Tcp> {
        let socket = tokio::net::TcpSocket::new_v4()?;
        if let Some(size) = receive_buffer {
            socket.set_recv_buffer_size(size)?;
        }
        socket.bind((host, 0).into())?;
        Ok(Tcp { stream: socket.connect(self.address.into()).await?, counter: MessageCounter::FIRST })
    }
}

/// A host that speaks UDP.
pub(crate) struct Udp {
    pub(crate) socket: UdpSocket,
    counter: MessageCounter,
}

impl Udp {
    pub(crate) async fn send(&self, bytes: &[u8]) {
        self.socket.send(bytes).await.unwrap();
    }

    pub(crate) async fn receive(&self) -> Vec<u8> {
        let mut buffer = [0; 2048];
        let length = timeout(PATIENCE, self.socket.recv(&mut buffer)).await.expect("an answer").unwrap();
        heard(self.socket.local_addr().unwrap(), Transport::Udp, &buffer[..length]);
        buffer[..length].to_vec()
    }

    pub(crate) async fn ask(&mut self, body: Body) -> Body {
        let message = Message::new(self.counter, body);
        self.counter = self.counter.next();
        self.send(&message.encode().unwrap()).await;
        let answer = Message::parse(&self.receive().await).unwrap();
        assert_eq!(answer.counter, message.counter);
        answer.body
    }

    pub(crate) async fn register(&mut self) -> ClientId {
        registered(self.ask(Body::RegisterRequest).await)
    }
}

/// A host that speaks TCP.
pub(crate) struct Tcp {
    pub(crate) stream: TcpStream,
    counter: MessageCounter,
}

impl Tcp {
    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// One whole message; `None` at the end of the stream.
    pub(crate) async fn receive(&mut self) -> Option<Vec<u8>> {
        let read = async {
            let mut message = vec![0; 4];
            self.stream.read_exact(&mut message).await.ok()?;
            let length = usize::from(u16::from_be_bytes([message[2], message[3]]));
            message.resize(length, 0);
            self.stream.read_exact(&mut message[4..]).await.ok()?;
            heard(self.stream.local_addr().ok()?, Transport::Tcp, &message);
            Some(message)
        };
        timeout(PATIENCE, read).await.expect("an answer or an end")
    }

    pub(crate) async fn ask(&mut self, body: Body) -> Body {
        let message = Message::new(self.counter, body);
        self.counter = self.counter.next();
        self.send(&message.encode().unwrap()).await;
        let answer = Message::parse(&self.receive().await.expect("an answer")).unwrap();
        assert_eq!(answer.counter, message.counter);
        answer.body
    }

    pub(crate) async fn register(&mut self) -> ClientId {
        registered(self.ask(Body::RegisterRequest).await)
    }

    /// Whether the other end closes, without another word.
    pub(crate) async fn is_closed(&mut self) -> bool {
        let mut byte = [0];
        matches!(timeout(PATIENCE, self.stream.read(&mut byte)).await, Ok(Ok(0) | Err(_)))
    }
}

/// What the daemon said goes into the capture of this run.
fn heard(by: SocketAddr, transport: Transport, message: &[u8]) {
    let SocketAddr::V4(by) = by else { panic!("hosts of the tests have IPv4") };
    let spoken = Spoken::by_gateway(by, transport, message.to_vec());
    rsip_capture::record(Collection::Spoken, &spoken).unwrap();
}

fn registered(body: Body) -> ClientId {
    match body {
        Body::RegisterResponse { client_id, .. } => client_id,
        other => panic!("not registered: {other:?}"),
    }
}

pub(crate) fn assign(client_id: ClientId, count: u8) -> Body {
    Body::AssignRequestRsapIp(AssignRequestRsapIp {
        client_id,
        local_address: Address::ANY,
        local_ports: Ports::DontCare { count },
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time: None,
        tunnel_type: None,
    })
}

pub(crate) fn listen(client_id: ClientId, port: u16) -> Body {
    Body::ListenRequest(ListenRequest {
        client_id,
        local_address: Address::ANY,
        local_ports: Ports::single(port),
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time: None,
        tunnel_types: Vec::new(),
    })
}

pub(crate) fn free(client_id: ClientId, bind_id: BindId) -> Body {
    Body::FreeRequest { client_id, bind_id }
}

pub(crate) fn granted(body: Body) -> PortBinding {
    match body {
        Body::AssignResponseRsapIp(binding) | Body::ListenResponse(binding) => binding,
        other => panic!("not granted: {other:?}"),
    }
}

pub(crate) fn error(body: Body) -> ErrorCode {
    match body {
        Body::ErrorResponse { error, .. } => error,
        other => panic!("not refused: {other:?}"),
    }
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter(char::is_ascii_hexdigit).map(|c| c.to_digit(16).unwrap() as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The same message, made `length` bytes long by a vendor's parameter that says nothing to anybody.
pub(crate) fn padded(message: &[u8], length: usize) -> Vec<u8> {
    let mut bytes = message.to_vec();
    let value =
        length.checked_sub(bytes.len() + 3).filter(|value| *value >= 4).expect("room for a parameter");
    bytes.push(12);
    bytes.extend(u16::try_from(value).unwrap().to_be_bytes());
    bytes.resize(length, 0xee);
    bytes[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
    bytes
}
