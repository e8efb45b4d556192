//! The places in front of the inference thread: one for a completion, a queue for tasks.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Holds one waiting completion, of which a newer one takes the place, and the tasks that wait, in
/// their order.
///
/// Law (exactly one answer): whoever is replaced is handed back to be dropped, and dropping a job
/// drops its reply, which the one who waits for it sees.
#[derive(Debug)]
pub struct Mailbox<C, T> {
    state: Mutex<State<C, T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<C, T> {
    completion: Option<C>,
    tasks: VecDeque<T>,
    closed: bool,
}

/// What the inference thread shall do next.
#[derive(Debug, PartialEq, Eq)]
pub enum Next<C, T> {
    /// This, before anything else.
    Completion(C),
    /// Begin this.
    Task(T),
    /// Go on with what it does.
    GoOn,
    /// End: the mailbox is closed.
    End,
}

impl<C, T> Default for Mailbox<C, T> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                completion: None,
                tasks: VecDeque::new(),
                closed: false,
            }),
            changed: Condvar::new(),
        }
    }
}

impl<C, T> Mailbox<C, T> {
    /// Puts a completion in, and answers the one that will not run: the one it replaces, or itself
    /// if nobody takes any more.
    pub fn put(&self, completion: C) -> Option<C> {
        let mut state = self.lock();
        if state.closed {
            return Some(completion);
        }
        let replaced = state.completion.replace(completion);
        self.changed.notify_one();
        replaced
    }

    /// Puts a task behind those that wait, and answers it if nobody takes any more.
    pub fn put_task(&self, task: T) -> Option<T> {
        let mut state = self.lock();
        if state.closed {
            return Some(task);
        }
        state.tasks.push_back(task);
        self.changed.notify_one();
        None
    }

    /// What to do next. Who is `busy` with a task is answered at once, and with no other task; who is
    /// not waits until there is something.
    pub fn next(&self, busy: bool) -> Next<C, T> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Next::End;
            }
            if let Some(completion) = state.completion.take() {
                return Next::Completion(completion);
            }
            if busy {
                return Next::GoOn;
            }
            if let Some(task) = state.tasks.pop_front() {
                return Next::Task(task);
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the taking, and drops what waited.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        self.changed.notify_all();
        let waited = (state.completion.take(), std::mem::take(&mut state.tasks));
        drop(state);
        drop(waited);
    }

    /// Whether nothing is taken any more.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, State<C, T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_completion_waits_and_all_tasks() {
        let mailbox = Mailbox::default();
        assert_eq!(mailbox.put_task('a'), None);
        assert_eq!(mailbox.put_task('b'), None);
        assert_eq!(mailbox.put(1), None);
        assert_eq!(mailbox.put(2), Some(1));
        assert_eq!(mailbox.next(false), Next::Completion(2));
        assert_eq!(mailbox.next(true), Next::GoOn);
        assert_eq!(mailbox.next(false), Next::Task('a'));
        assert_eq!(mailbox.put(3), None);
        assert_eq!(mailbox.next(true), Next::Completion(3));
        mailbox.close();
        assert_eq!(mailbox.put(4), Some(4));
        assert_eq!(mailbox.put_task('c'), Some('c'));
        assert_eq!(mailbox.next(false), Next::End);
        assert_eq!(mailbox.next(true), Next::End);
    }

    #[test]
    fn a_taker_wakes_for_work_and_for_the_end() {
        let mailbox: Mailbox<i32, char> = Mailbox::default();
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| {
                [
                    mailbox.next(false),
                    mailbox.next(false),
                    mailbox.next(false),
                ]
            });
            mailbox.put(1);
            // A `next` may find its work there already or be woken by it.
            while mailbox.lock().completion.is_some() {
                std::thread::yield_now();
            }
            mailbox.put_task('a');
            while !mailbox.lock().tasks.is_empty() {
                std::thread::yield_now();
            }
            mailbox.close();
            let expected = [Next::Completion(1), Next::Task('a'), Next::End];
            assert_eq!(taken.join().unwrap(), expected);
        });
    }
}
