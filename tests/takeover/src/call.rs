//! System calls as an attacker makes them: by number.

/// What an attempt has come to; the error is an errno.
pub type Outcome = Result<(), i32>;

/// Makes a system call.
pub fn call(number: libc::c_long, arguments: &[libc::c_long]) -> Result<libc::c_long, i32> {
    let argument = |index: usize| arguments.get(index).copied().unwrap_or(0);
    // SAFETY: what the attempts pass is valid for as long as the call lasts, or nowhere; that they break this process is what
    // the test would find.
    let result = unsafe {
        libc::syscall(number, argument(0), argument(1), argument(2), argument(3), argument(4), argument(5))
    };
    if result < 0 {
        // SAFETY: the location is this thread's.
        return Err(unsafe { *libc::__errno_location() });
    }
    Ok(result)
}

/// An attempt that is done when the call succeeds.
pub fn attempt(number: libc::c_long, arguments: &[libc::c_long]) -> Outcome {
    call(number, arguments).map(drop)
}

/// The same where a call that got past the checks of rights fails with one of these errors.
pub fn attempt_until(number: libc::c_long, arguments: &[libc::c_long], past: &[i32]) -> Outcome {
    match call(number, arguments) {
        Err(errno) if past.contains(&errno) => Ok(()),
        result => result.map(drop),
    }
}

/// An attempt that makes a descriptor, which is closed again.
pub fn attempt_descriptor(number: libc::c_long, arguments: &[libc::c_long]) -> Outcome {
    close(call(number, arguments)?);
    Ok(())
}

pub fn close(descriptor: libc::c_long) {
    let _ = call(libc::SYS_close, &[descriptor]);
}

/// The address of something, as an argument.
pub fn at<T: ?Sized>(value: &T) -> libc::c_long {
    std::ptr::from_ref(value).cast::<u8>() as libc::c_long
}

/// A string, as an argument.
pub fn text(text: &'static std::ffi::CStr) -> libc::c_long {
    text.as_ptr() as libc::c_long
}

/// Makes the call with each of the descriptors that the process may have, until one succeeds; the last error otherwise, or the
/// filter's.
pub fn with_any_descriptor(try_one: impl Fn(libc::c_long) -> Outcome) -> Outcome {
    let mut outcome = Err(libc::EBADF);
    for descriptor in 0..1024 {
        match try_one(descriptor) {
            Err(libc::EBADF) => {}
            Err(errno) => outcome = Err(errno),
            done => return done,
        }
    }
    outcome
}
