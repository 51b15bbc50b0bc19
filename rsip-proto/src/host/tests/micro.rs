//! Local micro-flow policy: one port per request (RFC 3103 section 7.1).

use super::*;
use crate::host::WithdrawReason;

fn asking(size: u8) -> Dialogue {
    let answer = register_response_with(LocalPolicy::Micro, RemotePolicy::None);
    Dialogue::registered_by(with_block(size), answer)
}

/// The next port of the block is asked for, granted and taken into use.
fn gather(it: &mut Dialogue, bind_id: u32) {
    let request = sends(&it.commands()).pop().expect("a request");
    assert_eq!(asked_ports(&request).1, &Ports::DontCare { count: 1 });
    let port = 10_000 + u16::try_from(bind_id).expect("small");
    it.answer(assign_response(CLIENT, bind_id, port, 1));
    it.commands();
    it.done(Ok(()));
}

#[test]
fn a_block_is_gathered_port_by_port() {
    let mut it = asking(5);
    for bind_id in 1..=5 {
        gather(&mut it, bind_id);
    }
    assert_eq!(it.commands(), [], "as many as one request would have brought elsewhere");
    let view = it.host.view(it.now);
    assert_eq!((view.bindings.len(), view.pending.len(), view.block_size), (5, 0, 1));
    it.host.want_block(it.now);
    for bind_id in 6..=10 {
        gather(&mut it, bind_id);
    }
    assert_eq!(it.commands(), []);
}

#[test]
fn who_waits_for_a_port_goes_first() {
    let mut it = asking(100);
    gather(&mut it, 1);
    assert_eq!(sends(&it.commands()).len(), 1, "the second one is asked for");
    it.host.want_port(80, it.now);
    it.answer(assign_response(CLIENT, 2, 10_002, 1));
    let commands = it.commands();
    assert!(matches!(sends(&commands).as_slice(), [Body::ListenRequest(_)]), "{commands:?}");
}

#[test]
fn a_gateway_that_gives_no_more_is_asked_more_and_more_seldom() {
    let mut it = asking(5);
    gather(&mut it, 1);
    it.commands();
    let mut pauses = Vec::new();
    for _ in 0..3 {
        it.refuse(ErrorCode::LocalAddrportUnavailable);
        assert_eq!(it.commands(), []);
        assert_eq!(it.host.view(it.now).pending.len(), 1, "one at a time");
        let (pause, commands) = it.wait();
        assert_eq!(sends(&commands).len(), 1);
        pauses.push(pause.as_millis());
    }
    assert_eq!(pauses, [250, 500, 1000]);
}

#[test]
fn a_port_that_is_given_back_is_not_gathered_again() {
    let mut it = asking(3);
    for bind_id in 1..=3 {
        gather(&mut it, bind_id);
    }
    it.host.release_block(BindId(2), it.now);
    let commands = it.commands();
    assert!(matches!(commands[0], HostCommand::Withdraw { reason: WithdrawReason::Freed, .. }));
    assert_eq!(sends(&commands), [free_request(2)]);
    it.answer(free_response(2));
    assert_eq!(it.commands(), []);
    assert_eq!(it.host.view(it.now).bindings.len(), 2);
}

#[test]
fn a_gateway_that_came_back_with_this_policy_is_asked_port_by_port() {
    let mut it = Dialogue::registered(with_block(3));
    it.commands();
    it.answer(assign_response(CLIENT, 1, 10_000, 3));
    it.commands();
    it.done(Ok(()));
    it.forgotten();
    it.answer(register_response_with(LocalPolicy::Micro, RemotePolicy::None));
    let all = Ports::Range { first: 10_000, count: 3 };
    assert_eq!(asked_ports(&sends(&it.commands())[0]).1, &all, "what is in use");
    it.refuse(ErrorCode::FlowPolicyViolation);
    let mut bind_id = 2;
    while bind_id <= 4 {
        gather(&mut it, bind_id);
        bind_id += 1;
    }
    assert_eq!(it.commands(), []);
    assert_eq!(it.host.view(it.now).bindings.len(), 3);
}
