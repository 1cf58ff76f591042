//! What the queue of ready jobs promises. Its interleavings are tried in `tests/shuttle`.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::parking::Parker;
use super::ready::ReadyQueue;

#[test]
fn the_most_urgent_job_comes_first() {
    let queue = ReadyQueue::new(3);
    for class in [2, 0, 1] {
        queue.push(class, class);
    }
    let parker = Parker::new();
    let taken = [(); 3].map(|()| queue.next(0, &parker));
    assert_eq!(taken, [Some(0), Some(1), Some(2)]);
}

#[test]
fn whoever_is_missing_is_hired_once() {
    let queue = ReadyQueue::<()>::new(2);
    assert_eq!([queue.hire(), queue.hire()], [2, 0]);
    queue.lose();
    assert_eq!([queue.hire(), queue.hire()], [1, 0]);
    queue.want(5);
    assert_eq!([queue.hire(), queue.hire()], [3, 0]);
    assert_eq!(queue.roll(), (5, 0));
    queue.close();
    queue.lose();
    assert_eq!(queue.hire(), 0, "nobody is hired to be sent home");
}

#[test]
fn whoever_is_one_too_many_goes_home_when_nothing_is_left_to_do() {
    let queue = ReadyQueue::new(3);
    assert_eq!(queue.hire(), 3);
    let home = crossbeam::channel::unbounded();
    std::thread::scope(|scope| {
        for worker in 0..3 {
            let (queue, home) = (&queue, home.0.clone());
            scope.spawn(move || {
                let parker = Parker::new();
                while let Some(()) = queue.next(worker, &parker) {}
                let _ = home.send(worker);
            });
        }
        while queue.roll() != (3, 3) {
            std::thread::yield_now();
        }
        queue.want(1);
        let gone = [home.1.recv(), home.1.recv()];
        assert!(gone.iter().all(Result::is_ok));
        while queue.roll() != (1, 1) {
            std::thread::yield_now();
        }
        queue.close();
    });
    assert_eq!(
        home.1.len(),
        1,
        "the one that was wanted stayed until the close"
    );
}

#[test]
fn whoever_is_one_too_many_does_first_what_is_left() {
    let queue = ReadyQueue::new(0);
    queue.push(0, "last");
    let parker = Parker::new();
    assert_eq!(queue.next(0, &parker), Some("last"));
}

#[test]
fn workers_go_home_when_nothing_is_left() {
    let queue = ReadyQueue::new(2);
    queue.push(1, "last");
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
            while queue.roll().1 <= worker as usize {
                std::thread::yield_now();
            }
        }
        for _ in 0..10 {
            queue.push(0, ());
            assert_eq!(woken.1.recv(), Ok(1));
            while queue.roll().1 < 2 {
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
        for worker in 0..WORKERS as u32 {
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
                    queue.push(class, number);
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
