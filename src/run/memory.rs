//! How much memory a rescue of a volume needs, and whether there is so much: it is told before anything is read. And how
//! many threads may compress.

use std::num::NonZero;
use std::thread::available_parallelism;

use crate::event::{Event, Observer};
use crate::io::compressed::Compression;
use crate::io::stash;
use crate::units::Geometry;

/// Sets of a bit a cluster that a rescue has at once: what is copied, what of it was read, and, where `$Bitmap` cannot be
/// read, what of it is wanted.
const NR_SETS: u64 = 3;

/// What is not in proportion to the volume: the program, buffers, stacks, lists of bad areas.
const BASE: u64 = 16 << 20;

/// Bytes that a rescue needs at its worst.
fn needed(geometry: &Geometry) -> u64 {
    let set = geometry.nr_clusters.div_ceil(8);
    // What is read before there is a place for it is there together with one set, or two that share their clusters.
    BASE + (NR_SETS * set).max(set + stash::LIMIT)
}

/// Bytes that the system can still give, swap among them; none where it does not say.
fn available(meminfo: &str) -> Option<u64> {
    let field = |name: &str| {
        let value = meminfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        value.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(field("MemAvailable")?.saturating_add(field("SwapFree").unwrap_or(0)))
}

/// Threads that compress: as many as there are cores, but with no more than half of the memory that is there.
pub(super) fn nr_compressing(compression: Compression) -> usize {
    let nr_cores = available_parallelism().map_or(1, NonZero::get);
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    nr_fitting(nr_cores, available(&meminfo).unwrap_or(u64::MAX), compression.memory_of_thread())
}

/// The same of so many cores and so many bytes.
fn nr_fitting(nr_cores: usize, available: u64, of_thread: u64) -> usize {
    usize::try_from(available / 2 / of_thread).unwrap_or(usize::MAX).clamp(1, nr_cores.max(1))
}

/// Tells if a rescue of a volume of this shape may want more memory than there is.
pub(super) fn warn_of_memory(geometry: &Geometry, observer: &dyn Observer) {
    let meminfo = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let (needed, available) = (needed(geometry), available(&meminfo).unwrap_or(u64::MAX));
    if needed > available {
        observer.tell(Event::Warning(format_args!(
            "this volume needs about {} MB of memory, {} MB are free: the kernel may end the job before it is done",
            needed.div_ceil(1_000_000),
            available / 1_000_000
        )));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_volume_of_1_tib_fits_into_a_small_machine() {
        let needed = |size: u64| needed(&Geometry::new(4096, size / 4096 - 1, size).unwrap());
        assert!(needed(1 << 40) <= 120 << 20);
        assert!(needed(1 << 30) >= 48 << 20);
        assert!(needed(8 << 40) > 700 << 20);
    }

    #[test]
    fn threads_fit_into_the_memory() {
        let mib = |n: u64| n << 20;
        assert_eq!(nr_fitting(8, u64::MAX, mib(16)), 8);
        assert_eq!(nr_fitting(8, mib(128), mib(16)), 4);
        assert_eq!(nr_fitting(8, mib(10), mib(16)), 1);
        assert_eq!(nr_fitting(0, mib(10), mib(16)), 1);
    }

    #[test]
    fn what_is_free_is_read_from_what_the_kernel_says() {
        let meminfo = "MemTotal:  247000 kB\nMemFree:   1 kB\nMemAvailable:   100000 kB\nSwapFree:  24 kB\n";
        assert_eq!(available(meminfo), Some(100_024 * 1024));
        assert_eq!(available("MemAvailable: 5 kB\n"), Some(5120));
        for text in ["", "MemAvailable: 5\n", "MemAvailable: x kB\n", "SwapFree: 1 kB\n"] {
            assert_eq!(available(text), None);
        }
    }
}
