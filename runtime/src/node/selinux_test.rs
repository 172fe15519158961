use super::*;

/// The beginning of a policy with one capability, these permissive types, and two types.
fn policy(permissive: &[(u32, u64)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let words = |bytes: &mut Vec<u8>, words: &[u32]| {
        words.iter().for_each(|word| bytes.extend(word.to_le_bytes()));
    };
    words(&mut bytes, &[MAGIC, 8]);
    bytes.extend(SIGNATURE);
    words(&mut bytes, &[33, 1, 8, 9]);
    words(&mut bytes, &[64, 64, 1, 0, 2, 0]);
    let highest = permissive.last().map_or(0, |(base, _)| base.wrapping_add(64));
    words(&mut bytes, &[64, highest, permissive.len() as u32]);
    for (base, bits) in permissive {
        words(&mut bytes, &[*base, *bits as u32, (*bits >> 32) as u32]);
    }
    // A role of the same name does not have the properties of a type.
    words(&mut bytes, &[8, 5, 0, 0]);
    bytes.extend(b"kernel_t");
    words(&mut bytes, &[8, 70, 1, 0]);
    bytes.extend(b"kernel_t");
    words(&mut bytes, &[4, 3, 1, 0]);
    bytes.extend(b"it_t");
    bytes
}

#[test]
fn the_type_of_the_agent_becomes_permissive_and_nothing_else_changes() {
    for (before, name, after) in [
        (&[][..], "kernel_t", &[(64, 1 << 6)][..]),
        (&[(0, 2)], "kernel_t", &[(0, 2), (64, 1 << 6)]),
        (&[(64, 1)], "it_t", &[(0, 1 << 3), (64, 1)]),
        (&[(64, 1)], "kernel_t", &[(64, 1 | 1 << 6)]),
    ] {
        assert_eq!(with_permissive(&policy(before), name).unwrap(), policy(after), "{name}");
    }
}

#[test]
fn what_is_not_a_policy_is_refused_in_words() {
    let good = policy(&[]);
    assert!(with_permissive(&good, "other_t").unwrap_err().contains("no type other_t"));
    assert!(with_permissive(&good, "").is_err());
    for length in 0..60 {
        assert!(with_permissive(&good[..length], "kernel_t").is_err(), "{length}");
    }
    assert!(with_permissive(b"not a policy at all, but a text", "kernel_t").unwrap_err().contains("binary"));
    assert!(with_permissive(&policy(&[(u32::MAX - 63, 1)]), "kernel_t").unwrap_err().contains("binary"));
    let mut many = good.clone();
    many[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(with_permissive(&many, "kernel_t").is_err());
}

#[test]
fn the_hosts_newest_policy_is_found() {
    let etc = tempfile::tempdir().unwrap();
    fs::write(
        etc.path().join("config"),
        "# SELINUXTYPE= names one\nSELINUX=permissive\nSELINUXTYPE=default\n",
    )
    .unwrap();
    let directory = etc.path().join("default/policy");
    fs::create_dir_all(&directory).unwrap();
    for name in ["policy.9", "policy.31", "policy.33", "policy.99", "policy.kern"] {
        fs::write(directory.join(name), "").unwrap();
    }
    assert_eq!(newest(etc.path()).unwrap(), directory.join("policy.33"));
    assert!(newest(&directory).is_err());
}
