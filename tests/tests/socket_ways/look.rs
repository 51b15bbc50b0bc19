//! Who knows what of a port: the gateway, watched all the time, and the kernel's own list of sockets.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use aya::maps::{Array, HashMap, Map, MapData, MapInfo};
use nix::unistd::Pid;
use rsip_ebpf_common::host::maps;
use rsip_lab::lab::netns::Inside;
use rsip_lab::lab::topology::PUBLIC;
use rsip_lab::lab::{Host, Lab, agent, exec, gateway, wait};
use rsip_sys::control;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::stage::Failed;

/// Between two looks at the gateway.
const PAUSE: Duration = Duration::from_millis(150);

/// Both daemons, asked directly: a program for each question takes its time on an emulated machine.
#[derive(Clone)]
pub(crate) struct Daemons {
    gateway: PathBuf,
    agent: PathBuf,
}

impl Daemons {
    pub(crate) fn of(lab: &Lab) -> Result<Self, Failed> {
        let socket = |program: &str, inside: &Inside| {
            let folder = format!("/run/{program}/netns-{}", inside.inode()?);
            Ok::<_, Failed>(PathBuf::from(folder).join(rsip_sys::rundir::CONTROL_SOCKET))
        };
        Ok(Self { gateway: socket("rsipd", &lab.gateway)?, agent: socket("rsip-client", lab.host(Host::A))? })
    }

    /// What the gateway knows.
    pub(crate) fn gateway(&self) -> Result<gateway::State, Failed> {
        ask(&self.gateway, &rsipd::control::view::Request::Dump)
    }

    /// What the agent of host-a says about itself.
    pub(crate) fn agent(&self) -> Result<agent::Status, Failed> {
        ask(&self.agent, &rsip_client::control::Request::Status)
    }
}

/// The answer is an object with one value, that of its kind.
fn ask<T: DeserializeOwned>(socket: &Path, request: &impl Serialize) -> Result<T, Failed> {
    let answer: BTreeMap<String, Value> = control::call(socket, request, wait::limit(exec::SHORT))?;
    let value = answer.into_values().next().ok_or("an answer without a value")?;
    Ok(serde_json::from_value(value)?)
}

/// When a port that was leased was first seen not to be: the end of that look. `None`: it is leased.
type Memory = BTreeMap<u16, Option<Instant>>;

/// Watches which ports the gateway leases to host-a.
pub(crate) struct Eye {
    memory: Arc<Mutex<Memory>>,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Eye {
    pub(crate) fn open(daemons: &Daemons) -> Self {
        let memory = Arc::new(Mutex::new(Memory::new()));
        let over = Arc::new(AtomicBool::new(false));
        let (daemons, shared, end) = (daemons.clone(), Arc::clone(&memory), Arc::clone(&over));
        let thread = thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                // A gateway that does not answer has shown nothing.
                if let Ok(state) = daemons.gateway() {
                    let leased = state.listening(Host::A);
                    let mut memory = shared.lock().unwrap_or_else(PoisonError::into_inner);
                    for (_, gone) in memory.iter_mut().filter(|(port, _)| !leased.contains(port)) {
                        gone.get_or_insert_with(Instant::now);
                    }
                    memory.extend(leased.into_iter().map(|port| (port, None)));
                }
                thread::sleep(PAUSE);
            }
        });
        Self { memory, over, thread: Some(thread) }
    }

    /// When the port was certainly not leased any more.
    pub(crate) fn gone(&self, port: u16) -> Option<Instant> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner).get(&port).copied().flatten()
    }
}

impl Drop for Eye {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            eprintln!("who watched the gateway panicked");
        }
    }
}

/// How many sockets the kernel lists on a port for all addresses or the leased one, TIME_WAIT included. TCP sockets that
/// neither listen nor are connected are in no list of this kind.
pub(crate) fn listed(port: u16) -> std::io::Result<usize> {
    let mut count = 0;
    for table in ["tcp", "tcp6", "udp", "udp6"] {
        let text = fs::read_to_string(format!("/proc/thread-self/net/{table}"))?;
        count +=
            text.lines().skip(1).filter_map(local).filter(|(ip, p)| *p == port && is_public(*ip)).count();
    }
    Ok(count)
}

fn is_public(ip: IpAddr) -> bool {
    let ip = ip.to_canonical();
    ip.is_unspecified() || ip == IpAddr::V4(PUBLIC)
}

/// The second column: the address as words in the machine's own byte order, colon, the port.
fn local(line: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = line.split_whitespace().nth(1)?.split_once(':')?;
    let words = address.as_bytes().chunks(8).map(|word| {
        let word = u32::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()?;
        Some(word.to_ne_bytes())
    });
    let octets: Vec<u8> = words.collect::<Option<Vec<_>>>()?.concat();
    let ip = match octets.len() {
        4 => IpAddr::V4(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?)),
        _ => IpAddr::V6(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?)),
    };
    Some((ip, u16::from_str_radix(port, 16).ok()?))
}

/// What the agent's hooks count, cookie to port.
pub(crate) fn counted(agent: Pid) -> Result<BTreeMap<u64, u32>, Failed> {
    let map = HashMap::try_from(Map::HashMap(map_of(agent, maps::SOCKETS)?))?;
    Ok(map.iter().collect::<Result<_, _>>()?)
}

/// Makes the hooks' count of a port wrong.
pub(crate) fn miscount(agent: Pid, port: u16, uses: u32) -> Result<(), Failed> {
    let mut map = Array::try_from(Map::Array(map_of(agent, maps::USES)?))?;
    Ok(map.set(u32::from(port), uses, 0)?)
}

/// A map of the agent's, found by its descriptors.
fn map_of(agent: Pid, name: &str) -> Result<MapData, Failed> {
    for entry in fs::read_dir(format!("/proc/{agent}/fdinfo"))? {
        let Ok(text) = fs::read_to_string(entry?.path()) else { continue };
        let id = text.lines().find_map(|line| line.strip_prefix("map_id:")?.trim().parse().ok());
        let Some(id) = id else { continue };
        if MapInfo::from_id(id)?.name_as_str() == Some(name) {
            return Ok(MapData::from_id(id)?);
        }
    }
    Err(format!("the agent has no map {name}").into())
}
