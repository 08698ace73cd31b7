//! A least speed of servers: one that sends a byte now and then is given up as one that is silent. It watches
//! connections, so that it holds for heads, bodies and what frames them alike, and bodies once more by themselves,
//! because what frames a byte may be six. Knows nothing of what is sent.

use std::io::{self, Read};
use std::time::{Duration, Instant};

use ureq::unversioned::resolver::DefaultResolver;
use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, DefaultConnector, NextTimeout, Transport};

/// Bytes a second that a server sends at least, over the time for which it may be silent. Cargo and git hold servers to
/// about as much.
pub const LEAST_SPEED: u64 = 10;

/// A server sent less than [`LEAST_SPEED`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("it sent {came} bytes in {} s, and is given up below {LEAST_SPEED} bytes a second", waited.as_secs())]
pub struct TooSlow {
    /// How much came.
    pub came: u64,
    /// In what time.
    pub waited: Duration,
}

/// The slowness of a server, if that is what an error tells.
pub(crate) fn slowness(error: &ureq::Error) -> Option<TooSlow> {
    match error {
        ureq::Error::Other(error) => error.downcast_ref::<TooSlow>().cloned(),
        _ => None,
    }
}

/// An agent with these settings that gives up servers which are slower over a time than they may be.
pub(crate) fn agent(config: ureq::config::Config, over: Duration) -> ureq::Agent {
    ureq::Agent::with_parts(config, DefaultConnector::default().chain(Paced(over)), DefaultResolver::default())
}

/// The body of an answer, given up with a [`TooSlow`] within it.
pub(crate) struct Body<R> {
    inner: R,
    pace: Pace,
}

impl<R> Body<R> {
    pub(crate) fn new(inner: R, over: Duration) -> Self {
        Body { inner, pace: Pace { begun: true, ..Pace::new(over) } }
    }
}

impl<R: Read> Read for Body<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let asked = Instant::now();
        let count = self.inner.read(buffer)?;
        // An end may come late.
        if count > 0 {
            let too_slow = |slow: TooSlow| io::Error::other(ureq::Error::Other(slow.into()));
            self.pace.note(asked.elapsed(), count as u64).map_err(too_slow)?;
        }
        Ok(count)
    }
}

/// The same for what comes otherwise than by HTTP.
#[cfg(feature = "reapi")]
pub(crate) fn paced<R: Read>(reader: R, patience: &super::Patience) -> impl Read + use<R> {
    Body::new(reader, patience.stall)
}

/// Has every connection watched.
#[derive(Debug)]
struct Paced(Duration);

impl<In: Transport> Connector<In> for Paced {
    type Out = Watched<In>;

    fn connect(&self, _: &ConnectionDetails, chained: Option<In>) -> Result<Option<Watched<In>>, ureq::Error> {
        Ok(chained.map(|inner| Watched { inner, pace: Pace::new(self.0) }))
    }
}

/// A connection that is watched.
#[derive(Debug)]
struct Watched<T> {
    inner: T,
    pace: Pace,
}

impl<T: Transport> Transport for Watched<T> {
    fn buffers(&mut self) -> &mut dyn Buffers {
        self.inner.buffers()
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        // Another question: until its answer begins, another limit holds.
        self.pace = Pace::new(self.pace.over);
        self.inner.transmit_output(amount, timeout)
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let (had, asked) = (self.inner.buffers().input().len(), Instant::now());
        let made_progress = self.inner.await_input(timeout)?;
        let came = self.inner.buffers().input().len().saturating_sub(had);
        self.pace.note(asked.elapsed(), came as u64).map_err(|slow| ureq::Error::Other(slow.into()))?;
        Ok(made_progress)
    }

    fn is_open(&mut self) -> bool {
        self.inner.is_open()
    }

    fn is_tls(&self) -> bool {
        self.inner.is_tls()
    }
}

/// How fast an answer comes. Only the time counts in which it is waited for: that a disk is slow is no fault of a
/// server.
#[derive(Debug)]
struct Pace {
    over: Duration,
    /// Whether the answer has begun.
    begun: bool,
    waited: Duration,
    came: u64,
}

impl Pace {
    fn new(over: Duration) -> Self {
        Pace { over, begun: false, waited: Duration::ZERO, came: 0 }
    }

    /// Takes note of bytes that were waited for; an error if too few came since the last look.
    fn note(&mut self, waited: Duration, came: u64) -> Result<(), TooSlow> {
        if self.begun {
            self.waited += waited;
        }
        self.begun = true;
        self.came += came;
        if self.waited < self.over {
            return Ok(());
        }
        let (came, waited) = (self.came, self.waited);
        if came.saturating_mul(1000) < u128::from(LEAST_SPEED).saturating_mul(waited.as_millis()) as u64 {
            return Err(TooSlow { came, waited });
        }
        (self.waited, self.came) = (Duration::ZERO, 0);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(over: u64, steps: impl IntoIterator<Item = (u64, u64)>) -> bool {
        let mut pace = Pace::new(Duration::from_secs(over));
        steps.into_iter().any(|(milliseconds, bytes)| pace.note(Duration::from_millis(milliseconds), bytes).is_err())
    }

    #[test]
    fn a_byte_each_half_second_is_too_slow_and_ten_a_second_are_not() {
        let dripping = |bytes| std::iter::repeat_n((500, bytes), 200);
        assert!(ended(30, dripping(1)) && ended(30, dripping(4)));
        assert!(!ended(30, dripping(5)) && !ended(30, dripping(100)));
        // What came fast before does not pay for what does not come now.
        assert!(ended(30, [(1, 1 << 30), (29_999, 10)].into_iter().chain(dripping(1))));
        assert!(!ended(30, [(29_000, 100), (1500, 54)]), "an answer that begins late is no slow one");
    }
}
