//! The position of the guest's first CPU, which helps when a guest prints nothing.
//!
//! KVM tells the position only of a vCPU that does not run. So a signal makes the vCPU's thread leave KVM_RUN for a moment, or
//! for good if the guest is to be saved.

use std::{
    io,
    os::unix::thread::JoinHandleExt,
    sync::{
        Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use kvm_ioctls::VcpuFd;
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use stockade_protocol::vmm::CpuPosition;

/// The signal that ends KVM_RUN; nothing else in this process uses it.
const SIGNAL: Signal = Signal::SIGUSR1;

/// How long one signal may take to have an effect.
const ANSWERS_WITHIN: Duration = Duration::from_millis(20);

/// How often the signal is sent: a signal that comes just before KVM_RUN has no effect.
const SIGNALS: usize = 10;

/// RFLAGS.IF.
const INTERRUPTS: u64 = 1 << 9;

/// The question, and the vCPU's answer.
#[derive(Debug, Default)]
pub struct Position {
    is_wanted: AtomicBool,
    is_pausing: AtomicBool,
    answer: Mutex<Option<CpuPosition>>,
    answered: Condvar,
}

impl Position {
    /// Makes the signal end a system call instead of the process.
    ///
    /// # Errors
    /// sigaction(2)'s.
    pub fn prepare() -> io::Result<()> {
        extern "C" fn nothing(_: libc::c_int) {}
        let action = SigAction::new(SigHandler::Handler(nothing), SaFlags::empty(), SigSet::empty());
        // SAFETY: the handler does nothing.
        unsafe { sigaction(SIGNAL, &action) }?;
        Ok(())
    }

    /// Asks the vCPU that runs in `thread`; `None` if it does not answer, for example while the host handles one of its
    /// exits.
    pub fn ask<T>(&self, thread: &JoinHandle<T>) -> Option<CpuPosition> {
        let mut answer = self.lock();
        *answer = None;
        self.is_wanted.store(true, Ordering::Release);
        for _ in 0..SIGNALS {
            // SAFETY: a thread that has a handle which was neither joined nor dropped has an ID.
            unsafe { libc::pthread_kill(thread.as_pthread_t(), SIGNAL as libc::c_int) };
            (answer, _) = self
                .answered
                .wait_timeout_while(answer, ANSWERS_WITHIN, |answer| answer.is_none())
                .unwrap_or_else(PoisonError::into_inner);
            if answer.is_some() {
                break;
            }
        }
        answer.take()
    }

    /// Asks the vCPU that runs in `thread` to stop; must be repeated until it has stopped.
    pub fn pause<T>(&self, thread: &JoinHandle<T>) {
        self.is_pausing.store(true, Ordering::Release);
        // SAFETY: as above.
        unsafe { libc::pthread_kill(thread.as_pthread_t(), SIGNAL as libc::c_int) };
    }

    /// Whether vCPUs are asked to stop.
    pub fn is_pausing(&self) -> bool {
        self.is_pausing.load(Ordering::Acquire)
    }

    /// Called by the vCPU's thread when a signal has ended KVM_RUN.
    pub fn tell(&self, vcpu: &VcpuFd) {
        if self.is_wanted.swap(false, Ordering::AcqRel)
            && let Ok(registers) = vcpu.get_regs()
        {
            let interrupts = registers.rflags & INTERRUPTS != 0;
            *self.lock() = Some(CpuPosition { instruction: registers.rip, interrupts });
            self.answered.notify_all();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<CpuPosition>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
