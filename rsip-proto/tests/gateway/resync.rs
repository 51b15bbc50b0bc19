//! Reboot of either side, and connections that break (RFC 3103 section 10.2).

use rsip_proto::gateway::GatewayCommand;
use rsip_proto::ids::ClientId;
use rsip_proto::wire::{Address, Body, Message, Ports};

use crate::rig::*;

#[test]
fn a_gateway_that_restarted_knows_nobody_and_gives_the_same_again() {
    let mut rig = Rig::new(with_whole());
    let old = rig.register(udp(2));
    let block = rig.obtain(udp(2), 2, assign(old, 100)).local_ports;
    let address = rig.obtain_whole(udp(2), 3, assign_whole(old)).local_address;
    // Another seed: no name of the old run means anything.
    let mut rig = Rig::seeded(with_whole(), 8);
    let requests = [
        assign(old, 1),
        assign_whole(old),
        extend(old, 1, None),
        free(old, 1),
        query(old),
        listen_on(old, 80),
    ];
    for (counter, body) in (4..).zip(requests) {
        assert_eq!(refusal(&rig.ask(udp(2), counter, body), udp(2), Some(counter)), (301, Some(old), None));
    }
    // RFC 3103 section 10.2.2: the host leaves in its old name, passes over the error, and registers.
    assert_eq!(code(&rig.ask(udp(2), 10, leave(old)), udp(2), 10), 301);
    let commands = rig.ask(udp(2), 11, Body::RegisterRequest);
    let Some(GatewayCommand::Send { message, .. }) = commands.last() else { panic!("{commands:?}") };
    let Body::RegisterResponse { client_id: new, .. } = message.body else { panic!("{message:?}") };
    assert_ne!(old, new);
    assert_eq!(rig.obtain(udp(2), 12, assign_ports(new, block.clone())).local_ports, block);
    assert_eq!(rig.obtain_whole(udp(2), 13, assign_whole_at(new, address.clone())).local_address, address);
}

#[test]
fn a_host_that_restarted_finds_its_old_registration_with_all_its_bindings() {
    let mut rig = Rig::new(config());
    let old = rig.register(udp(2));
    rig.obtain(udp(2), 2, listen_on(old, 80));
    rig.obtain(udp(2), 3, assign(old, 10));
    rig.at(60);
    assert_eq!(refusal(&rig.ask(udp(2), 1, Body::RegisterRequest), udp(2), Some(1)), (302, Some(old), None));
    // Leaving takes all of them back before it is answered.
    let commands = rig.ask(udp(2), 2, leave(old));
    assert_eq!(commands.iter().filter(|command| matches!(command, GatewayCommand::Remove { .. })).count(), 2);
    rig.done(3);
    assert_eq!(rig.done(4).last(), Some(&send(udp(2), 2, left(old))));
    assert_eq!(rig.pool()[0], 0);
    rig.ask(udp(2), 3, Body::RegisterRequest);
    let new = rig.gateway.view(rig.now).clients[0].client_id;
    rig.obtain(udp(2), 4, listen_on(new, 80));
}

#[test]
fn a_lost_connection_is_not_a_lost_registration() {
    let mut rig = Rig::new(config());
    let id = rig.register(tcp(2, 1));
    rig.obtain(tcp(2, 1), 2, listen_on(id, 80));
    let before = rig.client(id);
    rig.gateway.handle_disconnect(1, rig.now);
    assert_eq!(rig.commands(), []);
    assert_eq!(rig.client(id), before);
    // Over the next connection all goes on, under the same names, whatever the counter.
    let commands = rig.at(10).ask(tcp(2, 2), 1, extend(id, 1, None));
    let [GatewayCommand::Send { to, .. }, _] = &commands[..] else { panic!("{commands:?}") };
    assert_eq!(*to, tcp(2, 2));
    // Only the leases end it; nobody can be told any more.
    rig.gateway.handle_disconnect(2, rig.now);
    let commands = rig.at(610).timeout();
    assert!(!commands.iter().any(|command| matches!(command, GatewayCommand::Send { .. })), "{commands:?}");
    assert_eq!(rig.client(id), None);
}

#[test]
fn requests_without_counters_follow_one_another_on_a_connection() {
    let mut rig = Rig::new(config());
    let id = rig.register(tcp(2, 1));
    let plain = |body| Message { counter: None, body };
    // The second comes before the first is answered, and is answered first.
    assert_eq!(rig.ask_message(tcp(2, 1), &plain(listen_on(id, 80))).len(), 1);
    assert_eq!(rig.ask_message(tcp(2, 1), &plain(listen_on(id, 81))).len(), 1);
    // Nothing tells that this is the same request again: it is a new one, and the port is taken.
    let commands = rig.ask_message(tcp(2, 1), &plain(listen_on(id, 80)));
    assert_eq!(refusal(&commands, tcp(2, 1), None).0, 311);
    for (op, port) in [(2, 81), (1, 80)] {
        let commands = rig.done(op);
        let GatewayCommand::Send { message, .. } = &commands[0] else { panic!("{commands:?}") };
        let Body::ListenResponse(granted) = &message.body else { panic!("{message:?}") };
        assert_eq!((message.counter, &granted.local_ports), (None, &Ports::single(port)));
        assert_eq!(granted.local_address, Address::Ipv4(PUBLIC));
    }
}

#[test]
fn what_came_before_a_registration_means_nothing_after_it() {
    let mut rig = Rig::new(config());
    let guess = ClientId(1);
    assert_eq!(code(&rig.ask(udp(2), 9, listen_on(guess, 80)), udp(2), 9), 301);
    let id = rig.register(udp(2));
    // A counter that was refused before is not used up.
    rig.obtain(udp(2), 9, listen_on(id, 80));
}
