//! Making an empty ext4 file system in an empty file, without a journal: for files that last as long as a VM.
//!
//! The layout is that of the kernel's documentation ("ext4 Data Structures and Algorithms"): groups of 128 MiB, the bitmaps and
//! inode tables of 16 groups together in the first of them (flex_bg), no copies of the superblock (sparse_super2 with
//! none), and groups that the kernel initializes when it needs them (uninit_bg). So little is written, however large the file is.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Smallest file system, in bytes.
pub const MIN: u64 = 16 << 20;

/// Largest file system, in bytes: block numbers have 32 bits.
pub const MAX: u64 = 8 << 40;

const BLOCK: u64 = 4096;
const BLOCKS_PER_GROUP: u32 = 32_768;
const GROUPS_PER_FLEX: u32 = 16;
const INODE_SIZE: u32 = 256;
const INODES_PER_BLOCK: u32 = BLOCK as u32 / INODE_SIZE;
const DESCRIPTOR_SIZE: u32 = 32;

/// Inodes in a whole group: one for 16 KiB.
const INODES_PER_GROUP: u32 = 8192;

/// A last group of fewer blocks than this is left out: its tables would leave no room for files.
const LEAST_IN_LAST: u32 = 1024;

/// Inodes that are not for files, of which number 2 is the root.
const RESERVED_INODES: u32 = 10;
const ROOT: u32 = 2;

const MAGIC: u16 = 0xef53;
const COMPATIBLE: u32 = 0x8 | 0x20 | 0x200; // ext_attr, dir_index, sparse_super2
const INCOMPATIBLE: u32 = 0x2 | 0x40 | 0x200; // filetype, extents, flex_bg
const READ_ONLY_COMPATIBLE: u32 = 0x2 | 0x8 | 0x10 | 0x20 | 0x40; // large_file, huge_file, uninit_bg, dir_nlink, extra_isize
const HALF_MD4: u8 = 1;
const SIGNED_HASH: u32 = 1;
const EXTRA_INODE_SIZE: u16 = 32;

const INODE_BITMAP_UNINITIALIZED: u16 = 1;
const BLOCK_BITMAP_UNINITIALIZED: u16 = 2;
const INODE_TABLE_ZEROED: u16 = 4;

const EXTENTS_FLAG: u32 = 0x8_0000;
const EXTENT_MAGIC: u16 = 0xf30a;
const DIRECTORY_TYPE: u8 = 2;

/// Where everything is.
struct Layout {
    blocks: u32,
    groups: u32,
    inodes_per_group: u32,
    table_blocks: u32,
    descriptor_blocks: u32,
}

impl Layout {
    fn new(size: u64) -> Option<Self> {
        let blocks = u32::try_from(size / BLOCK).ok().filter(|_| (MIN..=MAX).contains(&size))?;
        let last = blocks % BLOCKS_PER_GROUP;
        let blocks = if blocks > last && last < LEAST_IN_LAST { blocks - last } else { blocks };
        let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
        let inodes_per_group = INODES_PER_GROUP.min((blocks / 4).next_multiple_of(INODES_PER_BLOCK));
        Some(Self {
            blocks,
            groups,
            inodes_per_group,
            table_blocks: inodes_per_group / INODES_PER_BLOCK,
            descriptor_blocks: (groups * DESCRIPTOR_SIZE).div_ceil(BLOCK as u32),
        })
    }

    fn is_last(&self, group: u32) -> bool {
        group + 1 == self.groups
    }

    fn blocks_in(&self, group: u32) -> u32 {
        if self.is_last(group) { self.blocks - group * BLOCKS_PER_GROUP } else { BLOCKS_PER_GROUP }
    }

    /// The first of the groups whose tables are together with this one's, and how many they are.
    fn flex(&self, group: u32) -> (u32, u32) {
        let first = group - group % GROUPS_PER_FLEX;
        (first, GROUPS_PER_FLEX.min(self.groups - first))
    }

    /// Blocks before the tables: the superblock's and the descriptors'.
    fn head(&self, group: u32) -> u32 {
        if group == 0 { 1 + self.descriptor_blocks } else { 0 }
    }

    fn block_bitmap(&self, group: u32) -> u32 {
        let (first, _) = self.flex(group);
        first * BLOCKS_PER_GROUP + self.head(first) + (group - first)
    }

    fn inode_bitmap(&self, group: u32) -> u32 {
        self.block_bitmap(group) + self.flex(group).1
    }

    fn inode_table(&self, group: u32) -> u32 {
        let (first, count) = self.flex(group);
        self.block_bitmap(first) + 2 * count + (group - first) * self.table_blocks
    }

    /// The root's only block.
    fn root_block(&self) -> u32 {
        self.inode_table(0) + self.flex(0).1 * self.table_blocks
    }

    /// Blocks that are taken, which are a group's first.
    fn used_blocks(&self, group: u32) -> u32 {
        let (first, count) = self.flex(group);
        match group {
            0 => self.root_block() + 1,
            _ if group == first => count * (2 + self.table_blocks),
            _ => 0,
        }
    }

    fn used_inodes(group: u32) -> u32 {
        if group == 0 { RESERVED_INODES } else { 0 }
    }

    fn flags(&self, group: u32) -> u16 {
        let inodes = if group == 0 { 0 } else { INODE_BITMAP_UNINITIALIZED };
        let is_plain = self.used_blocks(group) == 0 && !self.is_last(group);
        INODE_TABLE_ZEROED | inodes | if is_plain { BLOCK_BITMAP_UNINITIALIZED } else { 0 }
    }

    fn free_blocks(&self) -> u32 {
        self.blocks - (0..self.groups).map(|group| self.used_blocks(group)).sum::<u32>()
    }
}

/// What makes a file system differ from others.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Its UUID.
    pub uuid: [u8; 16],
    /// What the hashes of names begin with.
    pub seed: [u8; 16],
    /// When it is made, in seconds since 1970.
    pub time: u32,
}

/// Makes a file system of `size` bytes in a file that is empty and becomes so long. Its root belongs to user and group 0, with mode
/// 0755, and is empty.
///
/// # Errors
/// `InvalidInput` for a size that is not between [`MIN`] and [`MAX`]; those of ftruncate(2) and pwrite(2).
pub fn make(file: &File, size: u64, identity: Identity) -> io::Result<()> {
    let layout = Layout::new(size).ok_or(io::ErrorKind::InvalidInput)?;
    file.set_len(size)?;
    let at = |block: u32| u64::from(block) * BLOCK;
    file.write_all_at(&superblock(&layout, identity), 1024)?;
    file.write_all_at(&descriptors(&layout, identity), at(1))?;
    for group in (0..layout.groups).filter(|group| layout.flags(*group) & BLOCK_BITMAP_UNINITIALIZED == 0) {
        let bitmap = bitmap(layout.used_blocks(group), layout.blocks_in(group));
        file.write_all_at(&bitmap, at(layout.block_bitmap(group)))?;
    }
    file.write_all_at(&bitmap(RESERVED_INODES, layout.inodes_per_group), at(layout.inode_bitmap(0)))?;
    let root = at(layout.inode_table(0)) + u64::from((ROOT - 1) * INODE_SIZE);
    file.write_all_at(&root_inode(layout.root_block(), identity.time), root)?;
    file.write_all_at(&root_directory(), at(layout.root_block()))
}

/// A block, or a part of one, that is filled field by field.
struct Fields(Vec<u8>);

impl Fields {
    fn new(length: usize) -> Self {
        Self(vec![0; length])
    }

    fn set(&mut self, offset: usize, bytes: &[u8]) {
        self.0[offset..offset + bytes.len()].copy_from_slice(bytes);
    }

    fn u16(&mut self, offset: usize, value: u16) {
        self.set(offset, &value.to_le_bytes());
    }

    fn u32(&mut self, offset: usize, value: u32) {
        self.set(offset, &value.to_le_bytes());
    }
}

/// `struct ext4_super_block`.
fn superblock(layout: &Layout, identity: Identity) -> Vec<u8> {
    let inodes = layout.groups * layout.inodes_per_group;
    let mut fields = Fields::new(1024);
    fields.u32(0, inodes);
    fields.u32(4, layout.blocks);
    fields.u32(12, layout.free_blocks());
    fields.u32(16, inodes - RESERVED_INODES);
    // 1024 << 2 is the size of a block, and of a cluster.
    fields.u32(24, 2);
    fields.u32(28, 2);
    fields.u32(32, BLOCKS_PER_GROUP);
    fields.u32(36, BLOCKS_PER_GROUP);
    fields.u32(40, layout.inodes_per_group);
    fields.u32(48, identity.time);
    // It is never checked because of its mounts.
    fields.u16(54, u16::MAX);
    fields.u16(56, MAGIC);
    // Clean; go on after errors.
    fields.u16(58, 1);
    fields.u16(60, 1);
    fields.u32(64, identity.time);
    // Revision 1 has what follows.
    fields.u32(76, 1);
    fields.u32(84, RESERVED_INODES + 1);
    fields.u16(88, INODE_SIZE as u16);
    fields.u32(92, COMPATIBLE);
    fields.u32(96, INCOMPATIBLE);
    fields.u32(100, READ_ONLY_COMPATIBLE);
    fields.set(104, &identity.uuid);
    fields.set(236, &identity.seed);
    fields.set(252, &[HALF_MD4]);
    fields.u32(264, identity.time);
    fields.u16(348, EXTRA_INODE_SIZE);
    fields.u16(350, EXTRA_INODE_SIZE);
    fields.u32(352, SIGNED_HASH);
    fields.set(372, &[GROUPS_PER_FLEX.ilog2() as u8]);
    fields.0
}

/// `struct ext4_group_desc` of every group.
fn descriptors(layout: &Layout, identity: Identity) -> Vec<u8> {
    let describe = |group: u32| {
        let free_inodes = layout.inodes_per_group - Layout::used_inodes(group);
        let mut fields = Fields::new(DESCRIPTOR_SIZE as usize);
        fields.u32(0, layout.block_bitmap(group));
        fields.u32(4, layout.inode_bitmap(group));
        fields.u32(8, layout.inode_table(group));
        // At most 32,768 and 8,192.
        fields.u16(12, (layout.blocks_in(group) - layout.used_blocks(group)) as u16);
        fields.u16(14, free_inodes as u16);
        fields.u16(16, u16::from(group == 0));
        fields.u16(18, layout.flags(group));
        fields.u16(28, free_inodes as u16);
        let whose = crc16(crc16(!0, &identity.uuid), &group.to_le_bytes());
        let checksum = crc16(whose, &fields.0[..30]);
        fields.u16(30, checksum);
        fields.0
    };
    (0..layout.groups).flat_map(describe).collect()
}

/// A block with the first bits set, and those for what does not exist.
fn bitmap(used: u32, existing: u32) -> Vec<u8> {
    let mut bytes = vec![0; BLOCK as usize];
    for bit in (0..used).chain(existing..BLOCK as u32 * 8) {
        bytes[bit as usize / 8] |= 1 << (bit % 8);
    }
    bytes
}

/// `struct ext4_inode` of a directory of one block.
fn root_inode(block: u32, time: u32) -> Vec<u8> {
    let mut fields = Fields::new(INODE_SIZE as usize);
    fields.u16(0, libc::S_IFDIR as u16 | 0o755);
    fields.u32(4, BLOCK as u32);
    for offset in [8, 12, 16, 144] {
        fields.u32(offset, time);
    }
    // Its links: from itself as `.` and `..`.
    fields.u16(26, 2);
    // In sectors.
    fields.u32(28, BLOCK as u32 / 512);
    fields.u32(32, EXTENTS_FLAG);
    // A header for one of four extents, and the extent: one block.
    fields.u16(40, EXTENT_MAGIC);
    fields.u16(42, 1);
    fields.u16(44, 4);
    fields.u16(56, 1);
    fields.u32(60, block);
    fields.u16(128, EXTRA_INODE_SIZE);
    fields.0
}

/// `.` and `..`, which fill a block.
fn root_directory() -> Vec<u8> {
    let mut fields = Fields::new(BLOCK as usize);
    for (offset, length, name) in [(0, 12, &b"."[..]), (12, BLOCK as u16 - 12, &b".."[..])] {
        fields.u32(offset, ROOT);
        fields.u16(offset + 4, length);
        fields.set(offset + 6, &[name.len() as u8, DIRECTORY_TYPE]);
        fields.set(offset + 8, name);
    }
    fields.0
}

/// CRC-16 with the polynomial 0x8005, bits reflected, as the kernel's `crc16`.
fn crc16(start: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(start, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 })
    })
}

#[cfg(test)]
#[path = "ext4_test.rs"]
mod tests;
