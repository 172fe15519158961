use std::collections::HashSet;
use std::sync::mpsc;

use super::*;

#[test]
fn jobs_that_wait_for_each_other_are_done_at_once_and_later_ones_by_the_same_threads() {
    const JOBS: usize = 4;
    let (sender, threads) = mpsc::channel();
    let round = || {
        let barrier = std::sync::Arc::new(std::sync::Barrier::new(JOBS));
        for _ in 0..JOBS {
            let (sender, barrier) = (sender.clone(), std::sync::Arc::clone(&barrier));
            run(move || {
                barrier.wait();
                sender.send(thread::current().id()).unwrap();
            })
            .unwrap();
        }
        threads.iter().take(JOBS).collect::<HashSet<_>>()
    };
    let first = round();
    assert_eq!(first.len(), JOBS);
    while WORKERS.state().idle < JOBS {
        thread::yield_now();
    }
    assert_eq!(round(), first);
    while WORKERS.state().idle > 0 {
        thread::sleep(LINGERS / 10);
    }
}
