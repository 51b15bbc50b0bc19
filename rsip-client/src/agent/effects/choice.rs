//! The kernel's own choice of ports: the leased blocks, except those on their way back.

use std::collections::BTreeSet;

use rsip_proto::host::{BindingKind, HostBinding};

use super::Effects;
use crate::agent::failure::EffectError;
use crate::ephemeral::planner::Name;
use crate::ports;

impl Effects {
    /// The ports that the kernel may choose.
    pub fn choice(&self) -> BTreeSet<u16> {
        let open = |binding: &&HostBinding| {
            binding.kind == BindingKind::Block
                && !self.reserved.contains(&(binding.client_id, binding.bind_id))
        };
        self.book.bindings().filter(open).flat_map(|binding| binding.leased.iter()).collect()
    }

    /// From now on the kernel does not choose ports of this block; who has one keeps it.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn reserve(&mut self, name: Name) -> Result<(), EffectError> {
        self.reserved.insert(name);
        self.sync().await
    }

    /// The kernel may choose ports of this block again.
    ///
    /// # Errors
    ///
    /// The kernel refuses.
    pub async fn reopen(&mut self, name: Name) -> Result<(), EffectError> {
        self.open_block(name)?;
        self.reserved.remove(&name);
        self.sync().await
    }

    /// The ports of this block cannot be bound by number.
    ///
    /// # Errors
    ///
    /// The map does not take it.
    pub fn close_block(&mut self, name: Name) -> Result<(), EffectError> {
        let ports = self.ports_of(name);
        Ok(self.book.close(&mut self.hooks, ports)?)
    }

    /// They can.
    ///
    /// # Errors
    ///
    /// The map does not take it.
    pub fn open_block(&mut self, name: Name) -> Result<(), EffectError> {
        let ports = self.ports_of(name);
        Ok(self.book.open(&mut self.hooks, ports)?)
    }

    fn ports_of(&self, name: Name) -> Vec<u16> {
        let block = self.book.bindings().find(|binding| (binding.client_id, binding.bind_id) == name);
        block.map(|binding| binding.leased.iter().collect()).unwrap_or_default()
    }

    /// A binding has another name now.
    pub fn rename(&mut self, old: Name, binding: HostBinding) {
        if self.reserved.remove(&old) {
            self.reserved.insert((binding.client_id, binding.bind_id));
        }
        self.book.rename(old, binding);
    }

    /// Whether to wait for more ports is of no use.
    ///
    /// # Errors
    ///
    /// The map does not take it.
    pub fn set_exhausted(&mut self, exhausted: bool) -> Result<(), EffectError> {
        if self.exhausted == exhausted {
            return Ok(());
        }
        self.exhausted = exhausted;
        self.write_config()
    }

    /// Tells the kernel what it may choose from; says how many ports that are, 0 where it is not confined.
    pub(super) fn confine(&mut self) -> Result<u32, EffectError> {
        let leased = self.choice();
        match (&self.state.sysctls, leased.is_empty()) {
            (None, true) => Ok(0),
            (None, false) => {
                let original = ports::current()?;
                self.state.sysctls = Some(original.clone());
                self.store()?;
                Ok(ports::apply(&leased, &original)?)
            }
            (Some(original), false) => Ok(ports::apply(&leased, original)?),
            (Some(original), true) => {
                ports::restore(original)?;
                self.state.sysctls = None;
                self.store()?;
                Ok(0)
            }
        }
    }
}
