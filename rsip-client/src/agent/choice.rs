//! Which gateway, where the operator names none: the one of an agent that crashed, else those that SLP finds, the best
//! first, one after the other until one takes this host.

use std::net::SocketAddrV4;
use std::time::Duration;

use anyhow::Context as _;
use rsip_sys::control;
use rsip_sys::exit::{self, ExitCode, Failure};
use rsip_sys::netlink::Netlink;
use tokio::signal::unix::{Signal, SignalKind};
use tokio::sync::mpsc;

use super::start::{FAREWELL, Ground, QUEUE, listen_for, serve};
use crate::cli::Up;
use crate::control::{Request, Response};
use crate::discovery::{self, Candidate, DiscoveryError, Question};
use crate::recovery;

/// RFC 2608 section 13, CONFIG_MC_MAX.
const SEARCH: Duration = Duration::from_secs(15);
/// With `--persist`: between two searches, at first and at most. It doubles (RFC 2608 section 6.3).
const PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// Finds a gateway and serves with it until told to stop.
///
/// # Errors
///
/// A [`Failure`]: there is none, or the last one that was tried cannot be used. With `--persist`: only what looking
/// again would not change.
pub(super) async fn serve_found(arguments: &Up, ground: &Ground) -> anyhow::Result<()> {
    let mut stop = Stop::listen()?;
    let mut pause = PAUSE;
    loop {
        let failure = match round(arguments, ground, &mut stop).await? {
            Round::Ended => return Ok(()),
            Round::Failed(failure) => failure,
        };
        if !arguments.persist {
            return Err(failure);
        }
        tracing::warn!(error = %exit::line(&failure), seconds = pause.as_secs(), "looking again in a while");
        if stop.unless(ground, tokio::time::sleep(pause)).await?.is_none() {
            return give_back(ground).await;
        }
        pause = LONGEST_PAUSE.min(pause * 2);
    }
}

enum Round {
    /// Served, or told to stop.
    Ended,
    /// No gateway could be used.
    Failed(anyhow::Error),
}

/// Tries every gateway that there is, once.
async fn round(arguments: &Up, ground: &Ground, stop: &mut Stop) -> anyhow::Result<Round> {
    if let Some(state) = recovery::load(ground.run_dir.path(), ground.netns_cookie)? {
        tracing::info!(gateway = %state.gateway, "back to the gateway of the last agent");
        match attempt(arguments, state.gateway, ground).await? {
            None => return Ok(Round::Ended),
            Some(failure) => {
                tracing::warn!(error = %exit::line(&failure), "it cannot be used: looking for others");
            }
        }
    }
    let question = Question {
        scopes: arguments.search.scope.clone(),
        directory_agents: arguments.search.da.clone(),
        interface: arguments.interface.clone(),
        transport: Some(arguments.transport.into()),
        tunnels: arguments.tunnels(),
        patience: SEARCH,
    };
    tracing::info!(scopes = %question.scopes, "looking for gateways");
    let Some(found) = stop.unless(ground, discovery::candidates(&question)).await? else {
        give_back(ground).await?;
        return Ok(Round::Ended);
    };
    let mut failed = None;
    for Candidate { offer, gateway } in found.map_err(DiscoveryError::into_failure)? {
        tracing::info!(url = %offer.url, %gateway, load = offer.load, "found a gateway");
        match attempt(arguments, gateway, ground).await? {
            None => return Ok(Round::Ended),
            Some(failure) => {
                tracing::warn!(%gateway, error = %exit::line(&failure), "it cannot be used");
                failed = Some(failure);
            }
        }
    }
    Ok(Round::Failed(failed.unwrap_or_else(|| discovery::none_defined().into())))
}

/// Serves with one gateway. `Some`: it cannot be reached or does not take this host; another one may.
async fn attempt(
    arguments: &Up,
    gateway: SocketAddrV4,
    ground: &Ground,
) -> anyhow::Result<Option<anyhow::Error>> {
    match serve(arguments, gateway, Some(arguments.timeout), ground).await {
        Ok(()) => Ok(None),
        Err(error) if matches!(exit::code(&error), ExitCode::Unreachable | ExitCode::Refused) => {
            Ok(Some(error))
        }
        Err(error) => Err(error),
    }
}

/// Told to stop before there was a gateway: what a crashed agent has left is undone all the same.
async fn give_back(ground: &Ground) -> anyhow::Result<()> {
    let directory = ground.run_dir.path();
    if let Some(state) = recovery::load(directory, ground.netns_cookie)? {
        let netlink = Netlink::open().map_err(|error| Failure::new(ExitCode::Failure, error.to_string()))?;
        recovery::undo(&state, &netlink, directory).await?;
    }
    Ok(())
}

/// Who can end the agent while it has no gateway: signals and `rsip-client down`.
struct Stop {
    signals: [Signal; 2],
}

impl Stop {
    fn listen() -> anyhow::Result<Self> {
        Ok(Self { signals: [listen_for(SignalKind::terminate())?, listen_for(SignalKind::interrupt())?] })
    }

    /// Does some work, unless it is told to stop meanwhile: `None`.
    async fn unless<T>(
        &mut self,
        ground: &Ground,
        work: impl Future<Output = T>,
    ) -> anyhow::Result<Option<T>> {
        let (sender, mut calls) = mpsc::channel::<control::Call<Request, Response>>(QUEUE);
        let socket = ground.run_dir.control_socket();
        let _control =
            control::serve(&socket, sender).with_context(|| format!("cannot serve {}", socket.display()))?;
        let [terminate, interrupt] = &mut self.signals;
        tokio::pin!(work);
        loop {
            let (request, reply) = tokio::select! {
                biased;
                _ = terminate.recv() => return Ok(None),
                _ = interrupt.recv() => return Ok(None),
                Some(call) = calls.recv() => call.split(),
                value = &mut work => return Ok(Some(value)),
            };
            match request {
                Request::Down => {
                    reply.answer(Ok(Response::Done));
                    // The answer is written before the process ends.
                    tokio::time::sleep(FAREWELL).await;
                    return Ok(None);
                }
                Request::Status
                | Request::Holders
                | Request::Free { .. }
                | Request::Listen(_)
                | Request::Unlisten(_)
                | Request::Rules(_)
                | Request::Run(_) => {
                    reply.answer(Err("no gateway is found yet".to_owned()));
                }
            }
        }
    }
}
