//! The frame of the state file.
//!
//! ```text
//!  0   8        12      16        24
//!  │ magic │ version │ length │ checksum │ the state, by postcard
//! ```
//!
//! Numbers are little-endian. The frame is written last: a file without it was never finished. The checksum finds a file that was
//! cut or damaged; who may write the file is the runtime's to check. Whatever the file says, the parser reads no more than its length.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::State;

const MAGIC: &[u8; 8] = b"stkdtmpl";

/// Of the frame and of all that is in it.
const VERSION: u32 = 1;

const FRAME: usize = 24;

/// Most bytes of a state.
const LIMIT: usize = 1 << 20;

/// A state file is none.
#[derive(Debug, thiserror::Error)]
#[allow(missing_docs)] // The texts say it.
pub enum Invalid {
    #[error("its state cannot be read: {0}")]
    Read(#[from] io::Error),
    #[error("its state is not finished, or none")]
    Magic,
    #[error("its state has version {0}, and this is {VERSION}")]
    Version(u32),
    #[error("its state has {found} bytes, and says {said}")]
    Length { found: usize, said: usize },
    #[error("its state is damaged")]
    Checksum,
    #[error("its state cannot be understood")]
    Content,
    #[error("its state says what cannot be: {0}")]
    Implausible(&'static str),
}

/// FNV-1a, in 64 bits: finds accidents, and nobody else is to be found.
#[derive(Clone, Copy, Debug)]
pub struct Checksum(u64);

impl Default for Checksum {
    fn default() -> Self {
        Self(0xcbf2_9ce4_8422_2325)
    }
}

impl Checksum {
    /// Takes bytes in.
    pub fn add(&mut self, bytes: &[u8]) {
        self.0 = bytes
            .iter()
            .fold(self.0, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    }

    /// Of all that was taken in.
    pub fn value(self) -> u64 {
        self.0
    }

    fn of(bytes: &[u8]) -> u64 {
        let mut sum = Self::default();
        sum.add(bytes);
        sum.value()
    }
}

/// Writes the state to the start of an empty file.
///
/// # Errors
/// Those of pwrite(2), or it is too large.
pub fn write(file: &File, state: &State) -> io::Result<()> {
    let content = postcard::to_stdvec(state).map_err(io::Error::other)?;
    if content.len() > LIMIT {
        return Err(io::Error::other(format!("a state of {} bytes is more than {LIMIT}", content.len())));
    }
    file.write_all_at(&content, FRAME as u64)?;
    let mut frame = Vec::with_capacity(FRAME);
    frame.extend(MAGIC);
    frame.extend(VERSION.to_le_bytes());
    // At most LIMIT.
    frame.extend((content.len() as u32).to_le_bytes());
    frame.extend(Checksum::of(&content).to_le_bytes());
    file.write_all_at(&frame, 0)
}

/// Reads a state file.
///
/// # Errors
/// [`Invalid`].
pub fn read(file: &File) -> Result<State, Invalid> {
    let length = file.metadata()?.len();
    let said = usize::try_from(length).unwrap_or(usize::MAX);
    if said > FRAME + LIMIT {
        return Err(Invalid::Length { found: said, said: LIMIT });
    }
    let mut bytes = vec![0; said];
    file.read_exact_at(&mut bytes, 0)?;
    parse(&bytes)
}

/// Parses what a state file holds.
///
/// # Errors
/// [`Invalid`].
pub fn parse(bytes: &[u8]) -> Result<State, Invalid> {
    let (frame, content) = bytes.split_at_checked(FRAME).ok_or(Invalid::Magic)?;
    let word = |at: usize| u32::from_le_bytes(std::array::from_fn(|index| frame[at + index]));
    if !frame.starts_with(MAGIC) {
        return Err(Invalid::Magic);
    }
    if word(8) != VERSION {
        return Err(Invalid::Version(word(8)));
    }
    let said = word(12) as usize;
    if content.len() != said || said > LIMIT {
        return Err(Invalid::Length { found: content.len(), said });
    }
    if Checksum::of(content) != u64::from(word(20)) << 32 | u64::from(word(16)) {
        return Err(Invalid::Checksum);
    }
    let (state, rest): (State, _) = postcard::take_from_bytes(content).map_err(|_| Invalid::Content)?;
    if !rest.is_empty() {
        return Err(Invalid::Content);
    }
    state.check().map_err(Invalid::Implausible)?;
    Ok(state)
}

/// The same frame around this content: for tests and fuzzing, to which the checksum would hide what is behind it.
#[cfg(any(test, feature = "fuzz"))]
pub fn framed(content: &[u8]) -> Vec<u8> {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(VERSION.to_le_bytes());
    bytes.extend((content.len() as u32).to_le_bytes());
    bytes.extend(Checksum::of(content).to_le_bytes());
    bytes.extend(content);
    bytes
}
