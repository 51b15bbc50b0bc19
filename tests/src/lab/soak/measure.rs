//! What is measured of the daemons.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use nix::unistd::Pid;

use super::bpf;
use super::trend::Course;
use crate::lab::error::{IoContext, Result};
use crate::lab::{Host, Lab, agent, gateway};

/// What is counted in what, and how much of it may be chance over a whole soak.
const MEMORY: (&str, Option<f64>) = ("KiB", Some(256.0));
const THREADS: (&str, Option<f64>) = ("threads", Some(1.0));
const DESCRIPTORS: (&str, Option<f64>) = ("open", Some(2.0));
const ENTRIES: (&str, Option<f64>) = ("entries", Some(4.0));
const FILES: (&str, Option<f64>) = ("bytes", Some(2048.0));
/// Counters get more digits.
const STATUS: (&str, Option<f64>) = ("bytes", Some(512.0));
/// Whoever keeps a log keeps it elsewhere.
const LOG: (&str, Option<f64>) = ("bytes", None);
/// Shared pages come and go with other processes.
const SHARED: (&str, Option<f64>) = ("KiB", None);

/// The daemons that are looked at.
#[derive(Clone, Copy, Debug)]
pub(super) struct Daemons {
    pub(super) agent: Pid,
    pub(super) gateway: Pid,
}

/// Everything at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Binds until then.
    pub binds: u64,
    values: BTreeMap<String, (u64, (&'static str, Option<MilliUnits>))>,
}

/// A tolerance, in thousandths: comparable.
type MilliUnits = u64;

impl Sample {
    fn put(&mut self, name: String, value: u64, (unit, tolerance): (&'static str, Option<f64>)) {
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "small constants")]
        let tolerance = tolerance.map(|units| (units * 1000.0) as MilliUnits);
        self.values.insert(name, (value, (unit, tolerance)));
    }

    /// Takes over what is more.
    pub(super) fn raise(&mut self, other: &Self) {
        for (name, (value, kind)) in &other.values {
            let mine = self.values.entry(name.clone()).or_insert((*value, *kind));
            mine.0 = mine.0.max(*value);
        }
    }

    /// One of the values.
    #[must_use]
    pub fn value(&self, name: &str) -> Option<u64> {
        self.values.get(name).map(|(value, _)| *value)
    }
}

impl Daemons {
    fn each(self) -> [(&'static str, Pid); 2] {
        [("rsip-client", self.agent), ("rsipd", self.gateway)]
    }

    /// What a look costs little for.
    pub(super) fn glance(self) -> Result<Sample> {
        let mut sample = Sample::default();
        for (name, pid) in self.each() {
            let memory = of_file(&format!("/proc/{pid}/smaps_rollup"))?;
            let own =
                memory.get("Anonymous").copied().unwrap_or(0) + memory.get("Swap").copied().unwrap_or(0);
            sample.put(format!("{name}: own memory"), own, MEMORY);
            sample.put(format!("{name}: PSS"), memory.get("Pss").copied().unwrap_or(0), SHARED);
            let status = of_file(&format!("/proc/{pid}/status"))?;
            sample.put(format!("{name}: threads"), status.get("Threads").copied().unwrap_or(0), THREADS);
            let folder = format!("/proc/{pid}/fd");
            let open = fs::read_dir(&folder).cannot(|| format!("read {folder}"))?.count();
            sample.put(format!("{name}: descriptors"), u64::try_from(open).unwrap_or(u64::MAX), DESCRIPTORS);
        }
        Ok(sample)
    }

    /// Everything.
    pub(super) fn sample(self, lab: &Lab, binds: u64) -> Result<Sample> {
        // Before the memory: whatever it takes to answer has been taken.
        let told = [
            ("rsip-client: status", agent::client(lab, Host::A, &["status", "--json"])?.success()?),
            ("rsipd: dump", gateway::ctl(lab, &["dump", "--json"])?.success()?),
        ];
        let mut sample = self.glance()?;
        sample.binds = binds;
        for (name, text) in told {
            sample.put(name.to_owned(), text.len() as u64, STATUS);
        }
        for (name, pid) in self.each() {
            for (map, count) in bpf::entries(pid)? {
                sample.put(format!("{name}: map {map}"), count, ENTRIES);
            }
        }
        sample.put(
            "rsip-client: state".to_owned(),
            size_below(&agent::run_folder(lab.host(Host::A))?),
            FILES,
        );
        let folder = Path::new("/run/rsipd").join(format!("netns-{}", lab.gateway.inode()?));
        sample.put("rsipd: state".to_owned(), size_below(&folder), FILES);
        for (name, log) in [("rsip-client", "rsip-client-host-a.log"), ("rsipd", "rsipd.log")] {
            let size = fs::metadata(lab.folder().join(log)).map_or(0, |file| file.len());
            sample.put(format!("{name}: log written"), size, LOG);
        }
        Ok(sample)
    }
}

/// The course of each value. One that a sample lacks was 0 then.
pub(super) fn courses(samples: &[Sample], peak: &Sample) -> Vec<Course> {
    #[allow(clippy::cast_precision_loss, reason = "figures for people, far below 2^52")]
    let float = |value: u64| value as f64;
    let kinds: BTreeMap<_, _> =
        samples.iter().flat_map(|sample| &sample.values).map(|(name, (_, kind))| (name, *kind)).collect();
    let course = |(name, (unit, tolerance)): (&String, (&'static str, Option<MilliUnits>))| Course {
        name: name.clone(),
        unit,
        points: samples
            .iter()
            .map(|sample| (float(sample.binds), float(sample.value(name).unwrap_or(0))))
            .collect(),
        peak: peak.value(name).map(float),
        tolerance: tolerance.map(|units| float(units) / 1000.0),
    };
    kinds.into_iter().map(course).collect()
}

/// The numbers of a file in `/proc` with lines like `Name:   123 kB`.
fn of_file(path: &str) -> Result<BTreeMap<String, u64>> {
    let text = fs::read_to_string(path).cannot(|| format!("read {path}"))?;
    Ok(numbers(&text))
}

fn numbers(text: &str) -> BTreeMap<String, u64> {
    let number = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        // The first line of a list of mappings is a range of addresses, with a colon in its device number.
        if name.contains(' ') {
            return None;
        }
        Some((name.to_owned(), rest.split_whitespace().next()?.parse().ok()?))
    };
    text.lines().filter_map(number).collect()
}

/// All files of a folder and below.
fn size_below(folder: &Path) -> u64 {
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(data) if data.is_dir() => size_below(&entry.path()),
        Ok(data) => data.len(),
        Err(_) => 0,
    };
    fs::read_dir(folder).into_iter().flatten().flatten().map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_the_kernel_writes() {
        let text =
            "55a0-7fff ---p 00000000 00:00 0   [rollup]\nRss:      1234 kB\nAnonymous:    56 kB\nName:\tx\n";
        assert_eq!(numbers(text), BTreeMap::from([("Rss".to_owned(), 1234), ("Anonymous".to_owned(), 56)]));
        let own = of_file("/proc/self/smaps_rollup").unwrap();
        assert!(own["Anonymous"] > 0 && own["Pss"] > 0);
        assert!(of_file("/proc/self/status").unwrap()["Threads"] > 0);
    }

    #[test]
    fn follows_each_value_and_knows_the_most() {
        let (mut first, mut second, mut peak) = (Sample::default(), Sample::default(), Sample::default());
        first.put("a".into(), 5, THREADS);
        second.put("a".into(), 7, THREADS);
        second.put("b".into(), 1, LOG);
        second.binds = 100;
        for sample in [&second, &first] {
            peak.raise(sample);
        }
        let courses = courses(&[first, second], &peak);
        assert_eq!(courses[0].points, [(0.0, 5.0), (100.0, 7.0)]);
        assert_eq!((courses[0].peak, courses[0].tolerance), (Some(7.0), Some(1.0)));
        assert_eq!((courses[1].points[0], courses[1].tolerance), ((0.0, 0.0), None));
    }

    #[test]
    fn adds_up_files() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("inner")).unwrap();
        fs::write(folder.path().join("one"), "123").unwrap();
        fs::write(folder.path().join("inner/two"), "45").unwrap();
        assert_eq!(size_below(folder.path()), 5);
    }
}
