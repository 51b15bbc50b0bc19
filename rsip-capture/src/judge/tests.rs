use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::TestRunner;
use rsip_proto::strategies;

use super::*;
use crate::packet::RSIP_PORT;

/// REGISTER_REQUEST with message counter 1.
const REGISTER: [u8; 11] = [1, 2, 0, 11, 11, 0, 4, 0, 0, 0, 1];

fn spoken(from_gateway: bool, transport: Transport, message: &[u8]) -> Spoken {
    let gateway = std::net::SocketAddrV4::new([10, 0, 0, 1].into(), RSIP_PORT);
    let host = std::net::SocketAddrV4::new([10, 0, 0, 2].into(), 5000);
    let (from, to) = if from_gateway { (gateway, host) } else { (host, gateway) };
    Spoken { from, to, transport, message: message.to_vec() }
}

fn judged(spoken: impl IntoIterator<Item = Spoken>) -> Verdict {
    let folder = tempfile::tempdir().unwrap();
    messages(spoken, &folder.path().join("scratch.pcap")).unwrap()
}

fn complaints(message: Spoken) -> String {
    let verdict = judged([message]);
    verdict.complaints.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n")
}

/// Every known slip is asked for by the judge itself, so this also says that the list is what this tshark shows.
#[test]
fn a_good_message_is_clean() {
    let verdict =
        judged([spoken(false, Transport::Tcp, &REGISTER), spoken(false, Transport::Tcp, &REGISTER)]);
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!((verdict.recorded, verdict.distinct), (2, 1));
    assert_eq!(verdict.types, BTreeMap::from([(rsip_proto::wire::MessageType::RegisterRequest, [1, 0])]));
}

/// Any message at all, over both transports: thousands of values for every field.
#[test]
fn tshark_and_we_agree_on_whatever_can_be_said() {
    let mut runner = TestRunner::deterministic();
    let strategy = strategies::message();
    let any = (0..3000).map(|number| {
        let mut message = strategy.new_tree(&mut runner).unwrap().current();
        let transport = if number % 2 == 0 { Transport::Udp } else { Transport::Tcp };
        if transport == Transport::Udp {
            message.counter.get_or_insert(rsip_proto::ids::MessageCounter(number));
        }
        spoken(message.message_type().is_response(), transport, &message.encode().unwrap())
    });
    let verdict = judged(any);
    assert!(verdict.is_clean(), "{verdict}");
    assert!(verdict.distinct > 2900, "{verdict}");
    assert!(verdict.slips.len() == slips::OURS.len(), "{verdict}");
    assert_eq!(verdict.unspoken(), []);
}

#[test]
fn what_we_cannot_read_is_a_complaint() {
    let cut = [1, 2, 0, 8, 11, 0, 4, 0];
    assert!(complaints(spoken(false, Transport::Tcp, &cut)).contains("we cannot read it ourselves"));
}

#[test]
fn a_request_from_a_gateway_is_a_complaint() {
    assert!(complaints(spoken(true, Transport::Udp, &REGISTER)).contains("a gateway sent it"));
}

#[test]
fn a_datagram_without_a_counter_is_a_complaint() {
    assert!(complaints(spoken(false, Transport::Udp, &[1, 2, 0, 4])).contains("no Message Counter"));
    assert_eq!(complaints(spoken(false, Transport::Tcp, &[1, 2, 0, 4])), "");
}

/// A field that is read otherwise, a parameter too few, another order: each is seen.
#[test]
fn any_difference_is_a_complaint() {
    let bytes = from_hex("01 04 00 12 04 00 04 00 00 00 01 0b 00 04 00 00 00 07");
    let message = Message::parse(&bytes).unwrap();
    let right = ours::rendered(&message);
    let differs = |change: fn(&mut Decoded)| {
        let mut seen = right.clone();
        change(&mut seen);
        compare(&message, Some(seen), &mut BTreeMap::new()).is_err()
    };
    assert!(!differs(|_| {}));
    assert!(differs(|seen| seen.parameters[0].fields[3].value = "2".to_owned()));
    assert!(differs(|seen| seen.parameters[0].label.push('0')));
    assert!(differs(|seen| drop(seen.parameters.pop())));
    assert!(differs(|seen| seen.parameters.swap(0, 1)));
    assert!(differs(|seen| seen.header[2].value = "19".to_owned()));
    assert!(differs(|seen| seen.complaints.push("Malformed Packet: RSIP".to_owned())));
    assert!(compare(&message, None, &mut BTreeMap::new()).is_err());
}

#[test]
fn a_dissector_without_its_slip_is_noticed() {
    let probes = Probes::new().unwrap();
    for (place, (slip, message, _)) in probes.ours.iter().enumerate() {
        let mended = ours::rendered(message);
        let complaint = probes.compare(place, Some(mended.clone())).expect(slip.name);
        assert!(complaint.to_string().contains(slip.name), "{complaint}");
        assert_eq!(probes.compare(place, Some(with_slips(mended).0)), None, "{}", slip.name);
    }
    for (place, (slip, _)) in probes.foreign.iter().enumerate() {
        let complaint = probes.compare(probes.ours.len() + place, Some(Decoded::default())).expect(slip.name);
        assert!(complaint.to_string().contains(slip.name), "{complaint}");
    }
}

#[test]
fn every_file_of_a_folder_is_read() {
    let folder = tempfile::tempdir().unwrap();
    let mut recorder = crate::recorder::Recorder::new(folder.path());
    recorder.record(Collection::Spoken, &spoken(false, Transport::Tcp, &REGISTER)).unwrap();
    recorder.record(Collection::Written, &spoken(false, Transport::Tcp, &[1, 2, 0, 4])).unwrap();
    let verdict = super::folder(folder.path(), &folder.path().join("scratch.pcap")).unwrap();
    assert!(verdict.is_clean(), "{verdict}");
    assert_eq!((verdict.files, verdict.recorded, verdict.distinct), (2, 2, 2));
    assert_eq!(verdict.spoken(rsip_proto::wire::MessageType::RegisterRequest), 1);
    assert_eq!(verdict.unspoken().len(), 16);
    assert!(verdict.unseen().contains(&"Error: 311".to_owned()));
}

#[test]
fn what_could_not_be_recorded_is_a_complaint() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("77.problem"), "tcpdump did not end\n").unwrap();
    let verdict = super::folder(folder.path(), &folder.path().join("scratch.pcap")).unwrap();
    assert!(verdict.to_string().contains("not recorded: tcpdump did not end"), "{verdict}");
    assert!(!verdict.is_clean());
}
