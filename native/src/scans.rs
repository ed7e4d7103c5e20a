//! Reading ranges of rows of one moment, a part of the range at a time.
//!
//! The crate asks every region of a range at once, each for as many rows as are wanted in all: of a hundred regions
//! ninety-nine answers would be thrown away. So no request reaches much farther than its rows.

use std::sync::Mutex;

use tikv_client::TransactionClient;

use crate::faults::{Fault, Remedy};
use crate::reads::{waiting, Sizes};

type Row = (Vec<u8>, Vec<u8>);

/// Where nothing is known of how far rows lie apart, so many are enough to learn it.
const FIRST_ROWS: usize = 16;

/// How far so many rows have reached: the difference of keys as fractions, big-endian.
#[derive(Default)]
pub struct Reach(Mutex<Option<(Vec<u8>, usize)>>);

impl Reach {
    fn learn(&self, rows: &[Row]) {
        let mut known = self.0.lock().unwrap();
        if rows.len() >= FIRST_ROWS || (known.is_none() && rows.len() > 1) {
            *known = Some((difference(&rows[rows.len() - 1].0, &rows[0].0), rows.len()));
        }
    }

    /// How many rows to ask for, and where to stop so that there are likely twice as many, or `2^more` times that.
    fn ahead(&self, start: &[u8], end: &[u8], rows: usize, more: usize) -> (usize, Vec<u8>) {
        match &*self.0.lock().unwrap() {
            None => (rows.min(FIRST_ROWS), end.to_vec()),
            Some((width, of)) => {
                let doublings = (2 * rows).div_ceil(*of).next_power_of_two().ilog2() as usize + more;
                let stop = beyond(start, width, doublings).filter(|stop| stop.as_slice() < end);
                (rows, stop.unwrap_or_else(|| end.to_vec()))
            }
        }
    }
}

fn byte(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at).copied().map_or(0, u16::from)
}

/// greater - lesser.
fn difference(greater: &[u8], lesser: &[u8]) -> Vec<u8> {
    let mut result = vec![0; greater.len().max(lesser.len())];
    let mut borrowed = 0;
    for at in (0..result.len()).rev() {
        let left = 0x100 + byte(greater, at) - byte(lesser, at) - borrowed;
        result[at] = left as u8;
        borrowed = u16::from(left < 0x100);
    }
    result
}

/// key + width * 2^doublings; None if no key is that great.
fn beyond(key: &[u8], width: &[u8], doublings: usize) -> Option<Vec<u8>> {
    let (bytes, bits) = (doublings / 8, doublings % 8);
    if width.iter().take(bytes).any(|each| *each != 0) || byte(width, bytes) << bits > 0xff {
        return None;
    }
    let mut sum = vec![0; key.len().max(width.len())];
    let mut carried = 0;
    for at in (0..sum.len()).rev() {
        let shifted = ((byte(width, at + bytes) << bits) | ((byte(width, at + bytes + 1) << bits) >> 8)) & 0xff;
        let total = byte(key, at) + shifted + carried;
        sum[at] = total as u8;
        carried = total >> 8;
    }
    (carried == 0).then_some(sum)
}

/// The first rows of a range at one moment, in key order.
pub async fn scan(
    client: &TransactionClient,
    mut start: Vec<u8>,
    end: Vec<u8>,
    limit: usize,
    sizes: &Sizes,
    reach: &Reach,
) -> Result<Vec<Row>, Fault> {
    let now = client.current_timestamp().await?;
    let mut rows: Vec<Row> = Vec::new();
    let (mut more, mut growth) = (0, 4);
    while rows.len() < limit && start < end {
        let (step, stop) = reach.ahead(&start, &end, sizes.rows().min(limit - rows.len()), more);
        let mut snapshot = client.snapshot(now.clone(), waiting());
        let page = match snapshot.scan(start.clone()..stop.clone(), step as u32).await.map_err(Fault::from) {
            Ok(pairs) => pairs.map(|pair| (pair.0.into(), pair.1)).collect::<Vec<Row>>(),
            Err(fault) if fault.remedy == Remedy::Halve && step > 1 => {
                sizes.too_many(step);
                continue;
            }
            Err(fault) => return Err(fault),
        };
        sizes.learn(page.len(), page.iter().map(|(key, value)| key.len() + value.len()).sum());
        match page.last() {
            Some((key, _)) if page.len() == step => {
                start = [key.as_slice(), &[0]].concat();
                reach.learn(&page);
                (more, growth) = (0, 4);
            }
            _ => {
                start = stop;
                if page.len() * 8 >= step {
                    more += 1;
                } else {
                    // A gap: always twice as far would take as many requests as the gap has bits.
                    more += growth;
                    growth *= 4;
                }
            }
        }
        rows.extend(page);
    }
    Ok(rows)
}
