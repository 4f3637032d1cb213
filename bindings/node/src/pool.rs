//! Worker threads: a pool that grows while all of its threads wait, and strands on it that run one job after the other.
//!
//! Node's own pool has four threads; four queries that wait for the network would stop every file read of it.

use std::{collections::VecDeque, sync::Arc, thread, time::Duration};

use parking_lot::{Condvar, Mutex};

/// A piece of work.
pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// A thread without work ends after this long.
const IDLE: Duration = Duration::from_secs(10);

struct Pool {
    state: Mutex<PoolState>,
    work: Condvar,
}

struct PoolState {
    jobs: VecDeque<Job>,
    idle: usize,
}

static POOL: Pool = Pool {
    state: Mutex::new(PoolState {
        jobs: VecDeque::new(),
        idle: 0,
    }),
    work: Condvar::new(),
};

/// Runs a job on a thread that has nothing else to do.
pub(crate) fn run(job: Job) {
    let mut state = POOL.state.lock();
    state.jobs.push_back(job);
    if state.idle >= state.jobs.len() {
        POOL.work.notify_one();
        return;
    }
    drop(state);
    let started = thread::Builder::new().name("turso-sync".into()).spawn(work);
    if started.is_err() {
        // The system has no thread to give: whichever thread is free next takes the job.
        POOL.work.notify_one();
    }
}

fn work() {
    let mut state = POOL.state.lock();
    loop {
        while let Some(job) = state.jobs.pop_front() {
            drop(state);
            job();
            state = POOL.state.lock();
        }
        state.idle += 1;
        let timed_out = POOL.work.wait_for(&mut state, IDLE).timed_out();
        state.idle -= 1;
        if timed_out && state.jobs.is_empty() {
            return;
        }
    }
}

/// Jobs that run one after the other, in the order given.
#[derive(Clone, Default)]
pub(crate) struct Strand(Arc<Mutex<StrandState>>);

#[derive(Default)]
struct StrandState {
    jobs: VecDeque<Job>,
    running: bool,
}

impl Strand {
    /// Runs a job after those that were given before it.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let mut state = self.0.lock();
        state.jobs.push_back(Box::new(job));
        if state.running {
            return;
        }
        state.running = true;
        drop(state);
        let strand = self.clone();
        run(Box::new(move || strand.drain()));
    }

    fn drain(&self) {
        loop {
            let mut state = self.0.lock();
            let Some(job) = state.jobs.pop_front() else {
                state.running = false;
                return;
            };
            drop(state);
            job();
        }
    }
}
