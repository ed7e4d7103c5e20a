//! Changing rows: many small transactions at once, each of which compares before it writes.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use tikv_client::transaction::{HeartbeatOption, Mutation};
use tikv_client::{CheckLevel, TransactionClient, TransactionOptions};
use tokio::time::Instant;

use crate::calls::Outcome;
use crate::faults::{Fault, Remedy};
use crate::reads::{read_at, waiting, Found, Sizes};

/// With so many bytes or more the crate cuts a transaction into several requests, and then it takes two phases.
const ONE_PHASE_BYTES: usize = 16 * 1024;
const AT_ONCE: usize = 8;
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(3);
const FIRST_PAUSE: Duration = Duration::from_millis(4);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// What is to become of one row.
pub struct Change {
    pub key: Vec<u8>,
    /// None = it is removed.
    pub value: Option<Vec<u8>>,
    /// What was there, for `Rule::Same`.
    pub found: Option<Vec<u8>>,
}

/// When a row is changed.
#[derive(Clone, Copy)]
pub enum Rule {
    /// The bytes of the value from `from` to before `to` are greater than those that are stored.
    Newer {
        from: usize,
        to: usize,
        or_equal: bool,
    },
    /// What is stored is what was found.
    Same,
    Always,
}

impl Rule {
    fn allows(self, change: &Change, stored: Option<&Vec<u8>>) -> bool {
        match self {
            Rule::Always => true,
            Rule::Same => change.found.as_ref() == stored,
            Rule::Newer { from, to, or_equal } => match (change.value.as_deref(), stored) {
                (Some(ours), Some(theirs)) => {
                    let (ours, theirs) = (part(ours, from, to), part(theirs, from, to));
                    ours > theirs || (or_equal && ours == theirs)
                }
                _ => true,
            },
        }
    }
}

fn part(value: &[u8], from: usize, to: usize) -> &[u8] {
    &value[from.min(value.len())..to.min(value.len())]
}

/// Change rows as the rule has it; ends soon after the deadline, with what it has done by then.
pub async fn change(
    client: &TransactionClient,
    changes: Vec<Change>,
    rule: Rule,
    deadline: Instant,
    sizes: &Sizes,
) -> Outcome {
    let stopped = AtomicBool::new(false);
    let stop = &stopped;
    let mut pieces = stream::iter(pieces(changes).into_iter().map(|piece| async move {
        if stop.load(Ordering::Relaxed) {
            return Ok(0);
        }
        change_piece(client, &piece, rule, deadline, sizes).await
    }))
    .buffer_unordered(AT_ONCE);
    let (mut changed, mut fault) = (0, None);
    while let Some(ended) = pieces.next().await {
        match ended {
            Ok(count) => changed += count,
            Err(Fault { said, .. }) => {
                stop.store(true, Ordering::Relaxed);
                fault.get_or_insert(said);
            }
        }
    }
    Outcome::Changed(changed, fault)
}

/// What one transaction changes: neighbours, as they tend to lie in one region, and few enough for one request.
fn pieces(mut changes: Vec<Change>) -> Vec<Vec<Change>> {
    changes.sort_by(|one, other| (&one.key, &one.value).cmp(&(&other.key, &other.value)));
    let mut all: Vec<Vec<Change>> = Vec::new();
    let mut bytes = 0;
    for change in changes {
        let more = change.key.len() + change.value.as_ref().map_or(0, Vec::len);
        match all.last_mut() {
            // Of two rows of one key, the one with the greater value.
            Some(piece) if piece.last().is_some_and(|last| last.key == change.key) => {
                piece.pop();
                piece.push(change);
            }
            Some(piece) if bytes + more < ONE_PHASE_BYTES => {
                piece.push(change);
                bytes += more;
            }
            _ => {
                all.push(vec![change]);
                bytes = more;
            }
        }
    }
    all
}

async fn change_piece(
    client: &TransactionClient,
    piece: &[Change],
    rule: Rule,
    deadline: Instant,
    sizes: &Sizes,
) -> Result<u64, Fault> {
    let (mut one_phase, mut pause) = (true, FIRST_PAUSE);
    loop {
        match attempt(client, piece, rule, one_phase, sizes).await {
            Err(fault) if fault.remedy == Remedy::TwoPhases => one_phase = false,
            Err(fault) if fault.remedy == Remedy::Again && Instant::now() + pause < deadline => {
                tokio::time::sleep(pause.mul_f64(between_a_half_and_one())).await;
                pause = LONGEST_PAUSE.min(pause * 2);
            }
            ended => return ended,
        }
    }
}

/// Two writers that met are not to meet again.
fn between_a_half_and_one() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    0.5 + 0.5 * (random as f64 / u64::MAX as f64)
}

/// One transaction: read, compare, write, commit.
async fn attempt(
    client: &TransactionClient,
    piece: &[Change],
    rule: Rule,
    one_phase: bool,
    sizes: &Sizes,
) -> Result<u64, Fault> {
    let mut transaction = client.begin_with_options(options(one_phase)).await?;
    let stored = match rule {
        Rule::Always => Found::new(),
        _ => {
            let keys = piece.iter().map(|change| change.key.clone()).collect();
            read_at(client, &transaction.start_timestamp(), keys, &waiting(), sizes).await?
        }
    };
    let mutations: Vec<Mutation> = piece
        .iter()
        .filter(|change| rule.allows(change, stored.get(&change.key)))
        .map(|change| match &change.value {
            Some(value) => Mutation::Put(change.key.clone().into(), value.clone()),
            None => Mutation::Delete(change.key.clone().into()),
        })
        .collect();
    if mutations.is_empty() {
        return Ok(0);
    }
    let count = mutations.len() as u64;
    transaction.batch_mutate(mutations).await?;
    match transaction.commit().await {
        Ok(_) => Ok(count),
        Err(error) => {
            // What it has locked is not to wait for the locks' time to run out.
            let _ = tokio::time::timeout(ROLLBACK_TIMEOUT, transaction.rollback()).await;
            Err(error.into())
        }
    }
}

/// No asynchronous commit: readers cannot finish one whose writer died (client-rust #528).
fn options(one_phase: bool) -> TransactionOptions {
    let options = TransactionOptions::new_optimistic()
        // A transaction that hangs is to lose its locks.
        .heartbeat_option(HeartbeatOption::NoHeartbeat)
        .drop_check(CheckLevel::None);
    match one_phase {
        true => options.try_one_pc(),
        false => options,
    }
}
