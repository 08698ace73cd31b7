//! Gathers the questions of several threads into one request: while a request is under way, what others ask waits and
//! then goes together.
//!
//! Knows no questions.

use std::collections::HashMap;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Questions of one sort, and their answers on the way back.
#[derive(Debug)]
pub(super) struct Gather<Q, A> {
    state: Mutex<State<Q, A>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<Q, A> {
    next: u64,
    /// Questions that no request has, each with its number and its weight.
    waiting: Vec<(u64, u64, Q)>,
    answers: HashMap<u64, A>,
    is_busy: bool,
}

impl<Q, A> Default for Gather<Q, A> {
    fn default() -> Self {
        let state = State { next: 0, waiting: Vec::new(), answers: HashMap::new(), is_busy: false };
        Gather { state: Mutex::new(state), changed: Condvar::new() }
    }
}

impl<Q, A> Gather<Q, A> {
    /// Asks a question of a weight, perhaps together with others: `request` gets at least one, and more while their
    /// weights sum up to no more than `at_most`. It returns their answers in order.
    pub(super) fn ask(&self, question: Q, weight: u64, at_most: u64, request: impl Fn(Vec<Q>) -> Vec<A>) -> A {
        let mut state = self.state();
        let number = state.next;
        state.next += 1;
        state.waiting.push((number, weight, question));
        loop {
            if let Some(answer) = state.answers.remove(&number) {
                return answer;
            }
            if state.is_busy {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            state.is_busy = true;
            let (numbers, questions): (Vec<u64>, Vec<Q>) = take(&mut state.waiting, at_most).into_iter().unzip();
            drop(state);
            let answers = request(questions);
            state = self.state();
            state.answers.extend(numbers.into_iter().zip(answers));
            state.is_busy = false;
            self.changed.notify_all();
        }
    }

    fn state(&self) -> MutexGuard<'_, State<Q, A>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes the oldest questions for one request.
fn take<Q>(waiting: &mut Vec<(u64, u64, Q)>, at_most: u64) -> Vec<(u64, Q)> {
    let mut sum = 0_u64;
    let fits = |(_, weight, _): &&(u64, u64, Q)| {
        sum = sum.saturating_add(*weight);
        sum <= at_most
    };
    let count = waiting.iter().take_while(fits).count().clamp(1, waiting.len().max(1));
    waiting.drain(..count.min(waiting.len())).map(|(number, _, question)| (number, question)).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::Duration;

    use super::*;

    #[test]
    fn each_question_gets_its_own_answer_and_many_share_a_request() {
        let (gather, requests) = (Gather::<u64, u64>::default(), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for asked in 0..64 {
                let (gather, requests) = (&gather, &requests);
                scope.spawn(move || {
                    let answer = gather.ask(asked, 1, 8, |questions| {
                        assert!((1..=8).contains(&questions.len()), "{questions:?}");
                        requests.fetch_add(1, Ordering::SeqCst);
                        std::thread::sleep(Duration::from_millis(5));
                        questions.into_iter().map(|question| question * 3).collect()
                    });
                    assert_eq!(answer, asked * 3);
                });
            }
        });
        let requests = requests.into_inner();
        assert!((8..64).contains(&requests), "{requests}");
    }

    #[test]
    fn a_request_holds_the_oldest_questions_that_fit() {
        let mut waiting = vec![(0, 5, 'a'), (1, 3, 'b'), (2, 3, 'c'), (3, 90, 'd'), (4, 1, 'e')];
        assert_eq!(take(&mut waiting, 8), [(0, 'a'), (1, 'b')]);
        assert_eq!(take(&mut waiting, 8), [(2, 'c')]);
        assert_eq!(take(&mut waiting, 8), [(3, 'd')], "one that is too heavy goes alone");
        assert_eq!(take(&mut waiting, 8), [(4, 'e')]);
        assert!(take::<char>(&mut Vec::new(), 8).is_empty());
    }
}
