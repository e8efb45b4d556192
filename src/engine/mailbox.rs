//! The one waiting place in front of the inference thread.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Holds one waiting job; a newer one takes its place.
///
/// Law (exactly one answer): whoever is replaced is handed back to be dropped, and dropping a job
/// drops its reply, which the one who waits for it sees.
#[derive(Debug)]
pub struct Mailbox<J> {
    state: Mutex<State<J>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<J> {
    job: Option<J>,
    closed: bool,
}

impl<J> Default for Mailbox<J> {
    fn default() -> Self {
        Self {
            state: Mutex::new(State {
                job: None,
                closed: false,
            }),
            changed: Condvar::new(),
        }
    }
}

impl<J> Mailbox<J> {
    /// Puts a job in, and answers the one that will not run: the job it replaces, or the job itself
    /// if nobody takes any more.
    pub fn put(&self, job: J) -> Option<J> {
        let mut state = self.lock();
        if state.closed {
            return Some(job);
        }
        let replaced = state.job.replace(job);
        self.changed.notify_one();
        replaced
    }

    /// Waits for a job; nothing once the mailbox is closed.
    pub fn take(&self) -> Option<J> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            if let Some(job) = state.job.take() {
                return Some(job);
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Ends the taking, and answers the job that waited.
    pub fn close(&self) -> Option<J> {
        let mut state = self.lock();
        state.closed = true;
        self.changed.notify_all();
        state.job.take()
    }

    fn lock(&self) -> MutexGuard<'_, State<J>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_job_waits() {
        let mailbox = Mailbox::default();
        assert_eq!(mailbox.put(1), None);
        assert_eq!(mailbox.put(2), Some(1));
        assert_eq!(mailbox.take(), Some(2));
        assert_eq!(mailbox.put(3), None);
        assert_eq!(mailbox.close(), Some(3));
        assert_eq!(mailbox.put(4), Some(4));
        assert_eq!(mailbox.take(), None);
    }

    #[test]
    fn a_taker_wakes_for_a_job_and_for_the_end() {
        let mailbox = Mailbox::default();
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| (mailbox.take(), mailbox.take()));
            mailbox.put(1);
            // The second `take` may find the mailbox closed already or be woken by its closing.
            while mailbox.lock().job.is_some() {
                std::thread::yield_now();
            }
            mailbox.close();
            assert_eq!(taken.join().unwrap(), (Some(1), None));
        });
    }
}
