//! Carries out a job whose devices were found and judged: mounts, works, leaves log and record, unmounts.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::Builder;
use std::time::Duration;

use super::config::{Config, Ending, Request, Task};
use super::drives::{Drive, Watch};
use super::ending::{Ended, Outcome, Verdict};
use super::erase::{Erase, Origin, now};
use super::find::{Devices, Pick, kind_of_images};
use super::marks::{JobId, Marks, Stage};
use super::modules::Modules;
use super::mounts::{IMAGE_POINT, Mounted, mount_at};
use super::record::{Device, Record, is_of_done};
use super::save::{Files, Save, Worker, is_of, text};
use super::screen::View;
use super::screen::page::{Side, Work};
use super::session::refused;
use super::signals::Signals;
use super::spec::{Escaped, ImageSpec};
use super::stick::{data_part, look_at_data, mount_data};
use super::tables;
use super::template::{Field, date_of, harmless};
use super::worker::{self, Said};
use crate::io::disk::Disk;
use crate::io::parts;
use crate::io::store::{LocalStore, Store};
use crate::sys;

/// Where the worker writes its report: in memory, so that it is there whatever becomes of the target.
const REPORT: &str = "/run/ntfsrescue.report";

/// How long the job waits for the disk's partition tables. A healthy disk has read them in no time; one that is dying
/// goes on with them while its volume is saved.
const TABLE_TIME: Duration = Duration::from_secs(5);

/// What every part of a session uses.
pub struct Desk<'a> {
    /// Requests to stop, and news of children.
    pub signals: Signals,
    /// The kernel's modules.
    pub modules: Modules<'a>,
    /// The consoles and the log.
    pub view: &'static View,
}

impl Worker for &Desk<'_> {
    fn run(&mut self, argv: &[String]) -> io::Result<Ended> {
        log::info!("ntfsrescue {}", argv.join(" "));
        let argv: Vec<_> = argv.iter().map(String::as_str).collect();
        let mut error = None;
        let status = worker::run(&argv, &self.signals, &mut |said| {
            if let Said::Line(line) = &said
                && let Some(told) = line.strip_prefix("ERROR: ")
            {
                error = Some(told.to_owned());
            }
            self.view.said(said);
        })?;
        log::info!("the worker has ended: {status}");
        Ok(Ended { status, error })
    }
}

/// Jobs on the drives of a machine.
pub struct Jobs<'a, 'm> {
    desk: &'a Desk<'m>,
    watch: &'a Watch,
    config: &'a Config,
    options: &'a str,
    /// The stick that this was booted from.
    stick: Option<&'a Drive>,
}

/// Where files are, by their paths on a file system.
enum Place<'a> {
    /// On the stick's data partition, which is mounted for other reasons too.
    Stick(&'a Path),
    Own(Mounted),
}

impl Place<'_> {
    fn path(&self, on_it: &str) -> PathBuf {
        let root = match self {
            Place::Stick(root) => root,
            Place::Own(mounted) => mounted.path(),
        };
        root.join(on_it.trim_start_matches('/'))
    }
}

/// A device to be overwritten.
struct Overwrite<'a> {
    task: &'a Task,
    /// The volume, or what holds the image.
    from: &'a Pick<'a>,
    target: &'a Pick<'a>,
    /// What is being done, for messages.
    work: &'a str,
    /// The stick's data partition, which keeps that it was done.
    data: Option<&'a Mounted>,
}

/// What a job leaves besides its result.
struct Leaves<'a> {
    files: &'a Files,
    source: Device<'a>,
    target: Option<Device<'a>>,
    image: Option<&'a str>,
}

impl<'a, 'm> Jobs<'a, 'm> {
    /// For the drives among which the job's devices were found.
    pub fn new(
        desk: &'a Desk<'m>,
        watch: &'a Watch,
        config: &'a Config,
        drives: &'a [Drive],
    ) -> Jobs<'a, 'm> {
        let options = match &config.request {
            Request::Job { options, .. } => options.as_str(),
            Request::Nothing | Request::Shell => "",
        };
        Jobs { desk, watch, config, options, stick: drives.iter().find(|drive| drive.is_stick) }
    }

    /// Did an earlier boot begin this very job, which overwrites its target?
    pub fn has_begun(&self, task: &Task, devices: &Devices<'_>) -> bool {
        let (Devices::Restore { target, .. } | Devices::Clone { target, .. }) = devices else { return false };
        let data = self.stick.and_then(|stick| look_at_data(stick, &self.desk.modules).ok());
        data.is_some_and(|data| self.marks(task, target, data.path()).time_of(Stage::Begun).is_some())
    }

    /// Would the machine overwrite its target again and again? What has been done is marked on the stick.
    fn would_repeat(&self, task: &Task, data: Option<&Mounted>) -> bool {
        let erases = matches!(task, Task::Restore { .. } | Task::Clone { .. });
        erases && data.is_none() && self.config.endings.then == Ending::Reboot
    }

    /// Does the job.
    pub fn carry_out(&self, task: &Task, devices: &Devices<'_>) -> Outcome {
        let data = self.stick.and_then(|stick| {
            let mounted = mount_data(stick, &self.desk.modules);
            mounted.inspect_err(|why| log::warn!("the stick's data partition is not used: {why}")).ok()
        });
        if self.would_repeat(task, data.as_ref()) {
            return Outcome::failed(
                "then=reboot would do the job at each boot: there is no stick on which to mark that it was done; \
                 nothing was written",
            );
        }
        let outcome = match (task, devices) {
            (Task::Save { target, .. }, Devices::Save { sources, image }) => {
                self.save_all(sources, image, target, data.as_ref())
            }
            (Task::Restore { source, .. }, Devices::Restore { image, target }) => {
                self.restore(task, image, source, target, data.as_ref())
            }
            (Task::Clone { .. }, Devices::Clone { source, target }) => {
                self.clone(task, source, target, data.as_ref())
            }
            (Task::Verify { source }, Devices::Verify { image }) => self.verify(image, source, data.as_ref()),
            _ => Outcome::failed("the devices are not those of the job"),
        };
        nix::unistd::sync();
        match data.map(Mounted::unmount) {
            Some(Err(errno)) => unmounted(outcome, errno),
            _ => outcome,
        }
    }

    /// Saves volumes, one after the other. One that fails does not stop the rest.
    fn save_all(
        &self,
        sources: &[Pick<'_>],
        image: &Pick<'_>,
        target: &ImageSpec,
        data: Option<&Mounted>,
    ) -> Outcome {
        self.with_place(image, true, data, |place| {
            let total = sources.len();
            let mut outcomes = Vec::with_capacity(total);
            for (at, source) in sources.iter().enumerate() {
                if total > 1 {
                    self.desk.view.change(|page| page.volume = Some((at + 1, total)));
                    self.desk.view.journal.begin_volume();
                }
                outcomes.push(self.save(source, image, target, place));
                if self.desk.signals.stop_asked() {
                    break;
                }
            }
            Outcome::of_all(outcomes, total)
        })
    }

    fn save(&self, source: &Pick<'_>, image: &Pick<'_>, target: &ImageSpec, place: &Place<'_>) -> Outcome {
        let date = date_of(now());
        let names = source.names(&date);
        let Some(path) = target.path.fill(&names) else {
            return Outcome::failed("the image's name is too long");
        };
        let mut path = path.to_string();
        if target.path.has(Field::Date) {
            // An unfinished one of another day is gone on with.
            let is_unfinished = |path: &String| {
                let map = Files::of(&place.path(path)).map;
                is_of(&map, source.drive.serial(), names.uuid)
            };
            let mut unfinished = target.path.find_but_for_date(&place.path(""), &names, ".part");
            unfinished.extend(target.path.find_but_for_date(&place.path(""), &names, ".part.001"));
            path = unfinished.into_iter().find(is_unfinished).unwrap_or(path);
        }
        let (view, to) = (self.desk.view, Side::file(&path, image));
        view.begin(Work::Saving, Some(Side::device(source)), Some(to));
        let work = format!("save of /dev/{} to {}:{path}", source.part.name, image.part.name);
        if let Some(gone) = self.gone(&[source, image], &work) {
            return gone;
        }
        protect(source);
        let files = Files::of(&place.path(&path));
        if let Some(path) = files.in_the_way() {
            return Outcome::failed(format!(
                "{work}: found '{}', which is no file, wanted a name that is free; nothing was written",
                Escaped(&path.to_string_lossy())
            ));
        }
        if let Some(folder) = files.image.parent()
            && let Err(cause) = std::fs::create_dir_all(folder)
        {
            return Outcome::failed(format!("{work}: its folder cannot be made: {cause}"));
        }
        let leaves =
            Leaves { files: &files, source: source.into(), target: Some(image.into()), image: Some(&path) };
        self.with_leaves(leaves, || {
            let table = TableToKeep::begin(source, &files);
            let late = table.and_then(|table| table.keep_within(TABLE_TIME));
            let save = Save {
                device: &source.part.path(),
                size: source.part.size,
                files: &files,
                is_on_fat: kind_of_images(image) == Ok("vfat"),
                options: self.options,
                report: Path::new(REPORT),
                work: &work,
            };
            let outcome = save.run(&mut &*self.desk);
            if late.is_some_and(|table| table.keep_within(Duration::ZERO).is_some()) {
                log::warn!("the partition tables are not kept: the disk does not give them");
            }
            outcome
        })
    }

    fn restore(
        &self,
        task: &Task,
        image: &Pick<'_>,
        source: &ImageSpec,
        target: &Pick<'_>,
        data: Option<&Mounted>,
    ) -> Outcome {
        let (from, to) = (Side::file(source.path.as_str(), image), Side::device(target));
        self.desk.view.begin(Work::Restoring, Some(from), Some(to));
        let work = format!("restore of {}:{} to /dev/{}", image.part.name, source.path, target.part.name);
        self.with_place(image, false, data, |place| {
            let path = place.path(source.path.as_str());
            if let Some(none) = no_image(&path, &work) {
                return none;
            }
            let origin = |_: &Marks| Origin::Image(path.clone());
            self.erase(&Overwrite { task, from: image, target, work: &work, data }, &origin)
        })
    }

    fn clone(&self, task: &Task, source: &Pick<'_>, target: &Pick<'_>, data: Option<&Mounted>) -> Outcome {
        self.desk.view.begin(Work::Cloning, Some(Side::device(source)), Some(Side::device(target)));
        let work = format!("clone of /dev/{} to /dev/{}", source.part.name, target.part.name);
        protect(source);
        let origin = |marks: &Marks| Origin::Volume(source.part.path(), data.map(|_| marks.map()));
        self.erase(&Overwrite { task, from: source, target, work: &work, data }, &origin)
    }

    /// Overwrites a device, once.
    fn erase(&self, overwrite: &Overwrite<'_>, origin: &dyn Fn(&Marks) -> Origin) -> Outcome {
        let Overwrite { task, from, target, work, data } = overwrite;
        if let Some(gone) = self.gone(&[from, target], work) {
            return gone;
        }
        let root = data.map_or(Path::new("/run"), Mounted::path);
        let marks = self.marks(task, target, root);
        let files = Files::of(&marks.base());
        let erase = Erase {
            from: origin(&marks),
            to: &target.part.path(),
            options: self.options,
            report: Path::new(REPORT),
            marks: data.map(|_| &marks),
            work,
        };
        let (source, target) = (Device::from(*from), Some(Device::from(*target)));
        let leaves = Leaves { files: &files, source, target, image: None };
        self.with_leaves(leaves, || erase.run(&mut &*self.desk))
    }

    fn verify(&self, image: &Pick<'_>, source: &ImageSpec, data: Option<&Mounted>) -> Outcome {
        self.desk.view.begin(Work::Verifying, Some(Side::file(source.path.as_str(), image)), None);
        let work = format!("check of {}:{}", image.part.name, source.path);
        self.with_place(image, false, data, |place| {
            if let Some(gone) = self.gone(&[image], &work) {
                return gone;
            }
            let path = place.path(source.path.as_str());
            if let Some(none) = no_image(&path, &work) {
                return none;
            }
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let root = data.map_or(Path::new("/run"), Mounted::path);
            let files = Files::of(&root.join(format!("ntfsrescue-verify-{}", harmless(&name))));
            let leaves = Leaves {
                files: &files,
                source: image.into(),
                target: None,
                image: Some(source.path.as_str()),
            };
            self.with_leaves(leaves, || {
                let mut argv = vec!["-r".to_owned(), "-n".to_owned()];
                argv.extend(self.options.split_ascii_whitespace().map(str::to_owned));
                argv.push(text(&path));
                match (&mut &*self.desk).run(&argv) {
                    Ok(ended) => Outcome::of_worker(&ended, &work),
                    Err(cause) => Outcome::failed(format!("{work}: the worker cannot be run: {cause}")),
                }
            })
        })
    }

    /// The marks of a job in a folder.
    fn marks(&self, task: &Task, target: &Pick<'_>, folder: &Path) -> Marks {
        let job = JobId {
            job: format!("{task}, options \"{}\"", self.options),
            target: format!("{}:{}", target.drive.serial(), target.part.number),
            run_id: self.config.run_id.as_deref().unwrap_or_default().to_owned(),
        };
        Marks::new(folder, job)
    }

    /// A drive that went and came back may have left its name to another.
    fn gone(&self, picks: &[&Pick<'_>], work: &str) -> Option<Outcome> {
        let gone = picks.iter().find(|pick| !self.watch.is_unchanged(pick.drive))?;
        let name = &gone.drive.name;
        Some(Outcome::failed(format!("{work}: /dev/{name} has gone since it was found; nothing was written")))
    }

    /// Mounts what holds an image while `then` runs.
    fn with_place(
        &self,
        image: &Pick<'_>,
        writable: bool,
        data: Option<&Mounted>,
        then: impl FnOnce(&Place<'_>) -> Outcome,
    ) -> Outcome {
        let is_stick = |stick: &Drive| data_part(stick).is_some_and(|part| part.name == image.part.name);
        if let Some(data) = data
            && self.stick.is_some_and(is_stick)
        {
            return then(&Place::Stick(data.path()));
        }
        let kind = match kind_of_images(image) {
            Ok(kind) => kind,
            Err(error) => return refused(&error),
        };
        // The kernel would ask for it by itself; asking first tells a missing driver from a damaged file system.
        if !self.desk.modules.request(&format!("fs-{kind}")) {
            log::warn!("no kernel module for {kind}");
        }
        let mounted = match mount_at(IMAGE_POINT, &image.part.path(), kind, writable) {
            Ok(mounted) => mounted,
            Err(error) => return refused(&error),
        };
        let how = if writable { "for writing" } else { "read-only" };
        log::info!("/dev/{}: mounted {how}", image.part.name);
        let place = Place::Own(mounted);
        let outcome = then(&place);
        nix::unistd::sync();
        match place {
            Place::Own(mounted) => {
                mounted.unmount().map_or_else(|errno| unmounted(outcome.clone(), errno), |()| outcome.clone())
            }
            Place::Stick(_) => outcome,
        }
    }

    /// Keeps the log beside the image while `then` runs, and then a record of what came of it.
    fn with_leaves(&self, leaves: Leaves<'_>, then: impl FnOnce() -> Outcome) -> Outcome {
        let journal = &self.desk.view.journal;
        // An earlier worker's.
        let _none = std::fs::remove_file(REPORT);
        let log = journal.continue_in(&leaves.files.log);
        let _told = log.inspect_err(|error| log::warn!("{error}"));
        let started = now();
        let outcome = then();
        let job = self.config.to_string();
        let record = Record {
            started,
            ended: now(),
            target: leaves.target,
            image: leaves.image,
            ..Record::new(&job, self.options, &outcome, leaves.source, Path::new(REPORT))
        };
        // An earlier boot's, of what it did and what was lost, says more than that nothing was left to do.
        if !outcome.was_done || !is_of_done(&leaves.files.json) {
            record.write(&leaves.files.json);
        }
        log::info!("{outcome}");
        if let Err(error) = journal.close() {
            log::warn!("{error}");
        }
        outcome
    }
}

/// The outcome where there is no image: nothing, or a pipe, which would be waited for.
fn no_image(path: &Path, work: &str) -> Option<Outcome> {
    let is_file = std::fs::metadata(path).is_ok_and(|metadata| metadata.is_file());
    let is_there = is_file || parts::numbered(path, 1).is_file();
    (!is_there).then(|| Outcome::failed(format!("{work}: there is no such image; nothing was written")))
}

/// An outcome, if what it wrote could not be unmounted.
fn unmounted(outcome: Outcome, errno: nix::errno::Errno) -> Outcome {
    if outcome.verdict == Verdict::Failed {
        return outcome;
    }
    Outcome::failed(format!("{}; but its file system cannot be unmounted: {errno}", outcome.sentence))
}

/// The partition tables of the source's disk, on their way beside the image.
struct TableToKeep {
    path: PathBuf,
    /// They come from a thread of their own: a disk that hangs shall not hold up the job.
    taken: Receiver<Vec<u8>>,
}

impl TableToKeep {
    /// Begins to read them; none where they are kept already.
    fn begin(source: &Pick<'_>, files: &Files) -> Option<TableToKeep> {
        let serial = source.drive.serial().to_owned();
        let name = if serial.is_empty() { format!("disk-{}", source.drive.size) } else { serial.clone() };
        let path = files.image.with_file_name(format!("{}.table", harmless(&name)));
        if path.symlink_metadata().is_ok() {
            return None;
        }
        let (sender, taken) = channel();
        let (model, device) = (source.drive.model.clone(), Path::new("/dev").join(&source.drive.name));
        let reader = Builder::new().spawn(move || match Disk::open(&device) {
            // Nobody may be waiting any more.
            Ok(disk) => drop(sender.send(tables::take(&disk, &serial, &model))),
            Err(error) => log::warn!("the partition tables are not kept: {error}"),
        });
        reader.is_ok().then_some(TableToKeep { path, taken })
    }

    /// Writes them, if they come in time; otherwise gives back what is still to be kept.
    fn keep_within(self, time: Duration) -> Option<TableToKeep> {
        match self.taken.recv_timeout(time) {
            Ok(table) => {
                if let Err(cause) = LocalStore.write(&self.path, &mut |out| out.write_all(&table)) {
                    log::warn!("cannot write '{}': {cause}", self.path.display());
                }
                None
            }
            Err(RecvTimeoutError::Timeout) => Some(self),
            Err(RecvTimeoutError::Disconnected) => None,
        }
    }
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
