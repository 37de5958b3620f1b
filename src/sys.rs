//! The kernel's block device ioctls: the one file with `unsafe` in it.
//!
//! nix declares each request; the wrappers take an open file and give plain numbers. What they mean:
//! `linux/fs.h` and `blkdev(7)`.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// The generated functions take raw pointers; only the wrappers below call them.
#[allow(unsafe_code, missing_docs, unreachable_pub)]
mod ioctl {
    nix::ioctl_read!(blkgetsize64, 0x12, 114, u64);
    nix::ioctl_read_bad!(blksszget, nix::request_code_none!(0x12, 104), nix::libc::c_int);
    nix::ioctl_read_bad!(blkpbszget, nix::request_code_none!(0x12, 123), nix::libc::c_uint);
    nix::ioctl_read_bad!(blkroget, nix::request_code_none!(0x12, 94), nix::libc::c_int);
    nix::ioctl_write_ptr_bad!(blkroset, nix::request_code_none!(0x12, 93), nix::libc::c_int);
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

/// Makes the kernel refuse writes to this device (BLKROSET).
pub fn set_read_only(device: &File) -> io::Result<()> {
    let read_only: nix::libc::c_int = 1;
    // SAFETY: the request reads one int through the pointer, which is to a live int.
    #[allow(unsafe_code)]
    unsafe { ioctl::blkroset(device.as_raw_fd(), &raw const read_only) }?;
    Ok(())
}
