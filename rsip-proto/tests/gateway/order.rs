//! The order of the checks, as the table in the documentation of `gateway` says: each row against its neighbour, with a
//! request that deserves both errors.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use rsip_proto::gateway::{GatewayConfig, Peer, RemoteDeny};
use rsip_proto::ids::ClientId;
use rsip_proto::pool::PoolConfig;
use rsip_proto::wire::message::{AssignRequestRsaIp, AssignRequestRsapIp, ListenRequest};
use rsip_proto::wire::{Address, Body, LocalPolicy, Ports, RemotePolicy, TunnelType};

use crate::rig::*;

/// With whom nobody may talk.
const DENIED: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);
/// With whom everybody may.
const PEER: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 5);

#[track_caller]
fn gets(rig: &mut Rig, from: Peer, bytes: &[u8], expected: u16) {
    let commands = rig.input(from, bytes);
    let [rsip_proto::gateway::GatewayCommand::Send { message, .. }, _] = &commands[..] else {
        panic!("{commands:?}");
    };
    let Body::ErrorResponse { error, .. } = message.body else { panic!("{message:?}") };
    assert_eq!(error.number(), expected);
}

/// Everything that two neighbours of the table can disagree about, as one request.
#[derive(Clone)]
struct Wish {
    address: Address,
    /// None: the whole address.
    ports: Option<Ports>,
    remote: (Address, Ports),
    tunnel: Option<TunnelType>,
}

impl Default for Wish {
    fn default() -> Self {
        let remote = (Address::Ipv4(PEER), Ports::single(80));
        Self { address: Address::ANY, ports: Some(Ports::DontCare { count: 1 }), remote, tunnel: None }
    }
}

impl Wish {
    fn named(ports: &[u16]) -> Self {
        Self { ports: Ports::from_ports(ports), ..Self::default() }
    }

    fn whole() -> Self {
        Self { ports: None, ..Self::default() }
    }

    fn at(self, address: Ipv4Addr) -> Self {
        Self { address: Address::Ipv4(address), ..self }
    }

    fn with(self, remote: Ipv4Addr) -> Self {
        Self { remote: (Address::Ipv4(remote), Ports::single(80)), ..self }
    }

    fn with_anybody(self) -> Self {
        Self { remote: (Address::ANY, Ports::ANY), ..self }
    }

    fn through(self, tunnel: TunnelType) -> Self {
        Self { tunnel: Some(tunnel), ..self }
    }

    /// As ASSIGN and as LISTEN; a whole address only as ASSIGN.
    fn bodies(&self, client_id: ClientId) -> Vec<Body> {
        let (local_address, lease_time) = (self.address.clone(), None);
        let (remote_address, remote_ports) = self.remote.clone();
        let Some(local_ports) = self.ports.clone() else {
            return vec![Body::AssignRequestRsaIp(AssignRequestRsaIp {
                client_id,
                local_address,
                remote_address,
                remote_ports,
                lease_time,
                tunnel_type: self.tunnel,
            })];
        };
        let assign = AssignRequestRsapIp {
            client_id,
            local_address: local_address.clone(),
            local_ports: local_ports.clone(),
            remote_address: remote_address.clone(),
            remote_ports: remote_ports.clone(),
            lease_time,
            tunnel_type: self.tunnel,
        };
        let listen = ListenRequest {
            client_id,
            local_address,
            local_ports,
            remote_address,
            remote_ports,
            lease_time,
            tunnel_types: self.tunnel.into_iter().collect(),
        };
        vec![Body::AssignRequestRsapIp(assign), Body::ListenRequest(listen)]
    }
}

/// A gateway with what the tests need, a registered host, and its next counter.
struct Site {
    rig: Rig,
    id: ClientId,
    counter: u32,
}

impl Site {
    fn new(config: GatewayConfig) -> Self {
        let remote_deny = vec![RemoteDeny { network: (DENIED, 32), ports: 0..=65_535 }];
        let mut rig = Rig::new(GatewayConfig { remote_deny, ..config });
        let id = rig.register(udp(2));
        Self { rig, id, counter: 1 }
    }

    fn next(&mut self) -> u32 {
        self.counter += 1;
        self.counter
    }

    #[track_caller]
    fn gets(&mut self, wish: &Wish, expected: u16) {
        for body in wish.bodies(self.id) {
            let counter = self.next();
            assert_eq!(
                code(&self.rig.ask(udp(2), counter, body.clone()), udp(2), counter),
                expected,
                "{body:?}"
            );
        }
    }

    fn has(&mut self, wish: &Wish) {
        let counter = self.next();
        let body = wish.bodies(self.id).remove(0);
        self.rig.obtain_rule(udp(2), counter, body);
    }
}

fn policy(local: LocalPolicy, remote: RemotePolicy) -> GatewayConfig {
    with_policy(local, remote)
}

/// One address by port, one both ways, one whole only.
fn mixed() -> GatewayConfig {
    with_pool(vec![PUBLIC, SECOND_PUBLIC], vec![SECOND_PUBLIC, WHOLE])
}

fn with_ports(ports: RangeInclusive<u16>, config: GatewayConfig) -> GatewayConfig {
    let pool = PoolConfig { port_range: ports.clone(), listen_range: ports, ..config.pool };
    GatewayConfig { pool, ..config }
}

#[test]
fn a_short_header_comes_before_the_version() {
    gets(&mut Rig::new(config()), udp(2), &[2, 2, 0], 207);
}

#[test]
fn the_version_comes_before_the_length() {
    gets(&mut Rig::new(config()), udp(2), &[2, 2, 0, 9], 106);
}

#[test]
fn the_length_comes_before_the_type() {
    gets(&mut Rig::new(config()), udp(2), &[1, 99, 0, 9], 207);
}

#[test]
fn the_type_comes_before_the_framing() {
    gets(&mut Rig::new(config()), udp(2), &[1, 99, 0, 8, 11, 0, 4, 0], 206);
    gets(&mut Rig::new(config()), udp(2), &[1, 6, 0, 8, 4, 0, 4, 0], 208);
    gets(&mut Rig::new(GatewayConfig { listen: false, ..config() }), udp(2), &[1, 16, 0, 8, 4, 0, 4, 0], 208);
}

#[test]
fn the_framing_comes_before_the_counter() {
    gets(&mut Rig::new(config()), udp(2), &[1, 2, 0, 8, 4, 0, 4, 0], 207);
}

#[test]
fn the_counter_comes_before_the_parameters() {
    gets(&mut Rig::new(config()), udp(2), &[1, 2, 0, 7, 99, 0, 0], 105);
}

#[test]
fn parameters_are_judged_by_kind_of_mistake_not_by_place() {
    let counter = [11, 0, 4, 0, 0, 0, 1];
    let message = |message_type: u8, params: &[&[u8]]| {
        let params = params.concat();
        let length = u8::try_from(params.len() + 4).unwrap();
        [&[1, message_type, 0, length][..], &params].concat()
    };
    let mut rig = Rig::new(config());
    let (unknown, extra) = ([99, 0, 0], [5, 0, 4, 0, 0, 0, 1]);
    gets(&mut rig, udp(2), &message(2, &[&counter, &extra, &unknown]), 204);
    gets(&mut rig, udp(2), &message(2, &[&counter, &counter, &extra]), 203);
    let short = [4, 0, 1, 0];
    gets(&mut rig, udp(2), &message(4, &[&short, &counter, &counter]), 202);
    // FREE_REQUEST: a bad client ID, and no bind ID.
    gets(&mut rig, udp(2), &message(12, &[&short, &counter]), 205);
    // ASSIGN_REQUEST_RSAP-IP: ports before the address, and the rest missing.
    gets(&mut rig, udp(2), &message(8, &[&[2, 0, 3, 1, 0, 80], &[4, 0, 4, 0, 0, 0, 1], &counter]), 201);
    // All of it there, in a wrong order, from a host that is not registered.
    let wrong_order = message(12, &[&[5, 0, 4, 0, 0, 0, 1], &[4, 0, 4, 0, 0, 0, 1], &counter]);
    gets(&mut rig, udp(2), &wrong_order, 207);
}

#[test]
fn the_parameters_come_before_a_counter_of_zero_and_that_before_registration() {
    let mut rig = Rig::new(config());
    gets(&mut rig, udp(2), &[1, 4, 0, 11, 11, 0, 4, 0, 0, 0, 0], 201);
    assert_eq!(code(&rig.ask(udp(2), 0, query(ClientId(1))), udp(2), 0), 205);
    rig.register(udp(2));
    assert_eq!(code(&rig.ask(udp(2), 0, Body::RegisterRequest), udp(2), 0), 205);
}

#[test]
fn duplicates_come_before_registration_and_names() {
    let mut rig = Rig::new(config());
    let id = rig.register(udp(2));
    assert_eq!(rig.ask(udp(2), 1, Body::RegisterRequest), [send(udp(2), 1, registered(id))]);
    rig.ask(udp(2), 5, query(id));
    assert_eq!(rig.ask(udp(2), 4, query(ClientId(id.0 ^ 1))), [], "older than the last");
}

#[test]
fn being_registered_comes_before_being_refused() {
    let mut rig = Rig::new(GatewayConfig { max_clients: 1, ..config() });
    rig.register(udp(2));
    let again = udp_from(2, 6000);
    assert_eq!(code(&rig.ask(again, 1, Body::RegisterRequest), again, 1), 302);
    assert_eq!(code(&rig.ask(udp(3), 1, Body::RegisterRequest), udp(3), 1), 304);
}

#[test]
fn registration_comes_before_the_name_and_the_name_before_all_else() {
    let mut rig = Rig::new(with_policy(LocalPolicy::Micro, RemotePolicy::Micro));
    let id = rig.register(udp(2));
    let wrong = ClientId(id.0 ^ 1);
    let name = (Address::Fqdn("example.net".to_owned()), Ports::ANY);
    let bad = Wish { remote: name, ..Wish::named(&[80, 81]) }.through(TunnelType::L2tp);
    for (counter, body) in
        (2..).zip([free(wrong, 9), extend(wrong, 9, None)].into_iter().chain(bad.bodies(wrong)))
    {
        assert_eq!(code(&rig.ask(udp(3), counter, body.clone()), udp(3), counter), 301, "{body:?}");
        assert_eq!(code(&rig.ask(udp(2), counter, body.clone()), udp(2), counter), 305, "{body:?}");
    }
}

#[test]
fn the_transport_comes_before_the_name() {
    let mut rig = Rig::new(config());
    let id = rig.register(tcp(2, 1));
    assert_eq!(code(&rig.ask(udp(2), 2, query(ClientId(id.0 ^ 1))), udp(2), 2), 102);
}

#[test]
fn a_name_as_peer_comes_before_the_tunnel() {
    let mut site = Site::new(policy(LocalPolicy::Macro, RemotePolicy::Macro));
    let name = Wish { remote: (Address::Fqdn("example.net".to_owned()), Ports::ANY), ..Wish::default() };
    site.gets(&name.clone().through(TunnelType::L2tp), 205);
    site.gets(&Wish { ports: None, ..name }.through(TunnelType::L2tp), 205);
}

#[test]
fn the_tunnel_comes_before_the_detail() {
    let mut site = Site::new(policy(LocalPolicy::Micro, RemotePolicy::Micro));
    site.gets(&Wish::named(&[80, 81]).through(TunnelType::L2tp), 307);
    site.gets(&Wish::default().with_anybody().through(TunnelType::L2tp), 307);
    site.gets(&Wish::whole().through(TunnelType::L2tp), 307);
}

#[test]
fn the_local_detail_comes_before_the_peer() {
    let mut site = Site::new(policy(LocalPolicy::Micro, RemotePolicy::Macro));
    site.gets(&Wish::named(&[80, 81]).with(DENIED), 103);
    site.gets(&Wish::whole().with(DENIED), 103);
}

#[test]
fn the_remote_detail_comes_before_the_peer() {
    let mut site = Site::new(policy(LocalPolicy::Macro, RemotePolicy::Micro));
    let no_port = (Address::Ipv4(DENIED), Ports::ANY);
    site.gets(&Wish { remote: no_port.clone(), ..Wish::default() }, 103);
    site.gets(&Wish { remote: no_port, ..Wish::whole() }, 103);
}

#[test]
fn the_detail_comes_before_the_local_side() {
    let mut site = Site::new(policy(LocalPolicy::Macro, RemotePolicy::Macro));
    site.gets(&Wish::named(&[22]).at(DENIED).with_anybody(), 103);
    site.gets(&Wish::whole().at(DENIED).with_anybody(), 103);
}

#[test]
fn the_peer_comes_before_the_local_side() {
    for (remote, expected) in [(RemotePolicy::Macro, 314), (RemotePolicy::Micro, 315)] {
        let full = with_ports(10_000..=10_000, with_pool(vec![PUBLIC], vec![WHOLE]));
        let flow_policy = policy(LocalPolicy::Macro, remote).flow_policy;
        let mut site = Site::new(GatewayConfig { flow_policy, ..full });
        site.has(&Wish::default());
        site.has(&Wish::whole());
        // Nothing is available, the address is nobody's, and the port is not for lease.
        site.gets(&Wish::default().with(DENIED), expected);
        site.gets(&Wish::named(&[22]).at(DENIED).with(DENIED), expected);
        site.gets(&Wish::whole().with(DENIED), expected);
        site.gets(&Wish::whole().at(DENIED).with(DENIED), expected);
    }
}

#[test]
fn nothing_available_comes_before_the_named_address_and_port() {
    let mut site = Site::new(with_ports(10_000..=10_000, with_pool(vec![PUBLIC], vec![WHOLE])));
    site.has(&Wish::default());
    site.has(&Wish::whole());
    for address in [PUBLIC, WHOLE, DENIED] {
        site.gets(&Wish::named(&[22]).at(address), 308);
        site.gets(&Wish::whole().at(address), 308);
    }
    site.gets(&Wish::named(&[10_000]), 308);
}

#[test]
fn what_may_not_be_comes_before_what_is_in_use() {
    let mut site = Site::new(GatewayConfig { max_addresses_per_client: 9, ..mixed() });
    site.has(&Wish::whole().at(WHOLE));
    // Held whole, but never leased by port anyway; and the other way round.
    site.gets(&Wish::named(&[80]).at(WHOLE), 312);
    site.has(&Wish::named(&[80]).at(PUBLIC));
    site.gets(&Wish::whole().at(PUBLIC), 312);
    site.gets(&Wish::named(&[22]).at(WHOLE), 312);
}

#[test]
fn an_address_in_use_comes_before_its_ports() {
    let mut site = Site::new(mixed());
    site.has(&Wish::whole().at(SECOND_PUBLIC));
    site.gets(&Wish::named(&[22]).at(SECOND_PUBLIC), 310);
    site.gets(
        &Wish { ports: Some(Ports::DontCare { count: 255 }), ..Wish::default() }.at(SECOND_PUBLIC),
        310,
    );
}

#[test]
fn an_address_in_use_comes_before_the_limit_of_addresses() {
    let mut site = Site::new(mixed());
    site.has(&Wish::whole().at(SECOND_PUBLIC));
    site.gets(&Wish::whole().at(SECOND_PUBLIC), 310);
    site.gets(&Wish::whole().at(PUBLIC), 312);
    site.gets(&Wish::whole().at(WHOLE), 308);
    site.gets(&Wish::whole(), 308);
}

#[test]
fn a_port_that_may_not_be_comes_before_one_that_is_in_use() {
    let mut site = Site::new(config());
    site.has(&Wish::named(&[80]));
    site.gets(&Wish::named(&[80, 22]), 313);
    site.gets(&Wish::named(&[80, 22]).at(PUBLIC), 313);
    site.gets(&Wish::named(&[80, 5000]), 313);
}

#[test]
fn a_port_in_use_comes_before_the_limit_of_ports() {
    let mut site = Site::new(GatewayConfig { max_ports_per_client: 1, ..config() });
    site.has(&Wish::named(&[80]));
    site.gets(&Wish::named(&[80]), 311);
    site.gets(&Wish::named(&[81]), 309);
    site.gets(&Wish { ports: Some(Ports::DontCare { count: 1 }), ..Wish::default() }, 309);
}

#[test]
fn every_check_comes_before_the_data_path() {
    let mut site = Site::new(with_whole());
    let counter = site.next();
    let body = Wish::named(&[80]).bodies(site.id).remove(1);
    assert_eq!(site.rig.ask(udp(2), counter, body).len(), 1, "an Install, and nothing else");
    assert_eq!(code(&site.rig.failed(1)[1..], udp(2), counter), 104);
}
