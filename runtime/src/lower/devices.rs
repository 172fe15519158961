//! `linux.devices` and `linux.resources.devices`.

use oci_spec::runtime::{Linux, LinuxDeviceCgroup, LinuxDeviceType as Type};
use stockade_protocol::container::{Device, DeviceKind, DeviceRule};

use super::place;
use crate::oci::bundle::SpecError;

/// Device nodes to make.
///
/// # Errors
/// A node without an absolute path, of no kind, or with impossible numbers.
pub fn nodes(linux: Option<&Linux>) -> Result<Vec<Device>, SpecError> {
    let devices = linux.and_then(|linux| linux.devices().as_deref()).unwrap_or_default();
    devices
        .iter()
        .enumerate()
        .map(|(index, device)| {
            let property = format!("linux.devices[{index}]");
            let kind = kind(device.typ())
                .ok_or_else(|| SpecError::new(format!("{property}.type"), "must be c, u, b or p"))?;
            let number = |name: &str, number: i64| {
                u32::try_from(number).map_err(|_| {
                    SpecError::new(format!("{property}.{name}"), format!("{number} is out of range"))
                })
            };
            Ok(Device {
                path: place(device.path(), &format!("{property}.path"))?,
                kind,
                major: number("major", device.major())?,
                minor: number("minor", device.minor())?,
                mode: device.file_mode().unwrap_or(0o666) & 0o7777,
                uid: device.uid().unwrap_or(0),
                gid: device.gid().unwrap_or(0),
            })
        })
        .collect()
}

/// Device rules, the last match wins: none by default, then config.json's, then those that every container needs
/// (runtime-spec config-linux "Default Devices").
///
/// # Errors
/// A rule with impossible numbers or letters.
pub fn rules(rules: &[LinuxDeviceCgroup]) -> Result<Vec<DeviceRule>, SpecError> {
    let mut lowered = vec![DeviceRule {
        allow: false,
        kind: None,
        major: None,
        minor: None,
        read: true,
        write: true,
        mknod: true,
    }];
    for (index, entry) in rules.iter().enumerate() {
        let property = format!("linux.resources.devices[{index}]");
        let number = |name: &str, number: Option<i64>| match number {
            None | Some(-1) => Ok(None),
            Some(number) => u32::try_from(number).map(Some).map_err(|_| {
                SpecError::new(format!("{property}.{name}"), format!("{number} is out of range"))
            }),
        };
        let access = entry.access().as_deref().filter(|access| !access.is_empty()).unwrap_or("rwm");
        if let Some(letter) = access.chars().find(|letter| !"rwm".contains(*letter)) {
            return Err(SpecError::new(
                format!("{property}.access"),
                format!("{letter:?} is not one of r, w, m"),
            ));
        }
        lowered.push(DeviceRule {
            allow: entry.allow(),
            kind: entry.typ().and_then(kind),
            major: number("major", entry.major())?,
            minor: number("minor", entry.minor())?,
            read: access.contains('r'),
            write: access.contains('w'),
            mknod: access.contains('m'),
        });
    }
    lowered.extend(DeviceRule::defaults());
    Ok(lowered)
}

fn kind(kind: Type) -> Option<DeviceKind> {
    match kind {
        Type::A => None,
        Type::B => Some(DeviceKind::Block),
        Type::C | Type::U => Some(DeviceKind::Char),
        Type::P => Some(DeviceKind::Fifo),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_allowed_but_the_default_devices() {
        let rules = rules(&[]).unwrap();
        let first = &rules[0];
        assert!(!first.allow && first.kind.is_none() && first.read && first.write && first.mknod);
        assert!(rules.iter().any(|rule| rule.allow && rule.major == Some(1) && rule.minor == Some(3)));
    }

    #[test]
    fn an_access_that_is_none_is_named() {
        let entry: LinuxDeviceCgroup = serde_json::from_str(r#"{"allow":true,"access":"x"}"#).unwrap();
        assert_eq!(rules(&[entry]).unwrap_err().path, "linux.resources.devices[0].access");
    }
}
