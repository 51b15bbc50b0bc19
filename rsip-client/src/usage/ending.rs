//! Ending connections of an address that the host has no more (SOCK_DESTROY of sock_diag(7)): a program hears of it at once
//! (ECONNABORTED), and not after a quarter of an hour of silence.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{NLM_F_ACK, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::constants::{
    AF_INET, AF_INET6, IPPROTO_TCP, TCP_CLOSE, TCP_LISTEN, TCP_TIME_WAIT,
};
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, StateFlags};
use netlink_sys::Socket as NetlinkSocket;

use super::diag::{IPPROTO_UDP, dump, open};

/// The kind of request; the library knows only the one that asks.
const SOCK_DESTROY: u16 = 21;

/// Ends every connected TCP and UDP socket with this address of its own; says how many. Blocks shortly. The address must not
/// be the host's any more: a reset that would go out from it stays here then.
///
/// # Errors
///
/// The kernel cannot (CONFIG_INET_DIAG_DESTROY), or may not.
pub fn end_connections(address: Ipv4Addr) -> io::Result<usize> {
    let socket = open()?;
    let mut ended = 0;
    for protocol in [IPPROTO_TCP, IPPROTO_UDP] {
        for family in [AF_INET, AF_INET6] {
            let mut found = Vec::new();
            dump(&socket, family, protocol, |response| {
                if is_connected_from(response, address) {
                    found.push(response.header.socket_id.clone());
                }
            })?;
            for socket_id in found {
                let request = InetRequest {
                    family,
                    protocol,
                    extensions: ExtensionFlags::empty(),
                    states: StateFlags::all(),
                    socket_id,
                };
                match destroy(&socket, request) {
                    Ok(()) => ended += 1,
                    // It ended by itself.
                    Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
                    Err(error) => return Err(error),
                }
            }
        }
    }
    Ok(ended)
}

fn is_connected_from(response: &InetResponse, address: Ipv4Addr) -> bool {
    let own = match response.header.socket_id.source_address {
        IpAddr::V6(own) => own.to_ipv4_mapped(),
        IpAddr::V4(own) => Some(own),
    };
    own == Some(address) && ![TCP_LISTEN, TCP_CLOSE, TCP_TIME_WAIT].contains(&response.header.state)
}

fn destroy(socket: &NetlinkSocket, request: InetRequest) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_ACK;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut buffer = vec![0; message.buffer_len()];
    message.serialize(&mut buffer);
    // `nlmsg_type` stands behind the length.
    for (to, from) in buffer.iter_mut().skip(4).zip(SOCK_DESTROY.to_ne_bytes()) {
        *to = from;
    }
    socket.send(&buffer, 0)?;
    let (datagram, _) = socket.recv_from_full()?;
    let answer = NetlinkMessage::<SockDiagMessage>::deserialize(&datagram).map_err(io::Error::other)?;
    match answer.payload {
        NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
        _ => Ok(()),
    }
}
