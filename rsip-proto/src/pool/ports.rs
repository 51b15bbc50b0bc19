//! A set of ports as a bitmap: 8 KiB, every question a few words.

const WORDS: usize = 1 << 10;

/// A set of ports.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct PortSet {
    words: Box<[u64; WORDS]>,
    len: u32,
}

impl PortSet {
    pub(super) fn new() -> Self {
        Self { words: Box::new([0; WORDS]), len: 0 }
    }

    fn place(port: u16) -> (usize, u64) {
        (usize::from(port >> 6), 1 << (port & 63))
    }

    /// How many ports are in the set.
    pub(super) const fn len(&self) -> u32 {
        self.len
    }

    pub(super) fn contains(&self, port: u16) -> bool {
        let (word, bit) = Self::place(port);
        self.words[word] & bit != 0
    }

    pub(super) fn insert(&mut self, port: u16) {
        let (word, bit) = Self::place(port);
        if self.words[word] & bit == 0 {
            self.words[word] |= bit;
            self.len += 1;
        }
    }

    pub(super) fn remove(&mut self, port: u16) {
        let (word, bit) = Self::place(port);
        if self.words[word] & bit != 0 {
            self.words[word] &= !bit;
            self.len -= 1;
        }
    }

    /// The ports in the set, lowest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = u16> + '_ {
        (0u16..).zip(self.words.iter()).flat_map(|(index, &word)| {
            let mut rest = word;
            std::iter::from_fn(move || {
                let bit = u16::try_from(rest.trailing_zeros()).ok().filter(|bit| *bit < 64)?;
                rest &= rest - 1;
                Some((index << 6) | bit)
            })
        })
    }

    /// The lowest port that begins `count` ports in a row, all in the set.
    pub(super) fn run(&self, count: u16) -> Option<u16> {
        let wanted = u32::from(count.max(1));
        let (mut start, mut length) = (0u32, 0u32);
        for (base, &word) in (0u32..).step_by(64).zip(self.words.iter()) {
            match word {
                0 => length = 0,
                u64::MAX => {
                    if length == 0 {
                        start = base;
                    }
                    length += 64;
                }
                mixed => {
                    for bit in 0..64 {
                        if mixed & (1 << bit) == 0 {
                            length = 0;
                            continue;
                        }
                        if length == 0 {
                            start = base + bit;
                        }
                        length += 1;
                        if length >= wanted {
                            break;
                        }
                    }
                }
            }
            if length >= wanted {
                return u16::try_from(start).ok();
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(ports: impl IntoIterator<Item = u16>) -> PortSet {
        let mut set = PortSet::new();
        ports.into_iter().for_each(|port| set.insert(port));
        set
    }

    #[test]
    fn counts_each_port_once() {
        let mut ports = set([0, 63, 64, 64, 65_535]);
        assert_eq!(ports.len(), 4);
        ports.remove(64);
        ports.remove(64);
        assert_eq!(ports.len(), 3);
        assert_eq!(ports.iter().collect::<Vec<_>>(), [0, 63, 65_535]);
    }

    #[test]
    fn finds_the_lowest_run_across_words() {
        assert_eq!(set(60..70).run(10), Some(60));
        assert_eq!(set(60..70).run(11), None);
        assert_eq!(set((10..14).chain(20..30)).run(5), Some(20));
        assert_eq!(set(0..=65_535).run(255), Some(0));
        assert_eq!(set(65_281..=65_535).run(255), Some(65_281));
        assert_eq!(set([65_535]).run(1), Some(65_535));
        assert_eq!(set([]).run(1), None);
        // A run that ends where a full word ends, and one that only begins there.
        assert_eq!(set(64..128).run(64), Some(64));
        assert_eq!(set((64..128).chain(130..200)).run(65), Some(130));
    }

    #[test]
    fn run_agrees_with_the_obvious_search() {
        // Holes at the multiples of 7 and of 64, so that runs of every length up to 6 exist.
        let ports = set((0..=65_535).filter(|port| port % 7 != 0 && port % 64 != 0));
        for count in 1..8u16 {
            let obvious = (0..=65_535u16)
                .find(|&first| (0..count).all(|i| first.checked_add(i).is_some_and(|p| ports.contains(p))));
            assert_eq!(ports.run(count), obvious, "{count}");
        }
    }
}
