//! What the crate's errors say, in words that `oomstream.stores.tikv.troubles` knows and that hold no key or value.

use tikv_client::{Error, ProtoKeyError, ProtoRegionError};

/// A call that ran into its deadline.
pub const NO_ANSWER: &str = "no answer in time";

/// What to do about an error before the caller hears of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remedy {
    /// Another transaction was in the way: read and compare again.
    Again,
    /// One-phase commit was declined: commit in two phases.
    TwoPhases,
    /// The answer was too large: ask for less.
    Halve,
    /// Nothing that can be done here.
    Tell,
}

/// An error without what it is about.
#[derive(Debug)]
pub struct Fault {
    pub said: String,
    pub remedy: Remedy,
}

impl Fault {
    pub fn new(said: impl Into<String>, remedy: Remedy) -> Self {
        Fault { said: said.into(), remedy }
    }

    pub fn no_answer() -> Self {
        Fault::new(NO_ANSWER, Remedy::Tell)
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        match error {
            Error::KeyError(key) => of_key(&key),
            Error::RegionError(region) => of_region(&region),
            Error::ResolveLockError(_) => Fault::new("Failed to resolve lock", Remedy::Again),
            Error::OnePcFailure => Fault::new("one-phase commit was declined", Remedy::TwoPhases),
            Error::UndeterminedError(inner) => match Fault::from(*inner) {
                // Whether it is committed, the next comparison tells.
                Fault { remedy: Remedy::Again, .. } => Fault::new("undetermined", Remedy::Again),
                fault => fault,
            },
            Error::ExtractedErrors(all) | Error::MultipleKeyErrors(all) => of_several(all),
            Error::PessimisticLockError { inner, .. } => Fault::from(*inner),
            Error::LeaderNotFound { .. } => Fault::new("Leader of region is not found", Remedy::Tell),
            Error::RegionForKeyNotFound { .. }
            | Error::RegionForRangeNotFound { .. }
            | Error::RegionNotFoundInResponse { .. }
            | Error::EntryNotFoundInRegionCache
            | Error::NoCurrentRegions => Fault::new("Region error", Remedy::Tell),
            Error::TxnNotFound(_) => Fault::new("key error", Remedy::Again),
            Error::Channel(_) => Fault::new("TSO stream terminated", Remedy::Tell),
            Error::GrpcAPI(status) => of_status(status.to_string()),
            Error::Grpc(_) | Error::InternalError { .. } | Error::Io(_) => {
                Fault::new(with_causes(&error), Remedy::Tell)
            }
            other => Fault::new(variant(&other), Remedy::Tell),
        }
    }
}

fn of_key(error: &ProtoKeyError) -> Fault {
    let said = if error.conflict.is_some() {
        "WriteConflict"
    } else if error.locked.is_some() {
        "Failed to resolve lock"
    } else {
        "key error"
    };
    Fault::new(said, Remedy::Again)
}

fn of_region(error: &ProtoRegionError) -> Fault {
    let said = if error.raft_entry_too_large.is_some() {
        "raft entry is too large"
    } else if error.disk_full.is_some() {
        "disk_full: Some"
    } else if error.server_is_busy.is_some() {
        "server_is_busy: Some"
    } else {
        "Region error"
    };
    Fault::new(said, Remedy::Tell)
}

/// Of several errors the one that trying again does not mend.
fn of_several(errors: Vec<Error>) -> Fault {
    let mut faults: Vec<Fault> = errors.into_iter().map(Fault::from).collect();
    let worst = faults.iter().position(|fault| fault.remedy != Remedy::Again).unwrap_or(0);
    match faults.is_empty() {
        true => Fault::new("key error", Remedy::Again),
        false => faults.swap_remove(worst),
    }
}

/// gRPC's status; its text is the server's or tonic's and tells of connections, never of rows.
fn of_status(said: String) -> Fault {
    let too_large = said.contains("message length too large") || said.contains("message larger than max");
    match too_large {
        true => Fault::new("message length too large", Remedy::Halve),
        false => Fault::new(format!("gRPC api error: {said}"), Remedy::Tell),
    }
}

fn with_causes(error: &Error) -> String {
    let mut said = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        said = format!("{said}: {inner}");
        cause = inner.source();
    }
    said
}

/// The name of an error's kind alone, as the rest of its text may hold anything.
fn variant(error: &Error) -> String {
    let text = format!("{error:?}");
    let name: String = text.chars().take_while(|letter| letter.is_ascii_alphanumeric()).collect();
    format!("tikv-client: {name}")
}
