//! Targets that fail: every n-th write, sync, length and name, by `strace`, which answers the system call in the place of
//! the kernel; and for real, a disk that is smaller than it says, one that refuses a sector, a limit that cuts a write short.
//!
//! Whatever fails, and wherever: an error with its cause, and where it is a write with its place; never success, nothing
//! under the name of a finished file, no boot sector on a device. And where there is a map the same command, once the fault
//! is gone, goes on to the result of a run that never had one.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::tools::{Loop, Said, noise, ours, run, shell, text, unmount};
use crate::volumes::{Place, fill, mkntfs};

/// Bytes of the volume.
const SIZE: u64 = 4 << 20;

/// The system calls that move bytes to a target.
const WRITES: &str = "write,writev,pwrite64,pwritev,pwritev2";

/// What a system call says when it fails, and how the program puts it.
const ERRORS: [(&str, &str); 3] = [
    ("ENOSPC", "No space left on device (os error 28)"),
    ("EIO", "Input/output error (os error 5)"),
    ("EDQUOT", "Disk quota exceeded (os error 122)"),
];

/// A job: its options, what it writes, and how it ends where that fails.
struct Form {
    args: &'static str,
    status: i32,
}

const fn form(args: &'static str, status: i32) -> Form {
    Form { args, status }
}

/// Jobs to a file; all of them but the last three make it anew.
const FORMS: [Form; 15] = [
    form("-o target volume", 1),
    form("-O target volume", 1),
    form("-s -o target volume", 1),
    form("-s --split 1M -o target volume", 1),
    form("-s --compress zstd -o target volume", 1),
    form("-s --compress lz4 -o target volume", 1),
    form("-r -o target image", 1),
    form("-r --verify --new-serial -O target image", 1),
    form("-m -o target volume", 1),
    form("-m -s -o target volume", 1),
    form("--rescue -s -o target volume", 7),
    form("--rescue -O target volume", 7),
    form("--map map --map-interval 0 -o target volume", 7),
    form("--map map --map-interval 0 -s -o target volume", 7),
    form("--map map --map-interval 0 -s --split 1M -o target volume", 7),
];

/// A folder in memory with a volume, its image, and what each of the forms makes of them.
struct Bench {
    place: Place,
    targets: Vec<String>,
    inputs: Vec<String>,
}

impl Bench {
    fn new() -> Bench {
        let place = Place::in_memory();
        mkntfs(&place.at("volume"), SIZE, 512, 4096);
        fill(&place.at("volume"), 40);
        ours(["-q", "-s", "-o", text(&place.at("image")), text(&place.at("volume"))]).ok();
        let names = ["target", "target.part"].map(str::to_owned);
        let parts = (1..20).flat_map(|nr| [format!("target.{nr:03}"), format!("target.part.{nr:03}")]);
        let inputs = place.names();
        Bench { targets: names.into_iter().chain(parts).collect(), place, inputs }
    }

    fn at(&self, name: &str) -> std::path::PathBuf {
        self.place.at(name)
    }

    fn ours(&self, args: &str) -> Said {
        run(Command::new(env!("CARGO_BIN_EXE_ntfsrescue"))
            .arg("-q")
            .args(args.split_whitespace())
            .current_dir(self.at("")))
    }

    /// Runs a job in which some of these calls on any of these files fail; `fault` says how, and which. None if none did.
    fn failing(&self, args: &str, calls: &str, fault: &str, files: &[String]) -> Option<Said> {
        let log = self.at("log");
        let mut command = Command::new("strace");
        command.args(["-f", "-q", "-q", "-o", text(&log), "-e", &format!("trace={calls}")]);
        command.args(["-e", &format!("inject={calls}:{fault}")]);
        for file in files {
            command.arg("-P").arg(if file.starts_with('/') { file.into() } else { self.at(file) });
        }
        command.arg(env!("CARGO_BIN_EXE_ntfsrescue")).arg("-q").args(args.split_whitespace());
        let said = run(command.current_dir(self.at("")));
        let told = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(log).unwrap();
        told.contains("(INJECTED)").then_some(said)
    }

    /// What lies on a device is the image in this file, or holds all that the clone in it holds.
    #[track_caller]
    fn assert_same_use(&self, device: &Path, copy: &Path) {
        let (found, wanted) = (std::fs::read(device).unwrap(), std::fs::read(copy).unwrap());
        let found = &found[..wanted.len()];
        let differing: Vec<_> = (found.chunks(4096).zip(wanted.chunks(4096)).enumerate())
            .filter(|(_, (found, wanted))| found != wanted && wanted.iter().any(|byte| *byte != 0))
            .map(|(cluster, _)| cluster)
            .collect();
        assert_eq!(differing, [0; 0], "stretches of 4096 bytes that differ");
    }

    /// The next run is the first one; there may be no map.
    fn forget_map(&self) {
        for name in ["map", "map.alt", "map.plan"] {
            let _absent = std::fs::remove_file(self.at(name));
        }
    }

    fn clear(&self) {
        for name in self.place.names() {
            if !self.inputs.contains(&name) {
                std::fs::remove_file(self.at(&name)).unwrap();
            }
        }
    }

    /// All that there is but what was there at first, with its bytes.
    fn results(&self) -> Vec<(String, Vec<u8>)> {
        let new = self.place.names().into_iter().filter(|name| !self.inputs.contains(name));
        new.map(|name| (name.clone(), std::fs::read(self.at(&name)).unwrap())).collect()
    }

    /// What the job leaves if nothing fails, but for what its map says, which depends on time.
    fn healthy(&self, args: &str) -> Vec<(String, Vec<u8>)> {
        self.clear();
        self.ours(args).ok();
        let results = self.results().into_iter().filter(|(name, _)| !name.starts_with("map")).collect();
        self.clear();
        results
    }

    /// What is left of a job that failed is not taken for a whole one; with a map it goes on to the result.
    #[track_caller]
    fn assert_not_taken_for_whole(&self, form: &Form, healthy: &[(String, Vec<u8>)], what: &str) {
        let Form { args, .. } = form;
        if args.contains("-o target") {
            let published = ["target", "target.001"].iter().any(|name| self.at(name).exists());
            assert!(!published, "{what}: a target under its own name");
        } else if !args.contains("-s ") && self.at("target").exists() {
            let start = std::fs::read(self.at("target")).unwrap();
            assert!(start.iter().take(512).all(|byte| *byte == 0), "{what}: a boot sector");
        }
        if args.contains("--map") {
            self.assert_goes_on(args, healthy, what);
        }
        self.clear();
    }

    #[track_caller]
    fn assert_goes_on(&self, args: &str, healthy: &[(String, Vec<u8>)], what: &str) {
        let said = self.ours(args);
        assert_eq!(said.status, 0, "{what}: does not go on\n{}\n{}", said.stdout, said.stderr);
        let results = self.results();
        for (name, bytes) in healthy {
            let found = results.iter().find(|(found, _)| found == name);
            assert!(found.is_some_and(|(_, found)| found == bytes), "{what}: {name} differs after going on");
        }
    }
}

/// Every n-th write fails, with one of the errors or with each.
fn every_write_fails(errors_of: impl Fn(u32) -> Vec<(&'static str, &'static str)>) {
    let bench = Bench::new();
    for form in &FORMS {
        let healthy = bench.healthy(form.args);
        let mut n = 1;
        'writes: loop {
            for (error, words) in errors_of(n) {
                let what = format!("{}: write {n} fails with {error}", form.args);
                let fault = format!("error={error}:when={n}");
                let Some(said) = bench.failing(form.args, WRITES, &fault, &bench.targets) else {
                    bench.clear();
                    break 'writes;
                };
                let told = format!("{what}: status {}\n{}\n{}", said.status, said.stdout, said.stderr);
                assert_eq!(said.status, form.status, "{told}");
                let message = said.stdout.lines().find(|line| line.starts_with("ERROR: ")).expect(&told);
                assert!(message.contains(words) && message.contains("target"), "{told}");
                assert!(message.contains("cannot write") && message.contains(" at byte 0x"), "{told}");
                bench.assert_not_taken_for_whole(form, &healthy, &what);
            }
            n += 1;
        }
        println!("{}: {} writes", form.args, n - 1);
        assert!(n > 1, "{}: no write has failed", form.args);
    }
}

#[test]
fn every_write_may_fail() {
    every_write_fails(|n| vec![ERRORS[n as usize % 3]]);
}

#[test]
#[ignore = "make test-all"]
fn every_write_may_fail_in_every_way() {
    every_write_fails(|_| ERRORS.to_vec());
}

/// Calls other than writes: what fails there is told, and ends the job all the same.
#[test]
fn every_sync_length_and_name_may_fail() {
    let bench = Bench::new();
    for form in &FORMS {
        let healthy = bench.healthy(form.args);
        let is_part = |(name, _): &&(String, Vec<u8>)| name.starts_with("target");
        let whole: Vec<_> = healthy.iter().filter(is_part).cloned().collect();
        for (calls, errors) in [
            ("fsync,fdatasync,syncfs,sync_file_range", &["EIO", "ENOSPC", "EDQUOT"][..]),
            ("ftruncate,fallocate", &["EIO", "EFBIG"]),
            ("rename,renameat,renameat2,link,linkat", &["EIO", "ENOSPC"]),
        ] {
            let mut n = 1;
            loop {
                let error = errors[n as usize % errors.len()];
                let what = format!("{}: {calls} {n} fails with {error}", form.args);
                let fault = format!("error={error}:when={n}");
                let Some(said) = bench.failing(form.args, calls, &fault, &[]) else {
                    bench.clear();
                    break;
                };
                let told = format!("{what}: status {}\n{}\n{}", said.status, said.stdout, said.stderr);
                assert!([1, 7].contains(&said.status), "{told}");
                let message = said.stdout.lines().find(|line| line.starts_with("ERROR: ")).expect(&told);
                assert!(message.contains("(os error ") && message.contains('\''), "{told}");
                // The last sync is that of the folder in which a whole file has got its name.
                let named = ["target", "target.001"].iter().any(|name| bench.at(name).exists());
                if named && form.args.contains("-o target") && !form.args.contains("--map") {
                    assert!(message.contains("folder") || message.contains("rename"), "{told}");
                    assert_eq!(bench.results(), whole, "{told}");
                } else if form.args.contains("--map") && !named {
                    bench.assert_goes_on(form.args, &healthy, &what);
                }
                bench.clear();
                n += 1;
            }
            println!("{}: {} of {calls}", form.args, n - 1);
            assert!(n > 1 || !calls.contains("fsync"), "{}: no sync", form.args);
        }
    }
}

/// What was written must be read again for its checksums, or to be compared.
#[test]
fn every_read_of_what_was_written_may_fail() {
    let bench = Bench::new();
    for form in [
        form("--rescue -s -o target volume", 7),
        form("--map map --map-interval 0 -s -o target volume", 7),
        form("-r --verify -O target image", 1),
    ] {
        let healthy = bench.healthy(form.args);
        let (mut n, mut nr_told) = (1, 0);
        while let Some(said) =
            bench.failing(form.args, "pread64,read", &format!("error=EIO:when={n}+"), &bench.targets)
        {
            let what = format!("{}: read {n} of the target fails, and all after it", form.args);
            let told = format!("{what}: status {}\n{}\n{}", said.status, said.stdout, said.stderr);
            n += 1;
            if said.status == 0 {
                // What was only read to see whether something could be repaired.
                let results = bench.results();
                assert!(healthy.iter().all(|whole| results.contains(whole)), "{told}");
                bench.clear();
                continue;
            }
            nr_told += 1;
            assert_eq!(said.status, form.status, "{told}");
            assert!(said.stdout.contains("ERROR: ") && said.stdout.contains("target"), "{told}");
            if form.args.contains("--verify") {
                bench.clear();
            } else {
                bench.assert_not_taken_for_whole(&form, &healthy, &what);
            }
        }
        bench.clear();
        println!("{}: {} reads, {nr_told} errors", form.args, n - 1);
        assert!(nr_told > 0, "{}: no read has failed", form.args);
    }
}

/// Every n-th write to what lies beside a target: the map, its plan, the report.
#[test]
fn every_write_beside_a_target_may_fail() {
    let bench = Bench::new();
    let args = "--map map --map-interval 0 --report report --domain-out domain -o target volume";
    let form = form(args, 7);
    let healthy = bench.healthy(args);
    let healthy: Vec<_> = healthy.into_iter().filter(|(name, _)| name.starts_with("target")).collect();
    for file in ["map", "map.alt", "map.plan", "report", "domain"] {
        let mut n = 1;
        while let Some(said) =
            bench.failing(args, WRITES, &format!("error=ENOSPC:when={n}"), &[file.to_owned()])
        {
            let what = format!("write {n} of {file} fails");
            let told = format!("{what}: status {}\n{}\n{}", said.status, said.stdout, said.stderr);
            assert!([1, 7].contains(&said.status), "{told}");
            let message = said.stdout.lines().find(|line| line.starts_with("ERROR: ")).expect(&told);
            assert!(message.contains(ERRORS[0].1) && message.contains(&format!("'{file}")), "{told}");
            if bench.at("target").exists() {
                assert_eq!(file, "report", "{told}");
                bench.clear();
            } else {
                bench.assert_not_taken_for_whole(&form, &healthy, &what);
            }
            n += 1;
        }
        bench.clear();
        println!("{file}: {} writes", n - 1);
        assert!(n > 1, "{file}: no write has failed");
    }
}

/// What a device held before: an old volume's boot sectors, and noise.
fn write_old_volume(bench: &Bench, device: &str) {
    let good = std::fs::read(bench.at("volume")).unwrap();
    let mut old = noise(8, good.len());
    for at in [0, good.len() - 512] {
        old[at..at + 512].copy_from_slice(&good[at..at + 512]);
    }
    let mut file = File::options().write(true).open(device).unwrap();
    file.write_all(&old).unwrap();
    file.sync_all().unwrap();
}

/// On a device: no boot sector is there but that of a whole copy.
#[test]
fn every_write_to_a_device_may_fail() {
    let bench = Bench::new();
    File::create(bench.at("disk")).unwrap().set_len(SIZE).unwrap();
    let disk = Loop::attach(&bench.at("disk"), 512);
    let name = text(&disk.0).to_owned();
    for form in [
        form("-O DISK volume", 1),
        form("-r -O DISK image", 1),
        form("--rescue -O DISK volume", 7),
        form("--map map --map-interval 0 -O DISK volume", 7),
    ] {
        let args = form.args.replace("DISK", &name);
        write_old_volume(&bench, &name);
        bench.ours(&args).ok();
        let wanted = std::fs::read(&name).unwrap();
        for calls in [WRITES, "fsync,fdatasync"] {
            let mut n = 1;
            loop {
                bench.forget_map();
                write_old_volume(&bench, &name);
                let (error, words) = ERRORS[n as usize % 3];
                let fault = format!("error={error}:when={n}");
                let Some(said) = bench.failing(&args, calls, &fault, std::slice::from_ref(&name)) else {
                    break;
                };
                let told = format!("{args}: {n} of {calls}: status {}\n{}", said.status, said.stdout);
                assert_eq!(said.status, form.status, "{told}");
                let message = said.stdout.lines().find(|line| line.starts_with("ERROR: ")).expect(&told);
                assert!(message.contains(words) && message.contains(&name), "{told}");
                assert!(said.stdout.contains("WARNING: "), "{told}");
                // Until the first write succeeds the old one is there, until the last the new one is not.
                let is_old = n == 1 && calls == WRITES;
                let start = &std::fs::read(&name).unwrap()[..512];
                let is_last = calls != WRITES && start == &wanted[..512];
                assert!(is_old || is_last || start.iter().all(|byte| *byte == 0), "{told}");
                if args.contains("--map") {
                    bench.ours(&args).ok();
                    assert!(std::fs::read(&name).unwrap() == wanted, "{told}: goes on to something else");
                }
                n += 1;
            }
            println!("{args}: {} of {calls}", n - 1);
            assert!(n > 2, "{args}: too few of {calls}");
        }
        bench.forget_map();
    }
}

/// A disk that is smaller than it says: a loop device over a file with holes, for which its file system has no room.
/// The kernel tells of it when the data leaves the page cache, at a write or only at a sync.
#[test]
fn a_disk_that_is_smaller_than_it_says() {
    let bench = Bench::new();
    let point = bench.at("small");
    std::fs::create_dir(&point).unwrap();
    run(Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"]).arg(&point)).ok();
    let _mounted = Unmounts(point.clone());
    for form in [
        form("-O DISK volume", 1),
        form("-r -O DISK image", 1),
        form("-s -O DISK volume", 1),
        form("--rescue -O DISK volume", 7),
        form("--map map --map-interval 0 -O DISK volume", 7),
        form("--map map --map-interval 0 -s -O DISK volume", 7),
    ] {
        let file = point.join("disk");
        File::create(&file).unwrap().set_len(2 * SIZE).unwrap();
        for direct in [true, false] {
            let disk = match direct {
                true => Loop::attach(&file, 512),
                false => Loop::attach_part(&file, 0, 2 * SIZE),
            };
            let args = form.args.replace("DISK", text(&disk.0));
            let said = bench.ours(&args).exits(form.status);
            let message = said.stdout.lines().find(|line| line.starts_with("ERROR: ")).unwrap();
            assert!(message.contains(text(&disk.0)) && message.contains("(os error "), "{args}: {message}");
            let start = std::fs::read(&disk.0).unwrap_or_default();
            let is_volume = start.get(3..7) == Some(b"NTFS");
            assert!(!is_volume, "{args}: a boot sector");
            if args.contains("--map") {
                // It gets the room that it said it had.
                run(Command::new("mount").args(["-o", "remount,size=16m"]).arg(&point)).ok();
                bench.ours(&args).ok();
                let healthy = bench.at("healthy");
                let (_, job) = form.args.split_once("--map-interval 0 ").unwrap();
                bench.ours(&job.replace("DISK", text(&healthy))).ok();
                bench.assert_same_use(&disk.0, &healthy);
                bench.forget_map();
            }
            drop(disk);
            File::create(&file).unwrap().set_len(2 * SIZE).unwrap();
            run(Command::new("mount").args(["-o", "remount,size=1m"]).arg(&point)).ok();
        }
        std::fs::remove_file(&file).unwrap();
    }
}

/// A file system that is unmounted when dropped.
struct Unmounts(PathBuf);

impl Drop for Unmounts {
    fn drop(&mut self) {
        unmount(&self.0);
    }
}

/// A limit on the length of files cuts writes short, at any byte; the next one is refused.
#[test]
fn short_writes() {
    let bench = Bench::new();
    for form in FORMS.iter().filter(|form| !form.args.contains("--split")) {
        let healthy = bench.healthy(form.args);
        let (_, whole) = healthy.iter().find(|(name, _)| name == "target").unwrap();
        let mut nr_cut = 0;
        // KiB; the plan beside the target has some, and is no target.
        let len = whole.len() >> 10;
        for limit in (16..len).step_by(len.div_ceil(40)) {
            let what = format!("{}: {limit} KiB", form.args);
            let line = format!(
                "cd {}; trap '' XFSZ; ulimit -f {limit}; $OURS -q {}",
                text(&bench.at("")),
                form.args
            );
            let said = shell(&line);
            let told = format!("{what}: status {}\n{}", said.status, said.stdout);
            let message = said.stdout.lines().find(|line| line.starts_with("ERROR: ")).expect(&told);
            assert_eq!(said.status, form.status, "{told}");
            assert!(
                message.contains("File too large (os error 27)") && message.contains("'target"),
                "{told}"
            );
            bench.assert_not_taken_for_whole(form, &healthy, &what);
            nr_cut += 1;
        }
        println!("{}: {nr_cut} limits", form.args);
        assert!(nr_cut > 10);
    }
}

/// An image that comes through a pipe and ends too early, at any byte of it.
#[test]
fn pipes_that_end_early() {
    let bench = Bench::new();
    let whole = std::fs::read(bench.at("image")).unwrap();
    File::create(bench.at("disk")).unwrap().set_len(SIZE).unwrap();
    let disk = Loop::attach(&bench.at("disk"), 512);
    bench.ours("-s --no-checksum -o plain volume").ok();
    let image_len = std::fs::metadata(bench.at("plain")).unwrap().len() as usize;
    let mut lens: Vec<_> = (0..whole.len()).step_by(60_013).collect();
    lens.extend([1, 49, 55, 56, 57, image_len - 1, image_len + 1, whole.len() - 1]);
    for len in lens {
        for target in ["-o target", "-O target", "-o -", &format!("-O {}", text(&disk.0))] {
            let line = format!(
                "cd {}; head -c {len} image | ($OURS -q -r {target} - > out || exit 9)",
                text(&bench.at(""))
            );
            let said = shell(&line).exits(9);
            // Where the data goes to the standard output, what is said goes to the other.
            let told = match target {
                "-o -" => said.stderr,
                _ => std::fs::read_to_string(bench.at("out")).unwrap(),
            };
            let message = told.lines().find(|line| line.starts_with("ERROR: ")).expect(&told);
            assert!(message.contains("cut off") && message.contains("byte"), "{len}: {target}: {told}");
            let start = match target {
                "-o -" => continue,
                "-o target" => {
                    assert!(!bench.at("target").exists(), "{len}");
                    std::fs::read(bench.at("target.part"))
                }
                "-O target" => std::fs::read(bench.at("target")),
                _ => std::fs::read(&disk.0),
            };
            assert!(start.unwrap_or_default().iter().take(512).all(|byte| *byte == 0), "{len}: {target}");
            for name in ["target", "target.part", "out"] {
                let _absent = std::fs::remove_file(bench.at(name));
            }
        }
    }
}

/// A reader of the copy that goes away, at any byte.
#[test]
fn pipes_that_are_closed_early() {
    let bench = Bench::new();
    for args in
        ["-o - volume", "-s -o - volume", "-s --checksum -o - volume", "-m -s -o - volume", "-r -o - image"]
    {
        let line = |rest: &str| {
            format!(
                "cd {}; (code=0; $OURS {args} 2> said || code=$?; echo $code > status) | {rest}",
                text(&bench.at(""))
            )
        };
        let len: usize = shell(&line("wc -c")).ok().stdout.trim().parse().unwrap();
        // What fits into the pipe is written before anybody can know.
        for read in (0..len.saturating_sub(200 << 10)).step_by(90_001) {
            shell(&line(&format!("head -c {read} > /dev/null"))).ok();
            let [status, said] =
                ["status", "said"].map(|name| std::fs::read_to_string(bench.at(name)).unwrap());
            assert_ne!(status.trim(), "0", "{args}: {read} of {len}\n{said}");
            let is_told = status.trim() == "1"
                && said.contains("Broken pipe (os error 32)")
                && said.contains("at byte 0x");
            assert!(is_told || status.trim() == "141", "{args}: {read} of {len}: {status}{said}");
        }
    }
}
