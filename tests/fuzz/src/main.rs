//! libFuzzer around one target, chosen by `RSIP_FUZZ_TARGET`. `cargo xtask fuzz` builds and starts it.
#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use rsip_fuzz::Target;

static TARGET: OnceLock<Target> = OnceLock::new();

fn target() -> Target {
    let Ok(name) = std::env::var(rsip_fuzz::TARGET_VARIABLE) else {
        eprintln!(
            "rsip-fuzz: no target: start it by `cargo xtask fuzz`, or set {}",
            rsip_fuzz::TARGET_VARIABLE
        );
        std::process::exit(2);
    };
    rsip_fuzz::find(&name).unwrap_or_else(|| {
        eprintln!("rsip-fuzz: there is no target {name:?}: see `cargo xtask fuzz --help`");
        std::process::exit(2);
    })
}

fuzz_target!(|data: &[u8]| {
    (TARGET.get_or_init(target).run)(data);
});
