//! The options of a mount: fstab-style words to mount(2)'s flags, and the words that OCI runtimes have added.

const PROPAGATIONS: [(&str, u64); 8] = [
    ("private", libc::MS_PRIVATE),
    ("rprivate", libc::MS_PRIVATE | libc::MS_REC),
    ("shared", libc::MS_SHARED),
    ("rshared", libc::MS_SHARED | libc::MS_REC),
    ("slave", libc::MS_SLAVE),
    ("rslave", libc::MS_SLAVE | libc::MS_REC),
    ("unbindable", libc::MS_UNBINDABLE),
    ("runbindable", libc::MS_UNBINDABLE | libc::MS_REC),
];

/// Options that set or clear one flag. `defaults` and the like change nothing.
const FLAGS: [(&str, Change); 35] = [
    ("defaults", Change::Set(0)),
    ("ro", Change::Set(libc::MS_RDONLY)),
    ("rw", Change::Clear(libc::MS_RDONLY)),
    ("nosuid", Change::Set(libc::MS_NOSUID)),
    ("suid", Change::Clear(libc::MS_NOSUID)),
    ("nodev", Change::Set(libc::MS_NODEV)),
    ("dev", Change::Clear(libc::MS_NODEV)),
    ("noexec", Change::Set(libc::MS_NOEXEC)),
    ("exec", Change::Clear(libc::MS_NOEXEC)),
    ("sync", Change::Set(libc::MS_SYNCHRONOUS)),
    ("async", Change::Clear(libc::MS_SYNCHRONOUS)),
    ("dirsync", Change::Set(libc::MS_DIRSYNC)),
    ("mand", Change::Set(libc::MS_MANDLOCK)),
    ("nomand", Change::Clear(libc::MS_MANDLOCK)),
    ("noatime", Change::Set(libc::MS_NOATIME)),
    ("atime", Change::Clear(libc::MS_NOATIME)),
    ("nodiratime", Change::Set(libc::MS_NODIRATIME)),
    ("diratime", Change::Clear(libc::MS_NODIRATIME)),
    ("relatime", Change::Set(libc::MS_RELATIME)),
    ("norelatime", Change::Clear(libc::MS_RELATIME)),
    ("strictatime", Change::Set(libc::MS_STRICTATIME)),
    ("nostrictatime", Change::Clear(libc::MS_STRICTATIME)),
    ("lazytime", Change::Set(libc::MS_LAZYTIME)),
    ("nolazytime", Change::Clear(libc::MS_LAZYTIME)),
    ("silent", Change::Set(libc::MS_SILENT)),
    ("loud", Change::Clear(libc::MS_SILENT)),
    ("iversion", Change::Set(libc::MS_I_VERSION)),
    ("noiversion", Change::Clear(libc::MS_I_VERSION)),
    ("acl", Change::Set(libc::MS_POSIXACL)),
    ("noacl", Change::Clear(libc::MS_POSIXACL)),
    ("nosymfollow", Change::Set(libc::MS_NOSYMFOLLOW)),
    ("symfollow", Change::Clear(libc::MS_NOSYMFOLLOW)),
    ("bind", Change::Set(libc::MS_BIND)),
    ("rbind", Change::Set(libc::MS_BIND | libc::MS_REC)),
    ("remount", Change::Set(libc::MS_REMOUNT)),
];

/// Options that set or clear one flag of a mount and of all that is mounted below it, after the others.
const RECURSIVE_FLAGS: [(&str, Change); 23] = [
    ("rro", Change::Set(libc::MS_RDONLY)),
    ("rrw", Change::Clear(libc::MS_RDONLY)),
    ("rnosuid", Change::Set(libc::MS_NOSUID)),
    ("rsuid", Change::Clear(libc::MS_NOSUID)),
    ("rnodev", Change::Set(libc::MS_NODEV)),
    ("rdev", Change::Clear(libc::MS_NODEV)),
    ("rnoexec", Change::Set(libc::MS_NOEXEC)),
    ("rexec", Change::Clear(libc::MS_NOEXEC)),
    ("rnodiratime", Change::Set(libc::MS_NODIRATIME)),
    ("rdiratime", Change::Clear(libc::MS_NODIRATIME)),
    ("rrelatime", Change::Set(libc::MS_RELATIME)),
    ("rnorelatime", Change::Clear(libc::MS_RELATIME)),
    ("rnoatime", Change::Set(libc::MS_NOATIME)),
    ("ratime", Change::Clear(libc::MS_NOATIME)),
    ("rstrictatime", Change::Set(libc::MS_STRICTATIME)),
    ("rnostrictatime", Change::Clear(libc::MS_STRICTATIME)),
    ("rnosymfollow", Change::Set(libc::MS_NOSYMFOLLOW)),
    ("rsymfollow", Change::Clear(libc::MS_NOSYMFOLLOW)),
    ("rsync", Change::Set(libc::MS_SYNCHRONOUS)),
    ("rasync", Change::Clear(libc::MS_SYNCHRONOUS)),
    ("rdirsync", Change::Set(libc::MS_DIRSYNC)),
    ("rmand", Change::Set(libc::MS_MANDLOCK)),
    ("rnomand", Change::Clear(libc::MS_MANDLOCK)),
];

/// The mask of the access-time setting, of which the recursive options choose one value.
const ACCESS_TIME: u64 = libc::MS_NOATIME | libc::MS_RELATIME | libc::MS_STRICTATIME;

/// Options that are not flags.
const OTHERS: [&str; 7] =
    [COPY_UP, NO_COPY_UP, ID_MAP, RECURSIVE_ID_MAP, COPY_SYMLINK, NO_FOLLOW, DESTINATION_NO_FOLLOW];

/// Whether what the image has at the destination is copied into the tmpfs.
const COPY_UP: &str = "tmpcopyup";
const NO_COPY_UP: &str = "notmpcopyup";

/// Whether the IDs of a bind mount are mapped: those of its own file system, or those of the file systems below it too.
const ID_MAP: &str = "idmap";
const RECURSIVE_ID_MAP: &str = "ridmap";

/// A source that is a symbolic link is not followed: a link like it is made, or the link itself is mounted.
const COPY_SYMLINK: &str = "copy-symlink";
const NO_FOLLOW: &str = "src-nofollow";

/// A destination that is a symbolic link is mounted on itself.
const DESTINATION_NO_FOLLOW: &str = "dest-nofollow";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Change {
    Set(u64),
    Clear(u64),
}

impl Change {
    fn apply(self, flags: &mut u64) {
        match self {
            Self::Set(flag) => *flags |= flag,
            Self::Clear(flag) => *flags &= !flag,
        }
    }
}

/// All options that are not passed on to the file system, sorted.
pub fn options() -> Vec<&'static str> {
    let flags = FLAGS.iter().map(|(name, _)| *name);
    let propagations = PROPAGATIONS.iter().map(|(name, _)| *name);
    let recursive = RECURSIVE_FLAGS.iter().map(|(name, _)| *name);
    let mut names: Vec<_> = flags.chain(propagations).chain(recursive).chain(OTHERS).collect();
    names.sort_unstable();
    names
}

/// `MS_*` of a word like `rslave`.
pub fn propagation(word: &str) -> Option<u64> {
    PROPAGATIONS.iter().find(|(name, _)| *name == word).map(|(_, flags)| *flags)
}

/// What the options of one mount mean.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Flags, `MS_*`.
    pub flags: u64,
    /// Changes of the propagation, `MS_*`, in order.
    pub propagation: Vec<u64>,
    /// The file system's own options.
    pub data: Vec<String>,
    /// `tmpcopyup`.
    pub copy_up: bool,
    /// `idmap`, or with true `ridmap`.
    pub id_map: Option<bool>,
    /// `copy-symlink`.
    pub copy_symlink: bool,
    /// `src-nofollow`.
    pub no_follow: bool,
    /// `dest-nofollow`.
    pub destination_no_follow: bool,
    /// Changes that hold for what is mounted below, too.
    recursive: Vec<Change>,
    /// An option of another runtime that is not supported.
    pub refused: Option<String>,
}

impl Options {
    /// What the options mean together; the last of two opposites wins.
    pub fn parse<'a>(options: impl IntoIterator<Item = &'a String>) -> Self {
        let mut parsed = Self::default();
        let find = |table: &[(&str, Change)], option: &str| {
            table.iter().find(|(name, _)| *name == option).map(|(_, change)| *change)
        };
        for option in options {
            let option = option.as_str();
            if let Some(change) = find(&FLAGS, option) {
                change.apply(&mut parsed.flags);
            } else if let Some(change) = find(&RECURSIVE_FLAGS, option) {
                parsed.recursive.push(change);
            } else if let Some(propagation) = propagation(option) {
                parsed.propagation.push(propagation);
            } else {
                match option {
                    "" => {}
                    COPY_UP | NO_COPY_UP => parsed.copy_up = option == COPY_UP,
                    ID_MAP | RECURSIVE_ID_MAP => parsed.id_map = Some(option == RECURSIVE_ID_MAP),
                    COPY_SYMLINK => parsed.copy_symlink = true,
                    NO_FOLLOW => parsed.no_follow = true,
                    DESTINATION_NO_FOLLOW => parsed.destination_no_follow = true,
                    _ if option.starts_with("idmap=") || option.starts_with("ridmap=") => {
                        parsed.refused = Some(option.to_owned());
                    }
                    _ => parsed.data.push(option.to_owned()),
                }
            }
        }
        parsed.flags = parsed.below(parsed.flags);
        parsed
    }

    /// The flags of a mount below, which has `flags` by itself.
    pub fn below(&self, mut flags: u64) -> u64 {
        for change in &self.recursive {
            if matches!(change, Change::Set(flag) if flag & ACCESS_TIME != 0) {
                flags &= !ACCESS_TIME;
            }
            change.apply(&mut flags);
        }
        flags
    }

    /// Adds the flags of the source's mount, `MS_*`, which a bind mount keeps.
    pub fn with_source(&self, source: u64) -> u64 {
        let access_time = if self.flags & ACCESS_TIME == 0 { source & ACCESS_TIME } else { 0 };
        self.flags | source & !ACCESS_TIME | access_time
    }

    /// Whether the container sees what the host mounts later.
    pub fn follows(&self) -> bool {
        self.propagation.last().is_some_and(|change| change & (libc::MS_SLAVE | libc::MS_SHARED) != 0)
    }

    /// Whether the host is to see what the container mounts.
    pub fn is_followed(&self) -> bool {
        self.propagation.last().is_some_and(|change| change & libc::MS_SHARED != 0)
    }
}

#[cfg(test)]
#[path = "mount_options_test.rs"]
mod tests;
