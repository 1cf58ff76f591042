//! The engine's queue of ready jobs, over locks, channels and parking places that the checker schedules.
//!
//! The queue is used as the engine does: there are never more jobs than workers. The jobs of one round wait for each
//! other, so each needs a worker of its own: a wake-up that is lost, or spent on a worker that is busy, leaves everybody
//! waiting, which the checker finds. Several rounds, because a wake-up that is left over does its harm later.

#[path = "../../src/engine/ready.rs"]
mod queue;

use shuttle::sync::{Arc, Condvar, Mutex};
use shuttle::thread;

use super::under_schedules;
use parking::Parker;
use queue::ReadyQueue;

/// A job: its round, and its number in it.
type Job = (usize, usize);

/// Jobs that were begun, and whoever waits for them.
#[derive(Default)]
struct Begun {
    jobs: Mutex<Vec<Job>>,
    changed: Condvar,
}

impl Begun {
    fn note(&self, job: Job) {
        self.jobs.lock().expect("no thread panicked").push(job);
        self.changed.notify_all();
    }

    fn wait_for(&self, round: usize, count: usize) {
        let mut jobs = self.jobs.lock().expect("no thread panicked");
        while jobs.iter().filter(|job| job.0 == round).count() < count {
            jobs = self.changed.wait(jobs).expect("no thread panicked");
        }
    }
}

struct World {
    queue: ReadyQueue<Job>,
    begun: Begun,
}

type Threads = Vec<thread::JoinHandle<()>>;

impl World {
    /// Workers that go home when the queue says so.
    fn start(workers: usize) -> (Arc<World>, Threads) {
        let world = Arc::new(World {
            queue: ReadyQueue::new(workers),
            begun: Begun::default(),
        });
        let threads = (0..workers).map(|worker| {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let parker = Parker::new();
                while let Some(job) = world.queue.next(worker as u32, &parker) {
                    world.begun.note(job);
                    world.begun.wait_for(job.0, workers);
                }
            })
        });
        let threads = threads.collect();
        (world, threads)
    }

    fn push(&self, job: Job) {
        self.queue.push((job.0 + job.1) % 3, job);
    }

    /// The workers go home, and all jobs were done, each once.
    fn end(&self, threads: Threads, rounds: usize) {
        let workers = threads.len();
        self.queue.close();
        join(threads);
        let mut done = self.begun.jobs.lock().expect("no thread panicked").clone();
        done.sort_unstable();
        let expected = (0..rounds).flat_map(|round| (0..workers).map(move |job| (round, job)));
        assert_eq!(done, Vec::from_iter(expected));
        assert_eq!(self.queue.roll().1, 0);
    }
}

fn join(threads: Threads) {
    for thread in threads {
        thread.join().expect("no thread panicked");
    }
}

/// Workers are hired and sent home while jobs come: whoever is left does them all.
#[test]
fn a_job_is_done_by_those_who_stay_when_others_go_home() {
    under_schedules(|| {
        let world = Arc::new(World {
            queue: ReadyQueue::new(2),
            begun: Begun::default(),
        });
        let hired = world.queue.hire();
        let threads = (0..hired).map(|worker| {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                let parker = Parker::new();
                while let Some(job) = world.queue.next(worker as u32, &parker) {
                    world.begun.note(job);
                }
            })
        });
        let threads: Threads = threads.collect();
        let fewer = {
            let world = Arc::clone(&world);
            thread::spawn(move || {
                if world.queue.wanted() == 2 {
                    world.queue.want(1);
                }
            })
        };
        world.push((0, 0));
        world.begun.wait_for(0, 1);
        join(vec![fewer]);
        world.push((1, 0));
        world.begun.wait_for(1, 1);
        while world.queue.roll().0 == 2 {
            thread::yield_now();
        }
        world.queue.lose();
        assert_eq!(world.queue.hire(), 1);
        world.queue.close();
        join(threads);
    });
}

/// So many workers, and in each round as many jobs, all but one of them pushed by threads of their own: at once, or, in
/// every second round, when all workers have lain down.
fn live(workers: usize, rounds: usize) {
    let (world, threads) = World::start(workers);
    for round in 0..rounds {
        while round % 2 == 1 && world.queue.roll().1 < workers {
            thread::yield_now();
        }
        let pushers = (1..workers).map(|number| {
            let world = Arc::clone(&world);
            thread::spawn(move || world.push((round, number)))
        });
        let pushers = pushers.collect();
        world.push((round, 0));
        join(pushers);
        world.begun.wait_for(round, workers);
    }
    world.end(threads, rounds);
}

#[test]
fn a_worker_is_woken_for_each_job_even_if_the_others_are_busy() {
    under_schedules(|| live(2, 4));
}

#[test]
fn a_job_that_comes_while_its_only_worker_lies_down_is_done() {
    under_schedules(|| live(1, 3));
}

#[test]
fn what_was_pushed_before_the_close_is_done_before_the_workers_go_home() {
    under_schedules(|| {
        let (world, threads) = World::start(2);
        world.push((0, 0));
        world.push((0, 1));
        world.end(threads, 1);
    });
}

/// What the queue is made of, as the checker has it.
mod parking {
    use std::cell::Cell;
    use std::collections::VecDeque;

    use shuttle::sync::{Arc, Condvar, MutexGuard};
    use shuttle::thread;

    /// A lock without poisoning.
    #[derive(Debug, Default)]
    pub(super) struct Mutex<T>(shuttle::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(super) fn new(value: T) -> Self {
            Mutex(shuttle::sync::Mutex::new(value))
        }

        pub(super) fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().expect("no thread panicked")
        }
    }

    /// A channel is a list under a lock: each of its steps is one, as with the real one.
    #[derive(Debug)]
    pub(super) struct Sender<T>(Arc<Mutex<VecDeque<T>>>);

    #[derive(Debug)]
    pub(super) struct Receiver<T>(Arc<Mutex<VecDeque<T>>>);

    pub(super) fn unbounded<T>() -> (Sender<T>, Receiver<T>) {
        let list = Arc::new(Mutex::new(VecDeque::new()));
        (Sender(Arc::clone(&list)), Receiver(list))
    }

    impl<T> Sender<T> {
        pub(super) fn send(&self, value: T) -> Result<(), Gone> {
            self.0.lock().push_back(value);
            Ok(())
        }
    }

    /// Nobody receives any more, which does not happen here.
    pub(super) struct Gone;

    impl<T> Receiver<T> {
        pub(super) fn try_recv(&self) -> Result<T, Empty> {
            self.0.lock().pop_front().ok_or(Empty)
        }
    }

    pub(super) struct Empty;

    /// Where one thread sleeps until it is given a token, of which it takes one.
    #[derive(Debug)]
    pub(super) struct Parker(Unparker);

    #[derive(Debug, Clone)]
    pub(super) struct Unparker(Arc<(Mutex<bool>, Condvar)>);

    impl Parker {
        pub(super) fn new() -> Self {
            Parker(Unparker(Arc::default()))
        }

        pub(super) fn unparker(&self) -> &Unparker {
            &self.0
        }

        pub(super) fn park(&self) {
            let (token, given) = &*self.0.0;
            let mut token = token.lock();
            while !*token {
                token = given.wait(token).expect("no thread panicked");
            }
            *token = false;
        }
    }

    impl Unparker {
        pub(super) fn unpark(&self) {
            let (token, given) = &*self.0;
            *token.lock() = true;
            given.notify_one();
        }
    }

    /// A look or two before one lies down.
    pub(super) struct Backoff(Cell<bool>);

    impl Backoff {
        pub(super) fn new() -> Self {
            Backoff(Cell::new(false))
        }

        pub(super) fn is_completed(&self) -> bool {
            self.0.get()
        }

        pub(super) fn snooze(&self) {
            self.0.set(true);
            thread::yield_now();
        }
    }
}
