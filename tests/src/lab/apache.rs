//! Debian's Apache, as it is shipped.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::kill;
use nix::unistd::Pid;

use super::error::{IoContext, LabError, Result};
use super::exec::{self, Output};
use super::mountns::MountNs;
use super::netns::Inside;
use super::topology::{Host, Lab};
use super::wait::{self, Look};

/// Apache waits for its requests, and the agent for the gateway.
const START: Duration = Duration::from_secs(30);
/// How long the line of a request may take to get into the log.
const LOG: Duration = Duration::from_secs(5);
/// How long its processes may take to end.
const STOP: Duration = Duration::from_secs(20);

/// One instance on one host, with run, lock and log folders of its own. The configuration is the package's; only
/// another port is written into a copy of the two files that name it, as an administrator would.
#[derive(Debug)]
pub struct Apache {
    host: Inside,
    mounts: MountNs,
    folder: PathBuf,
}

/// What an administrator changed in the package's configuration.
#[derive(Clone, Copy, Debug, Default)]
struct Changes {
    /// In place of 80.
    port: Option<u16>,
    /// Whether the access log holds the client's port too.
    log_ports: bool,
}

impl Apache {
    /// An instance that will listen where the package says: port 80 of every address.
    ///
    /// # Errors
    /// [`LabError::Missing`] where the package is not installed.
    pub fn shipped(lab: &Lab, host: Host) -> Result<Self> {
        Self::new(lab, lab.host(host), host.name(), Changes::default())
    }

    /// An instance with another port in place of 80.
    ///
    /// # Errors
    /// As [`Self::shipped`].
    pub fn on_port(lab: &Lab, host: Host, port: u16) -> Result<Self> {
        let label = format!("{}-{port}", host.name());
        Self::new(lab, lab.host(host), &label, Changes { port: Some(port), ..Changes::default() })
    }

    /// An instance on the internet host whose access log says ADDRESS:PORT of each client.
    ///
    /// # Errors
    /// As [`Self::shipped`].
    pub fn on_the_internet(lab: &Lab) -> Result<Self> {
        Self::new(lab, &lab.internet, "internet", Changes { log_ports: true, ..Changes::default() })
    }

    fn new(lab: &Lab, inside: &Inside, label: &str, changes: Changes) -> Result<Self> {
        if !Path::new("/usr/sbin/apache2ctl").exists() {
            return Err(LabError::Missing {
                program: "apache2".into(),
                hint: "`cargo xtask setup` installs what the lab needs",
            });
        }
        let folder = lab.subfolder(&format!("apache/{label}"))?;
        for part in ["run/lock", "log"] {
            let path = folder.join(part);
            fs::create_dir_all(&path).cannot(|| format!("make {}", path.display()))?;
        }
        let mut overlays =
            vec![(folder.join("run"), "/run".into()), (folder.join("log"), "/var/log/apache2".into())];
        let mut change = |file: &str, old: &str, new: &str| -> Result<()> {
            let shipped = Path::new("/etc/apache2").join(file);
            let text = fs::read_to_string(&shipped).cannot(|| format!("read {}", shipped.display()))?;
            let copy = folder.join(file.replace('/', "-"));
            fs::write(&copy, text.replace(old, new)).cannot(|| format!("write {}", copy.display()))?;
            overlays.push((copy, shipped));
            Ok(())
        };
        if let Some(port) = changes.port {
            change("ports.conf", "Listen 80\n", &format!("Listen {port}\n"))?;
            change("sites-available/000-default.conf", "*:80>", &format!("*:{port}>"))?;
        }
        if changes.log_ports {
            change("apache2.conf", "\"%h %l", "\"%h:%{remote}p %l")?;
        }
        Ok(Self { host: inside.clone(), mounts: MountNs::new(&overlays)?, folder })
    }

    /// `apache2ctl start`, as the package's own service unit calls it, and how that ended: for starts that should fail.
    ///
    /// # Errors
    /// Where it does not end in time.
    pub fn try_start(&self) -> Result<Output> {
        self.control("start")
    }

    /// Starts it and waits until it has written its process ID: then its ports are bound.
    ///
    /// # Errors
    /// Where it does not start.
    pub fn start(&self) -> Result<()> {
        self.try_start()?.success()?;
        wait::until("Apache to run", START, || {
            Ok(match self.pid() {
                Some(_) => Look::Ready(()),
                None => Look::NotYet(format!("no process ID; error log: {}", self.error_log())),
            })
        })
    }

    /// `apache2ctl stop`; returns when its processes have ended.
    ///
    /// # Errors
    /// Where it cannot be stopped, or runs on.
    pub fn stop(&self) -> Result<()> {
        let Some(pid) = self.pid() else { return Ok(()) };
        self.control("stop")?.success()?;
        wait::until("Apache to end", STOP, || {
            let runs = kill(pid, None).is_ok() && !is_zombie(pid);
            Ok(if runs { Look::NotYet(format!("process {pid} runs")) } else { Look::Ready(()) })
        })
    }

    /// The process that holds the listening socket, where it runs.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        let text = fs::read_to_string(self.folder.join("run/apache2/apache2.pid")).ok()?;
        text.trim().parse().ok().map(Pid::from_raw)
    }

    /// What its access log holds.
    #[must_use]
    pub fn access_log(&self) -> String {
        fs::read_to_string(self.folder.join("log/access.log")).unwrap_or_default()
    }

    /// Waits until its access log holds so many requests, and gives the client of the last one: Apache writes the line
    /// after the answer.
    ///
    /// # Errors
    /// [`LabError::Timeout`] with the whole log.
    pub fn client_of_request(&self, number: usize) -> Result<String> {
        wait::until(&format!("request {number} in Apache's log"), LOG, || {
            let log = self.access_log();
            let client = log.lines().nth(number.saturating_sub(1)).and_then(|line| line.split(' ').next());
            Ok(match client {
                Some(client) if log.ends_with('\n') => Look::Ready(client.to_owned()),
                _ => Look::NotYet(log),
            })
        })
    }

    /// What its error log holds.
    #[must_use]
    pub fn error_log(&self) -> String {
        fs::read_to_string(self.folder.join("log/error.log")).unwrap_or_default()
    }

    fn control(&self, verb: &str) -> Result<Output> {
        let mut command = self.host.command_in("/usr/sbin/apache2ctl", Some(&self.mounts));
        // Or the script hands over to the machine's service manager.
        command.arg(verb).env("APACHE_STARTED_BY_SYSTEMD", "true");
        exec::run(&mut command, START)
    }
}

/// Nobody may be there to collect a daemon's exit code; it has ended all the same.
fn is_zombie(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().any(|line| line.starts_with("State:\tZ"))
}
