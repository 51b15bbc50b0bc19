//! Waiting that always ends, and says what it waited for.

use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use super::error::{LabError, Result};

/// Pause between two looks. Short against everything that is waited for, long enough to leave the processor to others.
const PAUSE: Duration = Duration::from_millis(25);

/// Names by how much all waits are to be longer: what runs on an emulated machine takes its time.
pub const SLOW: &str = "RSIP_LAB_SLOW";

/// A limit, longer where [`SLOW`] says so.
#[must_use]
pub fn limit(limit: Duration) -> Duration {
    static FACTOR: LazyLock<u32> =
        LazyLock::new(|| std::env::var(SLOW).ok().and_then(|value| value.parse().ok()).unwrap_or(1));
    limit.saturating_mul(*FACTOR)
}

/// What one look has shown.
pub enum Look<T> {
    /// It is there.
    Ready(T),
    /// Not yet; what was seen instead.
    NotYet(String),
}

/// Looks until `look` says [`Look::Ready`], for `limit` at most ([`limit()`] of it). At least one look is taken.
///
/// # Errors
/// [`LabError::Timeout`] with the last thing seen; errors of `look` end the waiting at once.
pub fn until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Result<Look<T>>) -> Result<T> {
    let (start, limit) = (Instant::now(), self::limit(limit));
    loop {
        match look()? {
            Look::Ready(value) => return Ok(value),
            Look::NotYet(last) if start.elapsed() >= limit => {
                return Err(LabError::Timeout { what: what.to_owned(), waited: limit, last });
            }
            Look::NotYet(_) => thread::sleep(PAUSE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_what_was_seen_last_when_time_is_up() {
        let mut looks = 0;
        let error = until::<()>("the moon", Duration::from_millis(60), || {
            looks += 1;
            Ok(Look::NotYet(format!("cloud {looks}")))
        })
        .unwrap_err();
        assert!(looks >= 2);
        assert_eq!(error.to_string(), format!("waited 60ms for the moon; last seen: cloud {looks}"));
    }

    #[test]
    fn gives_the_value_at_the_first_look_that_has_it() {
        let value = until("it", Duration::ZERO, || Ok(Look::Ready(7))).unwrap();
        assert_eq!(value, 7);
    }
}
