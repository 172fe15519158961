//! clone3(2): as a fork, whose child has a copy of everything, and for a child that executes a program at once.

use std::arch::asm;
use std::ffi::c_void;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::errno::Errno;
use nix::unistd::{ForkResult, Pid};

use crate::pidfd::Pidfd;

/// The last field of the arguments names a cgroup; libc's constant has too few bits.
const CLONE_INTO_CGROUP: u64 = 1 << 33;

/// Bytes of stack of a child that executes a program.
pub const STACK: usize = 256 << 10;

/// How a child is made.
#[derive(Clone, Copy, Debug)]
pub struct Fork<'a> {
    /// `CLONE_NEW*`: its namespaces.
    pub namespaces: libc::c_int,
    /// The directory of the cgroup that it begins in; `None` for the caller's.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Whether its parent is the caller's parent, which then also gets the signal of its end.
    pub is_sibling: bool,
}

/// Which of the two processes returns.
#[derive(Debug)]
pub enum Forked {
    /// The caller; the child has this PID in the caller's namespace.
    Parent(libc::pid_t, Pidfd),
    /// The new process.
    Child,
}

impl From<Forked> for ForkResult {
    fn from(forked: Forked) -> Self {
        match forked {
            Forked::Parent(pid, _) => Self::Parent { child: Pid::from_raw(pid) },
            Forked::Child => Self::Child,
        }
    }
}

impl Fork<'_> {
    /// Forks.
    ///
    /// # Errors
    /// Those of clone3(2).
    ///
    /// # Safety
    /// The process has one thread, or else the child may find another thread's lock held for ever. The child does not unwind
    /// out of what the caller was doing.
    pub unsafe fn fork(self) -> Result<Forked, Errno> {
        let mut pidfd: RawFd = -1;
        let args = self.arguments(&mut pidfd);
        // SAFETY: without CLONE_VM the child has its own copy of the memory and needs no stack of its own; the size is that
        // of the structure, and `pidfd` outlives the call. What else a child must heed is this function's own contract.
        let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<libc::clone_args>()) };
        match Errno::result(pid)? {
            0 => Ok(Forked::Child),
            pid => {
                // SAFETY: clone3 has stored a new descriptor here, and nobody else has it.
                let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
                // PIDs have 32 bits.
                Ok(Forked::Parent(pid as libc::pid_t, Pidfd::from(pidfd)))
            }
        }
    }

    /// Makes a child that is to execute a program, and returns when it has, or has ended. Until then it uses the caller's memory, on
    /// a stack of its own, and the caller stands still: nothing is copied. It exits with what `body` returns.
    ///
    /// # Errors
    /// Those of clone3(2).
    ///
    /// # Safety
    /// What `body` does to memory, it does to the caller's, and it needs less than [`STACK`] bytes of stack. Nobody else waits for a
    /// lock that it takes, because the process has one thread.
    pub unsafe fn execute<F: FnOnce() -> i32>(self, body: F) -> Result<(libc::pid_t, Pidfd), Errno> {
        let mut pidfd: RawFd = -1;
        let mut args = self.arguments(&mut pidfd);
        // Of a size that the allocator takes from the kernel, so that only what is used of it becomes memory.
        let mut stack = Box::<[u128]>::new_uninit_slice(STACK / size_of::<u128>());
        args.flags |= (libc::CLONE_VM | libc::CLONE_VFORK) as u64;
        args.stack = stack.as_mut_ptr() as u64;
        args.stack_size = size_of_val::<[MaybeUninit<u128>]>(&stack) as u64;
        let mut body = Some(body);
        let enter: extern "C" fn(*mut c_void) -> i32 = enter::<F>;
        let returned: libc::c_long;
        // SAFETY: the child returns on its own stack, whose end is aligned, with the registers of the caller; it calls `enter` and
        // ends. `body` and the stack last until it has executed its program, because CLONE_VFORK keeps the caller waiting.
        unsafe {
            asm!(
                "syscall",
                "test rax, rax",
                "jnz 2f",
                "xor ebp, ebp",
                "mov rdi, {body}",
                "call {enter}",
                "mov edi, eax",
                "mov eax, {exit}",
                "syscall",
                "ud2",
                "2:",
                body = in(reg) &raw mut body,
                enter = in(reg) enter,
                exit = const libc::SYS_exit_group,
                inlateout("rax") libc::SYS_clone3 => returned,
                in("rdi") &raw const args,
                in("rsi") size_of::<libc::clone_args>(),
                out("rcx") _,
                out("r11") _,
            );
        }
        if returned < 0 {
            // Error numbers are small.
            return Err(Errno::from_raw(-returned as i32));
        }
        // SAFETY: clone3 has stored a new descriptor here, and nobody else has it.
        let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
        // PIDs have 32 bits.
        Ok((returned as libc::pid_t, Pidfd::from(pidfd)))
    }

    /// The arguments of clone3 for this child, whose pidfd is stored in `pidfd`.
    fn arguments(self, pidfd: &mut RawFd) -> libc::clone_args {
        // SAFETY: the structure is plain numbers, for all of which 0 means "unused".
        let mut args: libc::clone_args = unsafe { std::mem::zeroed() };
        // Namespace flags have 32 bits, and the sign bit is not one of them.
        args.flags = u64::from(self.namespaces as u32) | libc::CLONE_PIDFD as u64;
        args.pidfd = std::ptr::from_mut(pidfd) as u64;
        if self.is_sibling {
            args.flags |= libc::CLONE_PARENT as u64;
        } else {
            args.exit_signal = libc::SIGCHLD as u64;
        }
        if let Some(cgroup) = self.cgroup {
            args.flags |= CLONE_INTO_CGROUP;
            args.cgroup = cgroup.as_raw_fd() as u64;
        }
        args
    }
}

/// In the child of [`Fork::execute`].
extern "C" fn enter<F: FnOnce() -> i32>(body: *mut c_void) -> i32 {
    // SAFETY: the creator passes its `Option<F>`, and stands still.
    let body = unsafe { &mut *body.cast::<Option<F>>() };
    body.take().map_or(0, |body| body())
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};

    use super::*;

    #[test]
    fn a_child_that_executes_works_in_its_creators_memory_on_a_stack_of_its_own() {
        let (mut seen, mut where_its_stack_is) = (0, 0);
        let mine = 0_u8;
        let body = || {
            let its = 0_u8;
            where_its_stack_is = (&raw const its) as usize;
            seen = std::process::id();
            7
        };
        let fork = Fork { namespaces: 0, cgroup: None, is_sibling: false };
        // SAFETY: other tests wait, and the body takes no lock.
        let (pid, pidfd) = unsafe { fork.execute(body) }.unwrap();
        assert_eq!(seen, pid as u32);
        assert!(where_its_stack_is.abs_diff((&raw const mine) as usize) > STACK);
        let status = waitid(Id::PIDFd(std::os::fd::AsFd::as_fd(&pidfd)), WaitPidFlag::WEXITED).unwrap();
        assert_eq!(status, WaitStatus::Exited(Pid::from_raw(pid), 7));
    }
}
