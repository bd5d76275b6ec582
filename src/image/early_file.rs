use std::fs::File;
use std::io;
use std::num::NonZeroU64;
use std::os::unix::fs::FileExt as _;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, LazyLock};
use std::thread;

use rustix::fs::{Advice, fadvise};
use tokio::sync::oneshot;

/// After so many bytes the kernel is told to begin with writing them to the disk, so that little is left to wait for at
/// the end.
pub(super) const STEP: u64 = 8 << 20;

/// What is smaller isn't worth a call.
pub(super) const WORTH: u64 = 1 << 20;

/// A new file that is written in order, through the page cache, and is on its way to the disk meanwhile.
///
/// Past the cache (`O_DIRECT`) takes less processor time, but whoever starts a container of the image then reads it all
/// from the disk: of 1.5 GB 7 s, and 0.6 s from the cache. And the writer waits for the disk: 2.1 to 3.3 s with syncfs on
/// two busy cores, where plain writes take 1.5 to 1.7 s, and those of here 0.7 to 1.2 s.
#[derive(Debug)]
pub(super) struct EarlyFile {
    file: Arc<File>,
    /// Where the bytes end that came.
    end: u64,
    /// Where those end that are on their way to the disk.
    begun: u64,
}

impl EarlyFile {
    pub(super) fn new(file: File) -> Self {
        Self { file: Arc::new(file), end: 0, begun: 0 }
    }

    /// Where the bytes end that came.
    pub(super) fn end(&self) -> u64 {
        self.end
    }

    /// Writes `bytes` at `offset`, not before where the last ones ended.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)?;
        self.end = offset + bytes.len() as u64;
        if self.end - self.begun >= STEP {
            self.begin();
        }
        Ok(())
    }

    /// The file, now that all of it came.
    pub(super) fn finish(mut self) -> Arc<File> {
        if self.end - self.begun >= WORTH {
            self.begin();
        }
        self.file
    }

    fn begin(&mut self) {
        let Some(len) = NonZeroU64::new(self.end - self.begun) else { return };
        if begin_soon(Begin { file: Arc::clone(&self.file), from: self.begun, len }) {
            self.begun = self.end;
        }
    }
}

/// Returns when nobody holds a file any more that was finished before. Until then, whoever runs a program that was just
/// written may be told that it is being written ("text file busy").
pub(super) async fn let_go() {
    let (said, gone) = oneshot::channel();
    let ask = move || THREAD.as_ref().is_some_and(|to| to.send(Ask::Say(said)).is_ok());
    // An error is its end as well: then there is no thread that could hold any.
    if tokio::task::spawn_blocking(ask).await.unwrap_or_default() {
        let _ = gone.await;
    }
}

/// What the thread is asked.
enum Ask {
    Begin(Begin),
    /// To say that it came here.
    Say(oneshot::Sender<()>),
}

/// What is to be on its way to the disk.
struct Begin {
    file: Arc<File>,
    from: u64,
    len: NonZeroU64,
}

/// So many wait at most. What doesn't get its turn is begun with what comes after it, or waits for the sync at the end,
/// which is as right.
const WAITING: usize = 64;

/// A thread of its own, since the kernel has whoever asks wait where the disk is busy. There is one for the process, as
/// there mostly is one disk.
static THREAD: LazyLock<Option<SyncSender<Ask>>> = LazyLock::new(|| {
    let (to, all) = mpsc::sync_channel(WAITING);
    let work = move || {
        for ask in all {
            match ask {
                Ask::Begin(begin) => begin.now(),
                Ask::Say(to) => drop(to.send(())),
            }
        }
    };
    thread::Builder::new().name("early-writer".to_owned()).spawn(work).ok().map(|_| to)
});

/// Whether it's taken.
fn begin_soon(begin: Begin) -> bool {
    THREAD.as_ref().is_some_and(|to| to.try_send(Ask::Begin(begin)).is_ok())
}

impl Begin {
    /// Has the kernel begin with writing. "Don't need" does that without waiting for the end of it (Linux,
    /// `mm/fadvise.c`), and can't drop what is still under way: that stays cached, as the first to go when memory gets
    /// short, so that an image that is only fetched ahead pushes nothing out that is in use.
    fn now(self) {
        fadvise(&self.file, self.from, Some(self.len), Advice::DontNeed).ok();
    }
}

#[cfg(test)]
mod tests {
    use std::io::ErrorKind;
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::process::Command;

    use super::*;

    #[tokio::test]
    async fn a_program_that_was_just_written_can_be_run() {
        let home = tempfile::tempdir().unwrap();
        let program = std::fs::read("/bin/true").unwrap();
        for i in 0..50 {
            let path = home.path().join(i.to_string());
            let open = File::options().write(true).create_new(true).mode(0o755).open(&path).unwrap();
            let mut file = EarlyFile::new(open);
            file.write(0, &program).unwrap();
            // Long enough to be worth a call.
            file.write(program.len() as u64, &vec![0; 9 << 20]).unwrap();
            drop(file.finish());
            let_go().await;
            // Another test may have forked just now, and hold what was open then until it runs something.
            let busy = || match Command::new(&path).status() {
                Err(error) if error.kind() == ErrorKind::ExecutableFileBusy => true,
                status => !status.unwrap().success(),
            };
            assert!(!busy() || !busy());
        }
    }
}
