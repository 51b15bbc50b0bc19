//! An agent that crashed and goes on.

use super::*;
use crate::host::{BindingState, GatewayState, SavedBinding, WithdrawReason};

const NEW: ClientId = ClientId(4711);

fn saved(bindings: Vec<HostBinding>) -> SavedState {
    let bindings = bindings
        .into_iter()
        .map(|binding| SavedBinding { binding, lease_time: secs(600), releasing: false })
        .collect();
    SavedState {
        client_id: Some(CLIENT),
        flow_policy: Some(FlowPolicy { local: LocalPolicy::Macro, remote: RemotePolicy::None }),
        in_doubt: false,
        bindings,
    }
}

fn up(config: HostConfig, state: SavedState) -> Dialogue {
    let mut it = Dialogue::resume(config, state);
    assert_eq!(it.commands(), [], "nothing before start");
    it.host.start(it.now);
    assert_eq!(it.commands(), [HostCommand::Connect]);
    it.host.handle_transport_up(it.now);
    it
}

fn publish(op: u64, binding: HostBinding) -> HostCommand {
    HostCommand::Publish { op: OpId(op), binding }
}

#[test]
fn what_the_gateway_confirms_is_taken_into_use_again() {
    let block = binding(BindingKind::Block, CLIENT, 1, Ports::Range { first: 10_000, count: 4 });
    let mut it = up(with_block(4), saved(vec![block.clone(), listener(5, 80)]));
    assert_eq!(it.host.view(it.now).gateway, GatewayState::Registering);
    assert_eq!(it.host.view(it.now).bindings[0].state, BindingState::Resumed);
    let commands = it.commands();
    assert_eq!(commands[0], change(RegistrationChange::Registered(CLIENT)), "the answer to QUERY tells");
    assert_eq!(sends(&commands), [extend_request(1)]);
    it.answer(extend_response(1, LEASE));
    let commands = it.commands();
    assert_eq!(commands[0], publish(0, block));
    assert_eq!(sends(&commands), [extend_request(5)]);
    it.done(Ok(()));
    it.answer(extend_response(5, LEASE));
    assert_eq!(it.commands(), [publish(1, listener(5, 80))]);
    it.done(Ok(()));
    assert_eq!(it.commands(), [], "no verdicts, and no second block");
    assert_eq!(it.host.view(it.now).gateway, GatewayState::Registered);
    it.host.want_port(80, it.now);
    assert_eq!(it.commands(), [granted(80)]);
}

#[test]
fn a_program_that_binds_meanwhile_waits_for_the_confirmation() {
    let mut it = up(tcp(), saved(vec![listener(5, 80)]));
    it.host.want_port(80, it.now);
    assert_eq!(sends(&it.commands()), [extend_request(5)]);
    it.answer(extend_response(5, LEASE));
    it.commands();
    it.done(Ok(()));
    assert_eq!(it.commands(), [granted(80)]);
}

#[test]
fn a_binding_that_the_gateway_does_not_know_is_asked_for_again() {
    let mut it = up(tcp(), saved(vec![listener(5, 80)]));
    it.commands();
    it.refuse(ErrorCode::BadBindId);
    let requests = sends(&it.commands());
    assert_eq!(asked_ports(&requests[0]), (&Address::Ipv4(PUBLIC), &Ports::single(80)));
    it.answer(listen_response(CLIENT, 6, 80));
    assert_eq!(it.commands(), [publish(0, listener(6, 80))]);
}

#[test]
fn a_gateway_that_restarted_too_is_asked_for_the_same_ports() {
    for error in [ErrorCode::RegisterFirst, ErrorCode::BadClientId] {
        let mut it = up(tcp(), saved(vec![listener(5, 80)]));
        it.commands();
        it.refuse(error);
        loop {
            let commands = it.commands();
            match sends(&commands).pop() {
                Some(Body::DeRegisterRequest { client_id }) => {
                    assert_eq!((client_id, error), (CLIENT, ErrorCode::RegisterFirst));
                    it.refuse(ErrorCode::RegisterFirst);
                }
                Some(Body::RegisterRequest) => it.answer(register_response(NEW)),
                Some(listen) => {
                    let same = (&Address::Ipv4(PUBLIC), &Ports::single(80));
                    assert_eq!(asked_ports(&listen), same);
                    break;
                }
                None => it.pass(ms(10)),
            }
        }
        it.answer(listen_response(NEW, 1, 80));
        let expected = binding(BindingKind::Listen, NEW, 1, Ports::single(80));
        assert_eq!(it.commands(), [publish(0, expected)], "not renamed: it was not in use in this run");
    }
}

#[test]
fn a_doubtful_state_is_cleared_by_registering_anew() {
    let state = SavedState { in_doubt: true, ..saved(vec![listener(5, 80)]) };
    let mut it = up(tcp(), state);
    assert_eq!(it.request(), Body::DeRegisterRequest { client_id: CLIENT });
    it.answer(Body::DeRegisterResponse { client_id: CLIENT });
    assert_eq!(it.request(), Body::RegisterRequest);
    it.answer(register_response(NEW));
    let requests = sends(&it.commands());
    assert_eq!(asked_ports(&requests[0]), (&Address::Ipv4(PUBLIC), &Ports::single(80)));
}

#[test]
fn what_was_being_given_back_is_given_back() {
    let mut state = saved(vec![listener(5, 80), listener(6, 443)]);
    state.bindings[0].releasing = true;
    let mut it = up(tcp(), state);
    assert_eq!(sends(&it.commands()), [extend_request(6)]);
    it.answer(extend_response(6, LEASE));
    let commands = it.commands();
    assert_eq!(sends(&commands), [free_request(5)]);
    assert!(!commands.iter().any(|command| matches!(command, HostCommand::Withdraw { .. })));
}

#[test]
fn without_bindings_there_is_nothing_to_go_on_with() {
    let mut it = up(tcp(), saved(Vec::new()));
    assert_eq!(it.request(), Body::DeRegisterRequest { client_id: CLIENT });
    let mut it = up(tcp(), SavedState::default());
    assert_eq!(it.request(), Body::RegisterRequest);
}

#[test]
fn what_is_not_confirmed_within_its_lease_is_asked_for_anew() {
    let mut it = Dialogue::resume(tcp(), saved(vec![listener(5, 80)]));
    it.host.start(it.now);
    it.commands();
    it.host.handle_transport_down(it.now);
    it.pass(secs(600));
    let commands = it.commands();
    assert!(commands.contains(&change(RegistrationChange::Lost)));
    assert!(!commands.iter().any(|command| matches!(command, HostCommand::Withdraw { .. })));
    assert_eq!(it.host.view(it.now).bindings, []);
    assert_eq!(it.host.view(it.now).pending.len(), 1);
}

#[test]
fn an_administrators_port_stays_one() {
    let fixed = binding(BindingKind::StaticListen, CLIENT, 5, Ports::single(80));
    let mut it = up(tcp(), saved(vec![fixed.clone()]));
    it.commands();
    it.answer(extend_response(5, LEASE));
    assert!(it.commands().contains(&publish(0, fixed)));
    it.done(Ok(()));
    it.host.release_port(80, it.now);
    assert_eq!(it.commands(), []);
    it.host.unlisten(80, it.now);
    assert_eq!(sends(&it.commands()), [free_request(5)]);
}

#[test]
fn what_is_saved_is_what_is_held() {
    let mut it = Dialogue::new(tcp());
    assert_eq!(it.host.saved(), SavedState::default());
    it = Dialogue::holding(tcp(), 80, 5);
    assert_eq!(it.host.saved(), saved(vec![listener(5, 80)]));
    it.host.want_port(443, it.now);
    it.commands();
    assert!(it.host.saved().in_doubt, "the answer may bring a binding");
    it.answer(listen_response(CLIENT, 6, 443));
    assert_eq!(it.host.saved(), saved(vec![listener(5, 80), listener(6, 443)]), "before it is in use");
    it.commands();
    it.done(Ok(()));
    it.host.release_port(80, it.now);
    let state = it.host.saved();
    assert!(state.bindings[0].releasing && !state.bindings[1].releasing);
    it.commands();
    it.answer(free_response(5));
    assert_eq!(it.host.saved(), saved(vec![listener(6, 443)]));
    it.asynchronous(Body::DeRegisterResponse { client_id: CLIENT });
    let state = it.host.saved();
    assert_eq!(state.client_id, None);
    assert_eq!(state.bindings.len(), 1, "to be asked for again");
    it.commands();
    it.answer(register_response(NEW));
    let state = it.host.saved();
    assert_eq!((state.client_id, state.in_doubt, state.bindings.len()), (Some(NEW), true, 1));
    it.commands();
    it.answer(listen_response(NEW, 1, 443));
    let state = it.host.saved();
    assert_eq!((state.in_doubt, state.bindings.len()), (false, 1));
    assert_eq!(state.bindings[0].binding.client_id, NEW);
}

#[test]
fn nonsense_in_the_saved_state_does_no_harm() {
    let mut odd = listener(7, 80);
    odd.leased = Ports::ANY.into();
    let state = saved(vec![listener(5, 80), listener(6, 80), odd]);
    let mut it = up(tcp(), state);
    it.commands();
    it.answer(extend_response(5, LEASE));
    assert!(it.commands().contains(&publish(0, listener(5, 80))));
    it.done(Ok(()));
    it.host.shutdown(it.now);
    let withdraw = HostCommand::Withdraw { binding: listener(5, 80), reason: WithdrawReason::Shutdown };
    assert_eq!(it.commands()[0], withdraw);
}
