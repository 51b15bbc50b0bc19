//! A gateway, a clock, and short words for what hosts say.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use rsip_capture::{Collection, Spoken};
use rsip_proto::gateway::{
    ClientView, Event, Gateway, GatewayCommand, GatewayConfig, InstallFailed, Peer, RemovalReason, Rule,
    Transport,
};
use rsip_proto::ids::{BindId, ClientId, MessageCounter, OpId};
use rsip_proto::lease::{Leased, Remote};
use rsip_proto::pool::PoolConfig;
use rsip_proto::wire::message::{
    AssignRequestRsaIp, AssignRequestRsapIp, AssignResponseRsaIp, ListenRequest, PortBinding,
};
use rsip_proto::wire::{
    Address, Body, ErrorCode, FlowPolicy, LocalPolicy, Message, Ports, RemotePolicy, RsipMethod, TunnelType,
};

/// The public addresses of the tests.
pub(crate) const PUBLIC: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
pub(crate) const SECOND_PUBLIC: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);

/// The default lease of the tests, in seconds.
pub(crate) const LEASE: u32 = 600;

pub(crate) fn config() -> GatewayConfig {
    GatewayConfig::new(PoolConfig {
        addresses: vec![PUBLIC],
        whole: Vec::new(),
        port_range: 10_000..=10_999,
        listen_range: 1..=1023,
        reserved: vec![22],
        rest: Duration::from_secs(120),
    })
}

/// Leased whole, beside [`PUBLIC`] by port.
pub(crate) const WHOLE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
pub(crate) const SECOND_WHOLE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);

/// One address by port, two whole.
pub(crate) fn with_whole() -> GatewayConfig {
    with_pool(vec![PUBLIC], vec![WHOLE, SECOND_WHOLE])
}

pub(crate) fn with_pool(addresses: Vec<Ipv4Addr>, whole: Vec<Ipv4Addr>) -> GatewayConfig {
    GatewayConfig { pool: PoolConfig { addresses, whole, ..config().pool }, ..config() }
}

pub(crate) fn with_policy(local: LocalPolicy, remote: RemotePolicy) -> GatewayConfig {
    GatewayConfig { flow_policy: FlowPolicy { local, remote }, ..with_whole() }
}

/// Host number `host` on its UDP port 5000.
pub(crate) fn udp(host: u8) -> Peer {
    udp_from(host, 5000)
}

pub(crate) fn udp_from(host: u8, port: u16) -> Peer {
    Peer { address: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, host), port), transport: Transport::Udp }
}

/// Host number `host` on a TCP connection.
pub(crate) fn tcp(host: u8, connection: u64) -> Peer {
    Peer { transport: Transport::Tcp(connection), ..udp(host) }
}

pub(crate) struct Rig {
    pub(crate) gateway: Gateway,
    start: Instant,
    pub(crate) now: Instant,
}

impl Rig {
    pub(crate) fn new(config: GatewayConfig) -> Self {
        Self::seeded(config, 7)
    }

    pub(crate) fn seeded(config: GatewayConfig, seed: u64) -> Self {
        let start = Instant::now();
        let gateway = Gateway::new(config, seed).expect("the pool of the tests makes sense");
        Self { gateway, start, now: start }
    }

    /// Sets the clock, in seconds since the beginning.
    pub(crate) fn at(&mut self, seconds: u64) -> &mut Self {
        self.now = self.start + Duration::from_secs(seconds);
        self
    }

    /// What the gateway says, down to nothing.
    pub(crate) fn commands(&mut self) -> Vec<GatewayCommand> {
        std::iter::from_fn(|| next_command(&mut self.gateway)).collect()
    }

    /// The next wake-up, in seconds since the beginning.
    pub(crate) fn wakes_at(&self) -> Option<f64> {
        self.gateway.poll_timeout().map(|at| at.duration_since(self.start).as_secs_f64())
    }

    /// A request, its counter, and what comes of it.
    pub(crate) fn ask(&mut self, from: Peer, counter: u32, body: Body) -> Vec<GatewayCommand> {
        self.ask_message(from, &Message::new(MessageCounter(counter), body))
    }

    pub(crate) fn ask_message(&mut self, from: Peer, message: &Message) -> Vec<GatewayCommand> {
        self.input(from, &message.encode().expect("the requests of the tests can be written"))
    }

    pub(crate) fn input(&mut self, from: Peer, bytes: &[u8]) -> Vec<GatewayCommand> {
        self.gateway.handle_input(from, bytes, self.now);
        self.commands()
    }

    pub(crate) fn done(&mut self, op: u64) -> Vec<GatewayCommand> {
        self.gateway.handle_done(OpId(op), Ok(()), self.now);
        self.commands()
    }

    pub(crate) fn failed(&mut self, op: u64) -> Vec<GatewayCommand> {
        self.gateway.handle_done(OpId(op), Err(InstallFailed), self.now);
        self.commands()
    }

    pub(crate) fn timeout(&mut self) -> Vec<GatewayCommand> {
        self.gateway.handle_timeout(self.now);
        self.commands()
    }

    /// Registers with counter 1.
    pub(crate) fn register(&mut self, from: Peer) -> ClientId {
        let commands = self.ask(from, 1, Body::RegisterRequest);
        let [.., GatewayCommand::Send { message: Message { body, .. }, .. }] = &commands[..] else {
            panic!("{commands:?}");
        };
        let Body::RegisterResponse { client_id, .. } = body else { panic!("{body:?}") };
        *client_id
    }

    /// Asks, lets the data path hold it, and gives the rule and the answer.
    fn grant(&mut self, from: Peer, counter: u32, body: Body) -> (Rule, Body) {
        let commands = self.ask(from, counter, body);
        let [GatewayCommand::Install { op, rule }] = &commands[..] else { panic!("{commands:?}") };
        let commands = self.done(op.0);
        let [GatewayCommand::Send { to, message }, GatewayCommand::Event(Event::Bound { rule: bound, .. })] =
            &commands[..]
        else {
            panic!("{commands:?}");
        };
        assert_eq!((bound, *to, message.counter), (rule, from, Some(MessageCounter(counter))));
        (rule.clone(), message.body.clone())
    }

    /// Asks for ports, lets the data path hold them, and gives what was granted.
    pub(crate) fn obtain(&mut self, from: Peer, counter: u32, body: Body) -> PortBinding {
        match self.grant(from, counter, body).1 {
            Body::AssignResponseRsapIp(binding) | Body::ListenResponse(binding) => binding,
            other => panic!("{other:?}"),
        }
    }

    /// Asks for a whole address, lets the data path hold it, and gives what was granted.
    pub(crate) fn obtain_whole(&mut self, from: Peer, counter: u32, body: Body) -> AssignResponseRsaIp {
        match self.grant(from, counter, body).1 {
            Body::AssignResponseRsaIp(granted) => granted,
            other => panic!("{other:?}"),
        }
    }

    /// Asks for anything, lets the data path hold it, and gives what that was.
    pub(crate) fn obtain_rule(&mut self, from: Peer, counter: u32, body: Body) -> Rule {
        self.grant(from, counter, body).0
    }

    pub(crate) fn client(&self, id: ClientId) -> Option<ClientView> {
        self.gateway.view(self.now).clients.into_iter().find(|client| client.client_id == id)
    }

    /// Leased, resting and free ports of the first public address.
    pub(crate) fn pool(&self) -> [u32; 3] {
        let usage = self.gateway.view(self.now).pool[0];
        [usage.leased, usage.resting, usage.free]
    }
}

/// What the gateway says next; its messages go into the capture of this run.
pub(crate) fn next_command(gateway: &mut Gateway) -> Option<GatewayCommand> {
    let command = gateway.next_command()?;
    if let GatewayCommand::Send { to, message } = &command {
        let transport = match to.transport {
            Transport::Udp => rsip_capture::Transport::Udp,
            Transport::Tcp(_) => rsip_capture::Transport::Tcp,
        };
        let bytes = message.encode().expect("what the gateway says can be written");
        let spoken = Spoken::by_gateway(to.address, transport, bytes);
        rsip_capture::record(Collection::Spoken, &spoken).expect("the capture can be written");
    }
    Some(command)
}

// What hosts ask for.

pub(crate) fn assign_whole(client_id: ClientId) -> Body {
    assign_whole_at(client_id, Address::ANY)
}

pub(crate) fn assign_whole_at(client_id: ClientId, local_address: Address) -> Body {
    Body::AssignRequestRsaIp(AssignRequestRsaIp {
        client_id,
        local_address,
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time: None,
        tunnel_type: None,
    })
}

pub(crate) fn listen_at(client_id: ClientId, local_address: Address, local_ports: Ports) -> Body {
    Body::ListenRequest(ListenRequest {
        client_id,
        local_address,
        local_ports,
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time: None,
        tunnel_types: Vec::new(),
    })
}

pub(crate) fn assign(client_id: ClientId, count: u8) -> Body {
    assign_ports(client_id, Ports::DontCare { count })
}

pub(crate) fn assign_ports(client_id: ClientId, local_ports: Ports) -> Body {
    Body::AssignRequestRsapIp(AssignRequestRsapIp {
        client_id,
        local_address: Address::ANY,
        local_ports,
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time: None,
        tunnel_type: None,
    })
}

pub(crate) fn listen_on(client_id: ClientId, port: u16) -> Body {
    listen_ports(client_id, Ports::single(port))
}

pub(crate) fn listen_ports(client_id: ClientId, local_ports: Ports) -> Body {
    listen_at(client_id, Address::ANY, local_ports)
}

/// The same request for this peer.
pub(crate) fn with_remote(mut body: Body, remote: Remote) -> Body {
    let (address, ports) = match &mut body {
        Body::AssignRequestRsaIp(request) => (&mut request.remote_address, &mut request.remote_ports),
        Body::AssignRequestRsapIp(request) => (&mut request.remote_address, &mut request.remote_ports),
        Body::ListenRequest(request) => (&mut request.remote_address, &mut request.remote_ports),
        other => panic!("{other:?} names no peer"),
    };
    *address = remote.address().map_or(Address::ANY, Address::Ipv4);
    *ports = remote.port().map_or(Ports::ANY, Ports::single);
    body
}

pub(crate) fn extend(client_id: ClientId, bind_id: u32, lease_time: Option<u32>) -> Body {
    Body::ExtendRequest { client_id, bind_id: BindId(bind_id), lease_time }
}

pub(crate) fn free(client_id: ClientId, bind_id: u32) -> Body {
    Body::FreeRequest { client_id, bind_id: BindId(bind_id) }
}

pub(crate) fn query(client_id: ClientId) -> Body {
    Body::QueryRequest { client_id, tuples: Vec::new() }
}

pub(crate) fn leave(client_id: ClientId) -> Body {
    Body::DeRegisterRequest { client_id }
}

// What the gateway is expected to say.

pub(crate) fn send(to: Peer, counter: u32, body: Body) -> GatewayCommand {
    GatewayCommand::Send { to, message: Message::new(MessageCounter(counter), body) }
}

pub(crate) fn registered(client_id: ClientId) -> Body {
    Body::RegisterResponse {
        client_id,
        lease_time: LEASE,
        flow_policy: config().flow_policy,
        methods: vec![RsipMethod::RsapIp],
        tunnel_types: vec![TunnelType::IpIp],
    }
}

/// A rule of host number `host`, over IP-IP.
pub(crate) fn rule(client_id: ClientId, bind_id: u32, host: u8, ports: Ports) -> Rule {
    Rule {
        client_id,
        bind_id: BindId(bind_id),
        host: Ipv4Addr::new(10, 0, 0, host),
        address: PUBLIC,
        leased: ports.into(),
        remote: Remote::Any,
        tunnel: TunnelType::IpIp,
    }
}

/// A rule of host number `host` for a whole address, over IP-IP.
pub(crate) fn whole_rule(client_id: ClientId, bind_id: u32, host: u8, address: Ipv4Addr) -> Rule {
    let leased = Leased::Address;
    Rule { address, leased, ..rule(client_id, bind_id, host, Ports::ANY) }
}

pub(crate) fn install(op: u64, rule: Rule) -> GatewayCommand {
    GatewayCommand::Install { op: OpId(op), rule }
}

pub(crate) fn remove(op: u64, rule: Rule) -> GatewayCommand {
    GatewayCommand::Remove { op: OpId(op), rule }
}

pub(crate) fn granted(rule: &Rule, lease_time: u32) -> PortBinding {
    PortBinding {
        client_id: rule.client_id,
        bind_id: rule.bind_id,
        local_address: Address::Ipv4(rule.address),
        local_ports: rule.leased.ports().unwrap().clone(),
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time,
        tunnel_type: rule.tunnel,
        tunnel_endpoint: None,
    }
}

pub(crate) fn granted_whole(rule: &Rule, lease_time: u32) -> AssignResponseRsaIp {
    AssignResponseRsaIp {
        client_id: rule.client_id,
        bind_id: rule.bind_id,
        local_address: Address::Ipv4(rule.address),
        remote_address: Address::ANY,
        remote_ports: Ports::ANY,
        lease_time,
        tunnel_type: rule.tunnel,
        tunnel_endpoint: None,
    }
}

pub(crate) fn bound(rule: Rule, lease_time: u32, listen: bool) -> GatewayCommand {
    GatewayCommand::Event(Event::Bound { rule, lease_time, listen })
}

pub(crate) fn unbound(rule: Rule, reason: RemovalReason) -> GatewayCommand {
    GatewayCommand::Event(Event::Unbound { rule, reason })
}

pub(crate) fn unregistered(client_id: ClientId, host: u8, reason: RemovalReason) -> GatewayCommand {
    let host = Ipv4Addr::new(10, 0, 0, host);
    GatewayCommand::Event(Event::Unregistered { client_id, host, reason })
}

pub(crate) fn freed(client_id: ClientId, bind_id: u32) -> Body {
    Body::FreeResponse { client_id, bind_id: BindId(bind_id) }
}

pub(crate) fn left(client_id: ClientId) -> Body {
    Body::DeRegisterResponse { client_id }
}

/// The one error in these commands: code, client ID, bind ID. Panics unless it was sent to `to` under `counter`, and
/// told to the log, and nothing else happened.
pub(crate) fn refusal(
    commands: &[GatewayCommand],
    to: Peer,
    counter: Option<u32>,
) -> (u16, Option<ClientId>, Option<BindId>) {
    let [
        GatewayCommand::Send { to: sent_to, message },
        GatewayCommand::Event(Event::Refused { peer, error: logged, detail }),
    ] = commands
    else {
        panic!("not a refusal: {commands:?}");
    };
    let Body::ErrorResponse { error, client_id, bind_id } = message.body else { panic!("{message:?}") };
    assert_eq!((*sent_to, *peer, *logged), (to, to, error));
    assert_eq!(message.counter, counter.map(MessageCounter), "counter of {error}");
    assert!(!detail.is_empty());
    (error.number(), client_id, bind_id)
}

/// A refusal with just its code.
pub(crate) fn code(commands: &[GatewayCommand], to: Peer, counter: u32) -> u16 {
    refusal(commands, to, Some(counter)).0
}

pub(crate) fn error(code: ErrorCode, client_id: Option<ClientId>, bind_id: Option<u32>) -> Body {
    Body::ErrorResponse { error: code, client_id, bind_id: bind_id.map(BindId) }
}
