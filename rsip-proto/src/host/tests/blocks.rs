//! Blocks of ephemeral ports.

use super::*;
use crate::host::{InstallFailed, WithdrawReason};

/// Registered, the block asked for.
fn asking(size: u8) -> Dialogue {
    let mut it = Dialogue::registered(with_block(size));
    it.commands();
    it
}

/// A block of four in use.
fn holding() -> Dialogue {
    let mut it = asking(4);
    it.answer(assign_response(CLIENT, 1, 10_000, 4));
    it.commands();
    it.done(Ok(()));
    assert_eq!(it.commands(), [], "no verdict: nobody waits by name");
    it
}

fn size(body: &Body) -> u8 {
    match asked_ports(body).1 {
        Ports::DontCare { count } => *count,
        other => panic!("any ports expected, not {other}"),
    }
}

#[test]
fn fewer_ports_are_asked_for_when_there_are_not_so_many() {
    let mut it = asking(255);
    let mut sizes = Vec::new();
    loop {
        it.refuse(ErrorCode::LocalAddrportUnavailable);
        let commands = it.commands();
        let Some(request) = sends(&commands).pop() else { break };
        sizes.push(size(&request));
    }
    assert_eq!(sizes, [127, 63, 31, 15, 7, 3, 1]);
    let view = it.host.view(it.now);
    assert_eq!(view.block_size, 1);
    assert_eq!(view.pending.len(), 1);
    assert_eq!(view.pending[0].refused, Some(ErrorCode::LocalAddrportUnavailable));
    assert_eq!(view.pending[0].retry_in, Some(ms(250)));
    let (pause, commands) = it.wait();
    assert_eq!(pause, ms(250));
    assert_eq!(size(&sends(&commands)[0]), 255, "with the full wish again");
}

#[test]
fn the_smaller_block_is_taken_and_shown() {
    let mut it = asking(64);
    it.refuse(ErrorCode::LocalAddrportUnavailable);
    it.commands();
    it.answer(assign_response(CLIENT, 1, 10_000, 32));
    assert!(matches!(it.commands().as_slice(), [HostCommand::Publish { .. }]));
    it.done(Ok(()));
    assert_eq!(it.host.view(it.now).block_size, 32);
}

#[test]
fn other_refusals_are_not_about_the_size() {
    let mut it = asking(64);
    it.refuse(ErrorCode::LocalAddrUnavailable);
    assert_eq!(it.commands(), []);
    let mut pauses = Vec::new();
    for _ in 0..3 {
        let (pause, commands) = it.wait();
        assert_eq!(size(&sends(&commands)[0]), 64);
        pauses.push(pause.as_millis());
        it.refuse(ErrorCode::LocalAddrUnavailable);
        assert_eq!(it.commands(), []);
    }
    assert_eq!(pauses, [250, 500, 1000]);
}

#[test]
fn local_micro_flow_policy_means_one_port_at_a_time() {
    let mut it = Dialogue::new(with_block(64));
    it.host.start(it.now);
    it.host.handle_transport_up(it.now);
    it.commands();
    it.answer(Body::RegisterResponse {
        client_id: CLIENT,
        lease_time: LEASE,
        flow_policy: FlowPolicy { local: LocalPolicy::Micro, remote: RemotePolicy::None },
        methods: Vec::new(),
        tunnel_types: Vec::new(),
    });
    assert_eq!(size(&sends(&it.commands())[0]), 1);
}

#[test]
fn fewer_ports_than_asked_can_be_used_and_more_cannot() {
    let mut it = asking(64);
    it.answer(assign_response(CLIENT, 1, 10_000, 10));
    assert!(matches!(it.commands().as_slice(), [HostCommand::Publish { .. }]));
    let mut it = asking(64);
    it.answer(assign_response(CLIENT, 1, 10_000, 65));
    assert_eq!(sends(&it.commands()), [free_request(1)]);
    let mut it = asking(64);
    let twice = port_binding(CLIENT, 1, Ports::List(vec![10_000, 10_000]));
    it.answer(Body::AssignResponseRsapIp(twice));
    assert_eq!(sends(&it.commands()), [free_request(1)]);
}

#[test]
fn one_more_block_on_demand_and_one_at_a_time() {
    let mut it = holding();
    it.host.want_block(it.now);
    it.host.want_block(it.now);
    let request = it.request();
    assert_eq!(asked_ports(&request), (&Address::Ipv4(PUBLIC), &Ports::DontCare { count: 4 }));
    it.answer(assign_response(CLIENT, 2, 10_004, 4));
    it.host.want_block(it.now);
    it.commands();
    it.done(Ok(()));
    assert_eq!(it.commands(), []);
    it.host.release_block(BindId(2), it.now);
    let commands = it.commands();
    assert!(matches!(commands[0], HostCommand::Withdraw { reason: WithdrawReason::Freed, .. }));
    assert_eq!(sends(&commands), [free_request(2)]);
    it.answer(free_response(2));
    it.host.release_block(BindId(2), it.now);
    assert_eq!(it.commands(), []);
    assert_eq!(it.host.view(it.now).bindings.len(), 1);
}

#[test]
fn none_is_leased_where_none_is_configured() {
    let mut it = Dialogue::registered(tcp());
    it.commands();
    it.host.want_block(it.now);
    assert_eq!(it.commands(), []);
}

#[test]
fn a_block_that_was_taken_back_is_replaced_after_a_pause() {
    let mut it = holding();
    it.asynchronous(free_response(1));
    assert!(matches!(
        it.commands().as_slice(),
        [HostCommand::Withdraw { reason: WithdrawReason::Revoked, .. }]
    ));
    let (pause, commands) = it.wait();
    assert_eq!(pause, ms(250));
    assert_eq!(asked_ports(&sends(&commands)[0]), (&Address::ANY, &Ports::DontCare { count: 4 }));
}

#[test]
fn a_block_that_cannot_be_taken_into_use_is_given_back_and_asked_for_after_a_pause() {
    let mut it = asking(4);
    for pause in [250, 500, 1000] {
        it.answer(assign_response(CLIENT, 1, 10_000, 4));
        it.commands();
        it.done(Err(InstallFailed));
        assert_eq!(it.request(), free_request(1));
        it.answer(free_response(1));
        assert_eq!(it.commands(), []);
        let (waited, commands) = it.wait();
        assert_eq!(waited, ms(pause));
        assert_eq!(sends(&commands).len(), 1);
    }
}

#[test]
fn lists_of_ports_are_kept_as_they_are() {
    let mut it = asking(4);
    let list = Ports::List(vec![10_003, 10_001, 10_000]);
    it.answer(Body::AssignResponseRsapIp(port_binding(CLIENT, 1, list.clone())));
    let expected = binding(BindingKind::Block, CLIENT, 1, list);
    assert_eq!(it.commands(), [HostCommand::Publish { op: OpId(0), binding: expected }]);
}

/// A second block is asked for and refused: it will be asked for again.
fn refused_a_second_one() -> Dialogue {
    let mut it = holding();
    it.host.want_block(it.now);
    it.commands();
    it.refuse(ErrorCode::LocalAddrportInuse);
    assert_eq!(it.commands(), []);
    assert_eq!(it.host.view(it.now).pending.len(), 1);
    it
}

#[test]
fn a_block_that_is_not_needed_after_all_is_not_asked_for_again() {
    let mut it = refused_a_second_one();
    it.host.forgo_block(it.now);
    assert_eq!(it.host.view(it.now).pending, []);
    assert_eq!(it.commands(), []);
    it.host.want_block(it.now);
    assert_eq!(size(&it.request()), 4, "and asked for when it is needed");
    it.answer(assign_response(CLIENT, 2, 10_004, 4));
    it.commands();
    it.done(Ok(()));
    assert_eq!(it.host.view(it.now).bindings.len(), 2);
}

#[test]
fn a_block_that_comes_when_it_is_not_needed_any_more_is_given_back_unused() {
    let mut it = holding();
    it.host.want_block(it.now);
    it.commands();
    it.host.forgo_block(it.now);
    assert_eq!(it.commands(), [], "the request is on its way");
    it.answer(assign_response(CLIENT, 2, 10_004, 4));
    assert_eq!(it.commands(), [HostCommand::Send(it.asked.clone().expect("a request"))], "never in use");
    assert_eq!(it.asked.as_ref().map(|asked| asked.body.clone()), Some(free_request(2)));
    it.answer(free_response(2));
    assert_eq!(it.commands(), []);
    assert_eq!(it.host.view(it.now).bindings.len(), 1);
}

#[test]
fn the_first_block_is_not_forgone() {
    let mut it = asking(4);
    it.refuse(ErrorCode::LocalAddrUnavailable);
    assert_eq!(it.commands(), []);
    it.host.forgo_block(it.now);
    let (_, commands) = it.wait();
    assert_eq!(size(&sends(&commands)[0]), 4);
}

#[test]
fn a_block_is_out_of_use_before_the_gateway_hears_of_it_and_another_one_can_follow() {
    let mut it = holding();
    it.host.want_block(it.now);
    it.commands();
    it.answer(assign_response(CLIENT, 2, 10_004, 4));
    it.commands();
    it.done(Ok(()));
    it.host.release_block(BindId(1), it.now);
    let commands = it.commands();
    let [HostCommand::Withdraw { binding: gone, reason: WithdrawReason::Freed }, HostCommand::Send(_)] =
        commands.as_slice()
    else {
        panic!("out of use first: {commands:?}")
    };
    assert_eq!(gone, &binding(BindingKind::Block, CLIENT, 1, Ports::Range { first: 10_000, count: 4 }));
    // Use rises while the gateway is being told: nothing of the old block is taken up again.
    it.host.want_block(it.now);
    assert_eq!(it.commands(), [], "one request at a time");
    it.answer(free_response(1));
    assert_eq!(size(&it.request()), 4);
    it.answer(assign_response(CLIENT, 3, 10_008, 4));
    it.commands();
    it.done(Ok(()));
    let held: Vec<u32> = it.host.view(it.now).bindings.iter().map(|view| view.binding.bind_id.0).collect();
    assert_eq!(held, [2, 3]);
}

#[test]
fn a_block_whose_return_the_gateway_refuses_is_returned_again_and_never_used_meanwhile() {
    let mut it = holding();
    it.host.want_block(it.now);
    it.commands();
    it.answer(assign_response(CLIENT, 2, 10_004, 4));
    it.commands();
    it.done(Ok(()));
    it.host.release_block(BindId(2), it.now);
    it.commands();
    it.refuse(ErrorCode::InternalServerError);
    assert_eq!(it.commands(), []);
    let (pause, commands) = it.wait();
    assert_eq!((pause, sends(&commands)), (ms(250), vec![free_request(2)]));
    it.answer(free_response(2));
    assert_eq!(it.commands(), []);
}

#[test]
fn blocks_that_come_small_and_go_again_leave_room_for_others() {
    let mut it = Dialogue::registered(with_block(255));
    it.commands();
    it.answer(assign_response(CLIENT, 1, 1000, 1));
    it.commands();
    it.done(Ok(()));
    // More wishes than there are ports, were the wishes counted instead of what came of them.
    for round in 2..600_u16 {
        it.host.want_block(it.now);
        assert_eq!(size(&it.request()), 255, "round {round}");
        it.answer(assign_response(CLIENT, u32::from(round), 1000 + round, 1));
        it.commands();
        it.done(Ok(()));
        it.host.release_block(BindId(round.into()), it.now);
        it.commands();
        it.answer(free_response(round.into()));
        assert_eq!(it.commands(), []);
    }
}
