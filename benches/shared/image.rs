//! Images of ntfsclone and of our own, read by other means than our own: which clusters they hold, and what is in them.

use std::io::{self, Read};

/// Bytes of the header that are read: up to the position of what follows it.
const HEADER: usize = 50;

/// Calls `each` with the position on the volume and the bytes of each cluster that the image holds, and with the
/// backup boot sector. Reads to the end of the input.
///
/// The commands follow the header, whose length is at byte 46: 0 and a number of clusters to skip, or 1 and a cluster.
pub fn clusters(mut image: impl Read, mut each: impl FnMut(u64, &[u8]) -> io::Result<()>) -> io::Result<()> {
    let mut header = [0; HEADER];
    image.read_exact(&mut header)?;
    let number =
        |at: usize, len: usize| header[at..at + len].iter().rev().fold(0, |n, b| n << 8 | u64::from(*b));
    let (cluster_size, device_size, nr_clusters, data) =
        (number(18, 4), number(22, 8), number(30, 8), number(46, 4));
    io::copy(&mut image.by_ref().take(data.saturating_sub(HEADER as u64)), &mut io::sink())?;
    let mut cluster = vec![0; cluster_size as usize];
    let mut lcn = 0;
    while lcn <= nr_clusters {
        let mut command = [0];
        if image.read(&mut command)? == 0 {
            break;
        }
        if command[0] == 0 {
            let mut skipped = [0; 8];
            image.read_exact(&mut skipped)?;
            lcn += u64::from_le_bytes(skipped);
            continue;
        }
        let pos = lcn * cluster_size;
        let here = cluster_size.min(device_size.saturating_sub(pos)) as usize;
        image.read_exact(&mut cluster[..here])?;
        each(pos, &cluster[..here])?;
        lcn += 1;
    }
    io::copy(&mut image, &mut io::sink())?;
    Ok(())
}
