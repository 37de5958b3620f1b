//! The machine and the tools, as a reader of the numbers wants to know them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::utsname::uname;

use crate::shared::programs::{Outcome, run, text};

/// Bytes of a GiB, in the KiB of /proc/meminfo.
const GIB_IN_KIB: f64 = 1048576.0;

/// Date, machine and tools, as one paragraph.
pub fn machine(folder: &Path, ours: &Path) -> Outcome<String> {
    let date = run(Command::new("date").args(["--utc", "+%Y-%m-%d"]))?;
    let kernel = uname()?.release().to_string_lossy().into_owned();
    let cpuinfo = fs::read_to_string("/proc/cpuinfo")?;
    let processor = field(&cpuinfo, "model name").unwrap_or("unknown processor");
    let nr_cores = std::thread::available_parallelism()?;
    let meminfo = fs::read_to_string("/proc/meminfo")?;
    let total = field(&meminfo, "MemTotal").and_then(|total| total.split(' ').next()).unwrap_or("0");
    let memory = total.parse::<f64>()? / GIB_IN_KIB;
    let place = run(Command::new("findmnt").args(["-no", "FSTYPE,SOURCE", "-T", text(folder)]))?;
    let (file_system, source) = place.trim().split_once(' ').unwrap_or((place.trim(), "?"));
    let versions = [
        ("ntfsrescue", version(text(ours), "--version")),
        ("ntfsclone", version("ntfsclone", "--version")),
        ("partclone", version("partclone.ntfs", "--version")),
        ("coreutils", version("cp", "--version")),
    ];
    let versions = versions.map(|(name, version)| format!("{name} {version}")).join(", ");
    Ok(format!(
        "{}; {processor}, {nr_cores} cores, {memory:.1} GiB of memory{}; Linux {kernel}; {file_system} on {}{}; {versions}.",
        date.trim(),
        if cpuinfo.contains(" hypervisor") { ", virtual" } else { "" },
        source.trim(),
        disk(source.trim())
    ))
}

/// The value of a line `NAME : VALUE`.
fn field<'a>(lines: &'a str, name: &str) -> Option<&'a str> {
    let fields = lines.lines().filter_map(|line| line.split_once(':'));
    fields.into_iter().find(|(found, _)| found.trim() == name).map(|(_, value)| value.trim())
}

/// Size and model of the disk that a file system is on, where it has them.
fn disk(source: &str) -> String {
    let mut lsblk = Command::new("lsblk");
    let told = run(lsblk.args(["--nodeps", "--noheadings", "--output", "SIZE,MODEL", source]));
    let told = told.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ");
    if told.is_empty() { told } else { format!(" ({told})") }
}

/// The first word with a number that a tool says of itself.
fn version(program: &str, option: &str) -> String {
    let Ok(output) = Command::new(program).arg(option).stdin(Stdio::null()).output() else {
        return "?".into();
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    let words = said.split_whitespace().map(|word| word.trim_start_matches('v'));
    words.into_iter().find(|word| word.starts_with(|c: char| c.is_ascii_digit())).unwrap_or("?").to_owned()
}
