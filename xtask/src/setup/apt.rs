//! One package of Debian's archive, unpacked into a folder without being installed. Apt runs with a configuration,
//! sources, lists and a cache of its own, so that the machine's apt stays as it is; the machine's mirror, keys and
//! proxies are used, since those are what works here.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::exec;

/// Suites that carry recent Rust, in the order in which they are asked: small index first.
const SUITES: [&str; 3] = ["trixie-backports", "forky", "sid"];

/// Suites by which a Debian mirror is known among the machine's sources.
const DEBIAN_SUITES: [&str; 10] =
    ["bullseye", "bookworm", "trixie", "forky", "duke", "oldstable", "stable", "testing", "unstable", "sid"];

/// Debian's own address, for machines whose sources name no Debian mirror.
const DEFAULT_MIRROR: &str = "http://deb.debian.org/debian";

const DEFAULT_KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// One entry of an apt source list, in either format.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Source {
    types: Vec<String>,
    uris: Vec<String>,
    suites: Vec<String>,
    components: Vec<String>,
    /// Those that decide whether the mirror is trusted, as they stand (a key may span lines).
    trust: Vec<(String, String)>,
    disabled: bool,
}

/// A Debian mirror, and how the machine trusts it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mirror {
    pub(super) uri: String,
    trust: Vec<(String, String)>,
}

/// Downloads `package` of exactly the upstream version `release` and unpacks it to `into`. Returns the full version.
pub(super) fn unpack(tools: &Path, package: &str, release: &str, into: &Path) -> Result<String> {
    require_programs()?;
    let mut tried = Vec::new();
    for mirror in mirrors(&machine_sources()) {
        for suite in SUITES {
            match unpack_from(tools, &mirror, suite, package, release, into) {
                Ok(version) => return Ok(version),
                Err(error) => tried.push(format!("{} {suite}: {error:#}", mirror.uri)),
            }
        }
    }
    bail!("{package} {release} was not found:\n{}", tried.join("\n"))
}

/// Fails where this machine has no apt.
pub(super) fn require_programs() -> Result<()> {
    for program in ["apt-get", "apt-cache", "apt-config", "dpkg-deb"] {
        if exec::find_program(program).is_none() {
            bail!("there is no `{program}` on this machine");
        }
    }
    Ok(())
}

fn unpack_from(
    tools: &Path,
    mirror: &Mirror,
    suite: &str,
    package: &str,
    release: &str,
    into: &Path,
) -> Result<String> {
    let private = PrivateApt::create(&tools.join("apt"), mirror, suite)?;
    private.refresh()?;
    let known = private.ask(&["madison", package])?;
    let version = pick_version(&known, release).with_context(|| match versions(&known).as_slice() {
        [] => "the suite does not have it".to_owned(),
        others => format!("the suite has {} instead", others.join(", ")),
    })?;
    private.unpack(package, &version, into)?;
    Ok(version)
}

/// Versions in the answer of `apt-cache madison`, newest first as apt gives them.
pub(super) fn versions(madison: &str) -> Vec<&str> {
    madison.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim).collect()
}

/// The version whose upstream part is exactly `release`: `1.95.0+dfsg1-2~bpo13+1` is 1.95.0.
fn pick_version(madison: &str, release: &str) -> Option<String> {
    versions(madison)
        .into_iter()
        .find(|version| version.split(['+', '-', '~']).next() == Some(release))
        .map(str::to_owned)
}

/// Longest time for the lists of one suite, and for one package.
const REFRESH: Duration = Duration::from_secs(180);
const DOWNLOAD: Duration = Duration::from_secs(600);

/// Apt with everything of its own but the archive keys; removed when dropped.
pub(super) struct PrivateApt {
    dir: PathBuf,
}

impl PrivateApt {
    /// One that knows `suite` of `mirror` and nothing else, in the folder `dir`, which is emptied.
    pub(super) fn create(dir: &Path, mirror: &Mirror, suite: &str) -> Result<Self> {
        let private = Self { dir: dir.to_path_buf() };
        private.remove();
        for folder in ["parts", "sources", "state/lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(dir.join(folder))
                .with_context(|| format!("cannot create {}", dir.join(folder).display()))?;
        }
        fs::write(dir.join("sources/debian.sources"), stanza(mirror, suite))?;
        fs::write(dir.join("status"), "")?;
        let machine = exec::output(Command::new("apt-config").arg("dump"))?;
        fs::write(dir.join("apt.conf"), configuration(&machine, dir))?;
        Ok(private)
    }

    /// Gets the suite's list of packages.
    pub(super) fn refresh(&self) -> Result<()> {
        // Without the option a mirror that cannot be reached is only warned about.
        let mut update = self.command("apt-get");
        update.args(["-q", "-o", "APT::Update::Error-Mode=any", "update"]);
        exec::run_logged(&mut update, &self.log(), Some(REFRESH))
    }

    /// What `apt-cache` says.
    pub(super) fn ask(&self, arguments: &[&str]) -> Result<String> {
        exec::output(self.command("apt-cache").args(arguments))
    }

    /// Downloads a package and unpacks it into a folder.
    pub(super) fn unpack(&self, package: &str, version: &str, into: &Path) -> Result<()> {
        let folder = self.dir.join("download");
        fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        let mut download = self.command("apt-get");
        download.current_dir(&folder).args(["-q", "download"]).arg(format!("{package}={version}"));
        exec::run_logged(&mut download, &self.log(), Some(DOWNLOAD))?;
        let archive = fs::read_dir(&folder)?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .context("apt-get said it downloaded the package, but it is not there")?;
        let mut unpack = Command::new("dpkg-deb");
        exec::run_logged(unpack.arg("-x").arg(&archive).arg(into), &self.log(), None)?;
        fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))
    }

    /// What its programs said last: beside the folder, which is removed.
    fn log(&self) -> PathBuf {
        self.dir.with_extension("log")
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        // Read before all else; it then sends apt to an empty folder for the rest.
        command.env("APT_CONFIG", self.dir.join("apt.conf")).env("LC_ALL", "C");
        command
    }

    fn remove(&self) {
        // Leftovers are harmless: the next use starts by removing them.
        if let Err(error) = fs::remove_dir_all(&self.dir)
            && error.kind() != std::io::ErrorKind::NotFound
        {
            exec::say(&format!("cannot remove {}: {error}", self.dir.display()));
        }
    }
}

impl Drop for PrivateApt {
    fn drop(&mut self) {
        self.remove();
    }
}

/// The private configuration: the machine's own ways of fetching (`Acquire::`), none of its hooks, our folders.
fn configuration(machine: &str, dir: &Path) -> String {
    let dir = dir.display();
    // Index targets are the lists of extra files that other programs want downloaded.
    let acquire = machine
        .lines()
        .filter(|line| line.starts_with("Acquire::"))
        .filter(|line| !line.starts_with("Acquire::IndexTargets") && !line.starts_with("Acquire::Languages"));
    let own = format!(
        "Acquire::Languages \"none\";\n\
         Dir::Etc::parts \"{dir}/parts\";\n\
         Dir::Etc::main \"/dev/null\";\n\
         Dir::Etc::sourcelist \"/dev/null\";\n\
         Dir::Etc::sourceparts \"{dir}/sources\";\n\
         Dir::State \"{dir}/state\";\n\
         Dir::State::status \"{dir}/status\";\n\
         Dir::Cache \"{dir}/cache\";\n\
         APT::Sandbox::User \"root\";\n"
    );
    acquire.map(|line| format!("{line}\n")).collect::<String>() + &own
}

/// A source of one suite of `mirror`.
fn stanza(mirror: &Mirror, suite: &str) -> String {
    let trust: String = mirror.trust.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    format!("Types: deb\nURIs: {}\nSuites: {suite}\nComponents: main\n{trust}", mirror.uri)
}

/// The mirrors that may have `suite`: those of security updates have places of their own.
pub(super) fn mirrors_of(suite: &str) -> Vec<Mirror> {
    let sources = machine_sources();
    if suite.ends_with("-security") { security_mirrors(&sources) } else { mirrors(&sources) }
}

/// The mirrors of security updates that the machine uses, then those that stand beside its other mirrors.
fn security_mirrors(sources: &[Source]) -> Vec<Mirror> {
    let security = |suite: &String| {
        suite.strip_suffix("-security").is_some_and(|release| DEBIAN_SUITES.contains(&release))
    };
    let own = sources.iter().filter(|source| !source.disabled && source.suites.iter().any(security));
    let own = own.flat_map(|source| {
        source.uris.iter().map(|uri| Mirror { uri: uri.clone(), trust: source.trust.clone() })
    });
    let beside = mirrors(sources).into_iter().map(|mirror| {
        let uri = format!("{}-security", mirror.uri.trim_end_matches('/'));
        Mirror { uri, ..mirror }
    });
    let mut found: Vec<Mirror> = Vec::new();
    for mirror in own.chain(beside) {
        let place = mirror.uri.trim_end_matches('/');
        if !found.iter().any(|known| known.uri.trim_end_matches('/') == place) {
            found.push(mirror);
        }
    }
    found
}

/// The Debian mirrors that the machine uses, Debian's own address last.
fn mirrors(sources: &[Source]) -> Vec<Mirror> {
    let mut mirrors: Vec<Mirror> = Vec::new();
    let usable = |source: &&Source| {
        !source.disabled
            && source.types.iter().any(|kind| kind == "deb")
            && source.components.iter().any(|component| component == "main")
            && source.suites.iter().any(|suite| DEBIAN_SUITES.contains(&suite.as_str()))
    };
    for source in sources.iter().filter(usable) {
        for uri in source.uris.iter().filter(|uri| !uri.starts_with("cdrom:")) {
            if !mirrors.iter().any(|known| known.uri == *uri) {
                mirrors.push(Mirror { uri: uri.clone(), trust: source.trust.clone() });
            }
        }
    }
    if !mirrors.iter().any(|known| known.uri.trim_end_matches('/') == DEFAULT_MIRROR) {
        let keyring = Path::new(DEFAULT_KEYRING).is_file();
        let trust =
            keyring.then(|| ("Signed-By".to_owned(), DEFAULT_KEYRING.to_owned())).into_iter().collect();
        mirrors.push(Mirror { uri: DEFAULT_MIRROR.to_owned(), trust });
    }
    mirrors
}

/// All sources of the machine. A file that cannot be read is left out: another one may do.
fn machine_sources() -> Vec<Source> {
    let mut files = vec![PathBuf::from("/etc/apt/sources.list")];
    if let Ok(entries) = fs::read_dir("/etc/apt/sources.list.d") {
        files.extend(entries.filter_map(|entry| Some(entry.ok()?.path())));
    }
    files.sort();
    files
        .iter()
        .filter_map(|file| {
            let text = fs::read_to_string(file).ok()?;
            match file.extension()?.to_str()? {
                "list" => Some(parse_one_line(&text)),
                "sources" => Some(parse_deb822(&text)),
                _ => None,
            }
        })
        .flatten()
        .collect()
}

/// Parses the one-line format: `deb [signed-by=/key trusted=yes] http://mirror/debian bookworm main contrib`.
fn parse_one_line(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for line in text.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        let Some((kind, rest)) = line.split_once(char::is_whitespace) else { continue };
        let rest = rest.trim_start();
        let (options, rest) = match rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((options, rest)) => (options, rest),
            None => ("", rest),
        };
        let mut words = rest.split_whitespace().map(str::to_owned);
        let (Some(uri), Some(suite)) = (words.next(), words.next()) else { continue };
        sources.push(Source {
            types: vec![kind.to_owned()],
            uris: vec![uri],
            suites: vec![suite],
            components: words.collect(),
            trust: options
                .split_whitespace()
                .filter_map(|option| option.split_once('='))
                .filter_map(|(name, value)| Some((trust_field(name)?, value.to_owned())))
                .collect(),
            disabled: false,
        });
    }
    sources
}

/// Parses the deb822 format: paragraphs of `Field: value`, values going on in indented lines.
fn parse_deb822(text: &str) -> Vec<Source> {
    let mut sources = Vec::new();
    for paragraph in text.split("\n\n") {
        let mut fields: Vec<(String, String)> = Vec::new();
        for line in paragraph.lines().filter(|line| !line.starts_with('#')) {
            if line.starts_with([' ', '\t']) {
                if let Some((_, value)) = fields.last_mut() {
                    value.push('\n');
                    value.push_str(line);
                }
            } else if let Some((name, value)) = line.split_once(':') {
                fields.push((name.trim().to_ascii_lowercase(), value.trim().to_owned()));
            }
        }
        let mut source = Source::default();
        for (name, value) in fields {
            let words = || value.split_whitespace().map(str::to_owned).collect();
            match name.as_str() {
                "types" => source.types = words(),
                "uris" => source.uris = words(),
                "suites" => source.suites = words(),
                "components" => source.components = words(),
                "enabled" => source.disabled = value.eq_ignore_ascii_case("no"),
                _ => source.trust.extend(trust_field(&name).map(|field| (field, value))),
            }
        }
        if !source.uris.is_empty() {
            sources.push(source);
        }
    }
    sources
}

/// The deb822 name of an option that decides about trust; others do not carry over to another suite.
fn trust_field(name: &str) -> Option<String> {
    let field = match name.to_ascii_lowercase().as_str() {
        "signed-by" => "Signed-By",
        "trusted" => "Trusted",
        "allow-insecure" => "Allow-Insecure",
        "check-valid-until" => "Check-Valid-Until",
        "check-date" => "Check-Date",
        _ => return None,
    };
    Some(field.to_owned())
}

#[cfg(test)]
#[path = "apt_tests.rs"]
mod tests;
