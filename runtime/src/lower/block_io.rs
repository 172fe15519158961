//! `linux.resources.blockIO`: weights and throttles of cgroup v1 as v2's.
//!
//! The devices are the host's, and the VMM does the container's input and output there: throttles and the weights of
//! single devices go to the host's cgroup, the general weight goes to both.

use std::path::Path;

use oci_spec::runtime::{LinuxBlockIo, LinuxThrottleDevice};

use super::limits::Limits;
use crate::oci::bundle::SpecError;

/// Weights of cgroup v1.
const WEIGHTS: std::ops::RangeInclusive<u16> = 10..=1000;

/// The host's block devices by their numbers.
const DEVICES: &str = "/sys/dev/block";

/// Adds the limits, and warns about those that cgroup v2 lacks.
///
/// # Errors
/// A weight that no cgroup takes, or a device that the host does not have.
pub fn lower(given: &LinuxBlockIo, limits: &mut Limits, warnings: &mut Vec<String>) -> Result<(), SpecError> {
    lower_with(given, limits, warnings, Path::new(DEVICES))
}

fn lower_with(
    given: &LinuxBlockIo,
    limits: &mut Limits,
    warnings: &mut Vec<String>,
    devices: &Path,
) -> Result<(), SpecError> {
    let property = |name: &str| format!("linux.resources.blockIO.{name}");
    if let Some(weight) = given.weight().filter(|weight| *weight != 0) {
        let weight = v2_weight(weight, &property("weight"))?;
        limits.guest.push(("io.weight".to_owned(), weight.clone()));
        limits.host.values.push(("io.weight", weight));
    }
    let mut has_leaf = given.leaf_weight().is_some_and(|weight| weight != 0);
    for (index, entry) in given.weight_device().iter().flatten().enumerate() {
        let property = property(&format!("weightDevice[{index}]"));
        let device = device(devices, entry.major(), entry.minor(), &property)?;
        if let Some(weight) = entry.weight().filter(|weight| *weight != 0) {
            let weight = v2_weight(weight, &format!("{property}.weight"))?;
            limits.host.values.push(("io.weight", format!("{device} {weight}")));
        }
        has_leaf |= entry.leaf_weight().is_some_and(|weight| weight != 0);
    }
    if has_leaf {
        warnings.push(format!("{} has no equivalent in cgroup v2", property("leafWeight")));
    }
    let throttles: [(&str, &str, &Option<Vec<LinuxThrottleDevice>>); 4] = [
        ("throttleReadBpsDevice", "rbps", given.throttle_read_bps_device()),
        ("throttleWriteBpsDevice", "wbps", given.throttle_write_bps_device()),
        ("throttleReadIOPSDevice", "riops", given.throttle_read_iops_device()),
        ("throttleWriteIOPSDevice", "wiops", given.throttle_write_iops_device()),
    ];
    for (name, key, list) in throttles {
        for (index, entry) in list.iter().flatten().enumerate() {
            let property = property(&format!("{name}[{index}]"));
            let device = device(devices, entry.major(), entry.minor(), &property)?;
            // As in cgroup v1, 0 removes a limit.
            let rate = if entry.rate() == 0 { "max".to_owned() } else { entry.rate().to_string() };
            limits.host.values.push(("io.max", format!("{device} {key}={rate}")));
        }
    }
    Ok(())
}

/// A weight of cgroup v1 as v2's, which is 1 to 10000.
fn v2_weight(weight: u16, property: &str) -> Result<String, SpecError> {
    if !WEIGHTS.contains(&weight) {
        return Err(SpecError::new(property, format!("{weight} is not between 10 and 1000")));
    }
    Ok((1 + (u64::from(weight) - 10) * 9999 / 990).to_string())
}

/// `MAJOR:MINOR` of a whole disk of the host: partitions have no limits of their own.
fn device(devices: &Path, major: i64, minor: i64, property: &str) -> Result<String, SpecError> {
    let numbers = format!("{major}:{minor}");
    let path = devices.join(&numbers);
    if !path.exists() {
        return Err(SpecError::new(property, format!("the host has no block device {numbers}")));
    }
    if path.join("partition").exists() {
        let problem = format!("{numbers} is a partition; give the numbers of its disk");
        return Err(SpecError::new(property, problem));
    }
    Ok(numbers)
}

#[cfg(test)]
#[path = "block_io_test.rs"]
mod tests;
