//! Dialogues with virtual time.

mod adversary;
mod basics;
mod blocks;
mod grants;
mod leases;
mod locality;
mod messages;
mod micro;
mod moved;
mod remote;
mod resume;
mod resync;
mod table;
mod transport;
mod whole;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use crate::host::{
    BindingKind, DenyReason, Host, HostBinding, HostCommand, HostConfig, HostTransport, RegistrationChange,
    SavedState,
};
use crate::ids::{BindId, ClientId, MessageCounter, OpId};
use crate::lease::Remote;
use crate::wire::message::{AssignResponseRsaIp, PortBinding};
use crate::wire::{
    Address, Body, ErrorCode, FlowPolicy, LocalPolicy, Message, Ports, QueryTuple, RemotePolicy, RsipMethod,
    TunnelType,
};

/// The name that the gateway gives.
pub(super) const CLIENT: ClientId = ClientId(0x00c0_ffee);
/// The leased address.
pub(super) const PUBLIC: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// Where the host is.
const HOST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 5000);
/// Lease of everything, unless a test says otherwise.
pub(super) const LEASE: u32 = 600;

/// What the host says goes into the capture of this run.
fn said(transport: HostTransport, message: &Message) {
    let transport = match transport {
        HostTransport::Udp => rsip_capture::Transport::Udp,
        HostTransport::Tcp => rsip_capture::Transport::Tcp,
    };
    let bytes = message.encode().expect("what the host says can be written");
    let spoken = rsip_capture::Spoken::by_host(HOST, transport, bytes);
    rsip_capture::record(rsip_capture::Collection::Spoken, &spoken).expect("the capture can be written");
}

pub(super) fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

pub(super) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// No block, so that a dialogue is about what its test asks for alone.
pub(super) fn tcp() -> HostConfig {
    HostConfig { block_size: 0, ..HostConfig::default() }
}

pub(super) fn udp() -> HostConfig {
    HostConfig { transport: HostTransport::Udp, ..tcp() }
}

pub(super) fn with_block(size: u8) -> HostConfig {
    HostConfig { block_size: size, ..HostConfig::default() }
}

/// A host, its clock, and the gateway's side of the talk by hand.
pub(super) struct Dialogue {
    pub(super) host: Host,
    pub(super) now: Instant,
    /// The request that has no answer yet.
    pub(super) asked: Option<Message>,
    /// The last `Publish` without an answer.
    pub(super) op: Option<OpId>,
    /// The name of the registration.
    pub(super) client: ClientId,
    /// What the gateway tells when it is asked what is local; `None`: the test answers by hand.
    pub(super) local: Option<Vec<QueryTuple>>,
    /// What is to be done, and was not looked at yet.
    stash: Vec<HostCommand>,
}

impl Dialogue {
    pub(super) fn new(config: HostConfig) -> Self {
        let now = Instant::now();
        Self::of(Host::new(config, now), now)
    }

    pub(super) fn resume(config: HostConfig, saved: SavedState) -> Self {
        let now = Instant::now();
        Self::of(Host::resume(config, saved, now), now)
    }

    fn of(host: Host, now: Instant) -> Self {
        Self { host, now, asked: None, op: None, client: CLIENT, local: Some(Vec::new()), stash: Vec::new() }
    }

    /// Started, connected and registered.
    pub(super) fn registered(config: HostConfig) -> Self {
        Self::registered_by(config, register_response(CLIENT))
    }

    /// Started, connected, and its registration answered by this.
    pub(super) fn registered_by(config: HostConfig, answer: Body) -> Self {
        let mut it = Self::new(config);
        it.host.start(it.now);
        it.host.handle_transport_up(it.now);
        it.commands();
        it.answer(answer);
        it
    }

    /// Registered, and this port in use by a program.
    pub(super) fn holding(config: HostConfig, port: u16, bind_id: u32) -> Self {
        let mut it = Self::registered(config);
        it.commands();
        it.hold(port, bind_id);
        it
    }

    /// A program wants this port, and gets it.
    pub(super) fn hold(&mut self, port: u16, bind_id: u32) {
        self.host.want_port(port, self.now);
        self.commands();
        self.answer(listen_response(self.client, bind_id, port));
        self.commands();
        self.done(Ok(()));
        assert_eq!(self.commands(), [granted(port)]);
    }

    /// Everything that is to be done, and notes what was asked.
    pub(super) fn commands(&mut self) -> Vec<HostCommand> {
        self.look();
        std::mem::take(&mut self.stash)
    }

    /// Notes what is to be done, and answers what every host asks after its registration.
    fn look(&mut self) {
        while let Some(command) = self.host.next_command() {
            match &command {
                HostCommand::Send(message) => {
                    said(self.host.config.transport, message);
                    if let (Body::QueryRequest { client_id, .. }, Some(tuples)) = (&message.body, &self.local)
                    {
                        let body = Body::QueryResponse { client_id: *client_id, tuples: tuples.clone() };
                        self.host.handle_message(Message { counter: message.counter, body }, self.now);
                        continue;
                    }
                    self.asked = Some(message.clone());
                }
                HostCommand::Publish { op, .. } => self.op = Some(*op),
                _ => {}
            }
            self.stash.push(command);
        }
    }

    /// From now on the test answers QUERY by hand.
    pub(super) fn by_hand(&mut self) {
        self.look();
        self.local = None;
    }

    /// The request that is to be sent, and nothing else.
    pub(super) fn request(&mut self) -> Body {
        let commands = self.commands();
        match commands.as_slice() {
            [HostCommand::Send(message)] => message.body.clone(),
            other => panic!("one request expected, not {other:?}"),
        }
    }

    /// The gateway answers the last request.
    pub(super) fn answer(&mut self, body: Body) {
        let asked = self.asked.take().expect("a request");
        self.host.handle_message(Message { counter: asked.counter, body }, self.now);
        self.look();
    }

    /// The gateway restarted: it does not know us any more, and is asked for a new registration.
    pub(super) fn forgotten(&mut self) {
        self.asynchronous(error_response(ErrorCode::RegisterFirst));
        let commands = self.commands();
        assert_eq!(commands[0], change(RegistrationChange::Lost));
        assert_eq!(sends(&commands), [Body::DeRegisterRequest { client_id: CLIENT }], "section 10.2.2");
        self.refuse(ErrorCode::RegisterFirst);
        assert_eq!(self.request(), Body::RegisterRequest);
    }

    pub(super) fn refuse(&mut self, error: ErrorCode) {
        self.answer(error_response(error));
    }

    /// The gateway says something that nobody asked for.
    pub(super) fn asynchronous(&mut self, body: Body) {
        self.host.handle_message(Message::new(MessageCounter::ASYNCHRONOUS, body), self.now);
    }

    /// The shell answers the last `Publish`.
    pub(super) fn done(&mut self, result: Result<(), crate::host::InstallFailed>) {
        let op = self.op.take().expect("a Publish");
        self.host.handle_done(op, result, self.now);
    }

    /// Lets time pass, waking the host whenever it wants to be woken.
    pub(super) fn pass(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.host.poll_timeout().filter(|at| *at <= until) {
            assert!(at >= self.now, "a wake-up in the past");
            self.now = at;
            self.host.handle_timeout(at);
            self.look();
            assert!(self.host.poll_timeout().is_none_or(|next| next > at), "it spins");
        }
        self.now = until;
    }

    /// Lets time pass until the host does something.
    pub(super) fn wait(&mut self) -> (Duration, Vec<HostCommand>) {
        let began = self.now;
        loop {
            let at = self.host.poll_timeout().expect("something is pending");
            self.now = at.max(self.now);
            self.host.handle_timeout(self.now);
            assert!(self.host.poll_timeout().is_none_or(|next| next > self.now), "it spins");
            let commands = self.commands();
            if !commands.is_empty() {
                return (self.now - began, commands);
            }
        }
    }
}

pub(super) fn register_response(client_id: ClientId) -> Body {
    Body::RegisterResponse {
        client_id,
        lease_time: LEASE,
        flow_policy: FlowPolicy { local: LocalPolicy::Macro, remote: RemotePolicy::None },
        methods: Vec::new(),
        tunnel_types: vec![TunnelType::IpIp],
    }
}

pub(super) fn port_binding(client_id: ClientId, bind_id: u32, ports: Ports) -> PortBinding {
    PortBinding {
        client_id,
        bind_id: BindId(bind_id),
        local_address: Address::Ipv4(PUBLIC),
        local_ports: ports,
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time: LEASE,
        tunnel_type: TunnelType::IpIp,
        tunnel_endpoint: None,
    }
}

pub(super) fn listen_response(client_id: ClientId, bind_id: u32, port: u16) -> Body {
    Body::ListenResponse(port_binding(client_id, bind_id, Ports::single(port)))
}

pub(super) fn assign_response(client_id: ClientId, bind_id: u32, first: u16, count: u8) -> Body {
    Body::AssignResponseRsapIp(port_binding(client_id, bind_id, Ports::Range { first, count }))
}

/// A whole address.
pub(super) fn address_response(client_id: ClientId, bind_id: u32, address: Ipv4Addr) -> Body {
    Body::AssignResponseRsaIp(AssignResponseRsaIp {
        client_id,
        bind_id: BindId(bind_id),
        local_address: Address::Ipv4(address),
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time: LEASE,
        tunnel_type: TunnelType::IpIp,
        tunnel_endpoint: None,
    })
}

/// Both methods on offer, and this policy.
pub(super) fn register_response_with(local: LocalPolicy, remote: RemotePolicy) -> Body {
    Body::RegisterResponse {
        client_id: CLIENT,
        lease_time: LEASE,
        flow_policy: FlowPolicy { local, remote },
        methods: vec![RsipMethod::RsaIp, RsipMethod::RsapIp],
        tunnel_types: Vec::new(),
    }
}

pub(super) fn extend_response(bind_id: u32, lease_time: u32) -> Body {
    Body::ExtendResponse { client_id: CLIENT, bind_id: BindId(bind_id), lease_time }
}

pub(super) fn free_response(bind_id: u32) -> Body {
    Body::FreeResponse { client_id: CLIENT, bind_id: BindId(bind_id) }
}

pub(super) fn error_response(error: ErrorCode) -> Body {
    Body::ErrorResponse { error, client_id: None, bind_id: None }
}

pub(super) fn free_request(bind_id: u32) -> Body {
    Body::FreeRequest { client_id: CLIENT, bind_id: BindId(bind_id) }
}

pub(super) fn extend_request(bind_id: u32) -> Body {
    Body::ExtendRequest { client_id: CLIENT, bind_id: BindId(bind_id), lease_time: None }
}

pub(super) fn binding(kind: BindingKind, client_id: ClientId, bind_id: u32, ports: Ports) -> HostBinding {
    HostBinding {
        kind,
        client_id,
        bind_id: BindId(bind_id),
        address: PUBLIC,
        leased: ports.into(),
        remote: Remote::Any,
        tunnel: TunnelType::IpIp,
        tunnel_endpoint: None,
    }
}

pub(super) fn listener(bind_id: u32, port: u16) -> HostBinding {
    binding(BindingKind::Listen, CLIENT, bind_id, Ports::single(port))
}

pub(super) fn granted(port: u16) -> HostCommand {
    HostCommand::Verdict { port, outcome: Ok(()) }
}

pub(super) fn denied(port: u16, reason: DenyReason) -> HostCommand {
    HostCommand::Verdict { port, outcome: Err(reason) }
}

pub(super) fn change(change: RegistrationChange) -> HostCommand {
    HostCommand::Registration(change)
}

pub(super) fn sends(commands: &[HostCommand]) -> Vec<Body> {
    commands
        .iter()
        .filter_map(|command| match command {
            HostCommand::Send(message) => Some(message.body.clone()),
            _ => None,
        })
        .collect()
}

/// The ports that a LISTEN or ASSIGN asks for.
pub(super) fn asked_ports(body: &Body) -> (&Address, &Ports) {
    match body {
        Body::ListenRequest(request) => (&request.local_address, &request.local_ports),
        Body::AssignRequestRsapIp(request) => (&request.local_address, &request.local_ports),
        other => panic!("LISTEN or ASSIGN expected, not {other:?}"),
    }
}
