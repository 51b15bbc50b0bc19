//! The status, as data and as text: the two tables that the kernel-mode client of 2002 kept in its state file
//! (registration; leased addresses with their ports; and the rules), and how the host side works.

use std::fmt::{self, Write as _};
use std::net::{Ipv4Addr, SocketAddrV4};

use serde::{Deserialize, Serialize};

use crate::rules::{Action, Protocol};

/// Everything, as it was at one moment. Times in seconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// How the host stands with its gateway.
    pub registration: Registration,
    /// What is leased.
    pub leases: Vec<Lease>,
    /// What is wanted and not leased.
    pub wanted: Vec<Wanted>,
    /// What happens to a bind that no rule fits: "ACCEPT": it is asked for; "IGNORE", "DENY".
    pub policy: String,
    /// How many binds that decided.
    pub policy_hits: u64,
    /// The operator's rules.
    pub rules: Vec<Rule>,
    /// How bind() waits.
    pub waiting: Waiting,
    /// The programs on the cgroup.
    pub hooks: Hooks,
    /// The tunnel; absent: not up.
    pub tunnel: Option<Tunnel>,
    /// Networks that are reached without the tunnel, beside those with a route of their own.
    pub direct: Vec<Network>,
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
    /// "RSAP-IP" or "RSA-IP".
    pub method: String,
    /// The only peer that what is leased is used with (`--remote`); absent: everybody.
    pub remote: Option<String>,
    /// What the gateway complained of (RFC 3103 section 10.4), and how often.
    pub complaints: Vec<Counter>,
}

/// A network that is reached without the tunnel though no route of its own leads there, or that the gateway would have so.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Which.
    pub network: String,
    /// Who says so: "--private-net" or "gateway" (QUERY).
    pub from: String,
    /// Why it is not believed to be local; absent: it is.
    pub refused: Option<String>,
}

/// A binding.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The leased public address.
    pub address: Ipv4Addr,
    /// The leased ports; "all": the whole address.
    pub ports: String,
    /// How many.
    pub count: usize,
    /// The binding's name.
    pub bind_id: u32,
    /// The lease.
    pub lease: u64,
    /// What is left of it.
    pub remaining: u64,
    /// "block", "address", "listen" or "static".
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
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// As it is written: `I6010-6010 tcp program=sshd`.
    pub text: String,
    /// What happens to a bind that it fits.
    pub action: Action,
    /// The lowest port.
    pub first: u16,
    /// The highest port.
    pub last: u16,
    /// "tcp" or "udp"; absent: both.
    pub protocol: Option<Protocol>,
    /// The program's command name; absent: every program.
    pub program: Option<String>,
    /// Who runs it; absent: everybody.
    pub user: Option<String>,
    /// In or below which cgroup; absent: wherever it is.
    pub cgroup: Option<String>,
    /// How many binds it has decided.
    pub hits: u64,
}

/// The rules with the default policy.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RulesView {
    /// What happens to a bind that no rule fits: "ACCEPT": it is asked for; "IGNORE", "DENY".
    pub policy: String,
    /// How many binds it has decided.
    pub policy_hits: u64,
    /// In their order.
    pub rules: Vec<Rule>,
}

impl RulesView {
    /// For people, with numbers to name rules by.
    #[must_use]
    pub fn numbered(&self) -> String {
        let rules = (1..).zip(&self.rules);
        let lines = rules.map(|(number, rule)| format!("{number:>4}  {}  hits {}\n", rule.text, rule.hits));
        format!(
            "RULES (policy {})\n{}   -  policy  hits {}\n",
            self.policy,
            lines.collect::<String>(),
            self.policy_hits
        )
    }
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
    /// How often a system call was restarted to wait.
    pub restarts: u64,
    /// How often that was tried and could not be done.
    pub failed: u64,
    /// How often a caller waited inside the hook, holding its CPU.
    pub held: u64,
    /// How often the time was over.
    pub timeouts: u64,
}

/// The programs on the cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hooks {
    /// Why there are none; absent: there are.
    pub off: Option<String>,
    /// Which cgroups, for people.
    pub cgroup: String,
    /// Each cgroup whose programs are to be served.
    pub cgroups: Vec<ManagedCgroup>,
    /// The programs, as the kernel sees them.
    pub programs: Vec<Program>,
}

/// A cgroup whose programs are to be served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ManagedCgroup {
    /// Which.
    pub cgroup: String,
    /// How many of our programs the kernel runs for it; 0: it is gone, or not there yet.
    pub programs: usize,
    /// It is inside of another one of these, whose programs run for it.
    pub inside: bool,
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
    /// "IP-IP" or "GRE".
    pub kind: String,
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
    /// What both leave to the kernel.
    pub choice: String,
    /// Whether they are ours.
    pub confined: bool,
    /// Blocks that are leased.
    pub blocks: usize,
    /// Of these: out of the kernel's choice, to be given back when nobody uses them.
    pub returning: usize,
    /// Ports of all blocks.
    pub leased: usize,
    /// Ports that some socket has, when it was looked last.
    pub used: usize,
    /// Ports that were needed then: connections to one destination take one each, UDP sockets and bind(0) too.
    pub need: usize,
    /// "enough", "scarce" (three quarters of the ports are needed) or "plenty" (a block will be given back).
    pub level: String,
    /// Ports that may be leased (`--block`, `--blocks`).
    pub most: usize,
    /// Why the gateway gives no more; absent: nothing was refused.
    pub refused: Option<String>,
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
            writeln!(f, "{}  hits {}", rule.text, rule.hits)?;
        }
        f.write_char('\n')?;
        let why = if self.waiting.why.is_empty() { String::new() } else { format!("; {}", self.waiting.why) };
        let seconds = std::time::Duration::from_millis(self.waiting.deadline_ms).as_secs_f32();
        if let Some(off) = &self.hooks.off {
            writeln!(f, "hooks      none ({off})")?;
        } else {
            writeln!(f, "waiting    {} up to {seconds} s{why}", self.waiting.way)?;
            let Waiting { restarts, failed, held, timeouts, .. } = self.waiting;
            writeln!(
                f,
                "           restarted {restarts}, failed {failed}, held {held}, timed out {timeouts}"
            )?;
            let attached = self.hooks.programs.iter().filter(|program| program.attached).count();
            let Hooks { programs, cgroup, .. } = &self.hooks;
            writeln!(f, "hooks      {attached} of {} attached to {cgroup}", programs.len())?;
            for managed in
                self.hooks.cgroups.iter().filter(|managed| managed.programs == 0 && !managed.inside)
            {
                writeln!(f, "           NOT served: {}", managed.cgroup)?;
            }
        }
        for program in self.hooks.programs.iter().filter(|program| !program.attached) {
            writeln!(f, "           NOT attached: {}", program.name)?;
        }
        match &self.tunnel {
            Some(tunnel) => writeln!(
                f,
                "tunnel     {} mtu {} over {} ({} -> {}), {}, {}",
                tunnel.device,
                tunnel.mtu,
                tunnel.interface,
                tunnel.local,
                tunnel.remote,
                tunnel.kind,
                tunnel.attachment
            )?,
            None => writeln!(f, "tunnel     down")?,
        }
        for network in &self.direct {
            let Network { network, from, refused } = network;
            match refused {
                None => writeln!(f, "direct     {network} ({from})")?,
                Some(why) => writeln!(f, "direct     NOT {network} ({from}): {why}")?,
            }
        }
        if let Some(remote) = &self.registration.remote {
            writeln!(f, "peer       {remote}, nobody else")?;
        }
        for complaint in &self.registration.complaints {
            writeln!(f, "complaint  {} times {}", complaint.value, complaint.name)?;
        }
        let ours = if self.ephemeral.confined { "confined to" } else { "not confined:" };
        writeln!(f, "ephemeral  {ours} {}", self.ephemeral.choice)?;
        writeln!(f, "           {}", blocks(&self.ephemeral))?;
        if let Some(refused) = &self.ephemeral.refused {
            writeln!(f, "           no more: {refused}")?;
        }
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
        [
            "GATEWAY",
            "CLIENT ID",
            "STATE",
            "LEASE",
            "REMAINING",
            "TRANSPORT",
            "METHOD",
            "TUNNEL",
            "FLOW POLICY",
        ],
        [[
            registration.gateway.to_string(),
            or_dash(registration.client_id.map(|id| id.to_string())),
            registration.state.clone(),
            or_dash(registration.lease.map(|s| s.to_string())),
            or_dash(registration.remaining.map(|s| s.to_string())),
            registration.transport.clone(),
            registration.method.clone(),
            tunnels,
            or_dash(registration.flow_policy.clone()),
        ]],
    )
}

fn blocks(ephemeral: &Ephemeral) -> String {
    let Ephemeral { blocks, returning, leased, used, need, level, most, .. } = ephemeral;
    format!(
        "{level}: {blocks} blocks ({returning} on the way back), {leased} ports of {most} at most, {used} in use, {need} needed"
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
pub(crate) fn table<const N: usize>(head: [&str; N], rows: impl IntoIterator<Item = [String; N]>) -> String {
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
mod tests;
