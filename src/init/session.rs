//! All the work of a boot but what only PID 1 can do: modules, the job, its devices, the worker, the result line.
//!
//! A child of PID 1, so that nothing here can panic the kernel. Its exit status asks PID 1 for the ending.

use std::fs::File;
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use super::cmdline::Text;
use super::config::{Config, Ending, Endings, Request, Task};
use super::drives::{Drive, Line, Watch};
use super::ending::Outcome;
use super::find::{Devices, NotOne, Pick, below, find, judge, kind_of_images};
use super::modules::{Index, Modules};
use super::mounts::{IMAGE_POINT, Mounted, mount_image};
use super::signals::Signals;
use super::worker;
use crate::report::{Channel, console};
use crate::sys;

/// Time between two looks at the drives.
const POLL: Duration = Duration::from_millis(200);

/// So long nothing may have come or gone before a name counts as naming just one device (spec/stick.md).
const QUIET: Duration = Duration::from_secs(5);

/// Time between two looks for devices that want a module, while drives are waited for.
const COLDPLUG: Duration = Duration::from_secs(1);

/// How much longer than asked is waited for drives that keep coming and going.
const UNREST: Duration = Duration::from_secs(60);

/// The command line of this boot.
pub(super) fn boot_line() -> String {
    let bytes = std::fs::read("/proc/cmdline").unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Does what the command line asks for, prints the result line and says how to end.
pub(super) fn run() -> Ending {
    let signals = Signals::block(Signal::SIGTERM);
    log::info!("ntfsrescue {}", env!("CARGO_PKG_VERSION"));
    let index = Index::of_running_kernel();
    let modules = Modules::parse(&index);
    // Twice: the first ones bring buses whose devices want others. What takes longer is seen to while waiting.
    modules.coldplug();
    modules.coldplug();
    modules.load_always();
    log::info!("{} modules loaded", modules.nr_loaded());

    let line = boot_line();
    let session = Session { signals, modules };
    let (outcome, ending) = match Config::parse(&line, &[]) {
        Err(error) => (refused(&error), None),
        Ok(Config { request: Request::Nothing, .. }) => {
            session.list_after_a_while();
            (Outcome::ok("no job on the kernel command line; no disk was touched"), Some(Ending::Shell))
        }
        Ok(Config { request: Request::Shell, .. }) => {
            (Outcome::ok("a shell, as asked; no disk was touched"), Some(Ending::Shell))
        }
        Ok(Config { request: Request::Job { task, options }, wait, .. }) => {
            (session.job(&task, &options, wait), None)
        }
    };
    console(format_args!("{outcome}"));
    ending.unwrap_or_else(|| outcome.ending(Endings::of(&line, &[])))
}

/// Tells why nothing runs, and makes it the result.
fn refused(error: &dyn std::error::Error) -> Outcome {
    Channel::Stderr.line(format_args!("ERROR: {error}"));
    Outcome::failed(error.to_string())
}

struct Session<'a> {
    signals: Signals,
    modules: Modules<'a>,
}

/// How waiting for a job's devices ended.
enum Waited {
    Found,
    NotOne(NotOne),
    Restless,
    Stopped,
}

impl Session<'_> {
    /// Does a job, from waiting for its devices to unmounting.
    fn job(&self, task: &Task, options: &Text, wait: Duration) -> Outcome {
        let mut watch = Watch::default();
        let waited = self.wait_for(task, &mut watch, wait);
        let drives = watch.drives();
        match waited {
            Waited::Found => {}
            Waited::Stopped => {
                return Outcome::failed("stopped while waiting for disks; nothing was touched");
            }
            Waited::Restless => {
                list(&drives);
                return Outcome::failed("disks keep coming and going; nothing was touched");
            }
            Waited::NotOne(error) => {
                list(&drives);
                return refused(&error);
            }
        }
        let devices = match find(task, &drives) {
            Ok(devices) => devices,
            Err(error) => return refused(&error),
        };
        if let Err(error) = judge(task, &devices, &drives) {
            list(&drives);
            return refused(&error);
        }
        // A drive that went and came back may have left its name to another.
        let unchanged = || devices.drives().into_iter().all(|drive| watch.is_unchanged(drive));
        self.carry_out(task, &devices, options, &unchanged)
    }

    /// Looks at the drives until the job's devices are there, each just once, and nothing more comes.
    fn wait_for(&self, task: &Task, watch: &mut Watch, wait: Duration) -> Waited {
        let begun = Instant::now();
        let mut coldplug_at = begun;
        loop {
            self.look(watch, &mut coldplug_at);
            watch.show_ranges(task);
            let found = find(task, &watch.drives()).map(|_| ());
            let elapsed = begun.elapsed();
            match found {
                // A drive that does not answer may hold the same name again; it gets as long as one that is missing.
                Ok(()) if watch.quiet_for() >= QUIET && (watch.is_settled() || elapsed >= wait) => {
                    return Waited::Found;
                }
                Ok(()) if elapsed >= wait + UNREST => return Waited::Restless,
                // What is there gets the time to say what it holds, however short the wait is.
                Err(error) if elapsed >= wait && (watch.is_settled() || elapsed >= wait + QUIET) => {
                    return Waited::NotOne(error);
                }
                _ => {}
            }
            if self.signals.stop_asked() {
                return Waited::Stopped;
            }
            sleep(POLL);
        }
    }

    /// Looks at the drives and, now and then, for devices that came late and want a module.
    fn look(&self, watch: &mut Watch, coldplug_at: &mut Instant) {
        watch.look();
        if coldplug_at.elapsed() >= COLDPLUG {
            self.modules.coldplug();
            *coldplug_at = Instant::now();
        }
    }

    /// Lists what is there once it has been read, for a boot without a job.
    fn list_after_a_while(&self) {
        let mut watch = Watch::default();
        let begun = Instant::now();
        let mut coldplug_at = begun;
        loop {
            self.look(&mut watch, &mut coldplug_at);
            let is_quiet = watch.quiet_for() >= QUIET && watch.is_settled();
            if is_quiet || begun.elapsed() >= 2 * QUIET || self.signals.stop_asked() {
                break;
            }
            sleep(POLL);
        }
        list(&watch.drives());
    }

    /// Mounts, runs the worker, unmounts. Everything was found and judged before.
    fn carry_out(
        &self,
        task: &Task,
        devices: &Devices<'_>,
        options: &Text,
        unchanged: &dyn Fn() -> bool,
    ) -> Outcome {
        let done = match (task, devices) {
            (Task::Save { target, .. }, Devices::Save { sources, image }) => {
                let mut outcome = Outcome::failed("there is nothing to save");
                for source in sources {
                    protect(source);
                    let names = source.names("");
                    let path = target.path.fill(&names).unwrap_or_default();
                    let work =
                        format!("save of /dev/{} to /dev/{}:{path}", source.part.name, image.part.name);
                    outcome = self.with_image(image, true, &work, || {
                        let to = below(IMAGE_POINT, &path).ok_or("the target's path is too long")?;
                        Ok(self.work(task, &dev(source), &to, options, &work, unchanged))
                    });
                }
                outcome
            }
            (Task::Restore { source, .. }, Devices::Restore { image, target }) => {
                let work = format!(
                    "restore of /dev/{}:{} to /dev/{}",
                    image.part.name, source.path, target.part.name
                );
                self.with_image(image, false, &work, || {
                    let from =
                        below(IMAGE_POINT, source.path.as_str()).ok_or("the source's path is too long")?;
                    Ok(self.work(task, &from, &dev(target), options, &work, unchanged))
                })
            }
            (Task::Verify { source }, Devices::Verify { image }) => {
                let work = format!("check of /dev/{}:{}", image.part.name, source.path);
                self.with_image(image, false, &work, || {
                    let from =
                        below(IMAGE_POINT, source.path.as_str()).ok_or("the source's path is too long")?;
                    Ok(self.work(task, &from, "", options, &work, unchanged))
                })
            }
            (_, Devices::Clone { source, target }) => {
                protect(source);
                let work = format!("clone of /dev/{} to /dev/{}", source.part.name, target.part.name);
                self.work(task, &dev(source), &dev(target), options, &work, unchanged)
            }
            _ => Outcome::failed("the devices are not those of the job"),
        };
        nix::unistd::sync();
        done
    }

    /// Mounts what holds the image while `then` runs.
    fn with_image(
        &self,
        image: &Pick<'_>,
        writable: bool,
        work: &str,
        then: impl FnOnce() -> Result<Outcome, &'static str>,
    ) -> Outcome {
        let kind = match kind_of_images(image) {
            Ok(kind) => kind,
            Err(error) => return refused(&error),
        };
        // The kernel would ask for it by itself; asking first tells a missing driver from a damaged file system.
        if !self.modules.request(&format!("fs-{kind}")) {
            log::warn!("no kernel module for {kind}");
        }
        let mounted: Mounted = match mount_image(&image.part.path(), kind, writable) {
            Ok(mounted) => mounted,
            Err(error) => return refused(&error),
        };
        log::info!(
            "/dev/{}: mounted {}",
            image.part.name,
            if writable { "for writing" } else { "read-only" }
        );
        let outcome = then().unwrap_or_else(Outcome::failed);
        nix::unistd::sync();
        match mounted.unmount() {
            Ok(()) => outcome,
            Err(errno) => Outcome::failed(format!("{work}: its file system cannot be unmounted: {errno}")),
        }
    }

    /// Runs the worker, if the disks are still those that were judged.
    fn work(
        &self,
        task: &Task,
        from: &str,
        to: &str,
        options: &Text,
        work: &str,
        unchanged: &dyn Fn() -> bool,
    ) -> Outcome {
        let argv = match worker::argv(task, from, to, options) {
            Ok(argv) => argv,
            Err(error) => return refused(&error),
        };
        if !unchanged() {
            return Outcome::failed(format!(
                "{work}: a disk has gone since it was found; nothing was written"
            ));
        }
        log::info!("ntfsrescue {}", argv.join(" "));
        match worker::run(&argv, &self.signals) {
            Ok(status) => {
                log::info!("the worker has ended: {status}");
                Outcome::of_worker(status, work)
            }
            Err(cause) => Outcome::failed(format!("{work}: the worker cannot be run: {cause}")),
        }
    }
}

fn dev(pick: &Pick<'_>) -> String {
    pick.part.path().display().to_string()
}

/// Makes the kernel refuse writes to the source, whoever they come from.
fn protect(source: &Pick<'_>) {
    let path = source.part.path();
    match File::open(&path).and_then(|device| sys::set_read_only(&device, true)) {
        Ok(()) => log::info!("{}: read-only from here on", path.display()),
        // Nothing here opens it for writing in any case.
        Err(cause) => log::warn!("{}: cannot be set read-only: {cause}", path.display()),
    }
}

/// Lists every candidate.
fn list(drives: &[Drive]) {
    if drives.is_empty() {
        console(format_args!("No disk was found."));
    }
    for drive in drives {
        console(format_args!("{}", Line(drive, None)));
        for part in &drive.parts {
            console(format_args!("    {}", Line(drive, Some(part))));
        }
    }
}
