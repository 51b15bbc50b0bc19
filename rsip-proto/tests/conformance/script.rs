//! The files: how they are read, played and written.
//!
//! | line | meaning |
//! |---|---|
//! | `## text` and blank lines | for people |
//! | `key value` | a setting of the machine; the first is `machine gateway` or `machine host` |
//! | `TIME > PEER : HEX` | bytes that come in, at this time in seconds |
//! | `TIME ! WORDS` | something else that happens |
//! | `TIME < PEER : HEX` | output: bytes that the machine sends |
//! | `TIME = WORDS` | output: something else that it asks of its shell |
//! | `# text` | written by the player: the message above, as people read it |

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::time::{Duration, Instant};

use rsip_capture::Spoken;
use rsip_proto::wire::{Message, Pretty};

use crate::gateway::GatewayPlayer;
use crate::host::HostPlayer;

/// A conversation that was played.
pub(crate) struct Played {
    /// The file as it is to be.
    pub(crate) text: String,
    /// What the machine said.
    pub(crate) said: Vec<Spoken>,
}

/// Something that a machine does.
pub(crate) enum Output {
    /// To whom, as in the file; the message.
    Sends(String, Spoken),
    /// Anything else, in words.
    Asks(String),
}

/// A machine in the hands of a file.
pub(crate) trait Player {
    /// When it wants to be woken.
    fn wakes_at(&self) -> Option<Instant>;
    /// Wakes it.
    fn wake(&mut self, now: Instant) -> Vec<Output>;
    /// Bytes from `peer`.
    fn hears(&mut self, peer: &str, bytes: &[u8], now: Instant) -> Vec<Output>;
    /// Something else.
    fn meets(&mut self, words: &str, now: Instant) -> Vec<Output>;
}

/// The settings at the beginning of a file.
pub(crate) type Settings = Vec<(String, String)>;

/// All files, by name without ending.
pub(crate) fn files() -> BTreeMap<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/conformance");
    let paths = std::fs::read_dir(folder).expect("the folder").map(|entry| entry.expect("entry").path());
    paths
        .filter(|path| path.extension().is_some_and(|ending| ending == "conv"))
        .map(|path| {
            let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
            (name, std::fs::read_to_string(path).expect("a conversation"))
        })
        .collect()
}

/// Plays a file: its outputs are left aside, those that come instead are written.
pub(crate) fn play(text: &str) -> Played {
    let settings: Settings = text.lines().filter_map(setting).collect();
    let start = Instant::now();
    let mut stage = Stage { player: player(&settings, start), start, text: String::new(), said: Vec::new() };
    // Remarks stand before what they are about, also after a wake-up in between.
    let mut remarks = Vec::new();
    for line in text.lines() {
        if let Some((at, kind, rest)) = event(line) {
            if kind == '>' || kind == '!' {
                stage.until(at);
                stage.lines(&mut remarks);
                stage.input(at, kind, rest);
            }
        } else if !line.starts_with("# ") {
            remarks.push(line.to_owned());
        }
    }
    stage.lines(&mut remarks);
    Played { text: stage.text, said: stage.said }
}

fn player(settings: &Settings, start: Instant) -> Box<dyn Player> {
    match settings.first().map(|(key, value)| (key.as_str(), value.as_str())) {
        Some(("machine", "gateway")) => Box::new(GatewayPlayer::new(&settings[1..])),
        Some(("machine", "host")) => Box::new(HostPlayer::new(&settings[1..], start)),
        other => panic!("the first setting is the machine, not {other:?}"),
    }
}

fn setting(line: &str) -> Option<(String, String)> {
    if line.trim().is_empty() || line.starts_with('#') || event(line).is_some() {
        return None;
    }
    let (key, value) = line.split_once(' ').unwrap_or((line, ""));
    Some((key.to_owned(), value.trim().to_owned()))
}

/// A line with a time, its mark and the rest.
fn event(line: &str) -> Option<(Duration, char, &str)> {
    let (time, rest) = line.split_once(' ')?;
    let time: f64 = time.parse().ok()?;
    let mark = rest.chars().next()?;
    Some((Duration::from_nanos((time * 1e9).round() as u64), mark, rest[mark.len_utf8()..].trim()))
}

struct Stage {
    player: Box<dyn Player>,
    start: Instant,
    text: String,
    said: Vec<Spoken>,
}

impl Stage {
    fn until(&mut self, at: Duration) {
        let mut rounds = 0;
        while let Some(wake) = self.player.wakes_at().filter(|wake| *wake <= self.start + at) {
            let outputs = self.player.wake(wake);
            self.outputs(wake - self.start, outputs);
            rounds += 1;
            assert!(rounds < 10_000, "it spins");
        }
    }

    fn input(&mut self, at: Duration, kind: char, rest: &str) {
        let now = self.start + at;
        if kind == '!' {
            self.line(at, kind, rest);
            let outputs = self.player.meets(rest, now);
            return self.outputs(at, outputs);
        }
        let (peer, hex) = rest.split_once(" : ").expect("PEER : HEX");
        let bytes = bytes(hex);
        self.message(at, kind, peer, &bytes);
        let outputs = self.player.hears(peer, &bytes, now);
        self.outputs(at, outputs);
    }

    fn outputs(&mut self, at: Duration, outputs: Vec<Output>) {
        for output in outputs {
            match output {
                Output::Asks(words) => self.line(at, '=', &words),
                Output::Sends(peer, spoken) => {
                    self.message(at, '<', &peer, &spoken.message);
                    self.said.push(spoken);
                }
            }
        }
    }

    fn message(&mut self, at: Duration, mark: char, peer: &str, bytes: &[u8]) {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        self.line(at, mark, &format!("{peer} : {}", hex.join(" ")));
        let shown = if peer.starts_with("tcp") && Message::parse(bytes).is_err() {
            format!("{} bytes of a stream", bytes.len())
        } else {
            Pretty(bytes).to_string()
        };
        writeln!(self.text, "# {shown}").expect("text");
    }

    fn line(&mut self, at: Duration, mark: char, rest: &str) {
        writeln!(self.text, "{:.4} {mark} {rest}", at.as_secs_f64()).expect("text");
    }

    fn lines(&mut self, lines: &mut Vec<String>) {
        lines.drain(..).for_each(|line| writeln!(self.text, "{line}").expect("text"));
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    hex.split_whitespace().map(|pair| u8::from_str_radix(pair, 16).expect("hex")).collect()
}
