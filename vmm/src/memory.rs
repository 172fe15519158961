//! Guest RAM and the guest's physical address map.
//!
//! ```text
//!  0      9d000  a0000     100000                  ≤ 256 MiB   3 GiB        4 GiB
//!  │ RAM  │ boot │ (holes) │ RAM: kernel, initramfs │ …         │ MMIO hole  │ RAM that is plugged after boot
//! ```
//!
//! RAM is private and lazily backed: the host has a page for it once the guest (or a device) touches it.
//!
//! The upper region is as large as the guest may ever become, but that is address space only: KVM, whose slots cost memory
//! by their size, and the host's page tables know the part that may be plugged now ([`crate::ram`]). What is above that
//! cannot be accessed: a device that a guest sends there ends the VMM, which says so ([`crate::faults`]).
//!
//! Of the kernel, what the guest only reads is mapped copy-on-write and costs a page of the host's page cache, however many
//! guests there are. What it writes to is read into RAM's huge pages: a page that is mapped, read and then written takes
//! two exits, a copy and a flush. Text is in the first group, because the shipped kernel patches few of its pages; one with
//! CONFIG_MITIGATION_RETHUNK patches nearly all, and boots faster with its text read.

use std::{
    fs::File,
    io,
    ops::Range,
    os::{fd::AsRawFd, unix::fs::FileExt},
    ptr,
};

use vm_memory::{
    Address, GuestAddress, GuestMemory, GuestMemoryError, GuestMemoryMmap, GuestMemoryRegion,
    GuestRegionCollectionError, GuestRegionMmap, MmapRegion,
};

/// Start of the hole in which devices live.
pub const MMIO_START: GuestAddress = GuestAddress(3 << 30);

/// First address after the hole.
pub const MMIO_END: GuestAddress = GuestAddress(4 << 30);

/// Size of a page, in bytes.
pub const PAGE_SIZE: u64 = 4096;

const MIB: u64 = 1 << 20;

/// Size of a huge page, in bytes.
pub const HUGE_PAGE_SIZE: u64 = 2 << 20;

/// Largest RAM with which a guest boots, in MiB. Its kernel takes 33,000 instructions for each MiB to set it up; the
/// rest is plugged later.
const BOOT_MIB: u32 = 256;

/// Linux's unit of memory hotplug in a guest, in bytes.
const HOTPLUG_UNIT: u64 = 128 << 20;

/// Smallest RAM in which a kernel starts, in MiB.
const MIN_MIB: u32 = 32;

/// Largest RAM, in MiB: the guest's page tables and KVM allow more, but a typing error should be found.
const MAX_MIB: u32 = 4 << 20;

/// Why guest RAM cannot be made or filled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The size is out of range.
    #[error("guest memory of {0} MiB is out of range: {MIN_MIB} to {MAX_MIB} MiB")]
    Size(u32),
    /// The host refuses the address space.
    #[error("guest memory of {memory_mib} MiB cannot be reserved: {source}; raise RLIMIT_AS or ask for less")]
    Reserve {
        /// The size.
        memory_mib: u32,
        /// The cause.
        source: io::Error,
    },
    /// The regions do not fit together.
    #[error("guest memory: {0}")]
    Layout(GuestRegionCollectionError),
    /// A file does not fit where it belongs.
    #[error(
        "{length} bytes at {address:#x} are outside the {ram} bytes of memory with which the guest boots; give it more"
    )]
    Outside {
        /// Guest physical address.
        address: u64,
        /// Length, in bytes.
        length: u64,
        /// Bytes of RAM with which the guest boots.
        ram: u64,
    },
    /// A file cannot be mapped into guest memory.
    #[error("cannot map into guest memory: {0}")]
    Map(io::Error),
    /// A file cannot be read into guest memory.
    #[error("cannot read into guest memory: {0}")]
    Read(io::Error),
    /// Guest memory cannot be written.
    #[error("cannot write guest memory: {0}")]
    Access(#[from] GuestMemoryError),
}

/// The RAM that a guest has, and the RAM that it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// RAM that the guest has once it has booted, in MiB.
    pub memory_mib: u32,
    /// Largest RAM that the guest can be given later, in MiB; a value below `memory_mib` stands for that.
    pub most_mib: u32,
}

/// RAM that the guest plugs once it has booted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Growth {
    /// The region in which it may plug, in guest physical addresses: whole units of Linux's memory hotplug.
    pub region: Range<u64>,
    /// How much of the region it plugs at first, in bytes.
    pub size: u64,
}

impl Size {
    /// RAM with which the guest boots, in bytes.
    pub fn boot(self) -> u64 {
        u64::from(self.memory_mib.min(BOOT_MIB)) * MIB
    }

    /// The region that the guest plugs after it has booted; `None` if it boots with all RAM that it may have.
    pub fn growth(self) -> Option<Growth> {
        let size = u64::from(self.memory_mib) * MIB - self.boot();
        let most = u64::from(self.most_mib.max(self.memory_mib)) * MIB - self.boot();
        let start = MMIO_END.raw_value();
        (most > 0).then(|| Growth { region: start..start + most.next_multiple_of(HOTPLUG_UNIT), size })
    }
}

impl Growth {
    /// Length of the region's first part in which `size` bytes can be plugged, in bytes.
    pub fn usable(&self, size: u64) -> u64 {
        size.next_multiple_of(HOTPLUG_UNIT).min(self.region.end - self.region.start)
    }
}

/// Reserves guest RAM: the part with which the guest boots, and the region in which it grows.
///
/// # Errors
/// [`Error::Size`], [`Error::Reserve`].
pub fn reserve(size: Size) -> Result<GuestMemoryMmap, Error> {
    let Size { memory_mib, most_mib } = size;
    if let Some(wrong) =
        [memory_mib, most_mib.max(memory_mib)].into_iter().find(|mib| !(MIN_MIB..=MAX_MIB).contains(mib))
    {
        return Err(Error::Size(wrong));
    }
    let boot = Some((0..size.boot(), size.boot()));
    let growth = size.growth().map(|growth| (growth.region.clone(), growth.usable(growth.size)));
    let regions = [boot, growth]
        .into_iter()
        .flatten()
        // x86_64: u64 fits usize.
        .map(|(range, usable)| {
            region(GuestAddress(range.start), (range.end - range.start) as usize, usable as usize)
        })
        .collect::<Option<Vec<_>>>();
    let regions = regions.ok_or_else(|| Error::Reserve { memory_mib, source: io::Error::last_os_error() })?;
    GuestMemoryMmap::from_regions(regions).map_err(Error::Layout)
}

/// Makes `length` more bytes of the upper region accessible.
///
/// # Errors
/// mprotect(2)'s, or the range is not in guest memory.
pub fn open(memory: &GuestMemoryMmap, start: GuestAddress, length: u64) -> io::Result<()> {
    let slice = memory.get_slice(start, length as usize).map_err(io::Error::other)?;
    // SAFETY: the range is guest memory, which nobody has references to; access to it is only widened.
    match unsafe { libc::mprotect(slice.ptr_guard_mut().as_ptr().cast(), length as usize, READ_AND_WRITE) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Advises the host to back this range with huge pages, or not to; hosts without huge pages ignore it.
pub fn back_with_huge_pages(memory: &GuestMemoryMmap, start: u64, length: u64, is_wanted: bool) {
    let Ok(slice) = memory.get_slice(GuestAddress(start), length as usize) else { return };
    let advice = if is_wanted { libc::MADV_HUGEPAGE } else { libc::MADV_NOHUGEPAGE };
    // SAFETY: advice about guest memory changes nothing of what is in it.
    unsafe { libc::madvise(slice.ptr_guard_mut().as_ptr().cast(), length as usize, advice) };
}

/// Makes pages of a file that are mapped here this process's own, as a write to each of them would. It is advice.
pub fn make_own(memory: &GuestMemoryMmap, start: u64, length: u64) {
    let Ok(slice) = memory.get_slice(GuestAddress(start), length as usize) else { return };
    // SAFETY: the contents stay as they are.
    unsafe {
        libc::madvise(slice.ptr_guard_mut().as_ptr().cast(), length as usize, libc::MADV_POPULATE_WRITE)
    };
}

const READ_AND_WRITE: i32 = libc::PROT_READ | libc::PROT_WRITE;

/// One region of RAM, in huge pages but for its first, of which the first `usable` bytes can be accessed.
///
/// A kernel that boots touches most of what it takes from its allocators, and a huge page is one exit and one fault of the
/// host where small ones are 512 of each. The first one holds little but boot tables. Guest and host addresses are equally
/// aligned, because KVM maps huge pages only then.
fn region(start: GuestAddress, size: usize, usable: usize) -> Option<GuestRegionMmap> {
    let huge = HUGE_PAGE_SIZE as usize;
    let flags = libc::MAP_ANONYMOUS | libc::MAP_PRIVATE | libc::MAP_NORESERVE;
    let protection = if usable == size { READ_AND_WRITE } else { libc::PROT_NONE };
    // SAFETY: a new mapping, wherever the kernel has room for it.
    let reserved = unsafe { libc::mmap(ptr::null_mut(), size + huge, protection, flags, -1, 0) };
    if reserved == libc::MAP_FAILED {
        return None;
    }
    let reserved = reserved.cast::<u8>();
    let aligned = reserved.wrapping_add(reserved.align_offset(huge));
    // Advice: where the host has no huge pages, small ones serve.
    // SAFETY: both ranges are inside the new mapping, to which nobody has references yet.
    unsafe {
        libc::madvise(aligned.wrapping_add(huge).cast(), size.saturating_sub(huge), libc::MADV_HUGEPAGE);
        libc::madvise(aligned.cast(), size, libc::MADV_DONTDUMP);
    }
    // SAFETY: the range is inside the new mapping, to which nobody has references yet.
    if usable < size && unsafe { libc::mprotect(aligned.cast(), usable, READ_AND_WRITE) } != 0 {
        return None;
    }
    // SAFETY: the range is mapped as said, and never unmapped: guest RAM lasts as long as the process.
    let mapping = unsafe { MmapRegion::build_raw(aligned, size, READ_AND_WRITE, flags) }.ok()?;
    GuestRegionMmap::new(mapping, start)
}

/// Bytes of RAM with which the guest boots, from address 0.
pub fn boot_ram(memory: &GuestMemoryMmap) -> u64 {
    memory.find_region(GuestAddress(0)).map_or(0, GuestMemoryRegion::len)
}

/// Reads `length` bytes of `file` from `offset` to `address`: for parts that the guest writes to.
///
/// # Errors
/// [`Error::Outside`], [`Error::Read`].
pub fn read_file(
    memory: &GuestMemoryMmap,
    address: u64,
    file: &File,
    offset: u64,
    length: u64,
) -> Result<(), Error> {
    check_bounds(memory, address, length)?;
    if length == 0 {
        return Ok(());
    }
    let slice = memory.get_slice(GuestAddress(address), length as usize)?;
    // SAFETY: the slice is in bounds, and nobody else has references into guest memory: no vCPU runs yet.
    let bytes = unsafe { std::slice::from_raw_parts_mut(slice.ptr_guard_mut().as_ptr(), slice.len()) };
    file.read_exact_at(bytes, offset).map_err(Error::Read)
}

/// Maps `length` bytes of `file` from `offset` at `address`, for parts that the guest only reads. Whole pages are
/// mapped copy-on-write; the edges are read, and so is everything if file and memory are aligned differently.
///
/// # Errors
/// [`Error::Outside`], [`Error::Map`], [`Error::Read`].
pub fn map_file(
    memory: &GuestMemoryMmap,
    address: u64,
    file: &File,
    offset: u64,
    length: u64,
) -> Result<(), Error> {
    check_bounds(memory, address, length)?;
    let end = address + length;
    let mapped = address.next_multiple_of(PAGE_SIZE)..end / PAGE_SIZE * PAGE_SIZE;
    if address % PAGE_SIZE != offset % PAGE_SIZE || mapped.is_empty() {
        return read_file(memory, address, file, offset, length);
    }
    let in_file = |place: u64| offset + (place - address);
    read_file(memory, address, file, offset, mapped.start - address)?;
    map_pages(memory, mapped.start, file, in_file(mapped.start), mapped.end - mapped.start)?;
    read_file(memory, mapped.end, file, in_file(mapped.end), end - mapped.end)
}

fn check_bounds(memory: &GuestMemoryMmap, address: u64, length: u64) -> Result<(), Error> {
    let ram = boot_ram(memory);
    if address.checked_add(length).is_none_or(|end| end > ram) {
        return Err(Error::Outside { address, length, ram });
    }
    Ok(())
}

/// Maps pages over guest memory, copy-on-write; the range has been checked to be whole pages of one region.
pub(crate) fn map_pages(
    memory: &GuestMemoryMmap,
    start: u64,
    file: &File,
    offset: u64,
    length: u64,
) -> Result<(), Error> {
    let at = memory.get_host_address(GuestAddress(start))?;
    // SAFETY: MAP_FIXED replaces pages of a mapping that guest memory owns and unmaps as one range; no references
    // into it exist.
    let mapped = unsafe {
        libc::mmap(
            at.cast(),
            length as usize,
            READ_AND_WRITE,
            libc::MAP_PRIVATE | libc::MAP_FIXED | libc::MAP_NORESERVE,
            file.as_raw_fd(),
            offset as libc::off_t,
        )
    };
    if mapped == libc::MAP_FAILED { Err(Error::Map(io::Error::last_os_error())) } else { Ok(()) }
}

#[cfg(test)]
#[path = "memory_test.rs"]
mod tests;
