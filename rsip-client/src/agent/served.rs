//! Whose programs are to be served, as the command line says.

use rsip_sys::cgroup::CgroupError;
use rsip_sys::exit::{ExitCode, Failure};

use super::effects::cgroups::{Managed, Place};
use crate::cli::CgroupChoice;
use crate::state::State;

/// The cgroups that are to be served; each of them is there now.
pub(super) fn places(cgroups: &[CgroupChoice]) -> anyhow::Result<Vec<Place>> {
    let places: Vec<Place> = match cgroups {
        [] => vec![Place::Root],
        listed => listed
            .iter()
            .filter_map(|cgroup| match cgroup {
                CgroupChoice::All => Some(Place::Root),
                CgroupChoice::None => None,
                CgroupChoice::Folder(path) => Some(Place::Folder(path.clone())),
            })
            .collect(),
    };
    for place in &places {
        place.open().map_err(cgroup_failure)?;
    }
    Ok(places)
}

pub(super) fn managed(places: Vec<Place>, state: &State, no_hooks: bool) -> Vec<Managed> {
    let runs = state.runs.iter().filter(|_| !no_hooks).cloned().map(Place::Run);
    places.into_iter().chain(runs).map(Managed::from).collect()
}

fn cgroup_failure(error: CgroupError) -> Failure {
    let line = error.to_string();
    match error {
        CgroupError::Unavailable(_) | CgroupError::Make { .. } | CgroupError::Nowhere(_) => {
            Failure::new(ExitCode::Missing, line)
                .hint("the kernel needs CONFIG_CGROUPS and CONFIG_CGROUP_BPF")
        }
        CgroupError::Open { .. } | CgroupError::NotCgroup2(_) => Failure::new(ExitCode::Config, line)
            .hint("give --cgroup a directory of the cgroup v2 tree, all or none, or leave it out"),
    }
}
