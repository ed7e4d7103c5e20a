//! The threads that everything runs on. None of them ever touches Python, so none is in the way of the interpreter's end.

use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::{Duration, Instant};

use tikv_client::TransactionClient;
use tokio::runtime::{Builder, Runtime};

const THREADS: usize = 2;
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// A client that can be taken away from all who hold it.
pub type Slot = Mutex<Option<TransactionClient>>;

/// With the number of the process that has its threads.
static RUNTIME: OnceLock<(u32, Runtime)> = OnceLock::new();
static SLOTS: Mutex<Vec<Weak<Slot>>> = Mutex::new(Vec::new());

pub fn runtime() -> &'static Runtime {
    let (_, runtime) = RUNTIME.get_or_init(|| {
        // A panic of the crate ends its task, which the caller is told; its text may hold keys and is not printed.
        std::panic::set_hook(Box::new(|_| ()));
        let threads = Builder::new_multi_thread()
            .worker_threads(THREADS)
            .thread_name("oomstream-tikv")
            .enable_all()
            .build()
            .expect("threads can be started");
        (std::process::id(), threads)
    });
    runtime
}

/// Hold a client so that `finish` can drop it.
pub fn slot(client: TransactionClient) -> Arc<Slot> {
    let slot = Arc::new(Mutex::new(Some(client)));
    let mut slots = SLOTS.lock().unwrap();
    slots.retain(|held| held.strong_count() > 0);
    slots.push(Arc::downgrade(&slot));
    slot
}

/// Drop all clients and wait until everything under way has ended: transactions, and the second halves of commits.
///
/// Returns whether it has. With the clients gone, connections end by themselves.
pub fn finish(timeout: Duration) -> bool {
    let Some((process, runtime)) = RUNTIME.get() else { return true };
    if *process != std::process::id() {
        return true; // A fork has none of the threads, and what they do is the parent's.
    }
    for slot in SLOTS.lock().unwrap().drain(..).filter_map(|held| held.upgrade()) {
        let client = slot.lock().unwrap().take();
        let _inside = runtime.enter();
        drop(client);
    }
    let end = Instant::now() + timeout;
    while runtime.metrics().num_alive_tasks() > 0 {
        if Instant::now() >= end {
            return false;
        }
        std::thread::sleep(LOOK_EVERY);
    }
    true
}
