//! The intervals of a controller: how often it looks, asks and submits.

use std::time::Duration;

use super::super::verdict::HEARTBEAT;

/// The intervals of a controller.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Shortest interval between two looks at the cache; it grows while nothing changes.
    pub look: Duration,
    /// Longest interval between two looks at the cache.
    pub longest_look: Duration,
    /// Interval between two questions to the site; it grows to four times that while the site is away.
    pub list: Duration,
    /// Shortest interval between two submissions.
    pub submit: Duration,
    /// How long a queue of ready instances stays long before agents are added.
    pub growth: Duration,
    /// How long a class gets no agents after one of them ended badly; twice that after the next.
    pub pause: Duration,
    /// Interval between two notes of an agent.
    pub heartbeat: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Pace {
            look: Duration::from_secs(1),
            longest_look: Duration::from_secs(15),
            list: Duration::from_secs(30),
            submit: Duration::from_secs(10),
            growth: Duration::from_secs(60),
            pause: Duration::from_secs(60),
            heartbeat: HEARTBEAT,
        }
    }
}

impl Pace {
    /// Returns the same, faster or slower. The heartbeat is the agents' own and stays.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        let scaled = |time: Duration| time.mul_f64(factor.clamp(0.001, 1000.0));
        Pace {
            look: scaled(self.look),
            longest_look: scaled(self.longest_look),
            list: scaled(self.list),
            submit: scaled(self.submit),
            growth: scaled(self.growth),
            pause: scaled(self.pause),
            heartbeat: self.heartbeat,
        }
    }
}
