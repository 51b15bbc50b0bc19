//! Binds without end leave nothing behind in the daemons. The long form: `cargo xtask soak`.
#![allow(clippy::unwrap_used, reason = "a test ends at the first surprise")]

use rsip_lab::lab::Lab;
use rsip_lab::lab::soak::{self, Extent};

#[test]
fn memory_threads_descriptors_maps_and_files_stay_flat_over_binds_of_every_kind() {
    let report = soak::run(Lab::new().unwrap(), Extent::Binds(16_000), |_, _| {}).unwrap();
    println!("{}", report.table());
    assert_eq!(report.tally.total(), 16_000);
    assert_eq!(report.complaints(), Vec::<String>::new());
}
