//! The threads of this process, and the CPU time of each. The process has no procfs, which would list them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use stockade_protocol::vmm::ThreadTime;

/// The threads of this process that are counted, by their IDs.
static THREADS: Mutex<Vec<(i32, String)>> = Mutex::new(Vec::new());

fn known_threads() -> MutexGuard<'static, Vec<(i32, String)>> {
    THREADS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of the main thread, which is that of the process.
const MAIN: &str = "stockade-vmm";

/// Counts the calling thread in [`times`] until it ends.
pub fn count_thread() {
    // The C library's function would be missing in a static program: the standard library refers to it weakly, and with
    // link-time optimisation that is the only reference.
    // SAFETY: it takes nothing and cannot fail.
    let id = unsafe { libc::syscall(libc::SYS_gettid) } as i32;
    let thread = std::thread::current();
    let name = thread.name().filter(|name| *name != "main").unwrap_or(MAIN).to_owned();
    let mut threads = known_threads();
    // The ID may have belonged to a thread that has ended.
    threads.retain(|(known, _)| *known != id);
    threads.push((id, name));
}

/// The CPU times of the threads that are counted.
pub fn times() -> Vec<ThreadTime> {
    let mut times = Vec::new();
    known_threads().retain(|(id, name)| {
        let time = cpu_time(*id, CPUCLOCK_SCHED | CPUCLOCK_PER_THREAD);
        times.extend(time.map(|cpu_ms| ThreadTime { name: name.clone(), cpu_ms }));
        time.is_some()
    });
    times
}

/// The CPU time in milliseconds of all threads of another process; `None` if there is no such process.
pub fn process_time(pid: i32) -> Option<u64> {
    cpu_time(pid, CPUCLOCK_SCHED)
}

/// Kinds of CPU clocks (linux/posix-timers.h).
const CPUCLOCK_SCHED: i32 = 2;
const CPUCLOCK_PER_THREAD: i32 = 4;

/// CPU time in milliseconds; `None` if there is no such thread or process.
fn cpu_time(id: i32, kind: i32) -> Option<u64> {
    let clock = !id << 3 | kind;
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel fills the structure in.
    if unsafe { libc::clock_gettime(clock, &raw mut time) } < 0 {
        return None;
    }
    let (seconds, nanoseconds) = (u64::try_from(time.tv_sec).ok()?, u64::try_from(time.tv_nsec).ok()?);
    Some(seconds * 1000 + nanoseconds / 1_000_000)
}

#[cfg(test)]
#[path = "threads_test.rs"]
mod tests;
