//! Plays the recorded conversations of `tests/conformance/` and shows where they go another way than recorded; with
//! `--write` writes the files anew. Read the difference before you commit it: every line of it is a change of what
//! gateway or host do.
//!
//! ```sh
//! cargo run -p rsip-proto --example conversations -- --write && git diff rsip-proto/tests/conformance
//! ```

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "shares its code with the tests, and a bad file ends it"
)]

#[path = "../tests/conformance/gateway.rs"]
mod gateway;
#[path = "../tests/conformance/host.rs"]
mod host;
#[path = "../tests/conformance/script.rs"]
mod script;

fn main() -> std::io::Result<()> {
    let write = std::env::args().any(|argument| argument == "--write");
    for (name, text) in script::files() {
        let played = script::play(&text);
        if played.text == text {
            continue;
        }
        let said = played.said.len();
        println!("{name}.conv goes another way than recorded; the machine says {said} messages");
        for (recorded, now) in
            text.lines().zip(played.text.lines()).filter(|(recorded, now)| recorded != now).take(3)
        {
            println!("  - {recorded}\n  + {now}");
        }
        if write {
            let path = format!("{}/tests/conformance/{name}.conv", env!("CARGO_MANIFEST_DIR"));
            std::fs::write(path, played.text)?;
        }
    }
    Ok(())
}
