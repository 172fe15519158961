//! AppArmor's compiled policy for a profile of `process.apparmorProfile`: the guest's kernel has no policy of its own
//! and is given this one.
//!
//! It comes from files that the configuration lists, or from the host's kernel, if that exports the policies that were
//! loaded. The administrator controls both. Only the name comes from the pod's author; it is compared, and never
//! becomes part of a path.

use std::fs;
use std::path::{Path, PathBuf};

/// The directory in which the host's kernel shows its profiles.
const LOADED: &str = "/sys/kernel/security/apparmor/policy/profiles";

/// Largest policy that is given to a guest, in bytes.
const LARGEST: u64 = 4 << 20;

/// Largest number of files of a directory that are looked at.
const MAX_FILES: usize = 1000;

/// What precedes a profile's name in a compiled policy: the tag of a name and that name with its length, the beginning of a
/// structure, the tag of a string (security/apparmor/policy_unpack.c).
const PROFILE: &[u8] = b"\x04\x08\x00profile\x00\x07\x05";

/// The policy that has this profile, if there is one.
pub fn policy(profile: &str, listed: &[PathBuf]) -> Option<Vec<u8>> {
    let files = listed.iter().flat_map(|path| match fs::read_dir(path) {
        Ok(directory) => directory.flatten().take(MAX_FILES).map(|entry| entry.path()).collect(),
        Err(_) => vec![path.clone()],
    });
    files
        .filter_map(|file| read(&file))
        .find(|policy| has(policy, profile))
        .or_else(|| loaded(Path::new(LOADED), profile))
}

/// The policy with this profile that was loaded into the host's kernel.
fn loaded(directory: &Path, profile: &str) -> Option<Vec<u8>> {
    let entries = fs::read_dir(directory).ok()?;
    let is_it =
        |path: &PathBuf| fs::read_to_string(path.join("name")).is_ok_and(|name| name.trim_end() == profile);
    let found = entries.flatten().map(|entry| entry.path()).find(is_it)?;
    fs::read(found.join("raw_data")).ok().filter(|policy| has(policy, profile))
}

fn read(file: &Path) -> Option<Vec<u8>> {
    let is_small = fs::metadata(file).is_ok_and(|file| file.is_file() && file.len() <= LARGEST);
    is_small.then(|| fs::read(file).ok()).flatten()
}

/// Whether a compiled policy has this profile.
fn has(policy: &[u8], profile: &str) -> bool {
    let Ok(length) = u16::try_from(profile.len() + 1) else { return false };
    let wanted = [PROFILE, &length.to_le_bytes(), profile.as_bytes(), b"\0"].concat();
    policy.windows(wanted.len()).any(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn compiled(profile: &str) -> Vec<u8> {
        let length = u16::try_from(profile.len() + 1).unwrap().to_le_bytes();
        [b"\x04\x08\x00version\x00\x02\x05\x00\x00\x00", PROFILE, &length, profile.as_bytes(), b"\0more"]
            .concat()
    }

    #[test]
    fn a_profile_is_found_in_a_file_a_directory_and_the_hosts_kernel() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("policy");
        fs::write(&file, compiled("docker-default")).unwrap();
        for listed in [file.clone(), directory.path().to_owned()] {
            assert_eq!(policy("docker-default", &[listed]), Some(compiled("docker-default")));
        }
        assert_eq!(policy("docker", &[file]), None);

        let entry = directory.path().join("loaded/cri-containerd.apparmor.d.3");
        fs::create_dir_all(&entry).unwrap();
        fs::write(entry.join("name"), "cri-containerd.apparmor.d\n").unwrap();
        fs::write(entry.join("raw_data"), compiled("cri-containerd.apparmor.d")).unwrap();
        let loaded = |profile| loaded(&directory.path().join("loaded"), profile);
        assert_eq!(loaded("cri-containerd.apparmor.d"), Some(compiled("cri-containerd.apparmor.d")));
        assert_eq!(loaded("cri-containerd.apparmor.d.3"), None);
        assert_eq!(loaded("../policy"), None);
    }

    #[test]
    fn a_name_is_compared_as_a_whole() {
        assert!(has(&compiled("a"), "a"));
        for other in ["", "aa", "b", "profile"] {
            assert!(!has(&compiled("a"), other), "{other}");
        }
    }
}
