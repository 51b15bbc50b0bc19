//! When another block is leased, and which one is given back.
//!
//! ```text
//!         leased       use falls, for the linger time           no port used           no port used
//!  (none) -------> open ------------------------------> reserved -------------> closed -------------> returned
//!                   ^                                    |    ^                  |  |
//!                   +------------------------------------+    +------------------+  |
//!                   |                use rises                   somebody took one  |
//!                   +---------------------------------------------------------------+
//! ```
//!
//! A reserved block is out of the kernel's choice, so that it empties as its sockets end. When the kernel's list shows none of
//! its ports, it is closed, so that nobody binds them by number either; and when the list still shows none a while later,
//! it is given back. Until then it is the first to be taken up again. Between leasing (three quarters in use) and reserving (half of what would be left) lies room for use to go up and
//! down without a word to the gateway.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rsip_proto::ids::{BindId, ClientId};

use crate::cli::Blocks;

/// A system call that chose its port just before the block was reserved has its socket in the kernel's list after this.
pub const GRACE: Duration = Duration::from_millis(100);

/// The name of a block.
pub type Name = (ClientId, BindId);

/// A block as it is in use now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    /// Which.
    pub name: Name,
    /// Its ports.
    pub size: usize,
    /// Of these: those that some socket has.
    pub used: usize,
}

/// What there is.
#[derive(Clone, Debug, Default)]
pub struct Look {
    /// Every block in use.
    pub blocks: Vec<Block>,
    /// Of the ports of open blocks, so many are taken ([`super::tally::Need`]).
    pub need: usize,
    /// Another block is asked for, or waits to be asked for again.
    pub pending: bool,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Ask for another block.
    Lease,
    /// The block that is asked for is not needed any more.
    Forgo,
    /// Take this block out of the kernel's choice.
    Reserve(Name),
    /// Its ports cannot be bound by number from now on.
    Close(Name),
    /// Somebody did just before: they can be bound again.
    Keep(Name),
    /// Let programs and the kernel choose from this block again.
    Open(Name),
    /// Give this block back: it is closed, and nobody uses it.
    Return(Name),
}

/// How use stands to what is leased.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Nothing has to change.
    #[default]
    Enough,
    /// Three quarters are in use.
    Scarce,
    /// Less would do.
    Plenty,
}

impl Level {
    /// For people.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Enough => "enough",
            Self::Scarce => "scarce",
            Self::Plenty => "plenty",
        }
    }
}

/// How far a block is on its way back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Going {
    Reserved(Instant),
    Closed(Instant),
}

/// Decides; remembers which blocks are reserved, and since when use is low.
#[derive(Debug)]
pub struct Planner {
    /// Never fewer ports than at start.
    least: usize,
    /// Never more ports than this.
    most: usize,
    block: usize,
    linger: Duration,
    reserved: BTreeMap<Name, Going>,
    low_since: Option<Instant>,
    level: Level,
}

impl Planner {
    /// A planner that has seen nothing yet.
    pub fn new(blocks: Blocks, linger: Duration) -> Self {
        let block = usize::from(blocks.size);
        let (least, most) = (block * usize::from(blocks.first), block * usize::from(blocks.most));
        Self { least, most, block, linger, reserved: BTreeMap::new(), low_since: None, level: Level::Enough }
    }

    /// Whether a block is out of the kernel's choice.
    pub fn is_reserved(&self, name: Name) -> bool {
        self.reserved.contains_key(&name)
    }

    /// The blocks that are out of the kernel's choice.
    pub fn reserved(&self) -> impl Iterator<Item = Name> + '_ {
        self.reserved.keys().copied()
    }

    /// How use stood to what is leased when it was looked at last.
    pub const fn level(&self) -> Level {
        self.level
    }

    /// The most ports that may be leased.
    pub const fn most(&self) -> usize {
        self.most
    }

    /// A block has another name.
    pub fn rename(&mut self, old: Name, new: Name) {
        if let Some(going) = self.reserved.remove(&old) {
            self.reserved.insert(new, going);
        }
    }

    /// A block in reserve is wanted: it is open again.
    pub fn reopen(&mut self, name: Name) -> bool {
        self.low_since = None;
        self.reserved.remove(&name).is_some()
    }

    /// Three quarters are in use.
    pub const fn is_scarce(open: usize, need: usize) -> bool {
        need * 4 >= open * 3
    }

    /// More may be needed in a moment: only what helps at once.
    pub fn press(&mut self, look: &Look) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut open = self.open(look);
        if !Self::is_scarce(open, look.need) {
            return steps;
        }
        self.low_since = None;
        self.level = Level::Scarce;
        let mut back: Vec<Block> =
            look.blocks.iter().filter(|block| self.is_reserved(block.name)).copied().collect();
        // Those with sockets would stay for long anyway.
        back.sort_by_key(|block| std::cmp::Reverse((block.used, block.name)));
        for block in back {
            if !Self::is_scarce(open, look.need) {
                return steps;
            }
            self.reserved.remove(&block.name);
            open += block.size;
            steps.push(Step::Open(block.name));
        }
        let all: usize = look.blocks.iter().map(|block| block.size).sum();
        if Self::is_scarce(open, look.need) && !look.pending && all + self.block <= self.most {
            steps.push(Step::Lease);
        }
        steps
    }

    /// What follows from a look at everything.
    pub fn look(&mut self, now: Instant, look: &Look) -> Vec<Step> {
        self.reserved.retain(|name, _| look.blocks.iter().any(|block| block.name == *name));
        let mut open = self.open(look);
        if Self::is_scarce(open, look.need) {
            return self.press(look);
        }
        self.level = Level::Enough;
        let mut steps = Vec::new();
        if look.pending && look.need * 2 <= open {
            steps.push(Step::Forgo);
        }
        for block in &look.blocks {
            steps.extend(self.proceed(now, block));
        }
        // Those that are not used at all go first, then those that came last.
        let mut candidates: Vec<Block> =
            look.blocks.iter().filter(|block| !self.is_reserved(block.name)).copied().collect();
        candidates.retain(|block| !steps.contains(&Step::Return(block.name)));
        candidates.sort_by_key(|block| (block.used, std::cmp::Reverse(block.name)));
        let mut low = false;
        for block in candidates {
            let left = open.saturating_sub(block.size);
            if left < self.least || look.need * 2 > left {
                continue;
            }
            low = true;
            let since = *self.low_since.get_or_insert(now);
            if now < since + self.linger {
                break;
            }
            self.reserved.insert(block.name, Going::Reserved(now));
            steps.push(Step::Reserve(block.name));
            open = left;
        }
        if low {
            self.level = Level::Plenty;
        } else {
            self.low_since = None;
        }
        steps
    }

    /// A block on its way back.
    fn proceed(&mut self, now: Instant, block: &Block) -> Option<Step> {
        let going = self.reserved.get_mut(&block.name)?;
        match *going {
            Going::Reserved(since) if block.used == 0 && now >= since + GRACE => {
                *going = Going::Closed(now);
                Some(Step::Close(block.name))
            }
            Going::Closed(_) if block.used > 0 => {
                *going = Going::Reserved(now);
                Some(Step::Keep(block.name))
            }
            Going::Closed(since) if now >= since + GRACE => {
                self.reserved.remove(&block.name);
                Some(Step::Return(block.name))
            }
            Going::Reserved(_) | Going::Closed(_) => None,
        }
    }

    fn open(&self, look: &Look) -> usize {
        look.blocks.iter().filter(|block| !self.is_reserved(block.name)).map(|block| block.size).sum()
    }
}

#[cfg(test)]
mod tests;
