//! The daemon of the host does the work.

use std::net::{Ipv4Addr, SocketAddrV4};

use rsip_slp::agent::Via;
use rsip_slp::service::{Event, Progress, Role};
use rsip_slp::wire::message::SrvRqst;
use rsip_slp::wire::{Body, Flags};

use crate::rig::{Rig, To, advert, attributes, config, registration, reply};

const LOCAL: [u8; 4] = [127, 0, 0, 1];
const AT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 427);

fn rig(stream: bool) -> Rig {
    Rig::new(config(Role::Daemon { at: AT, stream }))
}

#[test]
fn the_daemon_gets_the_registration_at_once() {
    for (stream, to) in [(true, To::Stream(AT)), (false, To::Datagram(AT))] {
        let mut rig = rig(stream);
        let sent = rig.next();
        assert_eq!((sent.at, sent.to), (0, to));
        assert_eq!(registration(&sent).scopes, "DEFAULT");
        rig.ack(LOCAL, &sent, None);
        assert!(matches!(rig.events().as_slice(), [Event::Registered { .. }]));
        let view = rig.agent.view(rig.now);
        assert_eq!((view.answers, view.directories[0].state), (false, Progress::Registered));
        let renewal = rig.next();
        assert_eq!((renewal.at, renewal.to), (300_000, to));
    }
}

#[test]
fn nobody_else_is_registered_with_or_answered() {
    let mut rig = rig(true);
    let sent = rig.next();
    rig.ack(LOCAL, &sent, None);
    rig.advert(&advert(1, "DEFAULT", ""));
    let request = SrvRqst {
        service_type: "service:rsip".to_owned(),
        scopes: "DEFAULT".to_owned(),
        ..SrvRqst::default()
    };
    rig.message([10, 0, 0, 2], Via::Datagram, &reply(5, Body::SrvRqst(request)));
    assert_eq!(rig.pass(200_000), []);
}

#[test]
fn the_daemon_is_told_of_changes_and_of_the_end() {
    let mut rig = rig(true);
    let sent = rig.next();
    rig.ack(LOCAL, &sent, None);
    rig.agent.set_attributes(attributes(40), rig.now);
    let update = rig.next();
    assert_eq!(
        (registration(&update).attributes.as_str(), update.message.flags),
        ("(load=40)", Flags::default())
    );
    rig.ack(LOCAL, &update, None);
    rig.agent.shutdown(rig.now);
    let end = rig.next();
    assert_eq!(end.to, To::Stream(AT));
    assert!(matches!(end.message.body, Body::SrvDeReg(_)));
    rig.ack(LOCAL, &end, None);
    assert!(rig.agent.is_drained());
}

#[test]
fn a_daemon_that_is_gone_is_told_of() {
    let mut rig = rig(true);
    rig.next();
    rig.agent.handle_failure(AT, rig.now);
    assert!(matches!(rig.events().as_slice(), [Event::Silent { .. }]));
    let again = rig.next();
    assert_eq!(again.at, 4000);
    assert!(again.message.flags.fresh, "the daemon need not introduce itself");
}
