//! RSA-IP: a whole address.

use super::*;
use crate::host::{GatewayState, InstallFailed, Method, Mismatch, SavedBinding, WithdrawReason};
use crate::lease::Leased;

const OTHER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 99);
const NEW: ClientId = ClientId(4711);

fn config() -> HostConfig {
    HostConfig { method: Method::RsaIp, ..HostConfig::default() }
}

/// Registered, the address asked for.
fn asking() -> Dialogue {
    Dialogue::registered_by(config(), register_response_with(LocalPolicy::Macro, RemotePolicy::None))
}

fn whole(client_id: ClientId, bind_id: u32, address: Ipv4Addr) -> HostBinding {
    HostBinding {
        address,
        leased: Leased::Address,
        ..binding(BindingKind::Address, client_id, bind_id, Ports::ANY)
    }
}

/// The address in use.
fn holding() -> Dialogue {
    let mut it = asking();
    it.commands();
    it.answer(address_response(CLIENT, 1, PUBLIC));
    assert_eq!(it.commands(), [HostCommand::Publish { op: OpId(0), binding: whole(CLIENT, 1, PUBLIC) }]);
    it.done(Ok(()));
    assert_eq!(it.commands(), []);
    it
}

/// What ASSIGN_REQUEST_RSA-IP asks for.
fn asked_address(body: &Body) -> &Address {
    match body {
        Body::AssignRequestRsaIp(request) => {
            assert_eq!((&request.remote_address, &request.remote_ports), (&Address::ANY, &Ports::ANY));
            &request.local_address
        }
        other => panic!("ASSIGN_REQUEST_RSA-IP expected, not {other:?}"),
    }
}

#[test]
fn one_address_is_leased_instead_of_a_block() {
    let mut it = asking();
    let commands = it.commands();
    let requests = sends(&commands);
    assert_eq!(requests.len(), 1);
    assert_eq!(asked_address(&requests[0]), &Address::ANY);
    it.answer(address_response(CLIENT, 1, PUBLIC));
    it.commands();
    it.done(Ok(()));
    it.host.want_block(it.now);
    assert_eq!(it.commands(), [], "every port is leased already");
    let view = it.host.view(it.now);
    assert_eq!(view.bindings[0].binding, whole(CLIENT, 1, PUBLIC));
    assert_eq!(view.pending, []);
}

#[test]
fn every_port_is_granted_at_once_and_nothing_is_asked() {
    let mut it = holding();
    it.host.want_port(80, it.now);
    it.host.listen(443, it.now);
    it.host.want_port(80, it.now);
    assert_eq!(it.commands(), [granted(80), granted(443), granted(80)]);
    it.host.release_port(80, it.now);
    it.host.unlisten(443, it.now);
    assert_eq!(it.commands(), [], "no LISTEN was sent, so there is nothing to free");
    assert_eq!(it.host.view(it.now).bindings.len(), 1);
}

#[test]
fn who_binds_before_the_address_is_in_use_waits_for_it() {
    let mut it = asking();
    it.commands();
    it.host.want_port(80, it.now);
    it.host.listen(443, it.now);
    assert_eq!(it.commands(), []);
    it.answer(address_response(CLIENT, 1, PUBLIC));
    it.host.want_port(81, it.now);
    assert!(
        matches!(it.commands().as_slice(), [HostCommand::Publish { .. }]),
        "no verdict before the effect"
    );
    it.done(Ok(()));
    assert_eq!(it.commands(), [granted(80), granted(443), granted(81)]);
    assert_eq!(it.host.view(it.now).pending, []);
}

#[test]
fn who_waits_is_told_that_the_address_is_refused_and_it_is_asked_for_again() {
    for error in [
        ErrorCode::LocalAddrUnavailable,
        ErrorCode::LocalAddrInuse,
        ErrorCode::LocalAddrUnallowed,
        ErrorCode::UnsupportedMessage,
    ] {
        let mut it = asking();
        it.commands();
        it.host.want_port(80, it.now);
        let reason = DenyReason::Gateway(error);
        it.refuse(error);
        assert_eq!(it.commands(), [denied(80, reason)]);
        it.host.want_port(81, it.now);
        assert_eq!(it.commands(), [denied(81, reason)], "nothing is asked for a single port");
        let pending = it.host.view(it.now).pending;
        assert_eq!((pending[0].kind, pending[0].refused), (BindingKind::Address, Some(error)));
        let (pause, commands) = it.wait();
        assert_eq!(pause, ms(250));
        assert_eq!(asked_address(&sends(&commands)[0]), &Address::ANY);
        it.answer(address_response(CLIENT, 1, PUBLIC));
        it.commands();
        it.done(Ok(()));
        it.host.want_port(81, it.now);
        assert_eq!(it.commands(), [granted(81)]);
    }
}

#[test]
fn who_waits_is_told_in_time_that_nothing_comes() {
    let mut it = asking();
    it.commands();
    it.answer(address_response(CLIENT, 1, PUBLIC));
    it.commands();
    it.host.want_port(80, it.now);
    it.pass(ms(2999));
    assert_eq!(it.commands(), []);
    it.pass(ms(1));
    assert_eq!(it.commands(), [denied(80, DenyReason::Timeout)]);
}

#[test]
fn an_address_that_cannot_be_taken_into_use_goes_back() {
    let mut it = asking();
    it.commands();
    it.host.want_port(80, it.now);
    it.answer(address_response(CLIENT, 1, PUBLIC));
    it.commands();
    it.done(Err(InstallFailed));
    let commands = it.commands();
    assert_eq!(commands[0], denied(80, DenyReason::InstallFailed));
    assert_eq!(sends(&commands), [free_request(1)]);
    it.answer(free_response(1));
    let (pause, commands) = it.wait();
    assert_eq!((pause, sends(&commands).len()), (ms(250), 1));
}

#[test]
fn the_address_is_extended_at_half_life() {
    let mut it = holding();
    let mut config = config();
    config.probe_interval = secs(100_000);
    it.pass(secs(1));
    let mut slow =
        Dialogue::registered_by(config, register_response_with(LocalPolicy::Macro, RemotePolicy::None));
    slow.commands();
    slow.answer(address_response(CLIENT, 1, PUBLIC));
    slow.commands();
    slow.done(Ok(()));
    let (waited, commands) = slow.wait();
    assert_eq!((waited, sends(&commands)), (secs(300), vec![extend_request(1)]));
    slow.answer(extend_response(1, LEASE));
    let (waited, commands) = slow.wait();
    assert_eq!((waited, sends(&commands)), (secs(300), vec![extend_request(1)]));
}

#[test]
fn an_address_whose_lease_ends_is_out_of_use_and_asked_for_again() {
    let mut it = holding();
    it.host.handle_transport_down(it.now);
    it.commands();
    let mut withdrawn = None;
    while withdrawn.is_none() {
        let (_, commands) = it.wait();
        withdrawn = commands.into_iter().find(|it| matches!(it, HostCommand::Withdraw { .. }));
    }
    let expected =
        HostCommand::Withdraw { binding: whole(CLIENT, 1, PUBLIC), reason: WithdrawReason::Expired };
    assert_eq!(withdrawn, Some(expected));
    it.host.want_port(80, it.now);
    assert_eq!(it.commands(), [denied(80, DenyReason::Unreachable)]);
}

#[test]
fn after_a_restart_of_the_gateway_the_same_address_is_asked_for() {
    let mut it = holding();
    it.forgotten();
    it.host.want_port(80, it.now);
    assert_eq!(it.commands(), [], "the gateway does not hold it at this moment");
    it.answer(Body::RegisterResponse {
        client_id: NEW,
        lease_time: LEASE,
        flow_policy: FlowPolicy { local: LocalPolicy::Macro, remote: RemotePolicy::None },
        methods: vec![RsipMethod::RsaIp],
        tunnel_types: Vec::new(),
    });
    assert_eq!(asked_address(&sends(&it.commands())[0]), &Address::Ipv4(PUBLIC));
    it.answer(address_response(NEW, 9, PUBLIC));
    let renamed = HostCommand::Renamed { old: (CLIENT, BindId(1)), binding: whole(NEW, 9, PUBLIC) };
    assert_eq!(it.commands(), [renamed, granted(80)]);
}

#[test]
fn if_another_host_has_the_address_meanwhile_any_other_is_asked_for() {
    let mut it = holding();
    it.forgotten();
    it.answer(register_response_with(LocalPolicy::Macro, RemotePolicy::None));
    it.commands();
    it.refuse(ErrorCode::LocalAddrInuse);
    let commands = it.commands();
    let reason = WithdrawReason::Refused(ErrorCode::LocalAddrInuse);
    let withdraw = HostCommand::Withdraw { binding: whole(CLIENT, 1, PUBLIC), reason };
    assert_eq!(commands[0], withdraw);
    assert_eq!(asked_address(&sends(&commands)[0]), &Address::ANY);
    it.answer(address_response(CLIENT, 2, OTHER));
    let publish = HostCommand::Publish { op: OpId(1), binding: whole(CLIENT, 2, OTHER) };
    assert_eq!(it.commands(), [publish]);
}

#[test]
fn an_address_that_the_gateway_takes_back_is_out_of_use_and_asked_for_after_a_pause() {
    let mut it = holding();
    it.asynchronous(free_response(1));
    let withdraw =
        HostCommand::Withdraw { binding: whole(CLIENT, 1, PUBLIC), reason: WithdrawReason::Revoked };
    assert_eq!(it.commands(), [withdraw]);
    let (pause, commands) = it.wait();
    assert_eq!(pause, ms(250));
    assert_eq!(asked_address(&sends(&commands)[0]), &Address::ANY, "the administrator's will: not this one");
}

#[test]
fn when_the_gateway_ends_the_registration_the_use_of_the_address_stops() {
    let mut it = holding();
    it.asynchronous(Body::DeRegisterResponse { client_id: CLIENT });
    let withdraw =
        HostCommand::Withdraw { binding: whole(CLIENT, 1, PUBLIC), reason: WithdrawReason::Deregistered };
    assert!(it.commands().contains(&withdraw));
    it.host.want_port(80, it.now);
    assert_eq!(it.commands(), []);
    it.answer(register_response_with(LocalPolicy::Macro, RemotePolicy::None));
    assert_eq!(asked_address(&sends(&it.commands())[0]), &Address::Ipv4(PUBLIC));
    it.answer(address_response(CLIENT, 2, PUBLIC));
    it.commands();
    it.done(Ok(()));
    assert_eq!(it.commands(), [granted(80)]);
}

#[test]
fn a_grant_of_ports_or_of_another_address_is_not_what_was_asked() {
    let mut it = asking();
    it.commands();
    it.answer(assign_response(CLIENT, 7, 10_000, 1));
    assert_eq!(sends(&it.commands()), [free_request(7)]);
    it.answer(free_response(7));
    it.wait();
    it.answer(listen_response(CLIENT, 8, 80));
    assert_eq!(sends(&it.commands()), [free_request(8)]);
    let mut it = holding();
    it.forgotten();
    it.answer(register_response_with(LocalPolicy::Macro, RemotePolicy::None));
    it.commands();
    it.answer(address_response(CLIENT, 9, OTHER));
    assert_eq!(sends(&it.commands()), [free_request(9)], "this one was not named");
}

#[test]
fn a_whole_address_for_a_host_that_wants_ports_goes_back() {
    let mut it = Dialogue::registered(with_block(4));
    it.commands();
    it.answer(address_response(CLIENT, 7, PUBLIC));
    assert_eq!(sends(&it.commands()), [free_request(7)]);
}

#[test]
fn a_gateway_without_the_method_is_left_at_once_and_asked_again() {
    // None stated means RSAP-IP (section 9.3.3).
    let mut it = Dialogue::registered_by(config(), register_response(CLIENT));
    let mismatch = Mismatch::Method(Method::RsaIp);
    let commands = it.commands();
    assert_eq!(commands[0], change(RegistrationChange::Unsuitable(mismatch)));
    assert_eq!(sends(&commands), [Body::DeRegisterRequest { client_id: CLIENT }]);
    assert_eq!(it.host.view(it.now).gateway, GatewayState::Unsuitable(mismatch));
    it.host.want_port(80, it.now);
    assert_eq!(it.commands(), [denied(80, DenyReason::Mismatch(mismatch))]);
    it.answer(Body::DeRegisterResponse { client_id: CLIENT });
    let mut pauses = Vec::new();
    for _ in 0..3 {
        let (pause, commands) = it.wait();
        assert_eq!(sends(&commands), [Body::RegisterRequest]);
        pauses.push(pause.as_millis());
        it.answer(register_response(CLIENT));
        it.commands();
        it.answer(Body::DeRegisterResponse { client_id: CLIENT });
    }
    assert_eq!(pauses, [250, 500, 1000]);
    it.wait();
    it.answer(register_response_with(LocalPolicy::Macro, RemotePolicy::None));
    let commands = it.commands();
    assert_eq!(commands[0], change(RegistrationChange::Registered(CLIENT)));
    assert_eq!(asked_address(&sends(&commands)[0]), &Address::ANY);
}

#[test]
fn the_local_micro_policy_rules_it_out() {
    let answer = register_response_with(LocalPolicy::Micro, RemotePolicy::None);
    let mut it = Dialogue::registered_by(config(), answer);
    assert_eq!(it.commands()[0], change(RegistrationChange::Unsuitable(Mismatch::LocalMicro)));
}

fn saved(bindings: Vec<HostBinding>) -> SavedState {
    let bindings = bindings.into_iter().map(|binding| SavedBinding {
        binding,
        lease_time: secs(LEASE.into()),
        releasing: false,
    });
    SavedState {
        client_id: Some(CLIENT),
        flow_policy: Some(FlowPolicy { local: LocalPolicy::Macro, remote: RemotePolicy::None }),
        in_doubt: false,
        bindings: bindings.collect(),
    }
}

fn resumed(config: HostConfig, bindings: Vec<HostBinding>) -> Dialogue {
    let mut it = Dialogue::resume(config, saved(bindings));
    it.host.start(it.now);
    it.host.handle_transport_up(it.now);
    it
}

#[test]
fn an_agent_that_crashed_goes_on_with_its_address() {
    let before = holding();
    let state = before.host.saved();
    assert_eq!(state, saved(vec![whole(CLIENT, 1, PUBLIC)]));
    let mut it = resumed(config(), vec![whole(CLIENT, 1, PUBLIC)]);
    it.host.want_port(80, it.now);
    assert_eq!(sends(&it.commands()), [extend_request(1)]);
    it.answer(extend_response(1, LEASE));
    assert_eq!(it.commands(), [HostCommand::Publish { op: OpId(0), binding: whole(CLIENT, 1, PUBLIC) }]);
    it.done(Ok(()));
    assert_eq!(it.commands(), [granted(80)], "and no second address");
}

#[test]
fn what_the_other_method_left_behind_is_given_back() {
    let mut it = resumed(config(), vec![listener(5, 80)]);
    it.host.want_port(80, it.now);
    let mut asked = Vec::new();
    for _ in 0..2 {
        let request = sends(&it.commands()).remove(0);
        match &request {
            Body::FreeRequest { .. } => it.answer(free_response(5)),
            _ => it.answer(address_response(CLIENT, 6, PUBLIC)),
        }
        asked.push(request);
    }
    assert!(asked.contains(&free_request(5)), "{asked:?}");
    it.commands();
    it.done(Ok(()));
    assert_eq!(it.commands(), [granted(80)]);
    let mut it = resumed(with_block(4), vec![whole(CLIENT, 1, PUBLIC)]);
    let mut asked = Vec::new();
    for _ in 0..2 {
        let request = sends(&it.commands()).remove(0);
        match &request {
            Body::FreeRequest { .. } => it.answer(free_response(1)),
            _ => it.answer(assign_response(CLIENT, 6, 10_000, 4)),
        }
        asked.push(request);
    }
    assert!(asked.contains(&free_request(1)), "{asked:?}");
    assert!(asked.iter().any(|body| matches!(body, Body::AssignRequestRsapIp(_))), "{asked:?}");
}

#[test]
fn the_end_takes_the_address_out_of_use_and_leaves() {
    let mut it = holding();
    it.host.shutdown(it.now);
    let commands = it.commands();
    let withdraw =
        HostCommand::Withdraw { binding: whole(CLIENT, 1, PUBLIC), reason: WithdrawReason::Shutdown };
    assert_eq!(commands[0], withdraw);
    assert_eq!(sends(&commands), [Body::DeRegisterRequest { client_id: CLIENT }]);
    it.answer(Body::DeRegisterResponse { client_id: CLIENT });
    assert_eq!(it.commands(), [HostCommand::Disconnect, HostCommand::Stopped]);
}
