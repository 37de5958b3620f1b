//! The mark that stands where a sector was lost: `?` throughout, `BadSectoR` and a NUL at its start.

const MARK: &[u8] = b"BadSectoR\0";
const FILL: u8 = b'?';

/// Marks `data`, which belongs at byte `pos` of a volume with sectors of `sector_size` bytes, as lost: each sector
/// of the volume in it gets a mark of its own.
pub fn mark_lost(pos: u64, data: &mut [u8], sector_size: u32) {
    data.fill(FILL);
    let sector_size = u64::from(sector_size.max(1));
    let mut at = 0;
    while let Some(rest) = data.get_mut(at..).filter(|rest| !rest.is_empty()) {
        rest.iter_mut().zip(MARK).for_each(|(to, from)| *to = *from);
        at += (sector_size - (pos + at as u64) % sector_size) as usize;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_sector_of_the_volume_is_marked() {
        let mut data = vec![0; 1536];
        mark_lost(4096, &mut data, 512);
        for sector in data.chunks(512) {
            assert_eq!((&sector[..10], &sector[10..]), (&b"BadSectoR\0"[..], &[b'?'; 502][..]));
        }
    }

    #[test]
    fn a_part_of_a_sector_is_marked_at_its_start() {
        let mut data = vec![0; 1024];
        mark_lost(512 * 7, &mut data, 4096);
        let marks =
            data.windows(10).enumerate().filter(|(_, bytes)| bytes == b"BadSectoR\0").map(|(at, _)| at);
        assert_eq!(marks.collect::<Vec<_>>(), [0, 512]);
        let mut short = [0; 4];
        mark_lost(0, &mut short, 512);
        assert_eq!(&short, b"BadS");
    }
}
