//! What the queue of ready jobs promises. Its interleavings are tried in `tests/shuttle`.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::parking::Parker;
use super::ready::ReadyQueue;

#[test]
fn the_most_urgent_job_comes_first() {
    let queue = ReadyQueue::new(3);
    for class in [2, 0, 1] {
        queue.push(class, class).expect("room");
    }
    let parker = Parker::new();
    let taken = [(); 3].map(|()| queue.next(0, &parker));
    assert_eq!(taken, [Some(0), Some(1), Some(2)]);
}

#[test]
fn more_jobs_than_workers_come_back() {
    let queue = ReadyQueue::new(1);
    assert_eq!(queue.push(0, 'a'), Ok(()));
    assert_eq!(queue.push(0, 'b'), Err('b'));
    assert_eq!(queue.push(1, 'c'), Ok(()), "each class has its own places");
}

#[test]
fn workers_go_home_when_nothing_is_left() {
    let queue = ReadyQueue::new(2);
    queue.push(1, "last").expect("room");
    queue.close();
    let parker = Parker::new();
    assert_eq!(queue.next(0, &parker), Some("last"));
    assert_eq!(queue.next(0, &parker), None);
}

#[test]
fn the_worker_that_lay_down_last_is_woken_first() {
    let queue = ReadyQueue::new(2);
    let woken = crossbeam::channel::unbounded();
    std::thread::scope(|scope| {
        for worker in 0..2 {
            let (queue, woken) = (&queue, woken.0.clone());
            scope.spawn(move || {
                let parker = Parker::new();
                while let Some(()) = queue.next(worker, &parker) {
                    let _ = woken.send(worker);
                }
            });
            while queue.asleep() <= worker {
                std::thread::yield_now();
            }
        }
        for _ in 0..10 {
            queue.push(0, ()).expect("room");
            assert_eq!(woken.1.recv(), Ok(1));
            while queue.asleep() < 2 {
                std::thread::yield_now();
            }
        }
        queue.close();
    });
}

#[test]
fn each_job_is_taken_once_and_none_is_forgotten() {
    const WORKERS: usize = 4;
    const EACH: usize = 5_000;
    let queue = ReadyQueue::new(WORKERS);
    let taken = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (queue, taken) = (&queue, &taken);
            scope.spawn(move || {
                let parker = Parker::new();
                while let Some(number) = queue.next(worker, &parker) {
                    taken.fetch_add(number, Ordering::Relaxed);
                }
            });
        }
        let pushers = [0, 1, 2].map(|class| {
            let queue = &queue;
            scope.spawn(move || {
                for number in 1..=EACH {
                    while queue.push(class, number).is_err() {
                        std::thread::yield_now();
                    }
                }
            })
        });
        for pusher in pushers {
            pusher.join().expect("no panic");
        }
        queue.close();
    });
    assert_eq!(taken.into_inner(), 3 * EACH * (EACH + 1) / 2);
}
