//! The queue in front of the inference thread.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use super::EngineError;
use super::request::{Job, Priority};

/// Holds the waiting requests: one keystroke, which a newer one replaces; the invoked requests and
/// the tasks, each in their order; and one idle request, which any other drops.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    keystroke: Option<Job>,
    invoked: VecDeque<Job>,
    tasks: VecDeque<Job>,
    idle: Option<Job>,
    closed: bool,
}

/// What the inference thread does next.
#[derive(Debug)]
pub(super) enum Next {
    /// Start this job.
    Start(Box<Job>),
    /// Continue the current run.
    Continue,
    /// End, because the queue is closed.
    End,
}

impl Queue {
    /// Adds a request. The requests that it replaces or drops end as superseded.
    pub(super) fn submit(&self, job: Job) {
        let mut state = self.lock();
        if state.closed {
            drop(state);
            return job.end(Err(EngineError::Ended));
        }
        let idle = state.idle.take();
        let replaced = match job.request.priority {
            Priority::Keystroke => state.keystroke.replace(job),
            Priority::Invoked => {
                state.invoked.push_back(job);
                None
            }
            Priority::Task => {
                state.tasks.push_back(job);
                None
            }
            Priority::Idle => {
                state.idle = Some(job);
                None
            }
        };
        self.changed.notify_one();
        drop(state);
        for job in [idle, replaced].into_iter().flatten() {
            job.end(Err(EngineError::Superseded));
        }
    }

    /// What to do next, while a run of priority `running` is in progress: start a request of a
    /// higher priority, or continue. If there is no run, this waits for a request.
    pub(super) fn next(&self, running: Option<Priority>) -> Next {
        let mut state = self.lock();
        loop {
            if state.closed {
                return Next::End;
            }
            let cancelled = state.take_cancelled();
            if !cancelled.is_empty() {
                drop(state);
                for job in cancelled {
                    job.end(Err(EngineError::Cancelled));
                }
                state = self.lock();
                continue;
            }
            if let Some(job) = state.take_above(running) {
                return Next::Start(Box::new(job));
            }
            if running.is_some() {
                return Next::Continue;
            }
            state = self
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Accepts no more requests, and drops the waiting ones.
    pub(super) fn close(&self) {
        let closed = State {
            closed: true,
            ..State::default()
        };
        // Dropped after the lock has been released.
        let waiting = std::mem::replace(&mut *self.lock(), closed);
        self.changed.notify_all();
        drop(waiting);
    }

    /// Whether no more requests are accepted.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn take_above(&mut self, running: Option<Priority>) -> Option<Job> {
        let above = |priority| running.is_none_or(|running| priority > running);
        let mut job = None;
        if above(Priority::Keystroke) {
            job = self.keystroke.take();
        }
        if job.is_none() && above(Priority::Invoked) {
            job = self.invoked.pop_front();
        }
        if job.is_none() && above(Priority::Task) {
            job = self.tasks.pop_front();
        }
        if job.is_none() && above(Priority::Idle) {
            job = self.idle.take();
        }
        job
    }

    fn take_cancelled(&mut self) -> Vec<Job> {
        let is_cancelled = |job: &mut Job| job.request.cancel.is_cancelled();
        let mut cancelled = Vec::new();
        cancelled.extend(self.keystroke.take_if(is_cancelled));
        cancelled.extend(self.idle.take_if(is_cancelled));
        for queue in [&mut self.invoked, &mut self.tasks] {
            let (ended, waiting) = std::mem::take(queue)
                .into_iter()
                .partition(|job| job.request.cancel.is_cancelled());
            *queue = waiting;
            let ended: VecDeque<Job> = ended;
            cancelled.extend(ended);
        }
        cancelled
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Priority::{Idle, Invoked, Keystroke, Task};
    use super::*;
    use crate::engine::request::{Draws, Event, Events, Input, Limits, Request};
    use crate::engine::stop::Scope;

    fn submit(queue: &Queue, name: &str, priority: Priority) -> Events {
        let (job, events) = Job::new(Request {
            input: Input::Continue {
                file_name: name.to_owned(),
                text: String::new(),
            },
            parts: Vec::new(),
            scope: Scope::Line,
            limits: Limits {
                prompt: None,
                tokens: 1,
                time: None,
            },
            draws: Draws::GREEDY,
            priority,
            cancel: Default::default(),
            echo: false,
        });
        queue.submit(job);
        events
    }

    /// The name of the request that starts next, or what is done instead.
    fn next(queue: &Queue, running: Option<Priority>) -> String {
        match queue.next(running) {
            Next::Start(job) => match &job.request.input {
                Input::Continue { file_name, .. } => file_name.clone(),
                other => panic!("{other:?}"),
            },
            Next::Continue => "continue".to_owned(),
            Next::End => "end".to_owned(),
        }
    }

    fn ending(mut events: Events) -> EngineError {
        match events.next_within(Duration::ZERO) {
            Ok(Some(Event::Failed(error))) => error,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_highest_priority_comes_first_and_each_keeps_its_order() {
        let queue = Queue::default();
        let names = [
            ("task 1", Task),
            ("invoked 1", Invoked),
            ("task 2", Task),
            ("key", Keystroke),
            ("invoked 2", Invoked),
        ];
        let _events = names.map(|(name, priority)| submit(&queue, name, priority));
        for expected in ["key", "invoked 1", "invoked 2", "task 1", "task 2"] {
            assert_eq!(next(&queue, None), expected);
        }
    }

    #[test]
    fn a_run_gives_way_only_to_a_higher_priority() {
        let queue = Queue::default();
        let _task = submit(&queue, "task", Task);
        assert_eq!(next(&queue, Some(Task)), "continue");
        assert_eq!(next(&queue, Some(Keystroke)), "continue");
        assert_eq!(next(&queue, Some(Idle)), "task");
        let _invoked = submit(&queue, "invoked", Invoked);
        assert_eq!(next(&queue, Some(Task)), "invoked");
    }

    #[test]
    fn the_newest_waiting_keystroke_replaces_the_others() {
        let queue = Queue::default();
        let older = submit(&queue, "older", Keystroke);
        let _newer = submit(&queue, "newer", Keystroke);
        assert_eq!(ending(older), EngineError::Superseded);
        assert_eq!(next(&queue, None), "newer");
        assert_eq!(next(&queue, Some(Keystroke)), "continue");
    }

    #[test]
    fn any_request_drops_an_idle_one() {
        for priority in [Idle, Task, Invoked, Keystroke] {
            let queue = Queue::default();
            let idle = submit(&queue, "idle", Idle);
            let _other = submit(&queue, "other", priority);
            assert_eq!(ending(idle), EngineError::Superseded);
            assert_eq!(next(&queue, None), "other");
        }
    }

    #[test]
    fn a_request_cancelled_while_it_waits_does_not_start() {
        for priority in [Idle, Task, Invoked, Keystroke] {
            let queue = Queue::default();
            let (job, events) = {
                let events = submit(&queue, "cancelled", priority);
                let job = match queue.next(None) {
                    Next::Start(job) => *job,
                    other => panic!("{other:?}"),
                };
                (job, events)
            };
            job.request.cancel.cancel();
            queue.submit(job);
            assert_eq!(next(&queue, Some(Idle)), "continue");
            assert_eq!(ending(events), EngineError::Cancelled);
        }
    }

    #[test]
    fn a_closed_queue_ends_every_request() {
        let queue = Queue::default();
        let waiting = submit(&queue, "waiting", Task);
        queue.close();
        let late = submit(&queue, "late", Keystroke);
        assert_eq!(ending(waiting), EngineError::Ended);
        assert_eq!(ending(late), EngineError::Ended);
        assert_eq!(next(&queue, None), "end");
        assert_eq!(next(&queue, Some(Task)), "end");
    }

    #[test]
    fn the_thread_wakes_for_a_request_and_for_the_end() {
        let queue = Queue::default();
        std::thread::scope(|scope| {
            let taken = scope.spawn(|| [next(&queue, None), next(&queue, None)]);
            let _events = submit(&queue, "key", Keystroke);
            // `next` may find its work there already or be woken by it.
            while queue.lock().keystroke.is_some() {
                std::thread::yield_now();
            }
            queue.close();
            assert_eq!(taken.join().unwrap(), ["key", "end"]);
        });
    }
}
