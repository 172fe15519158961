//! What a guest may ask of an open file: the rest never reaches the library that serves it.
//!
//! The library changes the flags of a handle's descriptor where a READ or WRITE has other ones than the OPEN, and where the
//! host refuses that (O_DIRECT on a file system without it, any flag of an O_PATH descriptor), it closes the descriptor and
//! keeps its number. The next descriptor of that number, another container's perhaps, is then served under the old handle.
//! With access modes alone there is nothing to change, and nothing that can be refused. Appending and synchronous writes
//! are the work of the guest's kernel: it sends offsets and FSYNC.

use std::{any::Any, ffi::CStr, io, time::Duration};

use fuse_backend_rs::{
    abi::fuse_abi::{CreateIn, stat64, statvfs64},
    api::{
        BackendFileSystem,
        filesystem::{
            Context, DirEntry, Entry, FileSystem, FsOptions, GetxattrReply, ListxattrReply, OpenOptions,
            SetattrValid, ZeroCopyReader, ZeroCopyWriter,
        },
    },
    passthrough::PassthroughFs,
};

const ACCESS: u32 = libc::O_ACCMODE as u32;
const OPEN: u32 = ACCESS | libc::O_TRUNC as u32;
const CREATE: u32 = OPEN | (libc::O_CREAT | libc::O_EXCL) as u32;

/// Longest value or list of names of extended attributes that Linux has (XATTR_SIZE_MAX, XATTR_LIST_MAX), in bytes.
const ATTRIBUTE_SIZE: u32 = 64 << 10;

type Inode = u64;
type Handle = u64;

/// A pass-through file system whose requests carry allowed flags only.
pub struct AllowedFlags(pub PassthroughFs<()>);

/// Methods that are the file system's as they are.
macro_rules! as_they_are {
    ($(fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {
        $(fn $name(&self, context: &Context, $($argument: $type),*) $(-> $result)? {
            self.0.$name(context, $($argument),*)
        })*
    };
}

impl FileSystem for AllowedFlags {
    type Inode = Inode;
    type Handle = Handle;

    fn init(&self, capable: FsOptions) -> io::Result<FsOptions> {
        self.0.init(capable)
    }

    fn destroy(&self) {
        self.0.destroy();
    }

    fn open(
        &self,
        context: &Context,
        inode: Inode,
        flags: u32,
        fuse_flags: u32,
    ) -> io::Result<(Option<Handle>, OpenOptions, Option<u32>)> {
        self.0.open(context, inode, flags & OPEN, fuse_flags)
    }

    fn opendir(
        &self,
        context: &Context,
        inode: Inode,
        _flags: u32,
    ) -> io::Result<(Option<Handle>, OpenOptions)> {
        self.0.opendir(context, inode, libc::O_RDONLY as u32)
    }

    fn create(
        &self,
        context: &Context,
        parent: Inode,
        name: &CStr,
        args: CreateIn,
    ) -> io::Result<(Entry, Option<Handle>, OpenOptions, Option<u32>)> {
        self.0.create(context, parent, name, CreateIn { flags: args.flags & CREATE, ..args })
    }

    fn read(
        &self,
        context: &Context,
        inode: Inode,
        handle: Handle,
        w: &mut dyn ZeroCopyWriter,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        flags: u32,
    ) -> io::Result<usize> {
        self.0.read(context, inode, handle, w, size, offset, lock_owner, flags & ACCESS)
    }

    fn write(
        &self,
        context: &Context,
        inode: Inode,
        handle: Handle,
        r: &mut dyn ZeroCopyReader,
        size: u32,
        offset: u64,
        lock_owner: Option<u64>,
        delayed_write: bool,
        flags: u32,
        fuse_flags: u32,
    ) -> io::Result<usize> {
        let flags = flags & ACCESS;
        self.0.write(context, inode, handle, r, size, offset, lock_owner, delayed_write, flags, fuse_flags)
    }

    fn getxattr(&self, context: &Context, inode: Inode, name: &CStr, size: u32) -> io::Result<GetxattrReply> {
        self.0.getxattr(context, inode, name, size.min(ATTRIBUTE_SIZE))
    }

    fn listxattr(&self, context: &Context, inode: Inode, size: u32) -> io::Result<ListxattrReply> {
        self.0.listxattr(context, inode, size.min(ATTRIBUTE_SIZE))
    }

    as_they_are! {
        fn lookup(parent: Inode, name: &CStr) -> io::Result<Entry>;
        fn forget(inode: Inode, count: u64);
        fn batch_forget(requests: Vec<(Inode, u64)>);
        fn getattr(inode: Inode, handle: Option<Handle>) -> io::Result<(stat64, Duration)>;
        fn setattr(inode: Inode, attr: stat64, handle: Option<Handle>, valid: SetattrValid)
            -> io::Result<(stat64, Duration)>;
        fn readlink(inode: Inode) -> io::Result<Vec<u8>>;
        fn symlink(linkname: &CStr, parent: Inode, name: &CStr) -> io::Result<Entry>;
        fn mknod(inode: Inode, name: &CStr, mode: u32, rdev: u32, umask: u32) -> io::Result<Entry>;
        fn mkdir(parent: Inode, name: &CStr, mode: u32, umask: u32) -> io::Result<Entry>;
        fn unlink(parent: Inode, name: &CStr) -> io::Result<()>;
        fn rmdir(parent: Inode, name: &CStr) -> io::Result<()>;
        fn rename(olddir: Inode, oldname: &CStr, newdir: Inode, newname: &CStr, flags: u32) -> io::Result<()>;
        fn link(inode: Inode, newparent: Inode, newname: &CStr) -> io::Result<Entry>;
        fn flush(inode: Inode, handle: Handle, lock_owner: u64) -> io::Result<()>;
        fn fsync(inode: Inode, datasync: bool, handle: Handle) -> io::Result<()>;
        fn fallocate(inode: Inode, handle: Handle, mode: u32, offset: u64, length: u64) -> io::Result<()>;
        fn release(inode: Inode, flags: u32, handle: Handle, flush: bool, flock_release: bool,
            lock_owner: Option<u64>) -> io::Result<()>;
        fn statfs(inode: Inode) -> io::Result<statvfs64>;
        fn setxattr(inode: Inode, name: &CStr, value: &[u8], flags: u32) -> io::Result<()>;
        fn removexattr(inode: Inode, name: &CStr) -> io::Result<()>;
        fn readdir(inode: Inode, handle: Handle, size: u32, offset: u64,
            add_entry: &mut dyn FnMut(DirEntry<'_>) -> io::Result<usize>) -> io::Result<()>;
        fn readdirplus(inode: Inode, handle: Handle, size: u32, offset: u64,
            add_entry: &mut dyn FnMut(DirEntry<'_>, Entry) -> io::Result<usize>) -> io::Result<()>;
        fn fsyncdir(inode: Inode, datasync: bool, handle: Handle) -> io::Result<()>;
        fn releasedir(inode: Inode, flags: u32, handle: Handle) -> io::Result<()>;
        fn access(inode: Inode, mask: u32) -> io::Result<()>;
        fn lseek(inode: Inode, handle: Handle, offset: u64, whence: u32) -> io::Result<u64>;
    }
}

impl BackendFileSystem for AllowedFlags {
    fn mount(&self) -> io::Result<(Entry, u64)> {
        self.0.mount()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }
}
