//! What the administrator asks of the running daemon.

use std::time::Instant;

use rsip_proto::gateway::Rule;
use rsip_proto::ids::{BindId, ClientId};
use rsip_sys::control::Call;
use rsip_sys::rundir;

use super::Daemon;
use crate::config::Config;
use crate::control::table;
use crate::control::view::{self, Answer, Request, State};
use crate::datapath::Datapath;
use crate::discovery::status::{Mode, Status};

impl<D: Datapath> Daemon<D> {
    /// Answers a call; true: the daemon is to stop.
    pub(super) async fn call(&mut self, call: Call<Request, Answer>) -> bool {
        let (request, reply) = call.split();
        let now = Instant::now();
        let answer = match request {
            Request::Dump => Ok(Answer::State(Box::new(self.state(now)))),
            Request::Release { client, bind } => {
                let client_id = ClientId(client);
                let found = match bind {
                    None => self.gateway.release_client(client_id, now),
                    Some(bind) => self.gateway.release_bind(client_id, BindId(bind), now),
                };
                // Answer after effect, here too.
                self.carry_out().await;
                let what =
                    || bind.map_or(format!("client {client}"), |bind| format!("binding {client}/{bind}"));
                if found { Ok(Answer::Done) } else { Err(format!("there is no {}", what())) }
            }
            Request::Stop => {
                tracing::info!("told to stop by rsipdctl");
                reply.answer(Ok(Answer::Done));
                return true;
            }
        };
        reply.answer(answer);
        false
    }

    fn state(&self, now: Instant) -> State {
        let gateway = self.gateway.view(now);
        let settings = &self.context.config.settings;
        let installed = |rule: &Rule| self.datapath.holds(rule).ok();
        State {
            daemon: view::Daemon {
                version: env!("CARGO_PKG_VERSION").to_owned(),
                pid: std::process::id(),
                uptime: now.saturating_duration_since(self.started).as_secs(),
                internal_interface: settings.int_if.clone(),
                external_interface: settings.ext_if.clone(),
                listening: self.context.listening.to_string(),
                datapath: self.datapath.name().to_owned(),
                methods: settings.methods().iter().map(ToString::to_string).collect(),
                flow_policy: settings.flow_policy_name().to_owned(),
                connections: self.peers.count(),
            },
            discovery: match &self.context.discovery {
                Some(discovery) => discovery.status(),
                None => Status::new(Mode::Off),
            },
            clients: gateway.clients.iter().map(|client| view::Client::new(client, installed)).collect(),
            pool: gateway.pool.iter().map(view::Pool::from).collect(),
            counters: view::Counters {
                events: self.journal.counters.clone(),
                datapath: self.datapath.stats().ok(),
            },
        }
    }

    pub(super) fn write_status(&self) {
        let path =
            self.context.config.settings.status_file.as_ref().unwrap_or(&self.context.default_status_file);
        let table = table::dump(&self.state(Instant::now()));
        match rundir::write_atomically(path, table.as_bytes()) {
            Ok(()) => tracing::info!(path = %path.display(), "status file written"),
            Err(error) => tracing::error!(%error, "status file not written"),
        }
    }

    /// Applies what can change without touching a lease; says what cannot.
    pub(super) fn reload(&mut self) {
        let new = match Config::read(&self.context.config.file) {
            Ok(config) => config.settings,
            Err(error) => {
                for line in error.lines() {
                    tracing::error!("reload: {line}");
                }
                tracing::error!("reload: nothing was changed");
                return;
            }
        };
        let settings = &mut self.context.config.settings;
        if new.log_level != settings.log_level {
            let changed = self.context.log.as_ref().map(|log| log.set_level(&new.log_level));
            match changed {
                Some(Ok(true)) => {}
                Some(Err(error)) => tracing::error!(%error, "reload"),
                Some(Ok(false)) | None => {
                    tracing::warn!("reload: LOG_LEVEL stays as the command line or the environment says");
                }
            }
            settings.log_level.clone_from(&new.log_level);
        }
        settings.status_file.clone_from(&new.status_file);
        let rest = settings.differences(&new);
        if rest.is_empty() {
            tracing::info!("configuration reloaded");
        } else {
            tracing::warn!(keys = rest.join(", "), "configuration reloaded; these keys wait for a restart");
        }
    }
}
