//! Timestamps that several reads share, which saves each a round trip to PD.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tikv_client::{Result, Timestamp, TransactionClient};
use tokio::time::Instant;

/// The newest timestamp of one client, and when it was asked for: it gives the state of that time or a later one.
#[derive(Default)]
pub struct Moments {
    newest: Mutex<Option<(Instant, Timestamp)>>,
    asking: AtomicBool,
}

impl Moments {
    /// A timestamp of at most that age (zero = of now), and how old it is at most.
    pub async fn now_or_before(
        self: &Arc<Self>,
        client: &TransactionClient,
        max_age: Duration,
    ) -> Result<(Timestamp, Duration)> {
        if max_age.is_zero() {
            return Ok((client.current_timestamp().await?, Duration::ZERO));
        }
        let known = self.newest.lock().unwrap().clone();
        match known {
            Some((asked, timestamp)) if asked.elapsed() <= max_age => {
                // Soon enough that reads which follow each other closely never wait for one.
                if asked.elapsed() > max_age / 2 && !self.asking.swap(true, Ordering::Relaxed) {
                    let (moments, client) = (self.clone(), client.clone());
                    tokio::spawn(async move {
                        // If it fails, the next read asks again and is told.
                        let _ = moments.ask(&client).await;
                        moments.asking.store(false, Ordering::Relaxed);
                    });
                }
                Ok((timestamp, asked.elapsed()))
            }
            _ => Ok((self.ask(client).await?, Duration::ZERO)),
        }
    }

    async fn ask(&self, client: &TransactionClient) -> Result<Timestamp> {
        let asked = Instant::now();
        let timestamp = client.current_timestamp().await?;
        let mut newest = self.newest.lock().unwrap();
        if newest.as_ref().is_none_or(|(before, _)| *before < asked) {
            *newest = Some((asked, timestamp.clone()));
        }
        Ok(timestamp)
    }
}
