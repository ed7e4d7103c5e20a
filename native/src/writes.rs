//! Changing rows: many small transactions at once, each of which compares before it writes.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::stream::{self, StreamExt};
use tikv_client::transaction::{HeartbeatOption, Mutation};
use tikv_client::{CheckLevel, Transaction, TransactionClient, TransactionOptions};
use tokio::time::{timeout, timeout_at, Instant};

use crate::calls::{Left, Outcome};
use crate::faults::{Fault, Remedy};
use crate::reads::{read_at, waiting, Found, Sizes};

/// With so many bytes or more the crate cuts a transaction into several requests, and then it takes two phases.
const ONE_PHASE_BYTES: usize = 16 * 1024;
const AT_ONCE: usize = 8;
const ROLLBACK_TIMEOUT: Duration = Duration::from_secs(3);

/// Longer than the crate goes on trying where servers do not answer; only PD's timestamps can take it longer.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
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

impl Change {
    fn size(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, Vec::len)
    }
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

/// For how long transactions are begun.
///
/// One that began later could undo what its caller has written since it gave up. One that began before cannot: it meets
/// a conflict there.
pub struct Until {
    pub deadline: Instant,
    pub left: Left,
}

impl Until {
    fn is_over(&self) -> bool {
        self.left.load(Ordering::SeqCst) || Instant::now() >= self.deadline
    }
}

/// Change rows as the rule has it. Commits that are under way when time is up go on to their end.
pub async fn change(
    client: &TransactionClient,
    changes: Vec<Change>,
    rule: Rule,
    until: &Until,
    sizes: &Sizes,
) -> Outcome {
    let stopped = AtomicBool::new(false);
    let stop = &stopped;
    let mut pieces = stream::iter(pieces(changes).into_iter().map(|piece| async move {
        if stop.load(Ordering::Relaxed) {
            return Ok(0);
        }
        change_piece(client, &piece, rule, until, sizes).await
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
        let more = change.size();
        match all.last_mut() {
            // Of two rows of one key, the one with the greater value.
            Some(piece) if piece.last().is_some_and(|last| last.key == change.key) => {
                let lesser = piece.pop().map_or(0, |last| last.size());
                bytes = bytes - lesser + more;
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
    until: &Until,
    sizes: &Sizes,
) -> Result<u64, Fault> {
    let (mut one_phase, mut pause) = (true, FIRST_PAUSE);
    loop {
        match attempt(client, piece, rule, until, one_phase, sizes).await {
            Err(fault) if fault.remedy == Remedy::TwoPhases => one_phase = false,
            Err(fault) if fault.remedy == Remedy::Again && Instant::now() + pause < until.deadline => {
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
    until: &Until,
    one_phase: bool,
    sizes: &Sizes,
) -> Result<u64, Fault> {
    // Nothing is locked yet, so that this may be dropped in the middle.
    let begun = timeout_at(until.deadline, begin(client, piece, rule, one_phase, sizes)).await;
    let (mut transaction, stored) = begun.unwrap_or_else(|_| Err(Fault::no_answer()))?;
    if until.is_over() {
        return Err(Fault::no_answer());
    }
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
    let fault = match timeout(COMMIT_TIMEOUT, transaction.commit()).await {
        Ok(Ok(_)) => return Ok(count),
        Ok(Err(error)) => error.into(),
        Err(_) => Fault::no_answer(),
    };
    // What it has locked is not to wait for the locks' time to run out. If it is committed and only its answer was
    // lost, this may undo rows of it other than the first; each row stands alone, and who tries again writes them.
    let _ = timeout(ROLLBACK_TIMEOUT, transaction.rollback()).await;
    Err(fault)
}

/// A transaction, and what it finds stored.
async fn begin(
    client: &TransactionClient,
    piece: &[Change],
    rule: Rule,
    one_phase: bool,
    sizes: &Sizes,
) -> Result<(Transaction, Found), Fault> {
    let transaction = client.begin_with_options(options(one_phase)).await?;
    let stored = match rule {
        Rule::Always => Found::new(),
        _ => {
            let keys = piece.iter().map(|change| change.key.clone()).collect();
            read_at(client, &transaction.start_timestamp(), keys, &waiting(), sizes).await?
        }
    };
    Ok((transaction, stored))
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
