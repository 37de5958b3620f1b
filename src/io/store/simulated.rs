//! A [`Store`] in memory that remembers every step, so that a test can see what a kill at any of them leaves.

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use super::Store;

/// One change of what is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// The file is made, or emptied.
    Empty(PathBuf),
    /// Bytes are added at its end.
    Append(PathBuf, Vec<u8>),
    /// All of the file is on the medium.
    Sync(PathBuf),
    Remove(PathBuf),
    Rename(PathBuf, PathBuf),
}

type Files = BTreeMap<PathBuf, Vec<u8>>;

#[derive(Debug, Default)]
pub(crate) struct SimulatedStore {
    files: Mutex<Files>,
    steps: Mutex<Vec<Step>>,
}

impl SimulatedStore {
    /// A store that holds this file already.
    pub(crate) fn with(path: &Path, content: &[u8]) -> SimulatedStore {
        let store = SimulatedStore::default();
        store.put(path, content);
        store
    }

    /// Puts a file there, as a user does: not a step.
    pub(crate) fn put(&self, path: &Path, content: &[u8]) {
        self.files.lock().unwrap().insert(path.into(), content.into());
    }

    pub(crate) fn content(&self, path: &Path) -> Option<Vec<u8>> {
        self.files.lock().unwrap().get(path).cloned()
    }

    /// How many steps were made so far.
    pub(crate) fn nr_steps(&self) -> usize {
        self.steps.lock().unwrap().len()
    }

    /// Calls `check` with each state in which a kill can leave what `before` held when the steps began: behind
    /// each step, and behind each byte of one that appends. The number is that of the steps that were made whole.
    pub(crate) fn each_survivor(
        &self,
        before: &SimulatedStore,
        mut check: impl FnMut(usize, &SimulatedStore),
    ) {
        let steps = self.steps.lock().unwrap();
        let mut files = before.files.lock().unwrap().clone();
        let mut tell = |nr_whole, files: &Files| {
            check(nr_whole, &SimulatedStore { files: Mutex::new(files.clone()), ..Default::default() });
        };
        tell(0, &files);
        for (nr_whole, step) in steps.iter().enumerate() {
            if let Step::Append(path, bytes) = step {
                for cut in 1..bytes.len() {
                    let mut torn = files.clone();
                    apply(&mut torn, &Step::Append(path.clone(), bytes[..cut].into()));
                    tell(nr_whole, &torn);
                    // After a loss of power a file can have its length before its bytes.
                    let mut zeros = files.clone();
                    apply(&mut zeros, &Step::Append(path.clone(), vec![0; cut]));
                    tell(nr_whole, &zeros);
                }
            }
            apply(&mut files, step);
            tell(nr_whole + 1, &files);
        }
    }

    fn step(&self, step: Step) {
        apply(&mut self.files.lock().unwrap(), &step);
        self.steps.lock().unwrap().push(step);
    }
}

fn apply(files: &mut Files, step: &Step) {
    match step {
        Step::Empty(path) => drop(files.insert(path.clone(), Vec::new())),
        Step::Append(path, bytes) => files.get_mut(path).unwrap().extend(bytes),
        Step::Sync(_) => {}
        Step::Remove(path) => drop(files.remove(path)),
        Step::Rename(from, to) => {
            let content = files.remove(from).unwrap();
            files.insert(to.clone(), content);
        }
    }
}

/// Makes a step of every single write.
struct Appender<'a> {
    store: &'a SimulatedStore,
    path: &'a Path,
}

impl Write for Appender<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.store.step(Step::Append(self.path.into(), bytes.into()));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Store for SimulatedStore {
    fn write(&self, path: &Path, fill: &mut dyn FnMut(&mut dyn Write) -> io::Result<()>) -> io::Result<()> {
        self.step(Step::Empty(path.into()));
        fill(&mut Appender { store: self, path })?;
        self.step(Step::Sync(path.into()));
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read>> {
        let content = self.content(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(Cursor::new(content)))
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        Ok(self.content(path).is_some())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        if !self.exists(path)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.step(Step::Remove(path.into()));
        Ok(())
    }

    fn publish(&self, from: &Path, to: &Path) -> io::Result<()> {
        if !self.exists(from)? {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.step(Step::Rename(from.into(), to.into()));
        Ok(())
    }
}
