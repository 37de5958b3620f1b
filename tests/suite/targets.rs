//! Targets that fail: every n-th write, sync, length and name, by `strace`, which answers the system call in the place of
//! the kernel; and for real, a disk that is smaller than it says, one that refuses a sector, a limit that cuts a write short.
//!
//! Whatever fails, and wherever: an error with its cause, and where it is a write with its place; never success, nothing
//! under the name of a finished file, no boot sector on a device. And where there is a map the same command, once the fault
//! is gone, goes on to the result of a run that never had one.

use std::path::Path;
use std::process::Command;

use crate::edit::Editor;
use crate::tools::{Loop, Said, assert_same, ours, run, text};
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
const FORMS: [Form; 13] = [
    form("-o target volume", 1),
    form("-O target volume", 1),
    form("-s -o target volume", 1),
    form("-s --split 1M -o target volume", 1),
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

    /// Runs a job in which the `n`th of these calls on any of these files fails in this way. None if there were less.
    fn failing(&self, args: &str, calls: &str, fault: &str, n: u32, files: &[String]) -> Option<Said> {
        let log = self.at("log");
        let mut command = Command::new("strace");
        command.args(["-f", "-q", "-q", "-o", text(&log), "-e", &format!("trace={calls}")]);
        command.args(["-e", &format!("inject={calls}:{fault}:when={n}")]);
        for file in files {
            command.arg("-P").arg(if file.starts_with('/') { file.into() } else { self.at(file) });
        }
        command.arg(env!("CARGO_BIN_EXE_ntfsrescue")).arg("-q").args(args.split_whitespace());
        let said = run(command.current_dir(self.at("")));
        let told = std::fs::read_to_string(&log).unwrap();
        std::fs::remove_file(log).unwrap();
        told.contains("(INJECTED)").then_some(said)
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
                let fault = format!("error={error}");
                let Some(said) = bench.failing(form.args, WRITES, &fault, n, &bench.targets) else {
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
        assert!(n > 2, "{}: no write has failed", form.args);
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
                let fault = format!("error={error}");
                let Some(said) = bench.failing(form.args, calls, &fault, n, &[]) else {
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
        while let Some(said) = bench.failing(form.args, "pread64,read", "error=EIO", n, &bench.targets) {
            let what = format!("{}: read {n} of the target fails", form.args);
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
        while let Some(said) = bench.failing(args, WRITES, "error=ENOSPC", n, &[file.to_owned()]) {
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

/// On a device: no boot sector is there but that of a whole copy.
#[test]
fn every_write_to_a_device_may_fail() {
    let bench = Bench::new();
    std::fs::File::create(bench.at("disk")).unwrap().set_len(SIZE).unwrap();
    let disk = Loop::attach(&bench.at("disk"), 512);
    let name = text(&disk.0).to_owned();
    ours(["-q", "-o", text(&bench.at("wanted")), text(&bench.at("volume"))]).ok();
    for args in [
        "-O DISK volume",
        "-r -O DISK image",
        "--rescue -O DISK volume",
        "--map map --map-interval 0 -O DISK volume",
    ] {
        let args = args.replace("DISK", &name);
        for calls in [WRITES, "fsync,fdatasync"] {
            let mut n = 1;
            loop {
                let _old = ["map", "map.alt", "map.plan"].map(|name| std::fs::remove_file(bench.at(name)));
                std::fs::copy(bench.at("volume"), bench.at("before")).unwrap();
                run(Command::new("dd")
                    .args(["bs=1M", "conv=notrunc", "status=none"])
                    .args([format!("if={}", text(&bench.at("before"))), format!("of={name}")]))
                .ok();
                let (error, words) = ERRORS[n as usize % 3];
                let fault = format!("error={error}");
                let Some(said) = bench.failing(&args, calls, &fault, n, std::slice::from_ref(&name)) else {
                    break;
                };
                let told = format!("{args}: {n} of {calls}: status {}\n{}", said.status, said.stdout);
                assert_eq!(
                    said.status,
                    if args.contains("-r -O") || args.starts_with("-O") { 1 } else { 7 },
                    "{told}"
                );
                assert!(said.stdout.contains(words) && said.stdout.contains(&name), "{told}");
                assert!(
                    said.stdout.contains("is unfinished and holds no usable copy") || args.contains("--map"),
                    "{told}"
                );
                let is_old = n == 1 && calls == WRITES;
                let editor = Editor::open(&bench.at("volume"));
                let disk = std::fs::read(&name).unwrap();
                for pos in [0, editor.total_sectors * 512] {
                    let start = &disk[pos as usize..pos as usize + 512];
                    let is_none = start.iter().all(|byte| *byte == 0);
                    assert!(
                        is_none || is_old || said.stdout.contains("boot sector") || calls != WRITES,
                        "{told}: {pos:#x}"
                    );
                }
                if args.contains("--map") {
                    bench.ours(&args).ok();
                    assert_same(Path::new(&name), &bench.at("wanted"));
                }
                n += 1;
            }
            println!("{args}: {} of {calls}", n - 1);
            assert!(n > 2, "{args}: too few of {calls}");
        }
    }
}
