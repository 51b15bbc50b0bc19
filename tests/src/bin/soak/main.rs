//! Binds without end, and whether anything of the daemons grows with them: `cargo xtask soak` builds what it needs and runs
//! it.
//!
//! ```text
//! soak run --binds 1000000                               the soak, in a lab of its own; a table and an exit code
//! soak bind 25000 0 10.77.0.2 198.51.100.1 198.51.100.2  one round of binds, from where it is started
//! soak serve 9500                                        accepts and forgets, until it is ended
//! soak one 0.0.0.0:10000                                 a program that binds, and ends
//! ```

mod binder;

use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};
use rsip_lab::lab::soak::{self, Extent};
use rsip_lab::lab::{Lab, interrupt};

/// The lab's name.
const ID: &str = "soak";

#[derive(Parser)]
#[command(name = "soak", about = "Binds without end, and whether anything of the daemons grows with them")]
struct Cli {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Soak a gateway and an agent in a lab.
    Run {
        /// So many binds.
        #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
        binds: u64,
        /// So many seconds instead.
        #[arg(long, conflicts_with = "binds")]
        seconds: Option<u64>,
    },
    /// One round of binds of every kind.
    Bind {
        /// How many.
        binds: u64,
        /// Which round: new ports follow those of the round before.
        round: u64,
        /// The host's private address.
        private: Ipv4Addr,
        /// The leased address.
        public: Ipv4Addr,
        /// The internet host.
        peer: Ipv4Addr,
    },
    /// Accept connections and close them; take datagrams and forget them.
    Serve {
        /// The port.
        port: u16,
    },
    /// Bind a TCP socket, and end.
    One {
        /// What to bind.
        address: SocketAddrV4,
    },
}

fn main() -> ExitCode {
    match run(Cli::parse().verb) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("soak: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(verb: Verb) -> Result<bool, Box<dyn std::error::Error>> {
    match verb {
        Verb::Run { binds, seconds } => {
            let extent = seconds.map_or(Extent::Binds(binds), |time| Extent::Time(Duration::from_secs(time)));
            interrupt::clean_up_at_the_end(ID)?;
            soak(extent)
        }
        Verb::Bind { binds, round, private, public, peer } => {
            let tally = binder::run(binds, round, binder::Places { private, public, peer })?;
            writeln!(io::stdout(), "{}", serde_json::to_string(&tally)?)?;
            Ok(true)
        }
        Verb::Serve { port } => binder::serve(port).map(|()| true).map_err(Into::into),
        Verb::One { address } => Ok(binder::one(address).is_ok()),
    }
}

fn soak(extent: Extent) -> Result<bool, Box<dyn std::error::Error>> {
    let report = soak::run(Lab::with_id(ID)?, extent, |tally, sample| {
        let memory = |who: &str| sample.value(&format!("{who}: own memory")).unwrap_or(0);
        eprintln!(
            "    {} binds; rsip-client {} KiB, rsipd {} KiB",
            tally.total(),
            memory("rsip-client"),
            memory("rsipd")
        );
    })?;
    println!("{}", report.table());
    let complaints = report.complaints();
    for complaint in &complaints {
        println!("{complaint}");
    }
    println!("{}", if complaints.is_empty() { "Everything stays flat." } else { "The soak FAILED." });
    Ok(complaints.is_empty())
}
