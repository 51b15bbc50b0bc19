//! `rsip-client ping-gateway`: is the gateway there, and how fast does it answer?

pub mod args;
pub mod ask;

use std::fmt;
use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use rsip_proto::host::HostTransport;
use rsip_proto::wire::Body;
use rsip_sys::exit::{ExitCode, Failure};
use rsip_sys::rundir::CONTROL_SOCKET;
use serde::Serialize;

use self::args::{Ping, Transports};
use self::ask::{AskError, Asker, HARMLESS};
use crate::agent::start::run_directory;
use crate::calls::say;
use crate::cli::RunDir;
use crate::control::{Request, Response};
use crate::state::State;

/// What was measured over one transport. Times in milliseconds.
#[derive(Debug, Serialize)]
struct Statistics {
    transport: &'static str,
    sent: u32,
    answered: u32,
    loss_percent: f64,
    min_ms: Option<f64>,
    average_ms: Option<f64>,
    max_ms: Option<f64>,
    /// The last answer, as the gateway named it.
    answer: Option<String>,
    /// Why the last question without an answer has none.
    error: Option<String>,
}

#[derive(Serialize)]
struct Report<'a> {
    gateway: SocketAddrV4,
    transports: &'a [Statistics],
}

/// Asks and prints what came of it.
///
/// # Errors
///
/// No gateway is known, or it does not answer over a transport (exit code 3).
pub fn ping_gateway(arguments: &Ping) -> anyhow::Result<()> {
    let gateway = match arguments.gateway {
        Some(gateway) => gateway,
        None => known_gateway(&arguments.run_dir)?,
    };
    let kinds: &[HostTransport] = match arguments.transport {
        Transports::Both => &[HostTransport::Tcp, HostTransport::Udp],
        Transports::Tcp => &[HostTransport::Tcp],
        Transports::Udp => &[HostTransport::Udp],
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut all = Vec::new();
    for kind in kinds {
        let statistics = runtime.block_on(measure(arguments, gateway, *kind));
        if !arguments.json {
            say(&format!("{gateway} {statistics}"));
        }
        all.push(statistics);
    }
    if arguments.json {
        say(&serde_json::to_string_pretty(&Report { gateway, transports: &all })?);
    }
    let Some(silent) = all.iter().find(|statistics| statistics.answered == 0) else { return Ok(()) };
    let why = silent.error.clone().unwrap_or_else(|| "no answer".to_owned());
    Err(Failure::new(ExitCode::Unreachable, format!("gateway {gateway} over {}", silent.transport))
        .why(why)
        .hint("rsip-client doctor says what can be the reason")
        .into())
}

/// The gateway of the agent of this network namespace, running or killed.
fn known_gateway(run_dir: &RunDir) -> anyhow::Result<SocketAddrV4> {
    let directory = run_directory(run_dir.path.as_deref())?;
    let patience = Duration::from_secs(5);
    let answer = rsip_sys::control::call(&directory.join(CONTROL_SOCKET), &Request::Status, patience);
    if let Ok(Response::Status(status)) = answer {
        return Ok(status.registration.gateway);
    }
    if let Ok(Some(state)) = State::load(&directory) {
        return Ok(state.gateway);
    }
    Err(Failure::new(ExitCode::Usage, "no gateway")
        .why("no agent runs in this network namespace that knows one")
        .hint("name it with --gateway; rsip-client discover shows which there are")
        .into())
}

async fn measure(arguments: &Ping, gateway: SocketAddrV4, kind: HostTransport) -> Statistics {
    let transport = match kind {
        HostTransport::Tcp => "tcp",
        HostTransport::Udp => "udp",
    };
    let mut times: Vec<Duration> = Vec::new();
    let (mut answer, mut error) = (None, None);
    let mut asker = None;
    for number in 1..=arguments.count {
        let begun = Instant::now();
        match once(&mut asker, gateway, kind, arguments.timeout).await {
            Ok((said, took)) => {
                if !arguments.json {
                    let ms = milliseconds(took);
                    say(&format!("{gateway} {transport}: {said}: seq={number} time={ms:.2} ms"));
                }
                times.push(took);
                answer = Some(said);
            }
            Err(why) => {
                if !arguments.json {
                    say(&format!("{gateway} {transport}: {why}: seq={number}"));
                }
                error = Some(why.to_string());
                // A connection that is lost is opened anew; late answers are not heard.
                asker = None;
            }
        }
        if number < arguments.count {
            tokio::time::sleep(arguments.interval.saturating_sub(begun.elapsed())).await;
        }
    }
    let answered = u32::try_from(times.len()).unwrap_or(u32::MAX);
    let sum: Duration = times.iter().sum();
    Statistics {
        transport,
        sent: arguments.count,
        answered,
        loss_percent: 100.0 * f64::from(arguments.count - answered) / f64::from(arguments.count),
        min_ms: times.iter().min().copied().map(milliseconds),
        average_ms: (answered > 0).then(|| milliseconds(sum) / f64::from(answered)),
        max_ms: times.iter().max().copied().map(milliseconds),
        answer,
        error,
    }
}

/// Opening the way is not counted.
async fn once(
    asker: &mut Option<Asker>,
    gateway: SocketAddrV4,
    kind: HostTransport,
    patience: Duration,
) -> Result<(String, Duration), AskError> {
    let asker = match asker {
        Some(asker) => asker,
        None => asker.insert(Asker::open(kind, gateway, patience).await?),
    };
    let begun = Instant::now();
    let said = match asker.ask(HARMLESS, patience).await? {
        Body::ErrorResponse { error, .. } => error.to_string(),
        other => format!("{}", other.message_type()),
    };
    Ok((said, begun.elapsed()))
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

impl fmt::Display for Statistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transport, sent, answered, loss_percent, .. } = self;
        write!(f, "{transport}: {sent} sent, {answered} answered, {loss_percent:.0} % lost")?;
        if let (Some(min), Some(average), Some(max)) = (self.min_ms, self.average_ms, self.max_ms) {
            write!(f, ", round trip min/avg/max {min:.2}/{average:.2}/{max:.2} ms")?;
        }
        Ok(())
    }
}
