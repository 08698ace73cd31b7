//! The clock that runs go by: the system's, or in tests one that a thread sets itself.

#[cfg(test)]
pub(crate) use settable::{now, set, since_start, wall};
#[cfg(not(test))]
pub(crate) use system::{now, wall};

#[cfg(not(test))]
mod system {
    use std::time::{Instant, SystemTime};

    /// Returns the time for intervals.
    #[inline]
    pub(crate) fn now() -> Instant {
        Instant::now()
    }

    /// Returns the time of day.
    #[inline]
    pub(crate) fn wall() -> SystemTime {
        SystemTime::now()
    }
}

#[cfg(test)]
mod settable {
    use std::cell::Cell;
    use std::sync::OnceLock;
    use std::time::{Duration, Instant, SystemTime};

    thread_local! {
        static SET: Cell<Option<Duration>> = const { Cell::new(None) };
    }

    fn start() -> (Instant, SystemTime) {
        static START: OnceLock<(Instant, SystemTime)> = OnceLock::new();
        *START.get_or_init(|| (Instant::now(), SystemTime::now()))
    }

    pub(crate) fn now() -> Instant {
        SET.get().map_or_else(Instant::now, |since| start().0 + since)
    }

    pub(crate) fn wall() -> SystemTime {
        SET.get().map_or_else(SystemTime::now, |since| start().1 + since)
    }

    /// Returns the time since that start.
    pub(crate) fn since_start(at: Instant) -> Duration {
        at.saturating_duration_since(start().0)
    }

    /// Sets the clock of this thread to a time since a start that is the same for the process.
    pub(crate) fn set(since: Duration) {
        SET.set(Some(since));
    }
}
