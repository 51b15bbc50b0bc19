//! Leases: extended at half life, refused, run out.

use super::*;
use crate::host::WithdrawReason;

/// Long pauses between checks, so that a dialogue is about extensions alone.
fn calm(config: HostConfig) -> HostConfig {
    HostConfig { probe_interval: secs(100_000), ..config }
}

fn withdrawn(bind_id: u32, port: u16, reason: WithdrawReason) -> HostCommand {
    HostCommand::Withdraw { binding: listener(bind_id, port), reason }
}

#[test]
fn a_lease_is_extended_at_half_life_again_and_again() {
    let mut it = Dialogue::holding(calm(tcp()), 80, 5);
    for _ in 0..3 {
        let (pause, commands) = it.wait();
        assert_eq!(pause, secs(300));
        assert_eq!(sends(&commands), [extend_request(5)]);
        it.answer(extend_response(5, LEASE));
        assert_eq!(it.commands(), []);
    }
}

#[test]
fn the_new_lease_is_the_gateways_choice() {
    let mut it = Dialogue::holding(calm(tcp()), 80, 5);
    it.wait();
    it.answer(extend_response(5, 40));
    assert_eq!(it.host.view(it.now).bindings[0].lease_left, secs(40));
    let (pause, _) = it.wait();
    assert_eq!(pause, secs(20));
}

#[test]
fn many_leases_are_extended_one_after_the_other_and_all_in_time() {
    let mut it = Dialogue::registered(calm(tcp()));
    it.commands();
    for port in 1000..1200 {
        it.hold(port, u32::from(port));
    }
    it.wait();
    for port in 1000..1200 {
        let asked = it.asked.as_ref().map(|message| message.body.clone());
        assert_eq!(asked, Some(extend_request(port)));
        it.now += ms(20);
        it.answer(extend_response(port, LEASE));
        it.commands();
    }
    assert!(it.asked.is_none());
}

#[test]
fn extensions_do_not_keep_a_program_waiting() {
    let mut it = Dialogue::registered(calm(tcp()));
    it.commands();
    for port in 1000..1100 {
        it.hold(port, u32::from(port));
    }
    it.wait();
    it.host.want_port(80, it.now);
    it.answer(extend_response(1000, LEASE));
    assert!(matches!(it.request(), Body::ListenRequest(_)), "before the other 99");
}

#[test]
fn the_wish_is_told_in_whole_seconds() {
    let wish = Some(ms(59_001));
    let mut it = Dialogue::registered(HostConfig { lease_wish: wish, ..calm(tcp()) });
    it.commands();
    it.host.want_port(80, it.now);
    let Body::ListenRequest(request) = it.request() else { panic!("LISTEN expected") };
    assert_eq!(request.lease_time, Some(60));
    it.answer(listen_response(CLIENT, 5, 80));
    it.commands();
    it.done(Ok(()));
    it.commands();
    let (_, commands) = it.wait();
    let extend = Body::ExtendRequest { client_id: CLIENT, bind_id: BindId(5), lease_time: Some(60) };
    assert_eq!(sends(&commands), [extend]);
}

#[test]
fn a_binding_that_the_gateway_does_not_know_is_asked_for_again() {
    let mut it = Dialogue::holding(calm(tcp()), 80, 5);
    it.wait();
    it.refuse(ErrorCode::BadBindId);
    let request = it.request();
    assert_eq!(asked_ports(&request), (&Address::Ipv4(PUBLIC), &Ports::single(80)));
    it.answer(listen_response(CLIENT, 6, 80));
    let renamed = HostCommand::Renamed { old: (CLIENT, BindId(5)), binding: listener(6, 80) };
    assert_eq!(it.commands(), [renamed]);
}

#[test]
fn a_refused_extension_is_tried_again_and_at_last_the_lease_runs_out() {
    let mut it = Dialogue::holding(calm(tcp()), 80, 5);
    let mut left = Vec::new();
    let (mut pause, mut commands) = it.wait();
    while sends(&commands) == [extend_request(5)] {
        left.push(pause.as_secs());
        it.refuse(ErrorCode::InternalServerError);
        (pause, commands) = it.wait();
    }
    assert_eq!(left[..3], [300, 150, 75]);
    assert!(left.len() < 15);
    assert_eq!(commands[0], withdrawn(5, 80, WithdrawReason::Expired));
    assert_eq!(it.host.view(it.now).pending[0].ports, Ports::single(80), "a program uses it still");
}

#[test]
fn an_extension_may_be_refused_by_taking_the_binding_back() {
    let mut it = Dialogue::holding(calm(tcp()), 80, 5);
    it.wait();
    it.answer(free_response(5));
    assert_eq!(it.commands(), [withdrawn(5, 80, WithdrawReason::Revoked)]);
}

#[test]
fn leases_run_out_by_the_own_clock_while_the_gateway_is_gone() {
    let mut it = Dialogue::holding(calm(tcp()), 80, 5);
    it.hold(443, 6);
    it.pass(secs(10));
    it.host.handle_transport_down(it.now);
    it.commands();
    it.host.handle_transport_down(it.now);
    let mut seen = Vec::new();
    let end = it.now + secs(600);
    while it.now < end {
        let (_, commands) = it.wait();
        for command in commands {
            match command {
                HostCommand::Connect => it.host.handle_transport_down(it.now),
                HostCommand::Withdraw { .. } => seen.push(command),
                HostCommand::Registration(_) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    let expected = [withdrawn(5, 80, WithdrawReason::Expired), withdrawn(6, 443, WithdrawReason::Expired)];
    assert_eq!(seen, expected);
}

#[test]
fn a_port_that_a_program_uses_is_asked_for_when_the_gateway_is_back() {
    let mut it = Dialogue::holding(calm(udp()), 80, 5);
    it.pass(secs(601));
    let commands = it.commands();
    assert!(commands.contains(&withdrawn(5, 80, WithdrawReason::Expired)));
    // The unanswered EXTEND is answered at last: by a gateway that forgot us.
    it.refuse(ErrorCode::RegisterFirst);
    let new = ClientId(8);
    loop {
        let commands = it.commands();
        match sends(&commands).last() {
            Some(Body::DeRegisterRequest { .. }) => it.refuse(ErrorCode::RegisterFirst),
            Some(Body::RegisterRequest) => it.answer(register_response(new)),
            Some(Body::ListenRequest(_)) => break,
            _ => {
                it.wait();
            }
        }
    }
    it.answer(listen_response(new, 1, 80));
    assert!(matches!(it.commands().as_slice(), [HostCommand::Publish { .. }]));
}

#[test]
fn a_lease_counts_from_the_first_copy_of_its_request() {
    let mut it = Dialogue::registered(calm(udp()));
    it.commands();
    it.host.want_port(80, it.now);
    it.commands();
    it.pass(ms(500));
    it.commands();
    it.answer(listen_response(CLIENT, 5, 80));
    it.commands();
    it.done(Ok(()));
    let left = it.host.view(it.now).bindings[0].lease_left;
    assert_eq!(left, secs(600) - ms(500), "the gateway may count from then");
}

#[test]
fn a_lease_that_ended_before_its_grant_came_is_given_back() {
    let mut it = Dialogue::registered(calm(udp()));
    it.commands();
    it.host.want_port(80, it.now);
    it.commands();
    it.pass(ms(1100));
    it.commands();
    let mut grant = port_binding(CLIENT, 5, Ports::single(80));
    grant.lease_time = 1;
    it.answer(Body::ListenResponse(grant));
    let commands = it.commands();
    assert_eq!(commands[0], denied(80, DenyReason::InstallFailed));
    assert_eq!(sends(&commands), [free_request(5)]);
}

#[test]
fn an_extension_that_came_too_late_is_given_back() {
    for used in [true, false] {
        let mut it = Dialogue::holding(calm(udp()), 80, 5);
        // Keeps the registration.
        it.host.want_port(443, it.now);
        it.commands();
        let mut long = port_binding(CLIENT, 6, Ports::single(443));
        long.lease_time = 6000;
        it.answer(Body::ListenResponse(long));
        it.commands();
        it.done(Ok(()));
        it.pass(secs(600));
        assert!(it.commands().contains(&withdrawn(5, 80, WithdrawReason::Expired)));
        if !used {
            it.host.release_port(80, it.now);
        }
        it.answer(extend_response(5, LEASE));
        assert_eq!(it.request(), free_request(5), "it ended by our own clock");
        it.answer(free_response(5));
        let asked_again = sends(&it.commands()).len() == 1;
        assert_eq!(asked_again, used);
    }
}

#[test]
fn a_registration_without_bindings_is_made_again_at_its_end() {
    let mut it = Dialogue::registered(calm(tcp()));
    it.commands();
    let (pause, commands) = it.wait();
    assert_eq!(pause, secs(600));
    assert_eq!(commands[0], change(RegistrationChange::Lost));
    assert_eq!(sends(&commands), [Body::DeRegisterRequest { client_id: CLIENT }]);
    it.answer(Body::DeRegisterResponse { client_id: CLIENT });
    assert_eq!(it.request(), Body::RegisterRequest);
}

#[test]
fn a_registration_lives_as_long_as_its_longest_binding() {
    let mut it = Dialogue::registered(calm(tcp()));
    it.commands();
    it.host.want_port(80, it.now);
    it.commands();
    let mut grant = port_binding(CLIENT, 5, Ports::single(80));
    grant.lease_time = 3000;
    it.answer(Body::ListenResponse(grant));
    let view = it.host.view(it.now);
    assert_eq!((view.lease_time, view.lease_left), (Some(secs(3000)), Some(secs(3000))));
    it.commands();
    it.done(Ok(()));
    it.host.release_port(80, it.now);
    it.commands();
    it.answer(free_response(5));
    assert_eq!(it.host.view(it.now).lease_left, Some(secs(3000)), "never lowered by giving back");
}

#[test]
fn a_binding_that_the_gateway_cannot_free_makes_both_sides_begin_anew() {
    let mut it = Dialogue::holding(calm(tcp()), 80, 5);
    it.host.release_port(80, it.now);
    it.commands();
    for pause in [250, 500] {
        it.refuse(ErrorCode::InternalServerError);
        let (waited, commands) = it.wait();
        assert_eq!((waited, sends(&commands)), (ms(pause), vec![free_request(5)]));
    }
    it.refuse(ErrorCode::InternalServerError);
    let commands = it.commands();
    assert_eq!(commands[0], change(RegistrationChange::Lost));
    assert_eq!(sends(&commands), [Body::DeRegisterRequest { client_id: CLIENT }], "section 9.12.3");
    it.answer(Body::DeRegisterResponse { client_id: CLIENT });
    assert_eq!(it.request(), Body::RegisterRequest);
    assert_eq!(it.host.view(it.now).bindings, []);
}

#[test]
fn nonsensical_leases_do_no_harm() {
    for lease_time in [1, u32::MAX] {
        let mut it = Dialogue::new(calm(tcp()));
        it.host.start(it.now);
        it.host.handle_transport_up(it.now);
        it.commands();
        let Body::RegisterResponse { client_id, flow_policy, .. } = register_response(CLIENT) else {
            panic!("a REGISTER_RESPONSE");
        };
        let (methods, tunnel_types) = (Vec::new(), Vec::new());
        it.answer(Body::RegisterResponse { client_id, lease_time, flow_policy, methods, tunnel_types });
        it.commands();
        it.host.want_port(80, it.now);
        it.commands();
        let mut grant = port_binding(CLIENT, 5, Ports::single(80));
        grant.lease_time = lease_time;
        it.answer(Body::ListenResponse(grant));
        it.commands();
        it.done(Ok(()));
        assert_eq!(it.commands(), [granted(80)]);
        it.pass(ms(900));
    }
}
