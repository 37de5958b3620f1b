//! What the kernel tells of devices that come and go: uevents, from netlink (`NETLINK_KOBJECT_UEVENT`).
//!
//! A message is a line `ACTION@DEVPATH` and then `KEY=VALUE` texts, each ended by a zero byte
//! (`lib/kobject_uevent.c`).

use std::collections::BTreeSet;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::RcvBuf;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt, socket,
};

/// The kernel's own multicast group; the other one is udev's.
const KERNEL_GROUP: u32 = 1;

/// Bytes that wait for us in the kernel: a hub full of disks has some hundred messages at once.
const QUEUE: usize = 1 << 20;

/// Longest message (`UEVENT_BUFFER_SIZE` is 2048, before it the line with the path).
const MESSAGE: usize = 8 << 10;

/// What has been told since the last time.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct News {
    /// Devices that want a module, by modalias.
    pub modaliases: BTreeSet<String>,
    /// Something happened to a disk or a partition.
    pub is_about_disks: bool,
    /// Messages were lost: anything may have happened.
    pub is_incomplete: bool,
}

/// A connection to the kernel.
#[derive(Debug)]
pub struct Uevents(OwnedFd);

impl Uevents {
    /// Begins to listen.
    pub fn listen() -> Result<Uevents, Errno> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let netlink = socket(AddressFamily::Netlink, SockType::Datagram, flags, protocol)?;
        // With less room more messages are lost, which is noticed.
        let _smaller = setsockopt(&netlink, RcvBuf, &QUEUE);
        bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP))?;
        Ok(Uevents(netlink))
    }

    /// All that has been told, without waiting for more.
    pub fn take(&self) -> News {
        let mut news = News::default();
        let mut message = [0; MESSAGE];
        loop {
            match recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), &mut message) {
                // Other processes can send too; the kernel's number is 0.
                Ok((len, sender)) if sender.is_some_and(|sender| sender.pid() == 0) => {
                    news.add(message.get(..len).unwrap_or_default());
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => news.is_incomplete = true,
                Err(_) => return news,
            }
        }
    }
}

impl AsFd for Uevents {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl News {
    fn add(&mut self, message: &[u8]) {
        for text in message.split(|byte| *byte == 0) {
            if let Some(modalias) = text.strip_prefix(b"MODALIAS=") {
                self.modaliases.insert(String::from_utf8_lossy(modalias).into_owned());
            }
            self.is_about_disks |= text == b"SUBSYSTEM=block";
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_understood() {
        let mut news = News::default();
        news.add(
            b"add@/devices/pci0/usb1/1-1:1.0\0ACTION=add\0SUBSYSTEM=usb\0MODALIAS=usb:v46F4p0001ic08\0SEQNUM=7\0",
        );
        assert_eq!(news.modaliases.iter().map(String::as_str).collect::<Vec<_>>(), ["usb:v46F4p0001ic08"]);
        assert!(!news.is_about_disks);
        news.add(b"change@/devices/block/sda\0SUBSYSTEM=block\0DEVNAME=sda\0");
        assert!(news.is_about_disks);
        let mut nothing = News::default();
        nothing.add(b"");
        nothing.add(b"\0\0MODALIAS\0SUBSYSTEM=blocks");
        assert_eq!(nothing, News::default());
    }

    #[test]
    fn nothing_is_not_waited_for() {
        assert!(!Uevents::listen().unwrap().take().is_incomplete);
    }
}
