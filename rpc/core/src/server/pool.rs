//! Threads that run handlers.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::call::{failed, perform};
use super::conn::{Client, Running};
use super::methods::Method;
use crate::error::{Code, Error, Failure};
use crate::message::Message;

/// A call that waits for a thread.
pub(crate) struct Job {
    pub(crate) client: Arc<Client>,
    pub(crate) running: Arc<Running>,
    pub(crate) method: Arc<Method>,
    pub(crate) message: Message,
    pub(crate) deadline: Option<Instant>,
    /// When it was read, if it is one of the calls that are measured.
    pub(crate) begun: Option<Instant>,
}

/// Calls that wait at once, over all clients; more are refused.
const MAX_QUEUED: usize = 65_536;

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    changed: Condvar,
}

/// The threads.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts the threads.
    pub(crate) fn start(count: usize, name: &str) -> Result<Pool, Error> {
        let mut pool = Pool {
            shared: Arc::default(),
            threads: Vec::new(),
        };
        for n in 0..count {
            let shared = Arc::clone(&pool.shared);
            let thread = std::thread::Builder::new()
                .name(format!("rpc {name} {n}"))
                .spawn(move || shared.work())
                .map_err(|e| Error::os("starting a thread for handlers", e))?;
            pool.threads.push(thread);
        }
        Ok(pool)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.threads.is_empty()
    }

    /// Queues a call. `false`: there are too many.
    pub(crate) fn push(&self, job: Job) -> bool {
        let mut queue = self.shared.lock();
        if queue.jobs.len() >= MAX_QUEUED {
            return false;
        }
        job.client.begin_job(&job.running);
        queue.jobs.push_back(job);
        drop(queue);
        self.shared.changed.notify_one();
        true
    }
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        loop {
            let job = {
                let mut queue = self.lock();
                loop {
                    if let Some(job) = queue.jobs.pop_front() {
                        break job;
                    }
                    if queue.closed {
                        return;
                    }
                    queue = self
                        .changed
                        .wait(queue)
                        .unwrap_or_else(PoisonError::into_inner);
                }
            };
            job.run();
        }
    }
}

impl Job {
    fn run(self) {
        let call = self.message.call;
        // It may have waited for long.
        let over = self.deadline.is_some_and(|d| d <= Instant::now());
        let answer = if self.running.is_cancelled() || over {
            let code = if over {
                Code::DeadlineExceeded
            } else {
                Code::Cancelled
            };
            failed(call, &Failure::new(code, "before a thread was free for it"))
        } else {
            perform(
                &self.client,
                &self.running,
                &self.method,
                &self.message,
                self.deadline,
                None,
            )
        };
        if self.client.send(answer).is_err() {
            // The thread that polls sees the link end.
            self.client.link.close();
        } else if let Some(begun) = self.begun {
            self.client.link.timed(begun.elapsed());
        }
        // After the answer: a server that goes away waits for this, then closes.
        self.client.end_job(&self.running);
    }
}

impl Pool {
    /// Lets the threads end when the queue is empty; those that have not ended at `until` are left to themselves: nothing can stop a
    /// handler that does not return.
    pub(crate) fn stop(&mut self, until: Instant) {
        self.shared.lock().closed = true;
        self.shared.changed.notify_all();
        let mut nap = Duration::from_micros(50);
        while Instant::now() < until && !self.threads.iter().all(JoinHandle::is_finished) {
            std::thread::sleep(nap);
            nap = (nap * 2).min(Duration::from_millis(5));
        }
        for thread in self.threads.drain(..).filter(JoinHandle::is_finished) {
            let _ = thread.join();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop(Instant::now());
    }
}
