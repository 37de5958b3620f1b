use std::io::Seek;
use std::os::unix::fs::FileExt;
use std::thread::JoinHandle;

use super::*;
use crate::io::Loss;

/// Goes on for ever.
const PATIENT: Ask<'static> = &|_| Wait::Go;

/// Gives up when it is asked.
const IMPATIENT: Ask<'static> = &|_| Wait::Stop;

/// What one read of the child may take.
const SOON: Duration = Duration::from_secs(20);

fn content(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at * 7 + at / 251) as u8).collect()
}

/// A disk over a file with `bytes`, and the file to change it by.
fn disk(bytes: &[u8]) -> (Disk, File) {
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(bytes).unwrap();
    file.rewind().unwrap();
    (Disk::of(file.try_clone().unwrap()).unwrap(), file)
}

/// A source whose child is this thread.
fn remote<'a>(
    disk: Disk,
    ask: Ask<'a>,
    child: impl FnOnce(UnixStream, &File, File) -> io::Result<()> + Send + 'static,
) -> (Remote<'a>, JoinHandle<io::Result<()>>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let memory = sys::create_shared_memory(CAPACITY).unwrap();
    let link = Link::new(ours, &memory).unwrap();
    let device = disk.file().try_clone().unwrap();
    let child = std::thread::spawn(move || child(theirs, &memory, device));
    (Remote { disk, link: Some(Mutex::new(link)), ask }, child)
}

#[test]
fn reads_are_the_same_as_without_a_child() {
    let bytes = content(3 * CAPACITY + 1000);
    let (disk, _) = disk(&bytes);
    let (remote, child) = remote(disk, PATIENT, serve);
    assert_eq!((remote.len(), remote.sector_size()), (bytes.len() as u64, 512));
    let ends = [CAPACITY, CAPACITY + 1, 2 * CAPACITY, bytes.len()];
    for (pos, end) in [(0, 0), (0, 512), (3, 4), (511, 70_001)].into_iter().chain(ends.map(|end| (5, end))) {
        let mut buf = vec![0; end - pos];
        remote.read_at(pos as u64, &mut buf).unwrap();
        assert!(buf == bytes[pos..end], "from {pos} to {end}");
    }
    drop(remote);
    child.join().unwrap().unwrap();
}

#[test]
fn errors_come_through_and_the_next_read_is_good() {
    let (disk, file) = disk(&content(8192));
    let (remote, _) = remote(disk, PATIENT, serve);
    file.set_len(4096).unwrap();
    let error = remote.read_at(4000, &mut [0; 512]).unwrap_err();
    assert_eq!((error.pos, error.len, error.loss()), (4000, 512, Loss::Gone));
    remote.read_at(3584, &mut [0; 512]).unwrap();
    // A position that the system refuses.
    let error = remote.read_at(u64::MAX, &mut [0]).unwrap_err();
    assert_eq!((error.cause.raw_os_error(), error.loss()), (Some(nix::libc::EINVAL), Loss::Fault));
    remote.read_at(0, &mut [0; 512]).unwrap();
}

#[test]
fn the_child_refuses_what_does_not_fit() {
    let (disk, _) = disk(&content(512));
    let (remote, _) = remote(disk, PATIENT, serve);
    let mut link = remote.link.as_ref().unwrap().lock().unwrap();
    for len in [CAPACITY as u64 + 1, u64::MAX] {
        let heard = link.request(&Request { pos: 0.into(), len: len.into() }, PATIENT).unwrap();
        assert!(matches!(heard, Heard::Answer(nix::libc::EINVAL)));
    }
}

#[test]
fn a_wait_that_is_given_up_ends_all_reads() {
    let (disk, _) = disk(&content(8192));
    let (remote, child) = remote(disk, IMPATIENT, |mut socket, _, _| {
        // Takes requests and never answers, until the parent leaves.
        let mut requests = Vec::new();
        socket.read_to_end(&mut requests)?;
        assert_eq!(requests.len(), size_of::<Request>());
        Ok(())
    });
    let start = Instant::now();
    for _ in 0..1000 {
        assert_eq!(remote.read_at(0, &mut [0; 512]).unwrap_err().loss(), Loss::Stopped);
    }
    assert!(start.elapsed() >= ASK_EVERY && start.elapsed() < SOON);
    drop(remote);
    child.join().unwrap().unwrap();
}

#[test]
fn whoever_waits_is_told_how_long() {
    let (disk, _) = disk(&content(8192));
    let asked = Mutex::new(Vec::new());
    let ask = |waiting| {
        let mut asked = asked.lock().unwrap();
        asked.push(waiting);
        if asked.len() < 3 { Wait::Go } else { Wait::Stop }
    };
    // The first read is answered late, the second never.
    let (remote, _) = remote(disk, &ask, |mut socket, memory, _| {
        socket.read_exact(&mut [0; size_of::<Request>()])?;
        std::thread::sleep(ASK_EVERY * 3 / 2);
        memory.write_all_at(b"late", 0)?;
        socket.write_all(Answer { status: GOOD.into() }.as_bytes())?;
        socket.read_to_end(&mut Vec::new()).map(|_| ())
    });
    let mut buf = [0; 4];
    remote.read_at(0, &mut buf).unwrap();
    assert_eq!(&buf, b"late");
    assert_eq!(remote.read_at(0, &mut buf).unwrap_err().loss(), Loss::Stopped);
    let asked = asked.lock().unwrap();
    assert!(asked[0] >= ASK_EVERY && asked[1] >= ASK_EVERY && asked[2] > asked[1], "{asked:?}");
}

#[test]
fn a_child_that_ends_is_an_error() {
    let (disk, _) = disk(&content(8192));
    let (remote, _) = remote(disk, PATIENT, |mut socket, _, _| {
        socket.read_exact(&mut [0; size_of::<Request>()])?;
        // Half an answer.
        socket.write_all(&[0; 2])
    });
    for _ in 0..2 {
        let error = remote.read_at(0, &mut [0; 512]).unwrap_err();
        assert_eq!(error.loss(), Loss::Fault);
        assert!(error.to_string().ends_with("the process that reads it has ended"), "{error}");
    }
}

#[test]
fn what_cannot_be_started_is_told() {
    let start = |program: &str| {
        Remote::start_with(Path::new(program), disk(&[]).0, PATIENT).err().unwrap().to_string()
    };
    assert!(start("/nonexistent").starts_with("No such file"));
    assert_eq!(start("/bin/true"), "the process that reads it has ended (exit status: 0)");
}

#[test]
fn only_the_whole_argument_asks_for_it() {
    let asked = |line: &str| is_asked_for(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
    assert!(asked("ntfsrescue --read-for-parent"));
    assert!(!asked("--read-for-parent"));
    assert!(!asked("ntfsrescue --read-for-parent x"));
    assert!(!asked("ntfsrescue --rescue"));
}
