//! What holds whatever comes.

use proptest::collection::vec;
use proptest::prelude::*;
use rsip_slp::agent::Via;
use rsip_slp::strategies;
use rsip_slp::wire::{Body, Message};

use crate::rig::{DA, Rig, To, alone, attributes, configured};

#[derive(Clone, Debug)]
enum Incoming {
    /// A message with the transaction ID of what was sent last.
    Answer(u8, Message),
    Any(u8, Message),
    Bytes(u8, Vec<u8>),
    Failure,
    Load(u8),
    /// A DAAdvert that can be used, with a boot timestamp.
    Advert(u8, u32),
}

fn incoming() -> impl Strategy<Value = Incoming> {
    let host = 1_u8..30;
    prop_oneof![
        (host.clone(), strategies::message()).prop_map(|(host, message)| Incoming::Answer(host, message)),
        (host.clone(), strategies::message()).prop_map(|(host, message)| Incoming::Any(host, message)),
        (host.clone(), vec(any::<u8>(), 0..60)).prop_map(|(host, bytes)| Incoming::Bytes(host, bytes)),
        (host, 0_u32..4).prop_map(|(host, boot)| Incoming::Advert(host, boot)),
        Just(Incoming::Failure),
        (0_u8..100).prop_map(Incoming::Load),
    ]
}

proptest! {
    #[test]
    fn stays_bounded_answers_nobody_twice_and_leaves_in_the_end(
        inputs in vec((incoming(), 0_u64..20_000), 0..60),
        is_configured: bool,
    ) {
        let mut rig = Rig::new(if is_configured { configured() } else { alone() });
        let mut last = 1;
        let mut sent = 0;
        for (input, wait) in inputs {
            let host = |number| [10, 0, 0, number];
            match input {
                Incoming::Answer(number, mut message) => {
                    message.xid = last;
                    rig.message(host(number), Via::Datagram, &message);
                }
                Incoming::Any(number, message) => rig.message(host(number), Via::Accepted(1), &message),
                Incoming::Bytes(number, bytes) => rig.bytes(host(number), Via::Group, &bytes),
                Incoming::Failure => rig.agent.handle_failure(std::net::SocketAddrV4::new(DA.into(), 427), rig.now),
                Incoming::Load(load) => rig.agent.set_attributes(attributes(load), rig.now),
                Incoming::Advert(number, boot) => {
                    let mut advert = crate::rig::advert(boot, "DEFAULT", "");
                    advert.url = format!("service:directory-agent://10.0.0.{number}");
                    rig.advert(&advert);
                }
            }
            let answers = rig.drain();
            prop_assert!(answers.iter().filter(|sent| matches!(sent.to, To::Connection(_))).count() <= 1);
            let later = rig.pass(wait);
            // Sixteen directory agents with a message each second at most, and the search.
            prop_assert!(later.len() <= 17 * (usize::try_from(wait / 1000).expect("short") + 2));
            sent += answers.len() + later.len();
            last = answers.iter().chain(&later).next_back().map_or(last, |sent| sent.message.xid);
            prop_assert!(rig.agent.view(rig.now).directories.len() <= 16);
            rig.events();
        }
        rig.agent.shutdown(rig.now);
        let farewell = rig.pass(15_000);
        prop_assert!(rig.agent.is_drained(), "after {} messages", sent);
        prop_assert!(farewell.iter().all(|sent| matches!(sent.message.body, Body::SrvDeReg(_))));
    }
}
