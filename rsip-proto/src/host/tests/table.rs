//! Every state against every input (RFC 3103 appendix D, and what the appendix leaves out). The table is a file that is
//! read by people; `RSIP_UPDATE_TABLE=1` writes it anew.

use std::fmt::Write as _;
use std::path::Path;

use super::*;
use crate::host::{InstallFailed, WithdrawReason};
use crate::ids::MessageCounter;

const NEW: ClientId = ClientId(2);
const OLD: ClientId = ClientId(3);

fn config() -> HostConfig {
    HostConfig { probe_interval: secs(100_000), ..tcp() }
}

fn connecting() -> Dialogue {
    let mut it = Dialogue::new(config());
    it.host.start(it.now);
    it
}

fn registering() -> Dialogue {
    let mut it = connecting();
    it.host.handle_transport_up(it.now);
    it
}

fn listening() -> Dialogue {
    let mut it = Dialogue::registered(config());
    it.host.want_port(80, it.now);
    it
}

fn installing() -> Dialogue {
    let mut it = listening();
    it.commands();
    it.answer(listen_response(CLIENT, 5, 80));
    it
}

fn in_use() -> Dialogue {
    Dialogue::holding(config(), 80, 5)
}

/// The states: the appendix's names where it has them.
fn states() -> Vec<(&'static str, Dialogue)> {
    let mut down = connecting();
    down.host.handle_transport_down(down.now);
    let mut refused = registering();
    refused.commands();
    refused.refuse(ErrorCode::RegistrationDenied);
    let mut forgetting = registering();
    forgetting.commands();
    forgetting.answer(already_registered());
    let mut checking = Dialogue::registered(config());
    checking.by_hand();
    checking.commands();
    checking.host.handle_transport_down(checking.now);
    checking.host.handle_transport_up(checking.now);
    let mut extending = in_use();
    extending.pass(secs(300));
    let mut freeing = in_use();
    freeing.host.release_port(80, freeing.now);
    let mut renewing = in_use();
    renewing.forgotten();
    let mut ended = in_use();
    ended.asynchronous(Body::DeRegisterResponse { client_id: CLIENT });
    let mut leaving = in_use();
    leaving.host.shutdown(leaving.now);
    let mut stopped = connecting();
    stopped.host.shutdown(stopped.now);
    vec![
        ("idle", Dialogue::new(config())),
        ("connecting", connecting()),
        ("down", down),
        ("registration pending", registering()),
        ("registration refused", refused),
        ("forgetting an old registration", forgetting),
        ("registered", Dialogue::registered(config())),
        ("query pending", checking),
        ("assignment pending", listening()),
        ("assigned, installing", installing()),
        ("assigned", in_use()),
        ("extension pending", extending),
        ("free pending", freeing),
        ("renewing after a loss", renewing),
        ("de-registered by the gateway", ended),
        ("de-registration pending", leaving),
        ("stopped", stopped),
    ]
}

fn already_registered() -> Body {
    let client_id = Some(OLD);
    Body::ErrorResponse { error: ErrorCode::AlreadyRegistered, client_id, bind_id: None }
}

type Input = (&'static str, fn(&mut Dialogue));

/// With the counter of whatever was asked last, or else one that was never used.
fn say(it: &mut Dialogue, body: Body) {
    let counter = it.asked.as_ref().map_or(Some(MessageCounter(999)), |asked| asked.counter);
    it.host.handle_message(Message { counter, body }, it.now);
}

fn done(it: &mut Dialogue, result: Result<(), InstallFailed>) {
    let op = it.op.unwrap_or(OpId(999));
    it.host.handle_done(op, result, it.now);
}

fn inputs() -> Vec<Input> {
    vec![
        ("want 80", |it| it.host.want_port(80, it.now)),
        ("release 80", |it| it.host.release_port(80, it.now)),
        ("listen 80", |it| it.host.listen(80, it.now)),
        ("unlisten 80", |it| it.host.unlisten(80, it.now)),
        ("shutdown", |it| it.host.shutdown(it.now)),
        ("transport up", |it| it.host.handle_transport_up(it.now)),
        ("transport down", |it| it.host.handle_transport_down(it.now)),
        ("done", |it| done(it, Ok(()))),
        ("failed", |it| done(it, Err(InstallFailed))),
        ("time", |it| {
            if let Some(at) = it.host.poll_timeout() {
                it.now = at;
                it.host.handle_timeout(at);
            }
        }),
        ("REGISTER_RESPONSE", |it| say(it, register_response(NEW))),
        ("DE-REGISTER_RESPONSE", |it| {
            let client_id = match it.asked.as_ref().map(|asked| &asked.body) {
                Some(Body::DeRegisterRequest { client_id }) => *client_id,
                _ => CLIENT,
            };
            say(it, Body::DeRegisterResponse { client_id });
        }),
        ("LISTEN_RESPONSE", |it| say(it, listen_response(CLIENT, 6, 80))),
        ("EXTEND_RESPONSE", |it| say(it, extend_response(5, LEASE))),
        ("FREE_RESPONSE", |it| say(it, free_response(5))),
        ("QUERY_RESPONSE", |it| say(it, Body::QueryResponse { client_id: CLIENT, tuples: Vec::new() })),
        ("301", |it| say(it, error_response(ErrorCode::RegisterFirst))),
        ("302", |it| say(it, already_registered())),
        ("303", |it| say(it, error_response(ErrorCode::AlreadyUnregistered))),
        ("304", |it| say(it, error_response(ErrorCode::RegistrationDenied))),
        ("305", |it| say(it, error_response(ErrorCode::BadClientId))),
        ("306", |it| say(it, error_response(ErrorCode::BadBindId))),
        ("311", |it| say(it, error_response(ErrorCode::LocalAddrportInuse))),
        ("asynchronous FREE_RESPONSE", |it| it.asynchronous(free_response(5))),
        ("asynchronous DE-REGISTER_RESPONSE", |it| {
            it.asynchronous(Body::DeRegisterResponse { client_id: CLIENT });
        }),
        ("asynchronous 301", |it| it.asynchronous(error_response(ErrorCode::RegisterFirst))),
        ("asynchronous 312", |it| it.asynchronous(error_response(ErrorCode::LocalAddrUnallowed))),
    ]
}

fn word(command: &HostCommand) -> String {
    match command {
        HostCommand::Connect => "connect".to_owned(),
        HostCommand::Disconnect => "disconnect".to_owned(),
        HostCommand::Farewell(_) => "farewell".to_owned(),
        HostCommand::Send(message) => match &message.body {
            Body::RegisterRequest => "REGISTER".to_owned(),
            Body::DeRegisterRequest { client_id: OLD } => "DE-REGISTER the old".to_owned(),
            Body::DeRegisterRequest { .. } => "DE-REGISTER".to_owned(),
            Body::ListenRequest(_) => "LISTEN".to_owned(),
            Body::ExtendRequest { .. } => "EXTEND".to_owned(),
            Body::FreeRequest { .. } => "FREE".to_owned(),
            Body::QueryRequest { .. } => "QUERY".to_owned(),
            other => panic!("{other:?} is not expected"),
        },
        HostCommand::Publish { .. } => "publish".to_owned(),
        HostCommand::Renamed { .. } => "renamed".to_owned(),
        HostCommand::Withdraw { reason, .. } => match reason {
            WithdrawReason::Freed => "withdraw: freed".to_owned(),
            WithdrawReason::Expired => "withdraw: expired".to_owned(),
            WithdrawReason::Revoked => "withdraw: revoked".to_owned(),
            WithdrawReason::Deregistered => "withdraw: deregistered".to_owned(),
            WithdrawReason::Lost => "withdraw: lost".to_owned(),
            WithdrawReason::Refused(code) => format!("withdraw: refused, {}", code.number()),
            WithdrawReason::OtherAddress(address) => format!("withdraw: {address} now"),
            WithdrawReason::Shutdown => "withdraw: shutdown".to_owned(),
        },
        HostCommand::Verdict { outcome: Ok(()), .. } => "granted".to_owned(),
        HostCommand::Verdict { outcome: Err(reason), .. } => match reason {
            DenyReason::Gateway(code) => format!("denied: {}", code.number()),
            DenyReason::Mismatch(mismatch) => format!("denied: {mismatch}"),
            DenyReason::Unreachable => "denied: unreachable".to_owned(),
            DenyReason::Timeout => "denied: timeout".to_owned(),
            DenyReason::InstallFailed => "denied: install failed".to_owned(),
        },
        HostCommand::Local(networks) => format!("local: {networks:?}"),
        HostCommand::Registration(change) => match change {
            RegistrationChange::Registered(_) => "registered".to_owned(),
            RegistrationChange::Refused(code) => format!("refused: {}", code.number()),
            RegistrationChange::Unsuitable(mismatch) => format!("unsuitable: {mismatch}"),
            RegistrationChange::Unreachable => "unreachable".to_owned(),
            RegistrationChange::Lost => "lost".to_owned(),
            RegistrationChange::Moved => "moved".to_owned(),
        },
        HostCommand::Stopped => "stopped".to_owned(),
    }
}

fn table() -> String {
    let mut text = String::new();
    for (index, (state, _)) in states().into_iter().enumerate() {
        writeln!(text, "{state}").expect("a string takes everything");
        let mut ignored = Vec::new();
        for (input, apply) in inputs() {
            let (_, mut it) = states().swap_remove(index);
            it.commands();
            let seen = |it: &Dialogue| (it.host.view(it.now), it.host.saved(), it.host.poll_timeout());
            let before = seen(&it);
            apply(&mut it);
            let words: Vec<String> = it.commands().iter().map(word).collect();
            if !words.is_empty() {
                writeln!(text, "    {input}: {}", words.join(", ")).expect("a string takes everything");
            } else if seen(&it) == before {
                ignored.push(input);
            } else {
                writeln!(text, "    {input}: (noted)").expect("a string takes everything");
            }
            assert!(it.host.poll_timeout().is_none_or(|at| at >= it.now), "{state}, {input}: it spins");
        }
        writeln!(text, "    nothing to be seen: {}", ignored.join(", ")).expect("a string takes everything");
    }
    text
}

#[test]
fn every_state_against_every_input() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/host/tests/table.txt");
    let now = table();
    if std::env::var_os("RSIP_UPDATE_TABLE").is_some() {
        std::fs::write(&path, &now).expect("the table can be written");
    }
    let expected = std::fs::read_to_string(&path).expect("the table is there");
    for (now, expected) in now.lines().zip(expected.lines()) {
        assert_eq!(now, expected);
    }
    assert_eq!(now.lines().count(), expected.lines().count());
}
