//! How far long work has come, and its early end.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use super::OP;
use crate::{Error, Result};

/// A view of a running call, to be cloned and kept on another thread. On devices work is queued before it is done, so there
/// it tells of queueing.
///
/// A watch is for one call at a time: of two that have the same one, each begins its count anew, both add to it, and
/// [`Watch::cancel`] ends both.
#[derive(Clone, Debug, Default)]
pub struct Watch(Arc<State>);

#[derive(Debug, Default)]
struct State {
    done: AtomicUsize,
    total: AtomicUsize,
    cancelled: AtomicBool,
}

impl Watch {
    /// A watch over the next call that is given it.
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the call as soon as the block of rows, or the step of an eigenproblem, that each thread works on is done. The call then
    /// fails with [`Error::Cancelled`], and its output holds nothing of use. So do later calls with the same watch.
    pub fn cancel(&self) {
        self.0.cancelled.store(true, Ordering::Relaxed);
    }

    /// Steps done, and steps in all: a step is a matrix, or a pass over a large one. The total is 0 before the call and
    /// grows as matrices turn out to need more passes.
    pub fn progress(&self) -> (usize, usize) {
        (self.0.done.load(Ordering::Relaxed), self.0.total.load(Ordering::Relaxed))
    }

    fn is_cancelled(&self) -> bool {
        self.0.cancelled.load(Ordering::Relaxed)
    }
}

/// What the work itself sees of a watch.
#[derive(Clone, Copy)]
pub(super) struct Steps<'a>(pub(super) Option<&'a Watch>);

impl Steps<'_> {
    /// Begins a call of so many steps.
    pub(super) fn begin(self, total: usize) -> Result<()> {
        if let Some(Watch(state)) = self.0 {
            state.done.store(0, Ordering::Relaxed);
            state.total.store(total, Ordering::Relaxed);
        }
        self.check()
    }

    /// So many steps more than was thought.
    pub(super) fn more(self, steps: usize) {
        if let Some(Watch(state)) = self.0 {
            state.total.fetch_add(steps, Ordering::Relaxed);
        }
    }

    /// One more step is done; fails where no more are wanted.
    pub(super) fn done(self) -> Result<()> {
        if let Some(Watch(state)) = self.0 {
            state.done.fetch_add(1, Ordering::Relaxed);
        }
        self.check()
    }

    /// Fails where the call is to end early.
    pub(super) fn check(self) -> Result<()> {
        match self.0 {
            Some(watch) if watch.is_cancelled() => Err(Error::Cancelled { op: OP }),
            _ => Ok(()),
        }
    }
}
