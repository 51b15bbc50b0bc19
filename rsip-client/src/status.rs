//! The status, as data and as text: the two tables that the kernel-mode client of 2002 kept in its state file
//! (registration; leased addresses with their ports; and the rules), and how the host side works.

use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4};

use serde::{Deserialize, Serialize};

/// Everything, as it was at one moment. Times in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// How the host stands with its gateway.
    pub registration: Registration,
    /// What is leased.
    pub leases: Vec<Lease>,
    /// What is wanted and not leased.
    pub wanted: Vec<Wanted>,
    /// What happens to a port that no rule names: "ACCEPT": it is asked for.
    pub policy: String,
    /// The operator's rules.
    pub rules: Vec<Rule>,
    /// How bind() waits.
    pub waiting: Waiting,
    /// The programs on the cgroup.
    pub hooks: Hooks,
    /// The tunnel; absent: not up.
    pub tunnel: Option<Tunnel>,
    /// The kernel's own choice of ports.
    pub ephemeral: Ephemeral,
    /// What the programs counted.
    pub counters: Vec<Counter>,
    /// Process ID of the agent.
    pub pid: u32,
    /// Version of the agent.
    pub version: String,
}

/// How the host stands with its gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registration {
    /// The gateway.
    pub gateway: SocketAddrV4,
    /// The host's name there.
    pub client_id: Option<u32>,
    /// "registered", "connecting", "registering", "unreachable", "refused: …", …
    pub state: String,
    /// The registration's lease.
    pub lease: Option<u64>,
    /// What is left of it.
    pub remaining: Option<u64>,
    /// "tcp" or "udp".
    pub transport: String,
    /// Tunnel types on offer.
    pub tunnels: Vec<String>,
    /// What the gateway demands of requests.
    pub flow_policy: Option<String>,
}

/// A binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The leased public address.
    pub address: Ipv4Addr,
    /// The leased ports.
    pub ports: String,
    /// How many.
    pub count: usize,
    /// The binding's name.
    pub bind_id: u32,
    /// The lease.
    pub lease: u64,
    /// What is left of it.
    pub remaining: u64,
    /// "block", "listen" or "static".
    pub kind: String,
    /// "in use", "releasing", …
    pub state: String,
    /// Ports that some socket uses.
    pub ports_used: usize,
    /// Sockets that use them.
    pub sockets: usize,
}

/// Something that is wanted and not leased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Wanted {
    /// Which port, or how many.
    pub ports: String,
    /// "block", "listen" or "static".
    pub kind: String,
    /// The last refusal.
    pub refused: Option<String>,
    /// When it is asked for again; absent: now.
    pub retry_in: Option<u64>,
}

/// A rule of the operator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// What happens to a bind of these ports.
    pub action: RuleAction,
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
}

/// What a rule does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RuleAction {
    /// The bind passes without a lease.
    Ignore,
}

/// How bind() waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// "park (fexit)", "park (raw tracepoint)" or "poll".
    pub way: String,
    /// Why not a better one; empty: there is none better.
    pub why: String,
    /// Longest wait, in milliseconds.
    pub deadline_ms: u64,
    /// Ports that somebody waits for.
    pub ports: Vec<u16>,
}

/// The programs on the cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// Which cgroup.
    pub cgroup: String,
    /// The programs, as the kernel sees them.
    pub programs: Vec<Program>,
}

/// A program.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Program {
    /// Its name.
    pub name: String,
    /// The kernel's number for it.
    pub id: u32,
    /// The kernel confirms that it is attached to a living cgroup.
    pub attached: bool,
}

/// The tunnel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tunnel {
    /// The device.
    pub device: String,
    /// Its largest packet.
    pub mtu: u32,
    /// The leased address on it.
    pub address: Option<Ipv4Addr>,
    /// The host's private address.
    pub local: Ipv4Addr,
    /// The other end.
    pub remote: Ipv4Addr,
    /// The private interface.
    pub interface: String,
    /// How the programs are held: "tcx" or "clsact".
    pub attachment: String,
}

/// The kernel's own choice of ports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ephemeral {
    /// `ip_local_port_range` now.
    pub range: String,
    /// `ip_local_reserved_ports` now.
    pub reserved: String,
    /// Whether they are ours.
    pub confined: bool,
}

/// A counter.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counter {
    /// What is counted.
    pub name: String,
    /// How often.
    pub value: u64,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&registration(&self.registration))?;
        f.write_char('\n')?;
        f.write_str(&leases(&self.leases))?;
        for wanted in &self.wanted {
            let refused = wanted.refused.as_deref().map_or_else(String::new, |why| format!(": {why}"));
            let retry = wanted.retry_in.map_or_else(String::new, |s| format!(", again in {s} s"));
            writeln!(f, "wanted: {} {}{refused}{retry}", wanted.kind, wanted.ports)?;
        }
        writeln!(f, "\nRULES (policy {})", self.policy)?;
        for rule in &self.rules {
            let RuleAction::Ignore = rule.action;
            writeln!(f, "I{}-{}", rule.first, rule.last)?;
        }
        f.write_char('\n')?;
        let why = if self.waiting.why.is_empty() { String::new() } else { format!("; {}", self.waiting.why) };
        let seconds = std::time::Duration::from_millis(self.waiting.deadline_ms).as_secs_f32();
        writeln!(f, "waiting    {} up to {seconds} s{why}", self.waiting.way)?;
        let attached = self.hooks.programs.iter().filter(|program| program.attached).count();
        writeln!(
            f,
            "hooks      {attached} of {} attached to {}",
            self.hooks.programs.len(),
            self.hooks.cgroup
        )?;
        for program in self.hooks.programs.iter().filter(|program| !program.attached) {
            writeln!(f, "           NOT attached: {}", program.name)?;
        }
        match &self.tunnel {
            Some(tunnel) => writeln!(
                f,
                "tunnel     {} mtu {} over {} ({} -> {}), {}",
                tunnel.device, tunnel.mtu, tunnel.interface, tunnel.local, tunnel.remote, tunnel.attachment
            )?,
            None => writeln!(f, "tunnel     down")?,
        }
        let ours = if self.ephemeral.confined { "confined to" } else { "not confined:" };
        let reserved = if self.ephemeral.reserved.is_empty() { "nothing" } else { &self.ephemeral.reserved };
        writeln!(f, "ephemeral  {ours} {}, reserved {reserved}", self.ephemeral.range)?;
        f.write_str("counters  ")?;
        for counter in &self.counters {
            write!(f, " {}={}", counter.name, counter.value)?;
        }
        f.write_char('\n')
    }
}

fn registration(registration: &Registration) -> String {
    let or_dash = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    let tunnels =
        if registration.tunnels.is_empty() { "-".to_owned() } else { registration.tunnels.join(",") };
    table(
        ["GATEWAY", "CLIENT ID", "STATE", "LEASE", "REMAINING", "TRANSPORT", "TUNNEL", "FLOW POLICY"],
        [[
            registration.gateway.to_string(),
            or_dash(registration.client_id.map(|id| id.to_string())),
            registration.state.clone(),
            or_dash(registration.lease.map(|s| s.to_string())),
            or_dash(registration.remaining.map(|s| s.to_string())),
            registration.transport.clone(),
            tunnels,
            or_dash(registration.flow_policy.clone()),
        ]],
    )
}

fn leases(leases: &[Lease]) -> String {
    table(
        ["LEASED ADDRESS", "PORTS", "BIND ID", "LEASE TIME", "REMAINING", "KIND", "USED"],
        leases.iter().map(|lease| {
            [
                lease.address.to_string(),
                lease.ports.clone(),
                lease.bind_id.to_string(),
                lease.lease.to_string(),
                lease.remaining.to_string(),
                if lease.state == "in use" {
                    lease.kind.clone()
                } else {
                    format!("{} ({})", lease.kind, lease.state)
                },
                if lease.count == 1 {
                    lease.sockets.to_string()
                } else {
                    format!("{}/{}", lease.ports_used, lease.count)
                },
            ]
        }),
    )
}

/// Columns as wide as their widest cell.
fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
    let mut lines = vec![head.map(ToOwned::to_owned)];
    lines.extend(rows);
    let mut widths = [0; N];
    for line in &lines {
        for (width, cell) in widths.iter_mut().zip(line) {
            *width = cell.chars().count().max(*width);
        }
    }
    let mut text = String::new();
    for line in &lines {
        let cells: Vec<String> =
            line.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        text.push_str(cells.join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn example() -> Status {
        Status {
            registration: Registration {
                gateway: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 4555),
                client_id: Some(77),
                state: "registered".to_owned(),
                lease: Some(3600),
                remaining: Some(3599),
                transport: "tcp".to_owned(),
                tunnels: vec!["IP-IP".to_owned()],
                flow_policy: Some("local macro, remote none".to_owned()),
            },
            leases: vec![
                Lease {
                    address: Ipv4Addr::new(203, 0, 113, 9),
                    ports: "10000-10254".to_owned(),
                    count: 255,
                    bind_id: 1,
                    lease: 3600,
                    remaining: 3599,
                    kind: "block".to_owned(),
                    state: "in use".to_owned(),
                    ports_used: 3,
                    sockets: 5,
                },
                Lease {
                    address: Ipv4Addr::new(203, 0, 113, 9),
                    ports: "80".to_owned(),
                    count: 1,
                    bind_id: 2,
                    lease: 3600,
                    remaining: 10,
                    kind: "listen".to_owned(),
                    state: "releasing".to_owned(),
                    ports_used: 1,
                    sockets: 2,
                },
            ],
            wanted: vec![Wanted {
                ports: "443".to_owned(),
                kind: "static".to_owned(),
                refused: Some("311 LOCAL_ADDRPORT_INUSE".to_owned()),
                retry_in: Some(9),
            }],
            policy: "ACCEPT".to_owned(),
            rules: vec![Rule { action: RuleAction::Ignore, first: 6010, last: 6010 }],
            waiting: Waiting {
                way: "poll".to_owned(),
                why: "asked for".to_owned(),
                deadline_ms: 2500,
                ports: vec![],
            },
            hooks: Hooks {
                cgroup: "/sys/fs/cgroup".to_owned(),
                programs: vec![
                    Program { name: "rsip_bind4".to_owned(), id: 5, attached: true },
                    Program { name: "rsip_bind6".to_owned(), id: 0, attached: false },
                ],
            },
            tunnel: None,
            ephemeral: Ephemeral { range: "10000 10254".to_owned(), reserved: String::new(), confined: true },
            counters: vec![Counter { name: "bind_granted".to_owned(), value: 4 }],
            pid: 1,
            version: "0.1.0".to_owned(),
        }
    }

    #[test]
    fn prints_the_tables() {
        let expected = "\
GATEWAY        CLIENT ID  STATE       LEASE  REMAINING  TRANSPORT  TUNNEL  FLOW POLICY
10.0.0.1:4555  77         registered  3600   3599       tcp        IP-IP   local macro, remote none

LEASED ADDRESS  PORTS        BIND ID  LEASE TIME  REMAINING  KIND                USED
203.0.113.9     10000-10254  1        3600        3599       block               3/255
203.0.113.9     80           2        3600        10         listen (releasing)  2
wanted: static 443: 311 LOCAL_ADDRPORT_INUSE, again in 9 s

RULES (policy ACCEPT)
I6010-6010

waiting    poll up to 2.5 s; asked for
hooks      1 of 2 attached to /sys/fs/cgroup
           NOT attached: rsip_bind6
tunnel     down
ephemeral  confined to 10000 10254, reserved nothing
counters   bind_granted=4
";
        assert_eq!(example().to_string(), expected);
    }

    #[test]
    fn data_comes_back_as_it_was() {
        let text = serde_json::to_string(&example()).expect("valid");
        assert_eq!(serde_json::from_str::<Status>(&text).expect("valid"), example());
    }
}
