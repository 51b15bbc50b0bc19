//! Kernels as Debian packages them, unpacked into a folder and not installed. Which version a suite has changes from
//! week to week, so only suites and the form of the packages' names are known beforehand.

use std::{
    cmp::Ordering,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result, bail};

use super::apt::{self, PrivateApt};
use crate::exec::{self, Step};

/// After this time the archive is asked whether there is a newer one.
const FRESH: Duration = Duration::from_secs(7 * 24 * 3600);

/// Written last: the package, its version and the kernel's own name for its version.
const STAMP: &str = "stamp";

/// An unpacked kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kernel {
    /// As `uname -r` says there: `6.1.0-56-cloud-amd64`.
    pub(crate) release: String,
    /// The package's version, with the upstream version in it.
    pub(crate) version: String,
    /// Holds `lib/modules`.
    pub(crate) tree: PathBuf,
}

impl Kernel {
    /// The folder of its modules.
    pub(crate) fn modules(&self) -> PathBuf {
        self.tree.join("lib/modules").join(&self.release)
    }

    /// What is booted: newer packages have it beside the modules.
    pub(crate) fn image(&self) -> Result<PathBuf> {
        let places = [
            self.tree.join("boot").join(format!("vmlinuz-{}", self.release)),
            self.modules().join("vmlinuz"),
        ];
        let found = places.iter().find(|place| place.is_file()).cloned();
        found.with_context(|| format!("the package has no kernel at {}", places[0].display()))
    }
}

/// The newest kernel whose package is called like `pattern` (with one `*`) in the first of `suites` that has one; kept
/// in `folder`, where it is taken from the next time.
pub(crate) fn ensure(folder: &Path, pattern: &str, suites: &[String]) -> Result<Kernel> {
    let kept = read(folder, pattern);
    if let Some((kernel, age)) = &kept
        && *age < FRESH
    {
        return Ok(kernel.clone());
    }
    let step = Step::start_quiet(&format!("getting {pattern} from Debian's archive"), "10 s, 30 MB");
    match fetch(folder, pattern, suites) {
        Ok(kernel) => {
            step.done(&format!("{} ({})", kernel.release, kernel.version));
            Ok(kernel)
        }
        Err(error) => {
            step.done("not to be had there");
            // An old one tests more than none.
            if let Some((kernel, age)) = kept {
                let days = age.as_secs() / (24 * 3600);
                exec::say(&format!("using {}, {days} days old: {error:#}", kernel.release));
                return Ok(kernel);
            }
            Err(error.context(format!(
                "no kernel {pattern} can be had from {}: see that `apt-get update` works on this machine, or leave the \
                 virtual machines out with `cargo xtask test --unit` and `cargo xtask test --lab`",
                suites.join(", ")
            )))
        }
    }
}

/// The kernel in `folder` and its age, where it is whole and of the wanted kind.
fn read(folder: &Path, pattern: &str) -> Option<(Kernel, Duration)> {
    let stamp = folder.join(STAMP);
    let text = fs::read_to_string(&stamp).ok()?;
    let [package, version, release] = text.lines().collect::<Vec<_>>()[..] else { return None };
    matched(pattern, package)?;
    let kernel =
        Kernel { release: release.to_owned(), version: version.to_owned(), tree: folder.join("tree") };
    let whole = kernel.image().is_ok() && kernel.modules().join("modules.dep").is_file();
    let written = fs::metadata(&stamp).ok()?.modified().ok()?;
    let age = SystemTime::now().duration_since(written).unwrap_or_default();
    whole.then_some((kernel, age))
}

fn fetch(folder: &Path, pattern: &str, suites: &[String]) -> Result<Kernel> {
    apt::require_programs()?;
    let mut tried = Vec::new();
    for suite in suites {
        for mirror in apt::mirrors_of(suite) {
            let got = PrivateApt::create(&folder.join("apt"), &mirror, suite)
                .and_then(|apt| unpack(&apt, pattern, folder).with_context(|| "cannot be had".to_owned()));
            match got {
                Ok(kernel) => return Ok(kernel),
                Err(error) => tried.push(format!("{} {suite}: {error:#}", mirror.uri)),
            }
        }
    }
    bail!("{}", tried.join("\n"))
}

fn unpack(apt: &PrivateApt, pattern: &str, folder: &Path) -> Result<Kernel> {
    apt.refresh()?;
    let names = apt.ask(&["pkgnames", pattern.split('*').next().unwrap_or_default()])?;
    let package = newest(pattern, names.lines()).context("the suite has no such package")?;
    let known = apt.ask(&["madison", package])?;
    let version = (*apt::versions(&known).first().context("the suite has no version of it")?).to_owned();

    let unpacked = folder.join("unpacked");
    remove(&unpacked)?;
    fs::create_dir_all(&unpacked).with_context(|| format!("cannot create {}", unpacked.display()))?;
    // Newer kernels are cut into several packages that need each other in exactly the same version.
    let (mut wanted, mut next) = (vec![package.to_owned()], 0);
    while let Some(package) = wanted.get(next).cloned() {
        next += 1;
        let about = apt.ask(&["show", &format!("{package}={version}")])?;
        let needs = same_version(&about, &version);
        wanted.extend(needs.into_iter().filter(|need| !wanted.contains(need)).collect::<Vec<_>>());
        apt.unpack(&package, &version, &unpacked)?;
    }
    if !unpacked.join("lib/modules").is_dir() {
        fs::create_dir_all(unpacked.join("lib"))?;
        fs::rename(unpacked.join("usr/lib/modules"), unpacked.join("lib/modules"))
            .context("the packages bring no modules")?;
    }
    let release = fs::read_dir(unpacked.join("lib/modules"))?
        .find_map(|entry| entry.ok()?.file_name().into_string().ok())
        .context("the packages bring no modules")?;
    let depmod = exec::find_program("depmod").context("there is no `depmod` on this machine")?;
    exec::run(Command::new(depmod).arg("-b").arg(&unpacked).arg(&release))?;

    let kernel = Kernel { release, version, tree: folder.join("tree") };
    remove(&folder.join(STAMP))?;
    remove(&kernel.tree)?;
    fs::rename(&unpacked, &kernel.tree)
        .with_context(|| format!("cannot move the kernel to {}", kernel.tree.display()))?;
    kernel.image()?;
    fs::write(folder.join(STAMP), format!("{package}\n{}\n{}\n", kernel.version, kernel.release))
        .context("cannot note which kernel it is")?;
    Ok(kernel)
}

/// Of all packages called like `pattern` the one with the highest numbers.
fn newest<'a>(pattern: &str, names: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let versions = names.filter_map(|name| Some((matched(pattern, name)?, name)));
    versions.max_by(|(one, _), (other, _)| compare(one, other)).map(|(_, name)| name)
}

/// What the `*` of `pattern` stands for in `name`; a version begins with a digit wherever it is cut.
fn matched<'a>(pattern: &str, name: &'a str) -> Option<&'a str> {
    let (before, after) = pattern.split_once('*')?;
    let part = name.strip_prefix(before)?.strip_suffix(after)?;
    part.starts_with(|first: char| first.is_ascii_digit()).then_some(part)
}

/// Compares versions: numbers by value, all else as text.
fn compare(one: &str, other: &str) -> Ordering {
    let (mut one, mut other) = (one, other);
    loop {
        if one.is_empty() || other.is_empty() {
            return one.len().cmp(&other.len());
        }
        let (number, rest) = number(one);
        let (other_number, other_rest) = self::number(other);
        let order = match (number, other_number) {
            (Some(number), Some(other)) => number.cmp(&other),
            _ => one.as_bytes()[0].cmp(&other.as_bytes()[0]),
        };
        if order != Ordering::Equal {
            return order;
        }
        (one, other) = match number {
            Some(_) => (rest, other_rest),
            None => (after_first(one), after_first(other)),
        };
    }
}

/// A number at the beginning, and what comes after it.
fn number(text: &str) -> (Option<u64>, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (digits, rest) = text.split_at(end);
    (digits.parse().ok(), rest)
}

fn after_first(text: &str) -> &str {
    let mut all = text.chars();
    all.next();
    all.as_str()
}

/// The packages that one needs in its own version, in the answer of `apt-cache show`.
fn same_version(about: &str, version: &str) -> Vec<String> {
    let exactly = format!("(= {version})");
    let needs = about.lines().filter_map(|line| line.strip_prefix("Depends:"));
    needs
        .flat_map(|needs| needs.split(','))
        .filter_map(|need| need.trim().strip_suffix(exactly.as_str()))
        .map(|name| name.trim().to_owned())
        .collect()
}

fn remove(path: &Path) -> Result<()> {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    match removed {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("cannot remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_newest_by_numbers() {
        let names = [
            "linux-image-6.1.0-9-cloud-amd64",
            "linux-image-6.1.0-56-cloud-amd64",
            "linux-image-6.1.0-56-amd64",
            "linux-image-6.1-cloud-amd64",
            "linux-image-6.12.90+deb12-cloud-amd64",
            "linux-image-6.12.90+deb12.1-cloud-amd64",
            "linux-image-6.12.117+deb12-cloud-amd64-dbg",
            "linux-image-cloud-amd64",
            "linux-image-cloud-amd64-dbg",
        ];
        let newest = |pattern| newest(pattern, names.into_iter());
        assert_eq!(newest("linux-image-6.1.*-cloud-amd64"), Some("linux-image-6.1.0-56-cloud-amd64"));
        assert_eq!(newest("linux-image-*-cloud-amd64"), Some("linux-image-6.12.90+deb12.1-cloud-amd64"));
        assert_eq!(newest("linux-image-5.10.*-cloud-amd64"), None);
    }

    #[test]
    fn orders_versions() {
        for pair in ["6.9 6.10", "6.12.9+deb13 6.12.10+deb13", "7.3.4 7.3.4.1", "6.1.0-9 6.1.0-10"] {
            let (less, more) = pair.split_once(' ').unwrap();
            assert_eq!(compare(less, more), Ordering::Less, "{pair}");
            assert_eq!(compare(more, less), Ordering::Greater, "{pair}");
        }
        assert_eq!(compare("6.1", "6.1"), Ordering::Equal);
    }

    #[test]
    fn follows_needs_of_the_same_version_only() {
        let about = "Package: linux-image-7.3-cloud-amd64\n\
                     Depends: dracut | initramfs-tools (>= 0.120), linux-binary-7.3 (= 7.3-1), linux-modules-7.3 (= 7.3-1), x (= 7)\n\
                     Breaks: y (= 7.3-1)\n";
        assert_eq!(same_version(about, "7.3-1"), ["linux-binary-7.3", "linux-modules-7.3"]);
    }

    #[test]
    fn takes_what_is_there_and_whole() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path();
        let modules = folder.join("tree/lib/modules/6.1.0-5-cloud-amd64");
        fs::create_dir_all(&modules).unwrap();
        fs::write(modules.join("vmlinuz"), "").unwrap();
        fs::write(folder.join(STAMP), "linux-image-6.1.0-5-cloud-amd64\n6.1.7-1\n6.1.0-5-cloud-amd64\n")
            .unwrap();
        let pattern = "linux-image-6.1.*-cloud-amd64";
        assert_eq!(read(folder, pattern), None, "no list of modules");
        fs::write(modules.join("modules.dep"), "").unwrap();
        let (kernel, age) = read(folder, pattern).unwrap();
        assert_eq!(kernel.image().unwrap(), modules.join("vmlinuz"));
        assert!(age < FRESH);
        assert_eq!(ensure(folder, pattern, &[]).unwrap(), kernel);
        assert_eq!(read(folder, "linux-image-5.10.*-cloud-amd64"), None, "the list names another by now");
    }
}
