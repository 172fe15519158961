//! A request: its header and its arguments, in private memory.
//!
//! Both are copied before anything in them is looked at, so that what was checked is what is used. WRITE's data stay where
//! they are ([`Request::data`]).

use std::ffi::CStr;

use vm_memory::{ByteValued, VolatileSlice};

use super::{
    Malformed,
    abi::{InHeader, WriteIn, opcode},
    sys::{Errno, Shared},
};

/// Longest name of a directory entry.
const NAME_MAX: usize = 255;

/// Why an operation failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The guest gets this error.
    Errno(Errno),
    /// The request cannot be understood.
    Malformed(Malformed),
}

impl From<Errno> for Failure {
    fn from(errno: Errno) -> Self {
        Self::Errno(errno)
    }
}

impl From<Malformed> for Failure {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

/// A failure with this error for the guest.
pub fn refuse<T>(errno: i32) -> Result<T, Failure> {
    Err(Failure::Errno(Errno::new(errno)))
}

/// A request.
pub struct Request<'a> {
    /// Its header.
    pub header: InHeader,
    arguments: &'a [u8],
    shared: VolatileSlice<'a>,
}

impl<'a> Request<'a> {
    /// Copies the first `length` bytes of `shared` to `private`, except a WRITE's data, and what no operation has: only IOCTL, which
    /// does not exist here, has arguments beyond `private`. Any process of a container can have its kernel send that.
    pub fn copy(shared: VolatileSlice<'a>, length: usize, private: &'a mut [u8]) -> Result<Self, Malformed> {
        const HEADER: usize = size_of::<InHeader>();
        let shared = shared.subslice(0, length).map_err(|_| Malformed("longer than its buffer"))?;
        let (start, rest) = shared.split_at(HEADER).map_err(|_| Malformed("shorter than a header"))?;
        let mut header = InHeader::zeroed();
        start.copy_to(header.as_mut_slice());
        if header.len as usize != length {
            return Err(Malformed("its length is not what its header says"));
        }
        let wanted = match header.opcode {
            opcode::WRITE => size_of::<WriteIn>().min(rest.len()),
            _ => rest.len().min(private.len()),
        };
        let private = private.get_mut(..wanted).ok_or(Malformed("too long"))?;
        rest.copy_to(private);
        Ok(Self { header, arguments: private, shared })
    }

    /// The next argument.
    pub fn take<T: ByteValued>(&mut self) -> Result<T, Malformed> {
        let mut value = T::zeroed();
        value.as_mut_slice().copy_from_slice(self.take_bytes(size_of::<T>())?);
        Ok(value)
    }

    /// The next bytes.
    pub fn take_bytes(&mut self, length: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) =
            self.arguments.split_at_checked(length).ok_or(Malformed("an argument is missing"))?;
        self.arguments = rest;
        Ok(taken)
    }

    /// The next string.
    pub fn take_string(&mut self) -> Result<&'a CStr, Malformed> {
        let string =
            CStr::from_bytes_until_nul(self.arguments).map_err(|_| Malformed("a string has no end"))?;
        self.arguments = &self.arguments[string.count_bytes() + 1..];
        Ok(string)
    }

    /// The next string, which names an entry of a directory.
    pub fn take_name(&mut self) -> Result<&'a CStr, Failure> {
        let name = self.take_string()?;
        match name.to_bytes() {
            b"" | b"." | b".." => refuse(libc::EINVAL),
            bytes if bytes.contains(&b'/') => refuse(libc::EINVAL),
            bytes if bytes.len() > NAME_MAX => refuse(libc::ENAMETOOLONG),
            _ => Ok(name),
        }
    }

    /// WRITE's data, which are all bytes after its arguments. Their contents may change at any time.
    pub fn data(&self, size: usize) -> Result<Shared, Malformed> {
        let data = self.shared.offset(size_of::<InHeader>() + size_of::<WriteIn>());
        let data = data.map_err(|_| Malformed("an argument is missing"))?;
        if data.len() != size {
            return Err(Malformed("the data's size is not the size that the request names"));
        }
        // SAFETY: the slice is mapped for its lifetime, which is longer than the request's.
        Ok(unsafe { Shared::new(data.ptr_guard_mut().as_ptr(), size) })
    }
}
