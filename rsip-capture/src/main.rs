//! `rsip-judge FOLDER`: whether tshark and we agree on every message in a folder of captures.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, bail};
use clap::Parser;
use rsip_capture::judge::{self, tshark};

/// Gives every distinct message of the captures in a folder to tshark, and compares what it sees with our own reading.
#[derive(Debug, Parser)]
#[command(name = "rsip-judge", after_help = "Example:\n  rsip-judge --complete target/captures")]
struct Cli {
    /// Also fail where a message type was never said by gateway or host, or a form of a parameter was never seen.
    #[arg(long)]
    complete: bool,
    /// The folder of captures, as RSIP_CAPTURE_DIR named it.
    folder: PathBuf,
}

fn main() -> ExitCode {
    match run(&Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("rsip-judge: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: &Cli) -> anyhow::Result<()> {
    let version = tshark::version()?;
    // Stays there, for a person to look at with Wireshark.
    let verdict = judge::folder(&cli.folder, &cli.folder.join("judged.pcap"))
        .with_context(|| format!("cannot judge the captures in {}", cli.folder.display()))?;
    print!("tshark {version}: {verdict}");
    if !verdict.is_clean() {
        bail!("tshark and we do not agree on {} messages", verdict.complaints.len());
    }
    if cli.complete {
        let (unspoken, unseen) = (verdict.unspoken(), verdict.unseen());
        if !unspoken.is_empty() {
            let names: Vec<&str> = unspoken.iter().map(|it| it.name()).collect();
            bail!("neither gateway nor host ever said {}", names.join(", "));
        }
        if !unseen.is_empty() {
            bail!("no message had {}", unseen.join("; "));
        }
    }
    Ok(())
}
