//! TiKV for oomstream: every call takes a whole batch, begins at once and returns a number. The work is done on
//! threads that never touch Python; the event loop watches a socket and fetches what has ended.

mod calls;
mod faults;
mod moments;
mod reads;
mod runtime;
mod scans;
mod writes;

use std::os::fd::RawFd;
use std::sync::Arc;
use std::time::Duration;

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;
use tikv_client::{Config, TransactionClient};
use tokio::time::Instant;

use calls::{Calls, IfLeft, Left, Outcome};
use moments::Moments;
use reads::{Found, Sizes};
use runtime::Slot;
use scans::Reach;
use writes::{Change, Rule, Until};

/// The largest answer that is taken; what is asked for aims at far less.
const MOST_ANSWER_BYTES: usize = 64 << 20;

type Rows = Vec<(PyBackedBytes, PyBackedBytes)>;
type Ended<'py> = (u64, Option<String>, Bound<'py, PyAny>);
type Changes = Vec<(PyBackedBytes, Option<PyBackedBytes>, Option<PyBackedBytes>)>;

/// A cluster and the calls to it.
#[pyclass(frozen, module = "oomstream_tikv")]
struct Driver {
    pd: Vec<String>,
    config: Config,
    calls: Arc<Calls>,
}

#[pymethods]
impl Driver {
    #[new]
    #[pyo3(signature = (pd, *, tls = None))]
    fn new(pd: Vec<String>, tls: Option<(String, String, String)>) -> PyResult<Self> {
        let mut config = Config::default().with_grpc_max_decoding_message_size(MOST_ANSWER_BYTES);
        if let Some((ca, certificate, key)) = tls {
            config = config.with_security(ca, certificate, key);
        }
        let calls = Calls::new().map_err(|error| PyOSError::new_err(error.to_string()))?;
        Ok(Driver { pd, config, calls: Arc::new(calls) })
    }

    fn fileno(&self) -> RawFd {
        self.calls.fd()
    }

    fn connect(&self, timeout_s: f64) -> PyResult<u64> {
        let (pd, config) = (self.pd.clone(), self.config.clone());
        Ok(self.calls.start(seconds(timeout_s)?, IfLeft::Stop, async move {
            Ok(Outcome::Connected(TransactionClient::new_with_config(pd, config).await?))
        }))
    }

    fn leave(&self, call: u64) {
        self.calls.leave(call);
    }

    /// (number, what went wrong or None, result) of the calls that have ended since the last time.
    fn ended<'py>(&self, py: Python<'py>) -> PyResult<Vec<Ended<'py>>> {
        let told = |(number, outcome)| match outcome {
            Outcome::Failed(said) => Ok((number, Some(said), py.None().into_bound(py))),
            other => Ok((number, None, self.result(py, other)?)),
        };
        self.calls.ended().into_iter().map(told).collect()
    }
}

impl Driver {
    fn result<'py>(&self, py: Python<'py>, outcome: Outcome) -> PyResult<Bound<'py, PyAny>> {
        match outcome {
            Outcome::Connected(client) => {
                let session = Session {
                    slot: runtime::slot(client),
                    calls: self.calls.clone(),
                    sizes: Arc::default(),
                    moments: Arc::default(),
                    reach: Arc::default(),
                };
                Ok(Bound::new(py, session)?.into_any())
            }
            Outcome::Values(values, age_us) => {
                let values: Vec<_> = values.iter().map(|each| each.as_ref().map(|v| PyBytes::new(py, v))).collect();
                (values, age_us).into_pyobject(py).map(Bound::into_any)
            }
            Outcome::Rows(rows) => {
                let pair = |(key, value): &(Vec<u8>, Vec<u8>)| (PyBytes::new(py, key), PyBytes::new(py, value));
                rows.iter().map(pair).collect::<Vec<_>>().into_pyobject(py)
            }
            Outcome::Changed(count, fault) => (count, fault).into_pyobject(py).map(Bound::into_any),
            Outcome::Moved(moved) => Ok(moved.into_pyobject(py)?.to_owned().into_any()),
            Outcome::Failed(said) => Err(PyRuntimeError::new_err(said)),
        }
    }
}

/// A connection to the cluster; calls through it end on the driver's socket.
#[pyclass(frozen, module = "oomstream_tikv")]
struct Session {
    slot: Arc<Slot>,
    calls: Arc<Calls>,
    sizes: Arc<Sizes>,
    moments: Arc<Moments>,
    reach: Arc<Reach>,
}

#[pymethods]
impl Session {
    fn read(&self, keys: Vec<PyBackedBytes>, timeout_s: f64) -> PyResult<u64> {
        let (client, sizes, keys) = (self.client()?, self.sizes.clone(), owned(&keys));
        Ok(self.calls.start(seconds(timeout_s)?, IfLeft::Stop, async move {
            let now = client.current_timestamp().await?;
            let found = reads::read_at(&client, &now, distinct(&keys), &reads::waiting(), &sizes).await?;
            Ok(in_order(&keys, &found, 0))
        }))
    }

    fn read_aged(&self, keys: Vec<PyBackedBytes>, max_age_s: f64, timeout_s: f64) -> PyResult<u64> {
        let (client, sizes, keys) = (self.client()?, self.sizes.clone(), owned(&keys));
        let (moments, max_age) = (self.moments.clone(), seconds(max_age_s)?);
        Ok(self.calls.start(seconds(timeout_s)?, IfLeft::Stop, async move {
            let (moment, age) = moments.now_or_before(&client, max_age).await?;
            let (found, older_us) = reads::read_aged(&client, moment, distinct(&keys), &sizes).await?;
            Ok(in_order(&keys, &found, age.as_micros() as u64 + older_us))
        }))
    }

    fn scan(&self, start: &[u8], end: &[u8], limit: usize, timeout_s: f64) -> PyResult<u64> {
        let (client, sizes, reach) = (self.client()?, self.sizes.clone(), self.reach.clone());
        let (start, end) = (start.to_vec(), end.to_vec());
        Ok(self.calls.start(seconds(timeout_s)?, IfLeft::Stop, async move {
            Ok(Outcome::Rows(scans::scan(&client, start, end, limit, &sizes, &reach).await?))
        }))
    }

    fn upsert_newer(&self, rows: Rows, version: (usize, usize), or_equal: bool, timeout_s: f64) -> PyResult<u64> {
        let change = |(key, value): (PyBackedBytes, PyBackedBytes)| Change {
            key: key.to_vec(),
            value: Some(value.to_vec()),
            found: None,
        };
        let rule = Rule::Newer { from: version.0, to: version.1.max(version.0), or_equal };
        self.change(rows.into_iter().map(change).collect(), rule, timeout_s)
    }

    fn replace(&self, changes: Changes, timeout_s: f64) -> PyResult<u64> {
        let copied = |bytes: Option<PyBackedBytes>| bytes.map(|each| each.to_vec());
        let change = |(key, found, value): (PyBackedBytes, _, _)| Change {
            key: key.to_vec(),
            value: copied(value),
            found: copied(found),
        };
        self.change(changes.into_iter().map(change).collect(), Rule::Same, timeout_s)
    }

    fn delete(&self, keys: Vec<PyBackedBytes>, timeout_s: f64) -> PyResult<u64> {
        let change = |key| Change { key, value: None, found: None };
        self.change(owned(&keys).into_iter().map(change).collect(), Rule::Always, timeout_s)
    }

    fn gc(&self, age_s: f64, timeout_s: f64) -> PyResult<u64> {
        let (client, age) = (self.client()?, seconds(age_s)?);
        Ok(self.calls.start(seconds(timeout_s)?, IfLeft::Tell(Left::default()), async move {
            Ok(Outcome::Moved(reads::gc(&client, age).await?))
        }))
    }
}

impl Session {
    fn client(&self) -> PyResult<TransactionClient> {
        let client = self.slot.lock().unwrap().clone();
        client.ok_or_else(|| PyRuntimeError::new_err("the process is ending"))
    }

    fn change(&self, changes: Vec<Change>, rule: Rule, timeout_s: f64) -> PyResult<u64> {
        let (client, sizes, timeout) = (self.client()?, self.sizes.clone(), seconds(timeout_s)?);
        let until = Until { deadline: Instant::now() + timeout, left: Left::default() };
        Ok(self.calls.start(timeout, IfLeft::Tell(until.left.clone()), async move {
            Ok(writes::change(&client, changes, rule, &until, &sizes).await)
        }))
    }
}

/// Wait for everything under way at the end of the process; whether all of it has ended.
#[pyfunction]
fn finish(py: Python<'_>, timeout_s: f64) -> PyResult<bool> {
    let timeout = seconds(timeout_s)?;
    Ok(py.detach(|| runtime::finish(timeout)))
}

fn seconds(value: f64) -> PyResult<Duration> {
    Duration::try_from_secs_f64(value).map_err(|_| PyValueError::new_err("seconds must be a number, not below 0"))
}

fn owned(keys: &[PyBackedBytes]) -> Vec<Vec<u8>> {
    keys.iter().map(|key| key.to_vec()).collect()
}

fn distinct(keys: &[Vec<u8>]) -> Vec<Vec<u8>> {
    let mut sorted = keys.to_vec();
    sorted.sort();
    sorted.dedup();
    sorted
}

fn in_order(keys: &[Vec<u8>], found: &Found, age_us: u64) -> Outcome {
    Outcome::Values(keys.iter().map(|key| found.get(key).cloned()).collect(), age_us)
}

#[pymodule]
fn oomstream_tikv(module: &Bound<'_, PyModule>) -> PyResult<()> {
    module.add_class::<Driver>()?;
    module.add_class::<Session>()?;
    module.add_function(wrap_pyfunction!(finish, module)?)
}
