//! Reading the rows of one moment.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt, TryStreamExt};
use tikv_client::transaction::HeartbeatOption;
use tikv_client::{Backoff, CheckLevel, Error, RetryOptions, Timestamp, TimestampExt, TransactionClient};
use tikv_client::{Result, TransactionOptions};

use crate::faults::{Fault, Remedy};

/// Answers aim at so many bytes: TiKV itself sends no more than 10 MiB at once.
const AIM_BYTES: usize = 1 << 20;
const MOST_ROWS: usize = 256;
const FIRST_GUESS_BYTES: usize = 1 << 12;
const REQUESTS_AT_ONCE: usize = 8;

/// So long a read waits for locks to be resolved before it answers with what was there before them.
const LOCK_PATIENCE: Duration = Duration::from_millis(30);
const PHYSICAL_SHIFT: u32 = 18;

pub type Found = HashMap<Vec<u8>, Vec<u8>>;

/// Guesses from the answers so far for how many rows to ask at once.
pub struct Sizes(AtomicUsize);

impl Default for Sizes {
    fn default() -> Self {
        Sizes(AtomicUsize::new(FIRST_GUESS_BYTES))
    }
}

impl Sizes {
    pub fn rows(&self) -> usize {
        (AIM_BYTES / self.0.load(Ordering::Relaxed)).clamp(1, MOST_ROWS)
    }

    /// Larger rows count at once, smaller ones little by little.
    pub fn learn(&self, rows: usize, bytes: usize) {
        if let Some(seen) = bytes.checked_div(rows) {
            let guess = self.0.load(Ordering::Relaxed);
            self.0.store(seen.max(guess - guess / 8 + seen / 8).max(1), Ordering::Relaxed);
        }
    }

    pub fn too_many(&self, rows: usize) {
        self.0.fetch_max(2 * AIM_BYTES / rows.max(1), Ordering::Relaxed);
    }
}

/// Options of a read: errors of regions are told soon, as a driver with a deadline stands behind it.
pub fn waiting() -> TransactionOptions {
    let retries = RetryOptions::new(Backoff::no_jitter_backoff(2, 100, 6), Backoff::no_jitter_backoff(2, 500, 10));
    TransactionOptions::new_optimistic()
        .retry_options(retries)
        .heartbeat_option(HeartbeatOption::NoHeartbeat)
        .drop_check(CheckLevel::None)
}

/// Values of the keys that exist at a timestamp.
pub async fn read_at(
    client: &TransactionClient,
    at: &Timestamp,
    keys: Vec<Vec<u8>>,
    options: &TransactionOptions,
    sizes: &Sizes,
) -> std::result::Result<Found, ReadError> {
    let pieces: Vec<Vec<Vec<u8>>> = keys.chunks(sizes.rows()).map(<[_]>::to_vec).collect();
    stream::iter(pieces.into_iter().map(|piece| read_piece(client, at, piece, options, sizes)))
        .buffer_unordered(REQUESTS_AT_ONCE)
        .try_fold(Found::new(), |mut all, piece| async move {
            all.extend(piece);
            Ok(all)
        })
        .await
}

async fn read_piece(
    client: &TransactionClient,
    at: &Timestamp,
    keys: Vec<Vec<u8>>,
    options: &TransactionOptions,
    sizes: &Sizes,
) -> std::result::Result<Found, ReadError> {
    let mut found = Found::new();
    let mut left = vec![keys];
    while let Some(mut keys) = left.pop() {
        let mut snapshot = client.snapshot(at.clone(), options.clone());
        match snapshot.batch_get(keys.clone()).await {
            Ok(pairs) => {
                let before = found.len();
                let mut bytes = 0;
                for pair in pairs {
                    bytes += pair.1.len();
                    found.insert(pair.0.into(), pair.1);
                }
                sizes.learn(found.len() - before, bytes);
            }
            Err(error) => match ReadError::from(error) {
                ReadError::Fault(fault) if fault.remedy == Remedy::Halve && keys.len() > 1 => {
                    sizes.too_many(keys.len());
                    let half = keys.split_off(keys.len() / 2);
                    left.extend([half, keys]);
                }
                other => return Err(other),
            },
        }
    }
    Ok(found)
}

/// Why a read has no answer.
pub enum ReadError {
    /// The oldest of the transactions that locked the rows began at this version.
    Locked(u64),
    Fault(Fault),
}

impl From<Error> for ReadError {
    fn from(error: Error) -> Self {
        match error {
            Error::ResolveLockError(locks) if !locks.is_empty() => {
                ReadError::Locked(locks.iter().map(|lock| lock.lock_version).min().unwrap_or(0))
            }
            other => ReadError::Fault(Fault::from(other)),
        }
    }
}

impl From<ReadError> for Fault {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Locked(_) => Fault::new("Failed to resolve lock", Remedy::Again),
            ReadError::Fault(fault) => fault,
        }
    }
}

/// Values of a moment or, where rows stay locked, of just before the oldest of the locks; and how much older that is.
///
/// Percolator: a lock does not concern a reader whose moment is before the transaction that set it.
pub async fn read_aged(
    client: &TransactionClient,
    now: Timestamp,
    keys: Vec<Vec<u8>>,
    sizes: &Sizes,
) -> std::result::Result<(Found, u64), Fault> {
    let at_once = waiting().no_resolve_locks();
    let mut locked = match read_at(client, &now, keys.clone(), &at_once, sizes).await {
        Ok(found) => return Ok((found, 0)),
        Err(ReadError::Locked(since)) => since,
        Err(error) => return Err(error.into()),
    };
    // Mostly they are those of a commit that is just about to end.
    let waiting = waiting();
    let patient = read_at(client, &now, keys.clone(), &waiting, sizes);
    if let Ok(Ok(found)) = tokio::time::timeout(LOCK_PATIENCE, patient).await {
        return Ok((found, 0));
    }
    loop {
        let at = Timestamp::from_version(locked.saturating_sub(1));
        match read_at(client, &at, keys.clone(), &at_once, sizes).await {
            // Never of now, even where the lock was set in the same millisecond.
            Ok(found) => return Ok((found, ((now.physical - at.physical).max(1) * 1000) as u64)),
            Err(ReadError::Locked(since)) if since < locked => locked = since,
            Err(error) => return Err(error.into()),
        }
    }
}

/// Move the safe point of garbage collection to so long ago; whether that moved it forwards.
pub async fn gc(client: &TransactionClient, age: Duration) -> Result<bool> {
    let now = client.current_timestamp().await?.version();
    let earlier = now.saturating_sub((age.as_millis() as u64) << PHYSICAL_SHIFT);
    client.gc(Timestamp::from_version(earlier)).await
}
