//! Ports that the operator keeps (`--listen`, `rsip-client listen`), and the callers who wait to hear about them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use rsip_sys::control::Reply;

use crate::control::{PortAnswer, PortOutcome, Response};

/// A caller who waits for verdicts.
#[derive(Debug)]
struct Caller {
    ports: Vec<u16>,
    outcomes: BTreeMap<u16, PortOutcome>,
    reply: Reply<Response>,
}

/// Ports that are kept, and who asked.
#[derive(Debug, Default)]
pub(super) struct Listeners {
    /// Kept, or asked for to be kept.
    ports: BTreeSet<u16>,
    /// Of these, given at start: a refusal is told once, in the log.
    at_start: BTreeSet<u16>,
    callers: Vec<Caller>,
}

impl Listeners {
    /// The ports given at start.
    pub(super) fn begin(&mut self, ports: &[u16]) -> Vec<u16> {
        self.at_start.extend(ports);
        self.ports.extend(ports);
        self.at_start.iter().copied().collect()
    }

    /// A caller wants these; gives those to ask for.
    pub(super) fn ask(&mut self, ports: Vec<u16>, reply: Reply<Response>) -> BTreeSet<u16> {
        let wanted: BTreeSet<u16> = ports.iter().copied().collect();
        self.ports.extend(&wanted);
        self.callers.push(Caller { ports, outcomes: BTreeMap::new(), reply });
        self.answer();
        wanted
    }

    /// A port that an earlier run of the agent kept is leased: it is kept on.
    pub(super) fn take_over(&mut self, port: u16) {
        self.ports.insert(port);
    }

    /// A port is leased.
    pub(super) fn granted(&mut self, port: u16, address: Option<Ipv4Addr>) {
        let address = address.unwrap_or(Ipv4Addr::UNSPECIFIED);
        if self.at_start.remove(&port) {
            tracing::info!(port, "kept, as --listen says");
        }
        self.tell(port, &PortOutcome::Leased(address));
    }

    /// A port is refused: it is not kept.
    pub(super) fn refused(&mut self, port: u16, why: &str) {
        if self.at_start.remove(&port) {
            tracing::error!(port, why, "cannot be kept, as --listen says");
        }
        if self.callers.iter().any(|caller| caller.waits_for(port)) {
            self.ports.remove(&port);
        }
        self.tell(port, &PortOutcome::Refused(why.to_owned()));
    }

    /// The operator does not want it any more. False: he did not before.
    pub(super) fn drop_port(&mut self, port: u16) -> bool {
        self.ports.remove(&port)
    }

    fn tell(&mut self, port: u16, outcome: &PortOutcome) {
        for caller in self.callers.iter_mut().filter(|caller| caller.waits_for(port)) {
            caller.outcomes.insert(port, outcome.clone());
        }
        self.answer();
    }

    fn answer(&mut self) {
        let (done, waiting) = std::mem::take(&mut self.callers)
            .into_iter()
            .partition(|caller| caller.ports.iter().all(|port| caller.outcomes.contains_key(port)));
        self.callers = waiting;
        for caller in done {
            caller.finish();
        }
    }
}

impl Caller {
    fn waits_for(&self, port: u16) -> bool {
        self.ports.contains(&port) && !self.outcomes.contains_key(&port)
    }

    fn finish(self) {
        let answers = self
            .ports
            .iter()
            .filter_map(|port| {
                let outcome = self.outcomes.get(port)?.clone();
                Some(PortAnswer { port: *port, outcome })
            })
            .collect();
        self.reply.answer(Ok(Response::Ports(answers)));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rsip_sys::control::{self, Call};
    use tokio::sync::mpsc;

    use super::*;
    use crate::control::Request;

    const PUBLIC: Option<Ipv4Addr> = Some(Ipv4Addr::new(203, 0, 113, 9));

    /// A caller of `listen` as the agent sees it, and what it is told in the end.
    async fn caller(
        path: &std::path::Path,
        calls: &mut mpsc::Receiver<Call<Request, Response>>,
        ports: &[u16],
    ) -> (Reply<Response>, tokio::task::JoinHandle<Vec<PortAnswer>>) {
        let (path, request) = (path.to_owned(), Request::Listen(ports.to_vec()));
        let answer = tokio::task::spawn_blocking(move || {
            match control::call(&path, &request, Duration::from_secs(10)).expect("answered") {
                Response::Ports(answers) => answers,
                other => panic!("{other:?}"),
            }
        });
        let (_, reply) = calls.recv().await.expect("a call").split();
        (reply, answer)
    }

    #[tokio::test]
    async fn callers_hear_of_each_port_in_their_own_order() {
        let directory = tempfile::tempdir().expect("a folder");
        let path = directory.path().join("control.sock");
        let (sender, mut calls) = mpsc::channel(4);
        let _server = control::serve(&path, sender).expect("a socket");
        let mut listeners = Listeners::default();

        let (reply, first) = caller(&path, &mut calls, &[443, 80]).await;
        assert_eq!(listeners.ask(vec![443, 80], reply), [80, 443].into());
        let (reply, second) = caller(&path, &mut calls, &[80]).await;
        assert_eq!(listeners.ask(vec![80], reply), [80].into());
        listeners.granted(80, PUBLIC);
        let leased = PortOutcome::Leased(Ipv4Addr::new(203, 0, 113, 9));
        let answer = second.await.expect("told");
        assert_eq!(answer, [PortAnswer { port: 80, outcome: leased.clone() }]);
        assert!(!first.is_finished(), "one port is open");
        listeners.refused(443, "in use");
        let refused = PortOutcome::Refused("in use".to_owned());
        let expected = [PortAnswer { port: 443, outcome: refused }, PortAnswer { port: 80, outcome: leased }];
        assert_eq!(first.await.expect("told"), expected);

        assert!(listeners.drop_port(80));
        assert!(!listeners.drop_port(443), "refused: never kept");
        listeners.take_over(22);
        assert!(listeners.drop_port(22), "kept by an earlier run");
    }

    #[test]
    fn ports_given_at_start_are_asked_for_once() {
        let mut listeners = Listeners::default();
        assert_eq!(listeners.begin(&[80, 22, 80]), [22, 80]);
        listeners.refused(22, "in use");
        listeners.granted(80, PUBLIC);
        assert!(listeners.at_start.is_empty());
    }
}
