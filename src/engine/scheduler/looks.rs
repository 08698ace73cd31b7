//! When a run that shares a graph looks at what the others did.
//!
//! A run that has work needs little of others: a look now and then spares it claims of what is done, and tells of a
//! cancellation. One that has none needs their results, and looks often at first, then ever more rarely.

use std::time::{Duration, Instant};

/// Shortest and longest pause between two looks of a run without work. One with work always takes the longest.
const SHORTEST_PAUSE: Duration = Duration::from_millis(300);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// Pause after which a run with work looks at one file: whether it is cancelled. News take a dozen operations.
const CANCEL_PAUSE: Duration = Duration::from_secs(10);

/// Number of files of others that one look may open. A look after a long pause opens one.
const MOST_LOOKS: usize = 16;

/// What a run looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Whether it is cancelled, and nothing else.
    Cancellation,
    /// What others did.
    News,
}

/// When a run looks at what the others did, and how closely.
#[derive(Debug)]
pub(super) struct Looks {
    /// Whether stages of its own take all that it has.
    has_work: bool,
    last: Option<Instant>,
    last_news: Option<Instant>,
    pause: Duration,
    /// When the next look is due, if it has no work.
    next: Instant,
    /// Files that may still be opened until the next look.
    left: usize,
    rounds: u64,
}

impl Looks {
    pub(super) fn new(now: Instant) -> Self {
        let (last, last_news) = (None, None);
        Looks { has_work: false, last, last_news, pause: SHORTEST_PAUSE, next: now, left: MOST_LOOKS, rounds: 0 }
    }

    /// Returns what it is time to look at, if anything; the next pause is longer then.
    pub(super) fn due(&mut self, now: Instant) -> Option<Look> {
        if now < self.next() {
            return None;
        }
        self.last = Some(now);
        if self.has_work && self.last_news.is_some_and(|last| now < last + LONGEST_PAUSE) {
            return Some(Look::Cancellation);
        }
        self.last_news = Some(now);
        self.rounds += 1;
        if self.has_work {
            self.left = MOST_LOOKS;
        } else {
            (self.left, self.next) = (if self.is_rare() { 1 } else { MOST_LOOKS }, now + self.pause);
            self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        }
        Some(Look::News)
    }

    /// Returns when the next look is due.
    pub(super) fn next(&self) -> Instant {
        self.last.filter(|_| self.has_work).map_or(self.next, |last| last + CANCEL_PAUSE)
    }

    /// Notes whether stages of its own take all that the run has. When they do no longer, what others did counts.
    pub(super) fn note_work(&mut self, has_work: bool, now: Instant) {
        if self.has_work && !has_work {
            self.quicken(now);
        }
        self.has_work = has_work;
    }

    /// Whether stages of its own take all that the run has.
    pub(super) fn has_work(&self) -> bool {
        self.has_work
    }

    /// Whether the run has no work and nothing has happened for long: then every operation counts.
    pub(super) fn is_rare(&self) -> bool {
        !self.has_work && self.pause >= LONGEST_PAUSE
    }

    /// Whether this look is one of every other.
    pub(super) fn is_odd(&self) -> bool {
        self.rounds % 2 == 1
    }

    /// Uses up one look at a file; `false` if none is left.
    pub(super) fn take(&mut self) -> bool {
        let has = self.left > 0;
        self.left -= usize::from(has);
        has
    }

    /// Returns how many files may still be opened.
    pub(super) fn left(&self) -> usize {
        self.left
    }

    /// Allows as many files to be opened as after a short pause.
    pub(super) fn refill(&mut self) {
        self.left = MOST_LOOKS;
    }

    /// Notes that something happened: more may follow soon.
    pub(super) fn quicken(&mut self, now: Instant) {
        (self.pause, self.left) = (SHORTEST_PAUSE, MOST_LOOKS);
        self.next = self.next.min(now + SHORTEST_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The times of looks at news, in tenths of seconds.
    fn times(looks: &mut Looks, start: Instant, tenths: std::ops::Range<u64>) -> Vec<u64> {
        let is_due = |tenth: &u64| looks.due(start + Duration::from_millis(100 * tenth)) == Some(Look::News);
        tenths.filter(is_due).collect()
    }

    #[test]
    fn looks_become_rare_and_cheap_and_quicken_when_something_happens() {
        let start = Instant::now();
        let mut looks = Looks::new(start);
        let times = times(&mut looks, start, 0..6_000);
        assert_eq!(times[..5], [0, 3, 9, 21, 45]);
        let late: Vec<u64> = times.windows(2).map(|pair| pair[1] - pair[0]).skip(7).collect();
        assert!(late.len() > 15 && late.iter().all(|gap| *gap == 300), "{times:?}");
        assert!(looks.take() && !looks.take(), "one file a look");
        let now = start + Duration::from_secs(600);
        looks.quicken(now);
        assert_eq!(looks.left(), MOST_LOOKS);
        assert_eq!(looks.due(now + SHORTEST_PAUSE), Some(Look::News));
        assert!(!looks.is_rare());
    }

    #[test]
    fn a_run_with_work_looks_rarely_whatever_it_hears_and_often_once_it_has_none() {
        let start = Instant::now();
        let mut looks = Looks::new(start);
        assert_eq!(looks.due(start), Some(Look::News), "the first look is before any work");
        looks.note_work(true, start);
        looks.quicken(start);
        assert_eq!(times(&mut looks, start, 0..650), [300, 600]);
        assert!(!looks.is_rare(), "it may not miss a cancellation");
        let after = |seconds| start + Duration::from_secs(seconds);
        let all: Vec<_> = (65..95).filter_map(|second| Some((second, looks.due(after(second))?))).collect();
        assert_eq!(all, [(70, Look::Cancellation), (80, Look::Cancellation), (90, Look::News)]);
        looks.note_work(false, after(95));
        assert_eq!(times(&mut looks, start, 950..1000), [950, 953, 959, 971, 995]);
        // A moment of work changes nothing.
        looks.note_work(true, after(100));
        looks.note_work(false, after(100));
        assert_eq!(times(&mut looks, start, 1000..1010), [1003, 1006]);
    }
}
