//! SIGKILL at a point that a seed chooses.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use serde_json::Value;

use crate::host;

/// The variable that holds a seed, to repeat what was printed.
pub const SEED: &str = "STOCKADE_KILL_SEED";

/// The seed of a run in which the variable is not set.
const DEFAULT_SEED: u64 = 5;

/// Numbers that follow from a seed (SplitMix64).
pub struct Numbers(u64);

impl Numbers {
    /// Those of the seed in the environment, which is printed.
    pub fn new() -> Self {
        let seed = std::env::var(SEED).map_or(DEFAULT_SEED, |seed| seed.parse().expect("a number"));
        eprintln!("{SEED}={seed}");
        Self(seed)
    }

    /// The same, but other numbers for each test.
    pub fn of(test: &str) -> Self {
        let Self(seed) = Self::new();
        Self(test.bytes().fold(seed, |mixed, byte| mixed.wrapping_mul(31).wrapping_add(u64::from(byte))))
    }

    /// The next, below `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

impl Default for Numbers {
    fn default() -> Self {
        Self::new()
    }
}

/// Does `work`, and kills the process that `find` finds after it has been found `rounds` times more, or else at the
/// end of the work. What the work has returned, and the PID, which has ended.
pub fn kill_during<T>(
    rounds: usize,
    find: impl Fn() -> Option<i32> + Sync,
    work: impl FnOnce() -> T,
) -> (T, Option<i32>) {
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let killer = scope.spawn(|| {
            let mut left = rounds;
            loop {
                let is_last = done.load(Ordering::SeqCst);
                match find() {
                    Some(pid) if left == 0 || is_last => {
                        // SAFETY: kill takes two integers.
                        unsafe { libc::kill(pid, libc::SIGKILL) };
                        host::wait_for_end(pid);
                        return Some(pid);
                    }
                    Some(_) => left -= 1,
                    None if is_last => return None,
                    None => {}
                }
                thread::yield_now();
            }
        });
        let result = work();
        done.store(true, Ordering::SeqCst);
        (result, killer.join().expect("the killer"))
    })
}

/// The first process of this role (`relay` or `vmm`) that the records below a state directory tell of and that lives.
pub fn recorded(root: &Path, role: &str) -> Option<i32> {
    let mut pids: Vec<i32> = fs::read_dir(root)
        .ok()?
        .flatten()
        .filter_map(|entry| {
            let record: Value =
                serde_json::from_slice(&fs::read(entry.path().join("state.json")).ok()?).ok()?;
            record[role]["pid"].as_i64()?.try_into().ok()
        })
        .filter(|pid: &i32| Path::new("/proc").join(pid.to_string()).exists())
        .collect();
    pids.sort_unstable();
    pids.first().copied()
}
