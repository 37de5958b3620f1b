//! Two runs at once: the second on one target is refused, and the first does not notice it.

use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};

use nix::sys::signal::Signal::{SIGCONT, SIGKILL, SIGSTOP};

use crate::interrupt::{Running, SlowDisk, program};
use crate::tools::{Loop, assert_same, run, text, wait_for};
use crate::volumes::{Place, small_volume};

/// Bytes that a slow disk gives in a second: what is in use on the volume then takes seconds.
const SLOW: u32 = 1_500_000;

/// The same where the volume's scan alone is to take a second.
const SLOWER: u32 = 250_000;

/// A volume, an image of it, `healthy`, which the image restores to, and `old`, a file that holds something else.
struct Runs(Place);

impl Runs {
    fn new() -> Runs {
        let runs = Runs(Place::new());
        small_volume(&runs.at("volume"));
        for args in ["-s -o image volume", "-o healthy volume"] {
            run(&mut runs.command(args)).ok();
        }
        runs.fill_old();
        runs
    }

    fn at(&self, name: &str) -> PathBuf {
        self.0.at(name)
    }

    fn fill_old(&self) {
        std::fs::write(self.at("old"), "what was there").unwrap();
    }

    fn command(&self, args: &str) -> Command {
        let mut command = program();
        command.args(args.split(' ')).current_dir(self.at(""));
        command
    }

    /// Starts a restore through a pipe that gives half of the image, and stops it then.
    fn start_restore(&self, args: &str) -> (Running, ChildStdin, Vec<u8>) {
        let mut job = Running::start(self.command(args).stdin(Stdio::piped()), false);
        let mut input = job.child.stdin.take().unwrap();
        let mut image = std::fs::read(self.at("image")).unwrap();
        let rest = image.split_off(image.len() / 2);
        input.write_all(&image).unwrap();
        job.says("Restoring NTFS from image");
        stop(&job);
        (job, input, rest)
    }

    /// Starts a copy from `slow`, and stops it when it says this.
    fn start_stopped(&self, args: &str, phase: &str) -> Running {
        let job = Running::start(&mut self.command(args), false);
        job.says(phase);
        stop(&job);
        job
    }

    /// All files and what they hold.
    fn content(&self) -> Vec<(String, Vec<u8>)> {
        let names = self.0.names().into_iter().filter(|name| !["slow", "fifo"].contains(&name.as_str()));
        names.map(|name| (name.clone(), std::fs::read(self.at(&name)).unwrap())).collect()
    }

    /// A run that is refused in one line, and leaves all files as they are.
    #[track_caller]
    fn refuses(&self, args: &str, line: &str) {
        let before = self.content();
        let said = run(&mut self.command(args)).exits(1);
        let wanted = format!("ERROR: {line}");
        let all = said.stdout + &said.stderr;
        assert!(all.lines().any(|line| line.starts_with(&wanted)), "{args}: {wanted}\n{all}");
        assert!(self.content() == before, "{args} has changed something");
    }

    #[track_caller]
    fn restores(&self, image: &str) {
        run(&mut self.command(&format!("-q -r -o restored {image}"))).ok();
        assert_same(&self.at("restored"), &self.at("healthy"));
        std::fs::remove_file(self.at("restored")).unwrap();
    }
}

/// Stops a run, and waits until it stands still.
#[track_caller]
fn stop(job: &Running) {
    job.signal(SIGSTOP);
    let tasks = format!("/proc/{}/task", job.child.id());
    let is_still = |task: PathBuf| {
        let stat = std::fs::read_to_string(task.join("stat")).unwrap_or_default();
        stat.rsplit(')').next().is_some_and(|rest| rest.starts_with(" T"))
    };
    let tasks = || std::fs::read_dir(&tasks).unwrap();
    wait_for("the run to stand still", || tasks().all(|task| is_still(task.unwrap().path())));
}

/// Lets a restore that was stopped have the rest of its image.
#[track_caller]
fn go_on(mut job: Running, mut input: ChildStdin, rest: &[u8]) {
    job.signal(SIGCONT);
    input.write_all(rest).unwrap();
    drop(input);
    job.exits(0);
}

#[test]
fn a_file_is_the_target_of_one_run() {
    let runs = Runs::new();
    let busy = "is in use by another run: wait until that has ended, or name another";
    let (job, input, rest) = runs.start_restore("-r -o new -");
    for args in [
        "-r -o new image",
        "-o new volume",
        "-s -o new volume",
        "--rescue -s -o new volume",
        "--map map -o new volume",
    ] {
        runs.refuses(args, &format!("target 'new.part' {busy}"));
    }
    runs.refuses("-O new.part volume", &format!("target 'new.part' {busy}"));
    runs.refuses("-O volume new.part", "the source 'new.part' is being written by another run");
    go_on(job, input, &rest);
    assert_same(&runs.at("new"), &runs.at("healthy"));

    std::fs::hard_link(runs.at("old"), runs.at("other")).unwrap();
    std::os::unix::fs::symlink("old", runs.at("link")).unwrap();
    let (job, input, rest) = runs.start_restore("-r -O old -");
    for target in ["old", "other", "link"] {
        for args in ["-r -O TARGET image", "-O TARGET volume", "-s -O TARGET volume", "-m -O TARGET volume"] {
            runs.refuses(&args.replace("TARGET", target), &format!("target '{target}' {busy}"));
        }
        for args in ["--rescue -O TARGET volume", "--map map -s -O TARGET volume"] {
            runs.refuses(&args.replace("TARGET", target), &format!("target '{target}' {busy}"));
        }
    }
    go_on(job, input, &rest);
    assert_same(&runs.at("old"), &runs.at("healthy"));
}

#[test]
fn a_killed_run_leaves_no_lock() {
    let runs = Runs::new();
    let (mut job, input, _rest) = runs.start_restore("-r -O old -");
    job.signal(SIGKILL);
    job.exits(137);
    drop(input);
    run(&mut runs.command("-q -r -O old image")).ok();
    assert_same(&runs.at("old"), &runs.at("healthy"));

    // A left-over is told from a file that is being written.
    let (mut job, input, _rest) = runs.start_restore("-r -o new -");
    job.signal(SIGKILL);
    job.exits(137);
    drop(input);
    runs.refuses("-r -o new image", "'new.part' is an unfinished copy of an earlier run");
}

#[test]
fn an_image_that_is_being_saved_is_not_restored() {
    let runs = Runs::new();
    let slow = SlowDisk::new(&runs.0, SLOW);
    let device_file = runs.at("device-file");
    std::fs::File::create(&device_file).unwrap().set_len(32 << 20).unwrap();
    let device = Loop::attach(&device_file, 512);
    let name = text(&device.0);
    for (args, phase, image, others) in [
        ("-s -O old slow", "Saving NTFS to image", "old", vec!["-s -O old volume", "-r -O old image"]),
        (
            "-s --split 1M -o new slow",
            "Saving NTFS to image",
            "new.part.001",
            vec!["-s --split 1M -o new volume"],
        ),
        (
            "-s --split 1M -O parts slow",
            "Saving NTFS to image",
            "parts.001",
            vec!["-s --split 1M -O parts volume"],
        ),
        (
            "--rescue -s -o new slow",
            "Rescuing",
            "new.part",
            vec!["-s -o new volume", "--map map -s -o new volume"],
        ),
        (&format!("-s -O {name} slow"), "Saving NTFS to image", name, vec![]),
    ] {
        println!("{args}");
        let mut job = runs.start_stopped(args, phase);
        for other in others {
            runs.refuses(other, &format!("target '{image}' is in use by another run"));
        }
        runs.refuses(
            &format!("-r -o copy {image}"),
            &format!("the image '{image}' is being written by another run: wait until that has ended"),
        );
        run(&mut runs.command(&format!("--verify {image}"))).exits(1).says(&format!(
            "WARNING: the image '{image}' is being written by another run: wait until that has ended; it is checked as it is"
        ));
        if image == name {
            runs.refuses(
                &format!("-s -O {name} volume"),
                &format!("target device '{name}' is in use by another run"),
            );
        }
        job.signal(SIGCONT);
        job.exits(0);
        let done = image.replace(".part", "");
        runs.restores(&done);
        for name in runs.0.names().iter().filter(|name| name.starts_with("new") || name.starts_with("parts"))
        {
            std::fs::remove_file(runs.at(name)).unwrap();
        }
        runs.fill_old();
    }
    drop(slow);
}

#[test]
fn an_image_is_restored_twice_at_once_but_not_overwritten() {
    let runs = Runs::new();
    run(Command::new("mkfifo").arg(runs.at("fifo"))).ok();
    // It waits for somebody to read what it restores.
    let mut job = Running::start(&mut runs.command("-r -O fifo image"), false);
    job.says("Checking the image");
    runs.refuses("-s -O image volume", "target 'image' is in use by another run");
    runs.restores("image");
    run(&mut runs.command("--verify image")).ok();
    let mut restored = Vec::new();
    std::fs::File::open(runs.at("fifo")).unwrap().read_to_end(&mut restored).unwrap();
    job.exits(0);
    assert!(restored == std::fs::read(runs.at("healthy")).unwrap());
    run(&mut runs.command("-q -s -O image volume")).ok();
}

#[test]
fn a_volume_in_a_file_is_not_overwritten_while_it_is_saved() {
    let runs = Runs::new();
    for args in ["-s -o - volume", "--rescue -s -o - volume"] {
        let mut job = Running::start(&mut runs.command(args), true);
        let mut output = job.child.stdout.take().unwrap();
        output.read_exact(&mut [0; 56]).unwrap();
        runs.refuses("-r -O volume image", "target 'volume' is in use by another run");
        run(&mut runs.command("-q -s -o second volume")).ok();
        std::fs::remove_file(runs.at("second")).unwrap();
        output.read_to_end(&mut Vec::new()).unwrap();
        job.exits(0);
    }
}

#[test]
fn pipes_and_null_are_not_locked() {
    let runs = Runs::new();
    let (job, input, rest) = runs.start_restore("-r -O /dev/null -");
    run(&mut runs.command("-q -s -O /dev/null volume")).ok();
    go_on(job, input, &rest);
}

#[test]
fn a_map_belongs_to_one_run() {
    let runs = Runs::new();
    let slow = SlowDisk::new(&runs.0, SLOW);
    let mut job = runs.start_stopped("--map map -s -o new slow", "Rescuing");
    for args in ["--map map -s -o new volume", "--map map -o elsewhere volume", "--finish map new"] {
        runs.refuses(
            args,
            "the map 'map' is in use by another run: wait until that has ended, or name another",
        );
    }
    runs.refuses("--map other -s -o new volume", "target 'new.part' is in use by another run");
    // Killed it can be taken up, and the one that does has all again.
    job.signal(SIGKILL);
    job.exits(137);
    let mut job = runs.start_stopped("--map map -s -o new slow", "Rescuing");
    runs.refuses("--map map -s -o new volume", "the map 'map' is in use by another run");
    runs.refuses("-s -o new volume", "target 'new.part' is in use by another run");
    job.signal(SIGCONT);
    job.exits(0);
    drop(slow);
    runs.restores("new");
}

/// While it scans the volume a run has not made its target yet. What another makes meanwhile is that one's.
#[test]
fn the_first_to_write_has_the_target() {
    let runs = Runs::new();
    let slow = SlowDisk::new(&runs.0, SLOWER);
    for (late, first, target) in [
        ("-s -o new slow", "-r -o new -", "new.part"),
        ("-o new slow", "-r -o new -", "new.part"),
        ("-s -O made slow", "-r -O made -", "made"),
    ] {
        println!("{late}");
        let mut late = runs.start_stopped(late, "Scanning volume");
        let (first, input, rest) = runs.start_restore(first);
        let before = runs.content();
        late.signal(SIGCONT);
        late.exits(1);
        late.says(&format!("ERROR: target '{target}' is in use by another run"));
        assert!(runs.content() == before);
        go_on(first, input, &rest);
        let made = Path::new(target).file_stem().unwrap().to_str().unwrap();
        assert_same(&runs.at(made), &runs.at("healthy"));
        std::fs::remove_file(runs.at(made)).unwrap();
    }
    // A map that it has made by then is gone again: it must never go on with the other's target.
    let survey = "Reading what makes the rest readable";
    let mut late = runs.start_stopped("--map map -s -o new slow", survey);
    let (mut first, input, _rest) = runs.start_restore("-r -o new -");
    let before = runs.content();
    late.signal(SIGCONT);
    late.exits(1);
    late.says("ERROR: target 'new.part' is in use by another run");
    assert!(runs.content() == before);
    first.signal(SIGKILL);
    first.exits(137);
    drop(input);
    std::fs::remove_file(runs.at("new.part")).unwrap();

    // Of two with one map the first to write has it.
    let mut late = runs.start_stopped("--map map -s -o new slow", survey);
    let mut first = runs.start_stopped("--map map -s -o new slow", survey);
    first.signal(SIGCONT);
    first.says("Rescuing");
    stop(&first);
    let before = runs.content();
    late.signal(SIGCONT);
    late.exits(1);
    late.says("ERROR: the map 'map' is in use by another run");
    assert!(runs.content() == before);
    first.signal(SIGKILL);
    first.exits(137);
    drop(slow);
}

/// The kernel gives a device to one.
#[test]
fn a_device_is_the_target_of_one_run() {
    let runs = Runs::new();
    std::fs::File::create(runs.at("disk")).unwrap().set_len(32 << 20).unwrap();
    let disk = Loop::attach(&runs.at("disk"), 512);
    let name = text(&disk.0);
    let (job, input, rest) = runs.start_restore(&format!("-r -O {name} -"));
    for args in ["-r -O TARGET image", "-O TARGET volume", "--rescue -s -O TARGET volume"] {
        runs.refuses(
            &args.replace("TARGET", name),
            &format!("target device '{name}' is in use by another run, a file system, RAID or LVM"),
        );
    }
    go_on(job, input, &rest);
    run(&mut runs.command(&format!("-q --verify --against {name} image"))).ok();
}
