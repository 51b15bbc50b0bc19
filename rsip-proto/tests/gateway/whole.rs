//! RSA-IP: whole addresses (RFC 3103 sections 9.6 and 9.7).

use std::net::{Ipv4Addr, Ipv6Addr};

use rsip_proto::gateway::{GatewayCommand, GatewayConfig, RemovalReason};
use rsip_proto::ids::{BindId, ClientId};
use rsip_proto::lease::{Leased, Remote};
use rsip_proto::pool::WholeUse;
use rsip_proto::wire::message::AssignRequestRsaIp;
use rsip_proto::wire::{Address, Body, LocalPolicy, Ports, RemotePolicy, RsipMethod, TunnelType};

use crate::rig::*;

fn at(address: Ipv4Addr) -> Address {
    Address::Ipv4(address)
}

/// An address that is leased by port and whole, whatever comes first.
fn both_ways() -> GatewayConfig {
    with_pool(vec![PUBLIC, SECOND_PUBLIC], vec![SECOND_PUBLIC])
}

#[test]
fn assigns_an_address_and_answers_after_the_data_path_holds() {
    let mut rig = Rig::new(with_whole());
    let host = udp(2);
    let id = rig.register(host);
    let rule = whole_rule(id, 1, 2, WHOLE);
    assert_eq!(rule.leased, Leased::Address);
    assert_eq!(rig.at(1).ask(host, 2, assign_whole(id)), [install(1, rule.clone())]);
    let response = Body::AssignResponseRsaIp(granted_whole(&rule, LEASE));
    assert_eq!(rig.at(3).done(1), [send(host, 2, response), bound(rule, LEASE, false)]);
    assert_eq!(rig.wakes_at(), Some(603.0), "the lease begins with the answer");
    let binding = &rig.client(id).unwrap().bindings[0];
    assert_eq!((binding.address, &binding.leased, binding.listen), (WHOLE, &Leased::Address, false));
    assert_eq!(rig.pool()[0], 0, "no port of a shared address");
}

#[test]
fn is_offered_where_it_can_be_had() {
    let methods = |config| {
        let commands = Rig::new(config).ask(udp(2), 1, Body::RegisterRequest);
        let Some(GatewayCommand::Send { message, .. }) = commands.last() else { panic!("{commands:?}") };
        let Body::RegisterResponse { methods, .. } = &message.body else { panic!("{message:?}") };
        methods.clone()
    };
    assert_eq!(methods(config()), [RsipMethod::RsapIp]);
    assert_eq!(methods(with_whole()), [RsipMethod::RsapIp, RsipMethod::RsaIp]);
    let micro = with_policy(LocalPolicy::Micro, RemotePolicy::None);
    assert_eq!(methods(micro), [RsipMethod::RsapIp], "not under a local micro-flow policy");
}

#[test]
fn a_named_address_is_given_if_it_may_be() {
    let mut rig = Rig::new(GatewayConfig { max_addresses_per_client: 9, ..with_whole() });
    let (a, b) = (rig.register(udp(2)), rig.register(udp(3)));
    assert_eq!(
        rig.obtain_whole(udp(2), 2, assign_whole_at(a, at(SECOND_WHOLE))).local_address,
        at(SECOND_WHOLE)
    );
    let table = [
        (at(SECOND_WHOLE), 310, "another's"),
        (at(PUBLIC), 312, "by port only"),
        (at(Ipv4Addr::new(192, 0, 2, 99)), 312, "not in the pool"),
        (at(Ipv4Addr::UNSPECIFIED), 312, "no address"),
        (Address::Ipv6(Ipv6Addr::LOCALHOST), 312, "IPv6"),
    ];
    for (counter, (address, expected, what)) in (2..).zip(table) {
        let commands = rig.ask(udp(3), counter, assign_whole_at(b, address));
        assert_eq!(refusal(&commands, udp(3), Some(counter)), (expected, Some(b), None), "{what}");
    }
    assert_eq!(
        code(&rig.ask(udp(2), 3, assign_whole_at(a, at(SECOND_WHOLE))), udp(2), 3),
        310,
        "its own again"
    );
    assert_eq!(rig.obtain_whole(udp(3), 9, assign_whole_at(b, at(WHOLE))).local_address, at(WHOLE));
    assert_eq!(code(&rig.ask(udp(2), 4, assign_whole(a)), udp(2), 4), 308, "none is left");
    assert_eq!(code(&rig.ask(udp(2), 5, assign_whole_at(a, at(WHOLE))), udp(2), 5), 308, "named or not");
}

#[test]
fn two_hosts_get_different_addresses() {
    let mut rig = Rig::new(with_whole());
    let (a, b, c) = (rig.register(udp(2)), rig.register(udp(3)), rig.register(udp(4)));
    assert_eq!(rig.obtain_whole(udp(2), 2, assign_whole(a)).local_address, at(WHOLE));
    // Also while the data path has not said that it holds.
    assert_eq!(rig.ask(udp(3), 2, assign_whole(b)), [install(2, whole_rule(b, 1, 3, SECOND_WHOLE))]);
    assert_eq!(code(&rig.ask(udp(4), 2, assign_whole(c)), udp(4), 2), 308);
}

#[test]
fn one_host_has_as_many_addresses_as_it_may() {
    let mut rig = Rig::new(with_whole());
    let id = rig.register(udp(2));
    rig.obtain_whole(udp(2), 2, assign_whole(id));
    assert_eq!(code(&rig.ask(udp(2), 3, assign_whole(id)), udp(2), 3), 308, "one by default");
    // Ports are another matter.
    rig.obtain(udp(2), 4, assign(id, 255));
    rig.ask(udp(2), 5, free(id, 1));
    rig.done(3);
    rig.obtain_whole(udp(2), 6, assign_whole(id));

    let mut rig = Rig::new(GatewayConfig { max_addresses_per_client: 2, ..with_whole() });
    let id = rig.register(udp(2));
    rig.obtain_whole(udp(2), 2, assign_whole(id));
    rig.obtain_whole(udp(2), 3, assign_whole(id));
}

#[test]
fn the_first_lease_decides_what_an_address_is() {
    let mut rig = Rig::new(both_ways());
    let (a, b) = (rig.register(udp(2)), rig.register(udp(3)));
    // By port: not whole.
    rig.obtain(udp(2), 2, listen_at(a, at(SECOND_PUBLIC), Ports::single(80)));
    assert_eq!(code(&rig.ask(udp(3), 2, assign_whole(b)), udp(3), 2), 308);
    let view = |rig: &Rig| rig.gateway.view(rig.now).pool[1].whole;
    assert_eq!(view(&rig), WholeUse::Shared);
    rig.ask(udp(2), 3, free(a, 1));
    assert_eq!(
        code(&rig.ask(udp(3), 3, assign_whole(b)), udp(3), 3),
        308,
        "until the data path has forgotten"
    );
    rig.done(2);
    // Whole: not by port.
    assert_eq!(rig.obtain_whole(udp(3), 4, assign_whole(b)).local_address, at(SECOND_PUBLIC));
    assert_eq!(view(&rig), WholeUse::Leased);
    let named = listen_at(a, at(SECOND_PUBLIC), Ports::single(80));
    assert_eq!(refusal(&rig.ask(udp(2), 4, named.clone()), udp(2), Some(4)), (310, Some(a), None));
    assert_eq!(code(&rig.ask(udp(3), 5, listen_at(b, at(SECOND_PUBLIC), Ports::single(80))), udp(3), 5), 310);
    // Whoever does not care gets the other address, also the host that has this one.
    assert_eq!(rig.obtain(udp(3), 6, listen_on(b, 80)).local_address, at(PUBLIC));
    assert_eq!(code(&rig.ask(udp(2), 5, listen_on(a, 80)), udp(2), 5), 311);
    rig.ask(udp(3), 7, free(b, 1));
    assert_eq!(code(&rig.ask(udp(2), 6, named.clone()), udp(2), 6), 310, "until the data path has forgotten");
    rig.done(5);
    assert_eq!(rig.obtain(udp(2), 7, named).local_address, at(SECOND_PUBLIC));
}

#[test]
fn a_host_with_a_whole_address_stays_where_its_ports_are() {
    let mut rig = Rig::new(with_pool(vec![PUBLIC, SECOND_PUBLIC], vec![WHOLE]));
    let id = rig.register(udp(2));
    rig.obtain_whole(udp(2), 2, assign_whole(id));
    rig.obtain(udp(2), 3, listen_at(id, at(SECOND_PUBLIC), Ports::single(80)));
    assert_eq!(rig.obtain(udp(2), 4, assign(id, 4)).local_address, at(SECOND_PUBLIC));
}

#[test]
fn an_address_that_is_leased_whole_only_has_no_ports_for_others() {
    let mut rig = Rig::new(with_whole());
    let id = rig.register(udp(2));
    for (counter, ports) in [(2, Ports::single(80)), (3, Ports::DontCare { count: 4 })] {
        let commands = rig.ask(udp(2), counter, listen_at(id, at(WHOLE), ports));
        assert_eq!(code(&commands, udp(2), counter), 312);
    }
}

#[test]
fn where_every_shared_address_is_leased_whole_there_are_no_ports() {
    let mut rig = Rig::new(with_pool(vec![PUBLIC], vec![PUBLIC]));
    let (a, b) = (rig.register(udp(2)), rig.register(udp(3)));
    rig.obtain_whole(udp(2), 2, assign_whole(a));
    for (counter, body) in (2..).zip([
        assign(b, 1),
        listen_on(b, 80),
        listen_at(b, at(PUBLIC), Ports::single(80)),
        listen_on(b, 22),
    ]) {
        assert_eq!(refusal(&rig.ask(udp(3), counter, body), udp(3), Some(counter)), (308, Some(b), None));
    }
}

#[test]
fn extends_frees_and_ends_like_every_binding() {
    let mut rig = Rig::new(with_whole());
    let id = rig.register(udp(2));
    let rule = whole_rule(id, 1, 2, WHOLE);
    rig.obtain_whole(udp(2), 2, assign_whole(id));
    let lease_time = 1800;
    let extended = Body::ExtendResponse { client_id: id, bind_id: BindId(1), lease_time };
    assert_eq!(rig.at(10).ask(udp(2), 3, extend(id, 1, Some(lease_time)))[0], send(udp(2), 3, extended));
    assert_eq!(rig.wakes_at(), Some(1810.0), "the registration lasts as long");
    assert_eq!(rig.ask(udp(2), 4, free(id, 1)), [remove(2, rule.clone())]);
    assert_eq!(rig.done(2), [send(udp(2), 4, freed(id, 1)), unbound(rule, RemovalReason::Freed)]);

    // Ended by its lease.
    rig.obtain_whole(udp(2), 5, assign_whole_at(id, at(WHOLE)));
    let rule = whole_rule(id, 2, 2, WHOLE);
    assert_eq!(rig.at(610).timeout(), [send(udp(2), 0, freed(id, 2)), remove(4, rule.clone())]);
    assert_eq!(rig.done(4), [unbound(rule, RemovalReason::Expired)]);

    // By leaving.
    rig.obtain_whole(udp(2), 6, assign_whole_at(id, at(WHOLE)));
    let rule = whole_rule(id, 3, 2, WHOLE);
    assert_eq!(
        rig.ask(udp(2), 7, leave(id)),
        [unregistered(id, 2, RemovalReason::DeRegistered), remove(6, rule.clone())]
    );
    assert_eq!(rig.done(6), [unbound(rule, RemovalReason::DeRegistered), send(udp(2), 7, left(id))]);
    assert_eq!(rig.gateway.view(rig.now).pool[1].whole, WholeUse::Resting);
}

#[test]
fn the_administrator_takes_an_address_back() {
    let mut rig = Rig::new(with_whole());
    let id = rig.register(udp(2));
    rig.obtain_whole(udp(2), 2, assign_whole(id));
    assert!(rig.gateway.release_bind(id, BindId(1), rig.now));
    let rule = whole_rule(id, 1, 2, WHOLE);
    assert_eq!(rig.commands(), [send(udp(2), 0, freed(id, 1)), remove(2, rule)]);
}

#[test]
fn an_address_that_is_taken_back_before_it_holds_is_not_allowed() {
    let mut rig = Rig::new(with_whole());
    let id = rig.register(udp(2));
    rig.ask(udp(2), 2, assign_whole(id));
    assert!(rig.gateway.release_bind(id, BindId(1), rig.now));
    assert_eq!(refusal(&rig.commands(), udp(2), Some(2)), (312, Some(id), None));
    assert_eq!(rig.done(1), [remove(2, whole_rule(id, 1, 2, WHOLE))]);
    assert_eq!(rig.done(2), []);
}

#[test]
fn an_address_that_the_data_path_could_not_take_is_free_at_once() {
    let mut rig = Rig::new(with_whole());
    let id = rig.register(udp(2));
    rig.ask(udp(2), 2, assign_whole(id));
    let commands = rig.failed(1);
    assert_eq!(commands[0], unbound(whole_rule(id, 1, 2, WHOLE), RemovalReason::InstallFailed));
    assert_eq!(refusal(&commands[1..], udp(2), Some(2)), (104, Some(id), None));
    assert_eq!(rig.gateway.view(rig.now).pool[1].whole, WholeUse::Free);
    assert_eq!(rig.obtain_whole(udp(2), 3, assign_whole(id)).local_address, at(WHOLE));
}

#[test]
fn a_duplicate_gets_the_same_address_and_nothing_twice() {
    let mut rig = Rig::new(with_whole());
    let id = rig.register(udp(2));
    assert_eq!(rig.ask(udp(2), 2, assign_whole(id)).len(), 1);
    assert_eq!(rig.ask(udp(2), 2, assign_whole(id)), [], "while it is under way");
    let answer = rig.done(1);
    assert_eq!(rig.ask(udp(2), 2, assign_whole(id)), answer[..1]);
    assert_eq!(rig.client(id).unwrap().bindings.len(), 1);
}

#[test]
fn a_host_that_comes_back_gets_the_address_that_it_had() {
    let mut rig = Rig::new(with_whole());
    let (a, b) = (rig.register(udp(2)), rig.register(udp(3)));
    assert_eq!(rig.obtain_whole(udp(2), 2, assign_whole(a)).local_address, at(WHOLE));
    assert_eq!(rig.obtain_whole(udp(3), 2, assign_whole(b)).local_address, at(SECOND_WHOLE));
    rig.ask(udp(2), 3, leave(a));
    rig.done(3);
    rig.at(1).ask(udp(3), 3, leave(b));
    rig.done(4);
    // The other one has rested longer; but this one was the host's own.
    let b = rig.register(udp_from(3, 6000));
    assert_eq!(rig.obtain_whole(udp_from(3, 6000), 2, assign_whole(b)).local_address, at(SECOND_WHOLE));
    let c = rig.register(udp(4));
    assert_eq!(
        rig.obtain_whole(udp(4), 2, assign_whole(c)).local_address,
        at(WHOLE),
        "scarce: what rests too"
    );
    let a = rig.register(udp_from(2, 6000));
    assert_eq!(code(&rig.ask(udp_from(2, 6000), 2, assign_whole(a)), udp_from(2, 6000), 2), 308, "too late");
}

#[test]
fn a_whole_address_rests_before_others_get_it() {
    let mut rig = Rig::new(both_ways());
    let (a, b) = (rig.register(udp(2)), rig.register(udp(3)));
    rig.obtain_whole(udp(2), 2, assign_whole(a));
    rig.ask(udp(2), 3, free(a, 1));
    rig.done(2);
    let second = rig.gateway.view(rig.now).pool[1];
    assert_eq!((second.whole, second.leased, second.free), (WholeUse::Resting, 0, 0));
    assert_eq!(second.resting, second.leasable);
    // Port 80 of the other address is taken, but what is named is given at once.
    rig.obtain(udp(2), 4, listen_at(a, at(PUBLIC), Ports::single(80)));
    assert_eq!(rig.obtain(udp(3), 2, listen_on(b, 80)).local_address, at(SECOND_PUBLIC));
    let chosen = rig.obtain(udp(3), 3, assign(b, 4));
    assert_eq!(chosen.local_address, at(PUBLIC), "what the gateway chooses has rested");
    rig.ask(udp(3), 4, free(b, 1));
    rig.done(6);
    rig.at(120);
    assert_eq!(rig.gateway.view(rig.now).pool[1].whole, WholeUse::Free);
}

#[test]
fn wishes_for_lease_and_tunnel_are_heard() {
    let tunnel_types = vec![TunnelType::IpIp, TunnelType::Gre];
    let mut rig = Rig::new(GatewayConfig { tunnel_types, ..with_whole() });
    let id = rig.register(udp(2));
    let with = |lease_time, tunnel_type| {
        Body::AssignRequestRsaIp(AssignRequestRsaIp {
            client_id: id,
            local_address: Address::ANY,
            remote_address: Address::ANY,
            remote_ports: Ports::ANY,
            lease_time,
            tunnel_type,
        })
    };
    assert_eq!(code(&rig.ask(udp(2), 2, with(None, Some(TunnelType::L2tp))), udp(2), 2), 307);
    let granted = rig.obtain_whole(udp(2), 3, with(Some(77), Some(TunnelType::Gre)));
    assert_eq!((granted.lease_time, granted.tunnel_type), (77, TunnelType::Gre));
    rig.ask(udp(2), 4, free(id, 1));
    rig.done(2);
    assert_eq!(rig.obtain_whole(udp(2), 5, with(Some(0), None)).lease_time, LEASE, "0 is no wish");
}

#[test]
fn who_names_a_peer_without_a_remote_policy_is_not_bound_to_it() {
    let mut rig = Rig::new(with_whole());
    let id = rig.register(udp(2));
    let body = Body::AssignRequestRsaIp(AssignRequestRsaIp {
        client_id: id,
        local_address: Address::ANY,
        remote_address: at(Ipv4Addr::new(203, 0, 113, 5)),
        remote_ports: Ports::single(80),
        lease_time: None,
        tunnel_type: None,
    });
    assert_eq!(rig.obtain_rule(udp(2), 2, body).remote, Remote::Any);
}

#[test]
fn every_request_for_an_address_needs_registration_and_the_right_name() {
    let mut rig = Rig::new(with_whole());
    let nobody = ClientId(9);
    assert_eq!(
        refusal(&rig.ask(udp(2), 1, assign_whole(nobody)), udp(2), Some(1)),
        (301, Some(nobody), None)
    );
    let id = rig.register(udp_from(2, 6000));
    let wrong = ClientId(id.0 ^ 1);
    let commands = rig.ask(udp_from(2, 6000), 2, assign_whole(wrong));
    assert_eq!(refusal(&commands, udp_from(2, 6000), Some(2)), (305, Some(wrong), None));
}

#[test]
fn shutting_down_takes_addresses_back() {
    let mut rig = Rig::new(with_whole());
    let id = rig.register(udp(2));
    rig.obtain_whole(udp(2), 2, assign_whole(id));
    rig.gateway.shutdown(rig.now);
    let rule = whole_rule(id, 1, 2, WHOLE);
    assert_eq!(rig.commands()[2], remove(2, rule.clone()));
    assert_eq!(rig.done(2), [unbound(rule, RemovalReason::Revoked)]);
    assert!(rig.gateway.is_drained());
}
