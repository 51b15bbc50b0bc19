//! The stand-in for foreign SLP programs knows right from wrong: else the tests that use it would prove nothing.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use std::time::Duration;

use rsip_lab::lab::capture::Recording;
use rsip_lab::lab::slp::{self, GROUP, Role, StandIn};
use rsip_lab::lab::topology::{GATEWAY, HOST_IF};
use rsip_lab::lab::{Host, Lab};
use serde_json::json;

const URL: &str = "service:rsip://10.77.0.1:4555";

#[test]
fn it_passes_its_own_tests() {
    let folder = tempfile::tempdir().unwrap();
    let report = slp::self_test(folder.path()).unwrap();
    assert!(report.contains("Ran ") && !report.contains("Ran 0 tests"), "{report}");
}

/// Its parts talk to each other over the lab's wires, and tshark reads every packet.
#[test]
fn a_directory_agent_a_daemon_and_a_user_agent_understand_each_other() {
    let lab = Lab::new().unwrap();
    let host = lab.host(Host::A);
    let recording = Recording::start(&lab, host, HOST_IF).unwrap();
    let slpd = StandIn::start(&lab, &lab.gateway, Role::Daemon, GATEWAY, &[]).unwrap();
    let da = StandIn::start(&lab, lab.host(Host::B), Role::DirectoryAgent, Host::B.address(), &[]).unwrap();
    for stand_in in [&slpd, &da] {
        let registered = stand_in
            .order(&json!({"do": "register", "url": URL, "type": "service:rsip", "scopes": "DEFAULT",
                "attributes": "(tunnel-type=IP-IP),(load=7)", "lifetime": 300}))
            .unwrap();
        assert_eq!(registered["complaints"], json!([]));
    }
    let own = Host::A.address().to_string();
    let group = GROUP.to_string();
    // The daemon answers what goes to all; the directory agent only what looks for directory agents.
    let replies = slp::ask(&lab, host, &["--to", &group, "--address", &own]).unwrap();
    let [reply] = replies.as_slice() else { panic!("{replies:?}") };
    assert_eq!((reply.from.as_str(), reply.function.as_str()), ("10.77.0.1:427", "SrvRply"));
    let more = ["--to", &group, "--address", &own, "--type", "service:directory-agent"];
    let replies = slp::ask(&lab, host, &more).unwrap();
    let [reply] = replies.as_slice() else { panic!("{replies:?}") };
    assert_eq!(reply.text("url"), "service:directory-agent://10.77.0.3");
    // By TCP, where nothing is cut, and by UDP, where it is.
    let to = Host::B.address().to_string();
    for (more, attributes) in [(&["--tcp"][..], "(load=7)"), (&[][..], "(load=7)")] {
        let all = [&["--to", &to, "--attributes", "--type", URL, "--tags", "lo*"][..], more].concat();
        let replies = slp::ask(&lab, host, &all).unwrap();
        let [reply] = replies.as_slice() else { panic!("{replies:?}") };
        assert_eq!(reply.text("attributes"), attributes);
        assert!(reply.complaints.is_empty(), "{reply:?}");
    }
    da.order(&json!({"do": "set", "mtu": 40})).unwrap();
    let replies = slp::ask(&lab, host, &["--to", &to]).unwrap();
    assert!(replies.iter().all(|reply| reply.flag("overflow")) && replies.len() == 1, "{replies:?}");
    // A restart is told to all, as is the end.
    da.order(&json!({"do": "restart"})).unwrap();
    da.order(&json!({"do": "goodbye"})).unwrap();
    let heard = slpd
        .receives("the end of the directory agent", "DAAdvert", Duration::from_secs(5), |all| {
            all.last().is_some_and(|last| last.fields["boot"] == 0)
        })
        .unwrap();
    let boots: Vec<u64> = heard.iter().map(|advert| advert.number("boot")).collect();
    assert!(matches!(boots.as_slice(), [first, second, 0] if first < second), "{boots:?}");
    assert!(da.registrations().unwrap().is_empty());
    da.expect_no_complaints().unwrap();
    slpd.expect_no_complaints().unwrap();
    let verdict = slp::judge(&recording.stop().unwrap()).unwrap();
    verdict.expect_clean().unwrap();
    for function in [1, 2, 6, 7, 8] {
        assert!(verdict.packets.iter().any(|packet| packet.function == function), "{function}: {verdict:?}");
    }
    assert_eq!(verdict.sent(Host::A.address(), 1).first().unwrap().destination, group);
}

#[test]
fn it_complains_about_what_breaks_the_rules() {
    let lab = Lab::new().unwrap();
    let da = StandIn::start(&lab, &lab.gateway, Role::DirectoryAgent, GATEWAY, &["--quiet"]).unwrap();
    let to = GATEWAY.to_string();
    // A SrvAck where only requests are due is passed over; the others are answered with an error and complained about.
    for (hex, answers) in [
        ("ffff", 0),
        // SrvRqst whose length says one byte more than there is.
        ("020100002e000000000012340002656e0000000c736572766963653a72736970000744454641554c5400000000", 1),
        // SrvRqst with a reserved flag.
        ("020100002d040000000012340002656e0000000c736572766963653a72736970000744454641554c5400000000", 1),
    ] {
        let replies =
            slp::ask(&lab, lab.host(Host::A), &["--to", &to, "--hex", hex, "--xid", "4660"]).unwrap();
        assert_eq!(replies.len(), answers, "{hex}: {replies:?}");
    }
    let received = da.received().unwrap();
    assert_eq!(received.len(), 3);
    assert!(received.iter().all(|one| !one.complaints.is_empty()), "{received:#?}");
    assert!(da.expect_no_complaints().is_err());
}
