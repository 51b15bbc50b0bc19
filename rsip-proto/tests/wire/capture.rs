//! What the emitter wrote goes into the capture of this run, for another decoder to look at.

use std::net::{Ipv4Addr, SocketAddrV4};

use rsip_capture::{Collection, Spoken, Transport};
use rsip_proto::wire::Message;

const HOST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 5000);

/// Records a message as one side would send it: over UDP where it has a counter, over TCP otherwise.
pub(crate) fn written(message: &Message, bytes: &[u8]) {
    let transport = if message.counter.is_some() { Transport::Udp } else { Transport::Tcp };
    let spoken = if message.message_type().is_response() {
        Spoken::by_gateway(HOST, transport, bytes.to_vec())
    } else {
        Spoken::by_host(HOST, transport, bytes.to_vec())
    };
    rsip_capture::record(Collection::Written, &spoken).expect("the capture can be written");
}
