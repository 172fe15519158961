//! The structures and numbers of the FUSE protocol, version 7.39, as `include/uapi/linux/fuse.h` describes them.

use vm_memory::ByteValued;

/// The protocol's major version.
pub const MAJOR: u32 = 7;
/// The protocol's minor version: STATX came with it.
pub const MINOR: u32 = 39;
/// The oldest minor version that is spoken: virtio-fs with submounts and killpriv v2.
pub const OLDEST_MINOR: u32 = 33;

/// The node of the file system's root.
pub const ROOT_NODE: u64 = 1;

/// Operations that are answered with more than ENOSYS.
#[allow(missing_docs)] // The protocol's names.
pub mod opcode {
    pub const LOOKUP: u32 = 1;
    pub const FORGET: u32 = 2;
    pub const GETATTR: u32 = 3;
    pub const SETATTR: u32 = 4;
    pub const READLINK: u32 = 5;
    pub const SYMLINK: u32 = 6;
    pub const MKNOD: u32 = 8;
    pub const MKDIR: u32 = 9;
    pub const UNLINK: u32 = 10;
    pub const RMDIR: u32 = 11;
    pub const RENAME: u32 = 12;
    pub const LINK: u32 = 13;
    pub const OPEN: u32 = 14;
    pub const READ: u32 = 15;
    pub const WRITE: u32 = 16;
    pub const STATFS: u32 = 17;
    pub const RELEASE: u32 = 18;
    pub const FSYNC: u32 = 20;
    pub const SETXATTR: u32 = 21;
    pub const GETXATTR: u32 = 22;
    pub const LISTXATTR: u32 = 23;
    pub const REMOVEXATTR: u32 = 24;
    pub const FLUSH: u32 = 25;
    pub const INIT: u32 = 26;
    pub const OPENDIR: u32 = 27;
    pub const READDIR: u32 = 28;
    pub const RELEASEDIR: u32 = 29;
    pub const FSYNCDIR: u32 = 30;
    pub const GETLK: u32 = 31;
    pub const SETLK: u32 = 32;
    pub const SETLKW: u32 = 33;
    pub const CREATE: u32 = 35;
    pub const DESTROY: u32 = 38;
    pub const BATCH_FORGET: u32 = 42;
    pub const FALLOCATE: u32 = 43;
    pub const READDIRPLUS: u32 = 44;
    pub const RENAME2: u32 = 45;
    pub const LSEEK: u32 = 46;
    pub const COPY_FILE_RANGE: u32 = 47;
    pub const SYNCFS: u32 = 50;
    pub const TMPFILE: u32 = 51;
    pub const STATX: u32 = 52;
}

/// Features that both sides agree on in INIT; those from bit 32 are in the second word.
#[allow(missing_docs)] // The protocol's names.
pub mod feature {
    pub const ASYNC_READ: u64 = 1 << 0;
    pub const POSIX_LOCKS: u64 = 1 << 1;
    pub const ATOMIC_O_TRUNC: u64 = 1 << 3;
    pub const BIG_WRITES: u64 = 1 << 5;
    pub const DONT_MASK: u64 = 1 << 6;
    pub const FLOCK_LOCKS: u64 = 1 << 10;
    pub const AUTO_INVAL_DATA: u64 = 1 << 12;
    pub const DO_READDIRPLUS: u64 = 1 << 13;
    pub const READDIRPLUS_AUTO: u64 = 1 << 14;
    pub const ASYNC_DIO: u64 = 1 << 15;
    pub const PARALLEL_DIROPS: u64 = 1 << 18;
    pub const POSIX_ACL: u64 = 1 << 20;
    pub const MAX_PAGES: u64 = 1 << 22;
    pub const SUBMOUNTS: u64 = 1 << 27;
    pub const HANDLE_KILLPRIV_V2: u64 = 1 << 28;
    pub const SETXATTR_EXT: u64 = 1 << 29;
    pub const INIT_EXT: u64 = 1 << 30;
    pub const DIRECT_IO_ALLOW_MMAP: u64 = 1 << 36;
}

/// Which attributes SETATTR sets.
#[allow(missing_docs)] // The protocol's names.
pub mod set {
    pub const MODE: u32 = 1 << 0;
    pub const UID: u32 = 1 << 1;
    pub const GID: u32 = 1 << 2;
    pub const SIZE: u32 = 1 << 3;
    pub const ATIME: u32 = 1 << 4;
    pub const MTIME: u32 = 1 << 5;
    pub const HANDLE: u32 = 1 << 6;
    pub const ATIME_NOW: u32 = 1 << 7;
    pub const MTIME_NOW: u32 = 1 << 8;
    pub const KILL_SUIDGID: u32 = 1 << 11;
}

/// OPEN and CREATE with truncation remove setuid and setgid bits.
pub const OPEN_KILL_SUIDGID: u32 = 1 << 0;
/// WRITE comes from the page cache, through any of the file's handles.
pub const WRITE_CACHE: u32 = 1 << 0;
/// WRITE removes setuid and setgid bits.
pub const WRITE_KILL_SUIDGID: u32 = 1 << 2;
/// SETXATTR of an access ACL removes the setgid bit.
pub const SETXATTR_ACL_KILL_SGID: u32 = 1 << 0;
/// FSYNC of the data only.
pub const FSYNC_FDATASYNC: u32 = 1 << 0;
/// The lock is flock(2)'s.
pub const LOCK_FLOCK: u32 = 1 << 0;
/// RELEASE ends the handle's lock.
pub const RELEASE_FLOCK_UNLOCK: u32 = 1 << 1;

/// Reads and writes bypass the guest's page cache.
pub const OPEN_DIRECT_IO: u32 = 1 << 0;
/// The guest keeps the pages that it has of the file.
pub const OPEN_KEEP_CACHE: u32 = 1 << 1;
/// The guest keeps the directory's listing.
pub const OPEN_CACHE_DIR: u32 = 1 << 3;
/// A close sends no FLUSH.
pub const OPEN_NOFLUSH: u32 = 1 << 5;

/// Another file system begins at the node.
pub const ATTR_SUBMOUNT: u32 = 1 << 0;

macro_rules! structures {
    ($($(#[$doc:meta])* $name:ident { $($field:ident: $type:ty,)* })*) => {$(
        $(#[$doc])*
        #[repr(C)]
        #[derive(Clone, Copy, Debug, Default)]
        #[allow(missing_docs)] // The protocol's names.
        pub struct $name { $(pub $field: $type,)* }

        // SAFETY: it has only integers, and padding is a field of its own.
        unsafe impl ByteValued for $name {}

        const _: () = assert!(size_of::<$name>() == 0 $(+ size_of::<$type>())*, "padding is a field");
    )*};
}

structures! {
    /// Begins every request.
    InHeader {
        len: u32, opcode: u32, unique: u64, nodeid: u64, uid: u32, gid: u32, pid: u32, total_extlen: u16, padding: u16,
    }
    /// Begins every reply.
    OutHeader { len: u32, error: i32, unique: u64, }
    /// A node's attributes.
    Attr {
        ino: u64, size: u64, blocks: u64, atime: u64, mtime: u64, ctime: u64, atimensec: u32, mtimensec: u32,
        ctimensec: u32, mode: u32, nlink: u32, uid: u32, gid: u32, rdev: u32, blksize: u32, flags: u32,
    }
    /// INIT.
    InitIn { major: u32, minor: u32, max_readahead: u32, flags: u32, flags2: u32, unused: [u32; 11], }
    /// INIT of kernels without the second word of flags.
    InitCompatIn { major: u32, minor: u32, max_readahead: u32, flags: u32, }
    /// INIT's reply.
    InitOut {
        major: u32, minor: u32, max_readahead: u32, flags: u32, max_background: u16, congestion_threshold: u16,
        max_write: u32, time_gran: u32, max_pages: u16, map_alignment: u16, flags2: u32, unused: [u32; 7],
    }
    /// LOOKUP's reply, and that of what makes a name.
    EntryOut {
        nodeid: u64, generation: u64, entry_valid: u64, attr_valid: u64, entry_valid_nsec: u32, attr_valid_nsec: u32,
        attr: Attr,
    }
    /// FORGET.
    ForgetIn { nlookup: u64, }
    /// BATCH_FORGET, before its entries.
    BatchForgetIn { count: u32, dummy: u32, }
    /// BATCH_FORGET's entry.
    ForgetOne { nodeid: u64, nlookup: u64, }
    /// GETATTR.
    GetAttrIn { getattr_flags: u32, dummy: u32, fh: u64, }
    /// The reply of GETATTR and SETATTR.
    AttrOut { attr_valid: u64, attr_valid_nsec: u32, dummy: u32, attr: Attr, }
    /// STATX.
    StatxIn { getattr_flags: u32, reserved: u32, fh: u64, sx_flags: u32, sx_mask: u32, }
    /// A time in STATX's reply.
    StatxTime { tv_sec: i64, tv_nsec: u32, reserved: i32, }
    /// The attributes in STATX's reply.
    Statx {
        mask: u32, blksize: u32, attributes: u64, nlink: u32, uid: u32, gid: u32, mode: u16, spare0: u16, ino: u64,
        size: u64, blocks: u64, attributes_mask: u64, atime: StatxTime, btime: StatxTime, ctime: StatxTime,
        mtime: StatxTime, rdev_major: u32, rdev_minor: u32, dev_major: u32, dev_minor: u32, spare2: [u64; 14],
    }
    /// STATX's reply.
    StatxOut { attr_valid: u64, attr_valid_nsec: u32, flags: u32, spare: [u64; 2], stat: Statx, }
    /// SETATTR.
    SetAttrIn {
        valid: u32, padding: u32, fh: u64, size: u64, lock_owner: u64, atime: u64, mtime: u64, ctime: u64,
        atimensec: u32, mtimensec: u32, ctimensec: u32, mode: u32, unused4: u32, uid: u32, gid: u32, unused5: u32,
    }
    /// MKNOD, before the name.
    MknodIn { mode: u32, rdev: u32, umask: u32, padding: u32, }
    /// MKDIR, before the name.
    MkdirIn { mode: u32, umask: u32, }
    /// RENAME, before the names.
    RenameIn { newdir: u64, }
    /// RENAME2, before the names.
    Rename2In { newdir: u64, flags: u32, padding: u32, }
    /// LINK, before the name.
    LinkIn { oldnodeid: u64, }
    /// OPEN and OPENDIR.
    OpenIn { flags: u32, open_flags: u32, }
    /// CREATE and TMPFILE, before the name.
    CreateIn { flags: u32, mode: u32, umask: u32, open_flags: u32, }
    /// The reply of OPEN and OPENDIR, and the end of CREATE's.
    OpenOut { fh: u64, open_flags: u32, padding: u32, }
    /// READ, READDIR and READDIRPLUS.
    ReadIn {
        fh: u64, offset: u64, size: u32, read_flags: u32, lock_owner: u64, flags: u32, padding: u32,
    }
    /// WRITE, before the data.
    WriteIn {
        fh: u64, offset: u64, size: u32, write_flags: u32, lock_owner: u64, flags: u32, padding: u32,
    }
    /// The reply of WRITE and COPY_FILE_RANGE.
    WriteOut { size: u32, padding: u32, }
    /// RELEASE and RELEASEDIR.
    ReleaseIn { fh: u64, flags: u32, release_flags: u32, lock_owner: u64, }
    /// FLUSH.
    FlushIn { fh: u64, unused: u32, padding: u32, lock_owner: u64, }
    /// FSYNC and FSYNCDIR.
    FsyncIn { fh: u64, fsync_flags: u32, padding: u32, }
    /// STATFS's reply.
    StatfsOut {
        blocks: u64, bfree: u64, bavail: u64, files: u64, ffree: u64, bsize: u32, namelen: u32, frsize: u32,
        padding: u32, spare: [u32; 6],
    }
    /// SETXATTR with the extension, before the name and the value.
    SetXattrIn { size: u32, flags: u32, setxattr_flags: u32, padding: u32, }
    /// SETXATTR without it.
    SetXattrCompatIn { size: u32, flags: u32, }
    /// GETXATTR, before the name, and LISTXATTR.
    GetXattrIn { size: u32, padding: u32, }
    /// The reply of both when only the size was asked for.
    GetXattrOut { size: u32, padding: u32, }
    /// A range and the kind of its lock.
    FileLock { start: u64, end: u64, kind: u32, pid: u32, }
    /// GETLK, SETLK and SETLKW.
    LockIn { fh: u64, owner: u64, lock: FileLock, lk_flags: u32, padding: u32, }
    /// GETLK's reply.
    LockOut { lock: FileLock, }
    /// FALLOCATE.
    FallocateIn { fh: u64, offset: u64, length: u64, mode: u32, padding: u32, }
    /// LSEEK.
    LseekIn { fh: u64, offset: u64, whence: u32, padding: u32, }
    /// LSEEK's reply.
    LseekOut { offset: u64, }
    /// COPY_FILE_RANGE.
    CopyFileRangeIn {
        fh_in: u64, off_in: u64, nodeid_out: u64, fh_out: u64, off_out: u64, len: u64, flags: u64,
    }
    /// An entry in READDIR's reply, before the name.
    Dirent { ino: u64, off: u64, namelen: u32, kind: u32, }
}
