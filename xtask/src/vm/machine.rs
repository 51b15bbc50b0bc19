//! A running virtual machine: qemu, and virtiofsd that gives it this machine's root file system to read.
//!
//! Nothing of it is on the disk: the two talk over an abstract socket, the machine and we over pipes. When this process
//! ends, in whatever way, the kernel ends both.

use std::{
    collections::VecDeque,
    ffi::OsStr,
    io::{self, BufRead, BufReader, Read, Write},
    os::{
        fd::OwnedFd,
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixListener},
    },
    path::{Path, PathBuf},
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{self, Receiver, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use crate::{exec, setup::kernels::Kernel};

/// Longest time from power on to the first command. Ten seconds are usual.
const BOOT: Duration = Duration::from_secs(180);

/// How much longer than the command's own limit we wait before the machine itself counts as dead.
const GRACE: Duration = Duration::from_secs(30);

const MEMORY: &str = "1536M";

/// Lines of the console that are kept.
const CONSOLE: usize = 200;

/// Where Debian's releases put it.
const VIRTIOFSD: [&str; 3] = ["/usr/libexec/virtiofsd", "/usr/lib/qemu/virtiofsd", "/usr/lib/virtiofsd"];

/// A virtual machine that takes commands. Dropping it switches it off.
pub(super) struct Machine {
    qemu: Child,
    virtiofsd: Child,
    input: ChildStdin,
    lines: Receiver<String>,
    console: Arc<Mutex<VecDeque<String>>>,
    mark: String,
}

impl Machine {
    /// Starts `kernel` and waits until it takes commands. `name` is that of this machine alone.
    pub(super) fn boot(kernel: &Kernel, initramfs: &Path, name: &str, mark: &str) -> Result<Self> {
        // The socket's name dies with its last user.
        let name = format!("{mark}-{name}");
        let address = SocketAddr::from_abstract_name(&name).context("cannot name a socket")?;
        let listener = UnixListener::bind_addr(&address).context("cannot make a socket for virtiofsd")?;
        let mut virtiofsd = file_server(listener)?;
        let mut command = qemu(kernel, initramfs, &name)?;
        let qemu = command.spawn().context("cannot start qemu");
        let (mut qemu, input, output, errors) = match qemu.and_then(pipes) {
            Ok(parts) => parts,
            Err(error) => {
                end(&mut virtiofsd);
                return Err(error);
            }
        };
        let console = Arc::new(Mutex::new(VecDeque::new()));
        let lines = watch(output, errors, &console).inspect_err(|_| {
            end(&mut qemu);
            end(&mut virtiofsd);
        })?;
        let mut machine = Self { qemu, virtiofsd, input, lines, console, mark: mark.to_owned() };
        machine.until("ready", BOOT, &mut |_| ()).context("the virtual machine does not start")?;
        Ok(machine)
    }

    /// Runs a command of the shell, for `limit` at most; `each` gets its output. Gives the exit code: 124 or 137 where
    /// it was ended at its limit.
    pub(super) fn run(&mut self, command: &str, limit: Duration, each: &mut dyn FnMut(&str)) -> Result<i32> {
        if command.contains('\n') {
            bail!("a command for a virtual machine is one line");
        }
        writeln!(self.input, "{} {command}", limit.as_secs().max(1))
            .and_then(|()| self.input.flush())
            .map_err(|error| self.dead(&format!("takes no command ({error})")))?;
        let code = self.until("end", limit + GRACE, each)?;
        code.parse().with_context(|| format!("the virtual machine gives {code:?} as an exit code"))
    }

    /// The last lines of the kernel's own log.
    pub(super) fn console(&self) -> Vec<String> {
        self.console.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Waits for a line that is for us, and gives the rest of it.
    fn until(&mut self, word: &str, limit: Duration, each: &mut dyn FnMut(&str)) -> Result<String> {
        let deadline = Instant::now() + limit;
        let wanted = format!("{} {word}", self.mark);
        // An empty line comes before ours; others' are passed on when the next line shows that they are others'.
        let mut empty = false;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let line = match self.lines.recv_timeout(left) {
                Ok(line) => line,
                Err(RecvTimeoutError::Timeout) => {
                    return Err(self.dead(&format!("says nothing for {} s", limit.as_secs())));
                }
                Err(RecvTimeoutError::Disconnected) => return Err(self.dead("has gone down")),
            };
            if let Some(rest) = line.strip_prefix(&wanted) {
                return Ok(rest.trim().to_owned());
            }
            if std::mem::take(&mut empty) {
                each("");
            }
            if line.is_empty() {
                empty = true;
            } else {
                each(&line);
            }
        }
    }

    fn dead(&self, what: &str) -> anyhow::Error {
        let console: Vec<String> = self.console().iter().map(|line| format!("    {line}")).collect();
        let tail = console[console.len().saturating_sub(30)..].join("\n");
        anyhow::anyhow!("the virtual machine {what}; its console's last lines:\n{tail}")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // It has nothing to save.
        end(&mut self.qemu);
        end(&mut self.virtiofsd);
    }
}

fn end(child: &mut Child) {
    // It may have ended by itself.
    if let Err(error) = child.kill().and_then(|()| child.wait().map(drop)) {
        exec::say(&format!("cannot end process {}: {error}", child.id()));
    }
}

/// A command that the kernel kills when we end: also when we are killed.
fn dies_with_us(program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(program);
    command
}

fn file_server(listener: UnixListener) -> Result<Child> {
    let Some(program) = VIRTIOFSD.map(PathBuf::from).into_iter().find(|path| path.is_file()) else {
        bail!("there is no virtiofsd at {}: `apt-get install virtiofsd`", VIRTIOFSD.join(", "));
    };
    let mut command = dies_with_us(program);
    command.args(["--fd=0", "-o", "source=/", "-o", "sandbox=chroot", "-o", "cache=always"]);
    command.args(["-o", "log_level=err"]);
    command.stdin(OwnedFd::from(listener)).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().context("cannot start virtiofsd")
}

fn qemu(kernel: &Kernel, initramfs: &Path, socket: &str) -> Result<Command> {
    let program = exec::find_program("qemu-system-x86_64")
        .context("there is no `qemu-system-x86_64`: run `cargo xtask setup`")?;
    let mut command = dies_with_us(program);
    // Without cx16=off qemu 7.2 now and then ends kernels at their start.
    command.args(["-M", "q35,accel=tcg", "-cpu", "max,cx16=off", "-smp", "2", "-m", MEMORY]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    command.args(["-serial", "stdio", "-serial", "file:/dev/stderr"]);
    command.arg("-object").arg(format!("memory-backend-memfd,id=memory,size={MEMORY},share=on"));
    command.args(["-numa", "node,memdev=memory"]);
    command.arg("-chardev").arg(format!("socket,id=files,path={socket},abstract=on"));
    command.args(["-device", "vhost-user-fs-pci,chardev=files,tag=root"]);
    command.arg("-kernel").arg(kernel.image()?).arg("-initrd").arg(initramfs);
    // An emulated timer that is late at the start, on a busy machine, is no reason to give up.
    command.args(["-append", "console=ttyS1 panic=-1 quiet mitigations=off nowatchdog no_timer_check"]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    Ok(command)
}

type Pipes = (Child, ChildStdin, std::process::ChildStdout, std::process::ChildStderr);

fn pipes(mut qemu: Child) -> Result<Pipes> {
    match (qemu.stdin.take(), qemu.stdout.take(), qemu.stderr.take()) {
        (Some(input), Some(output), Some(errors)) => Ok((qemu, input, output, errors)),
        _ => {
            end(&mut qemu);
            bail!("qemu has no pipes")
        }
    }
}

/// Reads both serial lines, each in a thread that ends with qemu.
fn watch(
    output: impl Read + Send + 'static,
    errors: impl Read + Send + 'static,
    console: &Arc<Mutex<VecDeque<String>>>,
) -> Result<Receiver<String>> {
    let (sender, lines) = mpsc::channel();
    let reader = move || each_line(output, |line| sender.send(line).is_ok());
    thread::Builder::new().name("vm-output".into()).spawn(reader).context("cannot start a thread")?;
    let console = Arc::clone(console);
    let reader = move || {
        each_line(errors, |line| {
            let mut kept = console.lock().unwrap_or_else(PoisonError::into_inner);
            if kept.len() == CONSOLE {
                kept.pop_front();
            }
            kept.push_back(line);
            true
        });
    };
    thread::Builder::new().name("vm-console".into()).spawn(reader).context("cannot start a thread")?;
    Ok(lines)
}

fn each_line(from: impl Read, mut take: impl FnMut(String) -> bool) {
    let lines = BufReader::new(from).split(b'\n').map_while(io::Result::ok);
    for line in lines {
        let line = String::from_utf8_lossy(&line);
        if !take(line.trim_end_matches('\r').to_owned()) {
            return;
        }
    }
}
