//! Calls under way, and how Python hears of their end: through a socket that its event loop watches.

use std::collections::HashMap;
use std::future::Future;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, RawFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tikv_client::TransactionClient;
use tokio::task::AbortHandle;

use crate::faults::Fault;
use crate::runtime::runtime;

/// What a call has come to.
pub enum Outcome {
    Connected(TransactionClient),
    /// Value by the order of the keys, and for how many microseconds before now they were valid.
    Values(Vec<Option<Vec<u8>>>, u64),
    Rows(Vec<(Vec<u8>, Vec<u8>)>),
    /// How many rows were changed, and what kept the others from it.
    Changed(u64, Option<String>),
    Moved(bool),
    Failed(String),
}

/// Set when nobody waits for a call any more.
pub type Left = Arc<AtomicBool>;

/// What becomes of a call that nobody waits for any more.
pub enum IfLeft {
    Stop,
    /// It is told and ends by itself: a transaction that is dropped in the middle leaves locks behind.
    Tell(Left),
}

enum Rein {
    Abort(AbortHandle),
    Tell(Left),
}

pub struct Calls {
    next: AtomicU64,
    running: Mutex<HashMap<u64, Rein>>,
    done: Mutex<Vec<(u64, Outcome)>>,
    bell: UnixStream,
    ear: UnixStream,
}

impl Calls {
    pub fn new() -> std::io::Result<Self> {
        let (bell, ear) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        ear.set_nonblocking(true)?;
        Ok(Calls { next: AtomicU64::new(1), running: Mutex::default(), done: Mutex::default(), bell, ear })
    }

    /// The socket that becomes readable when a call has ended.
    pub fn fd(&self) -> RawFd {
        self.ear.as_raw_fd()
    }

    /// Begin a call; its number comes back with its outcome.
    pub fn start<F>(self: &Arc<Self>, timeout: Duration, if_left: IfLeft, work: F) -> u64
    where
        F: Future<Output = Result<Outcome, Fault>> + Send + 'static,
    {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let calls = self.clone();
        let work = runtime().spawn(work);
        let rein = match if_left {
            IfLeft::Stop => Rein::Abort(work.abort_handle()),
            IfLeft::Tell(left) => Rein::Tell(left),
        };
        self.running.lock().unwrap().insert(number, rein);
        runtime().spawn(async move {
            let outcome = match tokio::time::timeout(timeout, work).await {
                Ok(Ok(Ok(outcome))) => outcome,
                Ok(Ok(Err(fault))) => Outcome::Failed(fault.said),
                Ok(Err(_)) => Outcome::Failed("tikv-client: a task ended".to_string()),
                Err(_) => {
                    calls.leave(number);
                    Outcome::Failed(Fault::no_answer().said)
                }
            };
            calls.end(number, outcome);
        });
        number
    }

    fn end(&self, number: u64, outcome: Outcome) {
        self.running.lock().unwrap().remove(&number);
        let mut done = self.done.lock().unwrap();
        done.push((number, outcome));
        if done.len() == 1 {
            // A full socket has rung already, and one whose other end is gone has nobody to wake.
            let _ = (&self.bell).write(&[1]);
        }
    }

    /// Nobody waits for this call any more.
    pub fn leave(&self, number: u64) {
        match self.running.lock().unwrap().get(&number) {
            Some(Rein::Abort(work)) => work.abort(),
            Some(Rein::Tell(left)) => left.store(true, Ordering::SeqCst),
            None => (),
        }
    }

    /// The calls that have ended since the last time.
    pub fn ended(&self) -> Vec<(u64, Outcome)> {
        let mut heard = [0; 64];
        while matches!((&self.ear).read(&mut heard), Ok(count) if count == heard.len()) {}
        std::mem::take(&mut *self.done.lock().unwrap())
    }
}
