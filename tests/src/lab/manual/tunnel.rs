//! The host's end of an IP-in-IP tunnel (RFC 2003) in user space: the same job as the agent's programs, done another way.

use std::io::ErrorKind;
use std::mem::MaybeUninit;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::super::error::{IoContext, Result};
use super::super::netns::Inside;
use super::super::topology::GATEWAY;
use crate::bpf::packet::IPIP;
use crate::bpf::tun::Tun;

/// Of the first tunnel of a host; an administrator's own tables are elsewhere.
const FIRST_TABLE: usize = 47_000;
/// What a tunnel leaves of 1500 octets.
const MTU: &str = "1480";
/// How soon it notices that it is to end.
const LOOK: Duration = Duration::from_millis(100);

/// A device with a public address; what leaves through it goes to the gateway, what the gateway sends comes out of it.
#[derive(Debug)]
pub(super) struct Tunnel {
    inside: Inside,
    rule: Vec<String>,
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Tunnel {
    pub(super) fn new(inside: &Inside, address: Ipv4Addr, number: usize) -> Result<Self> {
        let device = format!("manual{number}");
        let (tun, socket) = inside.enter(|| {
            let tun = Tun::new(&device).map_err(std::io::Error::other).cannot(|| format!("make {device}"))?;
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(i32::from(IPIP))))
                .and_then(|socket| socket.set_read_timeout(Some(LOOK)).map(|()| socket))
                .cannot(|| "make a socket for IP-in-IP".into())?;
            Ok::<_, super::LabError>((tun, socket))
        })??;
        let (table, host) = ((FIRST_TABLE + number).to_string(), format!("{address}/32"));
        inside.ip(&["address", "add", &host, "dev", &device])?;
        inside.ip(&["link", "set", &device, "mtu", MTU, "up"])?;
        inside.ip(&["route", "add", "default", "dev", &device, "table", &table])?;
        inside.ip(&["rule", "add", "from", &host, "lookup", &table])?;
        let rule = ["rule", "del", "from", &host, "lookup", &table].map(str::to_owned).to_vec();

        let over = Arc::new(AtomicBool::new(false));
        let again = || -> Result<(Tun, Socket)> {
            let socket = socket.try_clone().cannot(|| "share a socket".into())?;
            Ok((tun.try_clone().cannot(|| "share a device".into())?, socket))
        };
        let ((mut from, to), (mut into, out_of)) = (again()?, again()?);
        let (leaving, arriving) = (Arc::clone(&over), Arc::clone(&over));
        let threads = vec![
            thread::spawn(move || {
                let gateway = SockAddr::from(SocketAddrV4::new(GATEWAY, 0));
                while !leaving.load(Ordering::Relaxed) {
                    // A packet that cannot be sent is lost, as packets may be.
                    let Ok(packet) = from.receive_within(LOOK) else { break };
                    drop(packet.map(|packet| to.send_to(&packet, &gateway)));
                }
            }),
            thread::spawn(move || {
                let mut buffer = [MaybeUninit::uninit(); 65_536];
                while !arriving.load(Ordering::Relaxed) {
                    match out_of.recv_from(&mut buffer) {
                        Ok((length, source)) if source.as_socket_ipv4().is_some_and(is_gateway) => {
                            let Some(bytes) = buffer.get(..length) else { continue };
                            // SAFETY: the kernel has written so many octets.
                            let packet: Vec<u8> =
                                bytes.iter().map(|octet| unsafe { octet.assume_init() }).collect();
                            let header = packet.first().map_or(0, |octet| usize::from(octet & 0x0f) * 4);
                            let inner = packet.get(header..).unwrap_or_default();
                            // Another tunnel of this host has another address.
                            if inner.get(16..20) == Some(&address.octets()) {
                                drop(into.send(inner));
                            }
                        }
                        Ok(_) => {}
                        Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                        Err(_) => break,
                    }
                }
            }),
        ];
        Ok(Self { inside: inside.clone(), rule, over, threads })
    }
}

fn is_gateway(address: SocketAddrV4) -> bool {
    *address.ip() == GATEWAY
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            drop(thread.join());
        }
        let rule: Vec<&str> = self.rule.iter().map(String::as_str).collect();
        // The namespace may be gone already, and the rule with it.
        drop(self.inside.ip(&rule));
    }
}
