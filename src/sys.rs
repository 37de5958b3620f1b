//! The kernel's ioctls for block devices, ext4 and terminals, and memory that processes share: the one file with
//! `unsafe` in it.
//!
//! nix declares each request; the wrappers take an open file and give plain numbers. What they mean:
//! `linux/fs.h`, `linux/blkpg.h`, the kernel's `fs/ext4/ext4.h` and `blkdev(7)`; for the memory `memfd_create(2)`.

use std::ffi::c_void;
use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::AsRawFd;
use std::ptr::NonNull;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

use crate::extent::ByteRange;

/// The generated functions take raw pointers; only the wrappers below call them.
#[allow(unsafe_code, missing_docs, unreachable_pub)]
mod ioctl {
    nix::ioctl_read!(blkgetsize64, 0x12, 114, u64);
    nix::ioctl_read_bad!(blksszget, nix::request_code_none!(0x12, 104), nix::libc::c_int);
    nix::ioctl_read_bad!(blkpbszget, nix::request_code_none!(0x12, 123), nix::libc::c_uint);
    nix::ioctl_read_bad!(blkroget, nix::request_code_none!(0x12, 94), nix::libc::c_int);
    nix::ioctl_write_ptr_bad!(blkroset, nix::request_code_none!(0x12, 93), nix::libc::c_int);
    nix::ioctl_none_bad!(blkflsbuf, nix::request_code_none!(0x12, 97));
    nix::ioctl_write_ptr_bad!(blkpg, nix::request_code_none!(0x12, 105), super::PartitionRequest);
    nix::ioctl_write_ptr!(ext4_resize_fs, b'f', 16, u64);
    nix::ioctl_read_bad!(tiocgwinsz, nix::libc::TIOCGWINSZ, nix::libc::winsize);
}

/// `struct blkpg_ioctl_arg` of `linux/blkpg.h`.
#[repr(C)]
struct PartitionRequest {
    operation: nix::libc::c_int,
    flags: nix::libc::c_int,
    /// Bytes of what `partition` points to.
    len: nix::libc::c_int,
    partition: *const PartitionRange,
}

/// `struct blkpg_partition` of `linux/blkpg.h`.
#[repr(C)]
struct PartitionRange {
    /// Bytes.
    start: nix::libc::c_longlong,
    /// Bytes.
    len: nix::libc::c_longlong,
    number: nix::libc::c_int,
    unused: [u8; 128],
}

/// Bytes of a block device (BLKGETSIZE64).
pub fn device_size(device: &File) -> io::Result<u64> {
    let mut bytes = 0u64;
    // SAFETY: the request writes one u64 through the pointer, which is to a live u64.
    #[allow(unsafe_code)]
    unsafe { ioctl::blkgetsize64(device.as_raw_fd(), &raw mut bytes) }?;
    Ok(bytes)
}

/// Bytes of a logical sector, the smallest read and write (BLKSSZGET).
pub fn logical_sector_size(device: &File) -> io::Result<u32> {
    let mut bytes: nix::libc::c_int = 0;
    // SAFETY: the request writes one int through the pointer, which is to a live int.
    #[allow(unsafe_code)]
    unsafe { ioctl::blksszget(device.as_raw_fd(), &raw mut bytes) }?;
    u32::try_from(bytes).map_err(io::Error::other)
}

/// Bytes of a physical sector, what one medium error costs (BLKPBSZGET).
pub fn physical_sector_size(device: &File) -> io::Result<u32> {
    let mut bytes: nix::libc::c_uint = 0;
    // SAFETY: the request writes one unsigned int through the pointer, which is to a live one.
    #[allow(unsafe_code)]
    unsafe { ioctl::blkpbszget(device.as_raw_fd(), &raw mut bytes) }?;
    Ok(bytes)
}

/// Does the kernel refuse writes to this device (BLKROGET)?
pub fn is_read_only(device: &File) -> io::Result<bool> {
    let mut read_only: nix::libc::c_int = 0;
    // SAFETY: the request writes one int through the pointer, which is to a live int.
    #[allow(unsafe_code)]
    unsafe { ioctl::blkroget(device.as_raw_fd(), &raw mut read_only) }?;
    Ok(read_only != 0)
}

/// Makes the kernel refuse writes to this device, or take them again (BLKROSET).
pub fn set_read_only(device: &File, read_only: bool) -> io::Result<()> {
    let read_only = nix::libc::c_int::from(read_only);
    // SAFETY: the request reads one int through the pointer, which is to a live int.
    #[allow(unsafe_code)]
    unsafe { ioctl::blkroset(device.as_raw_fd(), &raw const read_only) }?;
    Ok(())
}

/// Writes out and drops what the kernel has cached of this device, so that the next read is of the medium (BLKFLSBUF).
pub fn drop_cache(device: &File) -> io::Result<()> {
    // SAFETY: the request has no argument.
    #[allow(unsafe_code)]
    unsafe { ioctl::blkflsbuf(device.as_raw_fd()) }?;
    Ok(())
}

/// Makes the kernel show this stretch of a whole disk as a partition (BLKPG). Nothing is read or written.
pub fn add_partition(disk: &File, number: u32, range: ByteRange) -> io::Result<()> {
    change_partition(disk, 1, number, range)
}

/// Makes the kernel show a partition no longer; one that is in use is refused (BLKPG). Nothing is read or written.
pub fn remove_partition(disk: &File, number: u32) -> io::Result<()> {
    change_partition(disk, 2, number, ByteRange { pos: 0, len: 0 })
}

/// Tells the kernel the new length of a partition that it shows, which may be in use (BLKPG). Nothing is written.
pub fn resize_partition(disk: &File, number: u32, range: ByteRange) -> io::Result<()> {
    change_partition(disk, 3, number, range)
}

fn change_partition(
    disk: &File,
    operation: nix::libc::c_int,
    number: u32,
    range: ByteRange,
) -> io::Result<()> {
    let signed = |bytes: u64| i64::try_from(bytes).map_err(io::Error::other);
    let partition = PartitionRange {
        start: signed(range.pos)?,
        len: signed(range.len)?,
        number: i32::try_from(number).map_err(io::Error::other)?,
        unused: [0; 128],
    };
    let len = size_of::<PartitionRange>() as nix::libc::c_int;
    let request = PartitionRequest { operation, flags: 0, len, partition: &raw const partition };
    // SAFETY: the request reads one structure through the pointer, and through the pointer in it a second one; both
    // live until it returns.
    #[allow(unsafe_code)]
    unsafe { ioctl::blkpg(disk.as_raw_fd(), &raw const request) }?;
    Ok(())
}

/// Makes a mounted ext4 file system as long as this; any file or folder on it will do (EXT4_IOC_RESIZE_FS).
pub fn grow_ext4(on_it: &File, nr_blocks: u64) -> io::Result<()> {
    // SAFETY: the request reads one u64 through the pointer, which is to a live u64.
    #[allow(unsafe_code)]
    unsafe { ioctl::ext4_resize_fs(on_it.as_raw_fd(), &raw const nr_blocks) }?;
    Ok(())
}

/// A terminal's columns and rows (`ioctl_tty(2)`); 0 where it knows none.
pub fn terminal_size(terminal: &File) -> io::Result<(u16, u16)> {
    let mut size = nix::libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request writes one winsize through the pointer, which is to a live one.
    #[allow(unsafe_code)]
    unsafe { ioctl::tiocgwinsz(terminal.as_raw_fd(), &raw mut size) }?;
    Ok((size.ws_col, size.ws_row))
}

/// Makes memory for processes to share: a file without a name, of `len` zeros, which can never get shorter.
pub fn create_shared_memory(len: usize) -> io::Result<File> {
    let file = File::from(memfd_create("ntfsrescue", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    file.set_len(len as u64)?;
    fcntl(&file, FcntlArg::F_ADD_SEALS(SealFlag::F_SEAL_SHRINK))?;
    Ok(file)
}

/// Memory that other processes have too. It begins on a page. Who may use it when is for them to agree on.
#[derive(Debug)]
pub struct SharedMemory {
    start: NonNull<c_void>,
    len: NonZeroUsize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and nothing else here holds its address.
#[allow(unsafe_code)]
unsafe impl Send for SharedMemory {}

impl SharedMemory {
    /// Maps all of a file from [`create_shared_memory`]; any other is refused.
    pub fn map(file: &File) -> io::Result<SharedMemory> {
        let seals = SealFlag::from_bits_retain(fcntl(file, FcntlArg::F_GET_SEALS)?);
        let len = usize::try_from(file.metadata()?.len()).ok().and_then(NonZeroUsize::new);
        let len =
            len.filter(|_| seals.contains(SealFlag::F_SEAL_SHRINK)).ok_or(io::ErrorKind::InvalidInput)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: the kernel chooses the place, so that nothing that is in use is replaced. The file keeps its length,
        // so that each byte of the mapping stays there until it is unmapped.
        #[allow(unsafe_code)]
        let start = unsafe { mmap(None, len, access, MapFlags::MAP_SHARED, file, 0) }?;
        Ok(SharedMemory { start, len })
    }

    /// Copies from the front of the memory; what does not fit is left out.
    pub fn copy_to(&self, to: &mut [u8]) {
        let n = to.len().min(self.len.get());
        // SAFETY: the first `n` bytes are mapped as long as `self` lives, and `to`, an exclusive borrow of other
        // memory, has as many. No reference to the mapping is made.
        #[allow(unsafe_code)]
        unsafe {
            self.start.cast::<u8>().as_ptr().copy_to_nonoverlapping(to.as_mut_ptr(), n);
        }
    }

    /// The memory, to be written to while the other processes leave it alone.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: the mapping has `len` initialised bytes as long as `self` lives, and this is the only reference to
        // it. The other process is this program too and touches the memory only when it has been told to; should it
        // not keep to that, the bytes are not what was read, but any bytes are valid ones.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts_mut(self.start.cast().as_ptr(), self.len.get())
        }
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: this is the mapping that `map` made, all of it, and no reference to it outlives `self`.
        #[allow(unsafe_code)]
        let unmapped = unsafe { munmap(self.start, self.len.get()) };
        if let Err(errno) = unmapped {
            log::debug!("cannot unmap shared memory: {errno}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_shared() {
        let file = create_shared_memory(10_000).unwrap();
        let (mut ours, theirs) =
            (SharedMemory::map(&file).unwrap(), SharedMemory::map(&file.try_clone().unwrap()).unwrap());
        assert_eq!(ours.bytes_mut(), [0; 10_000]);
        ours.bytes_mut()[9_999] = 7;
        let mut copy = [1; 10_001];
        theirs.copy_to(&mut copy);
        assert_eq!((copy[9_998], copy[9_999], copy[10_000]), (0, 7, 1));
        assert!(ours.bytes_mut().as_ptr().addr().is_multiple_of(4096));
    }

    #[test]
    fn only_what_keeps_its_length_is_mapped() {
        let file = create_shared_memory(4096).unwrap();
        assert!(file.set_len(4095).is_err());
        assert!(SharedMemory::map(&tempfile::tempfile().unwrap()).is_err());
        assert!(SharedMemory::map(&create_shared_memory(0).unwrap()).is_err());
    }
}
