//! Whose programs are served: the whole tree, some cgroups, or those that `rsip-client run` makes.

use std::fmt;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rsip_sys::cgroup::{self, Cgroup, CgroupError};

use super::Effects;
use crate::agent::failure::EffectError;

/// A command may take so long from having its cgroup to being in it.
const ENTRY: Duration = Duration::from_secs(10);

/// A cgroup whose programs are to be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent) enum Place {
    /// The whole tree.
    Root,
    /// By its folder (`--cgroup`).
    Folder(PathBuf),
    /// By its path in the tree, as long as a process is in it (`rsip-client run`).
    Run(String),
}

impl Place {
    /// Opens it.
    ///
    /// # Errors
    ///
    /// It is not there, or no cgroup.
    pub(in crate::agent) fn open(&self) -> Result<Cgroup, CgroupError> {
        match self {
            Self::Root => cgroup::open_root(),
            Self::Folder(path) => cgroup::open(path),
            Self::Run(path) => cgroup::open_at(path),
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => f.write_str("the root of the cgroup v2 tree"),
            Self::Folder(path) => write!(f, "{}", path.display()),
            Self::Run(path) => f.write_str(path),
        }
    }
}

/// One that is to be served, and whether it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::agent) struct Managed {
    pub(in crate::agent) place: Place,
    /// The kernel's number for the cgroup that the programs are on.
    pub(in crate::agent) attached: Option<u64>,
    /// It is inside of another one, whose programs run for it: a second set would count everything twice.
    pub(in crate::agent) inside: bool,
    /// Somebody is about to enter it, until then.
    awaited: Option<Instant>,
}

impl From<Place> for Managed {
    fn from(place: Place) -> Self {
        Self { place, attached: None, inside: false, awaited: None }
    }
}

impl Effects {
    /// Puts the programs on every cgroup that is to be served and is there.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub(super) fn attach_cgroups(&mut self) -> Result<(), EffectError> {
        for index in 0..self.cgroups.len() {
            self.attach_cgroup(index)?;
        }
        Ok(())
    }

    fn attach_cgroup(&mut self, index: usize) -> Result<(), EffectError> {
        let Some(managed) = self.cgroups.get(index) else { return Ok(()) };
        let name = managed.place.to_string();
        let Ok(cgroup) = managed.place.open() else { return Ok(()) };
        let Ok(id) = cgroup.id() else { return Ok(()) };
        let above = cgroup.above();
        let serves = |managed: &Managed| managed.attached.is_some_and(|at| at == id || above.contains(&at));
        let inside = self.cgroups.iter().any(serves);
        if !inside {
            self.hooks.attach(&cgroup.directory, &name)?;
        }
        if let Some(managed) = self.cgroups.get_mut(index) {
            managed.inside = inside;
            managed.attached = (!inside).then_some(id);
        }
        self.detach_what_is_inside(id);
        Ok(())
    }

    /// A cgroup came that others are in, which had to be served by themselves until then.
    fn detach_what_is_inside(&mut self, outer: u64) {
        for managed in &mut self.cgroups {
            let Some(id) = managed.attached.filter(|id| *id != outer) else { continue };
            if managed.place.open().is_ok_and(|cgroup| cgroup.above().contains(&outer)) {
                self.hooks.detach_from(id);
                (managed.attached, managed.inside) = (None, true);
            }
        }
    }

    /// Looks whether cgroups have gone, were made anew, or came; those of `rsip-client run` end with their last process.
    pub(in crate::agent) fn follow_managed_cgroups(&mut self) {
        if !self.active {
            return;
        }
        let mut index = 0;
        while let Some(managed) = self.cgroups.get(index).cloned() {
            let place = &managed.place;
            let cgroup = place.open().ok();
            if matches!(place, Place::Run(_)) && self.has_ended(index, cgroup.as_ref()) {
                self.end_run(index);
                continue;
            }
            let id = cgroup.and_then(|cgroup| cgroup.id().ok());
            if let Some(old) = managed.attached.filter(|old| Some(*old) != id) {
                tracing::warn!(cgroup = %place, "the cgroup is gone: its programs are not served");
                self.hooks.detach_from(old);
                self.forget(index);
            }
            let is_served = self.cgroups.get(index).is_some_and(|m| m.attached.is_some() || m.inside);
            if id.is_some() && !is_served {
                match self.attach_cgroup(index) {
                    Ok(()) => tracing::info!(cgroup = %place, "the cgroup is there: its programs are served"),
                    Err(error) => tracing::error!(cgroup = %place, %error, "the cgroup cannot be served"),
                }
            }
            index += 1;
        }
    }

    /// Whether the last process of a command has left its cgroup.
    fn has_ended(&mut self, index: usize, cgroup: Option<&Cgroup>) -> bool {
        match (cgroup.and_then(Cgroup::is_populated), self.cgroups.get_mut(index)) {
            (Some(true), Some(managed)) => {
                managed.awaited = None;
                false
            }
            (Some(false), Some(Managed { awaited: Some(until), .. })) => *until < Instant::now(),
            _ => true,
        }
    }

    fn forget(&mut self, index: usize) {
        if let Some(managed) = self.cgroups.get_mut(index) {
            managed.attached = None;
        }
        // Who was inside of it may have to be served by itself now.
        self.cgroups.iter_mut().for_each(|managed| managed.inside = false);
    }

    /// Serves the programs of a cgroup as long as there are any.
    ///
    /// # Errors
    ///
    /// It is not there, or the kernel refuses.
    pub(in crate::agent) fn begin_run(&mut self, path: &str) -> Result<(), EffectError> {
        let place = Place::Run(path.to_owned());
        place.open().map_err(EffectError::Cgroup)?;
        let awaited = Some(Instant::now() + ENTRY);
        if let Some(known) = self.cgroups.iter_mut().find(|managed| managed.place == place) {
            // Of a process that had the same number.
            known.awaited = awaited;
            return Ok(());
        }
        self.cgroups.push(Managed { awaited, ..Managed::from(place) });
        self.keep_runs()?;
        if self.active { self.attach_cgroup(self.cgroups.len() - 1) } else { Ok(()) }
    }

    fn end_run(&mut self, index: usize) {
        let managed = self.cgroups.remove(index);
        if let Some(id) = managed.attached {
            self.hooks.detach_from(id);
        }
        if let Place::Run(path) = &managed.place
            && let Err(error) = cgroup::remove(path)
        {
            tracing::warn!(cgroup = %path, %error, "the cgroup of a program that has ended stays");
        }
        tracing::info!(cgroup = %managed.place, "the last program has ended");
        if let Err(error) = self.keep_runs() {
            tracing::error!(%error, "cannot keep the state");
        }
    }

    /// A restarted agent goes on with what `rsip-client run` began.
    fn keep_runs(&mut self) -> Result<(), EffectError> {
        let run = |managed: &Managed| match &managed.place {
            Place::Run(path) => Some(path.clone()),
            Place::Root | Place::Folder(_) => None,
        };
        self.state.runs = self.cgroups.iter().filter_map(run).collect();
        Ok(self.store()?)
    }

    /// The cgroups, for people.
    pub(in crate::agent) fn cgroup_names(&self) -> String {
        if self.cgroups.is_empty() {
            return "nobody's cgroup".to_owned();
        }
        self.cgroups.iter().map(|managed| managed.place.to_string()).collect::<Vec<_>>().join(", ")
    }
}
