//! `linux.intelRdt` and `linux.netDevices`: parts of the host that a container in a VM cannot be given.

use oci_spec::runtime::Linux;

use crate::oci::bundle::SpecError;

/// Refuses both properties.
///
/// # Errors
/// The property that config.json has.
pub fn refuse(linux: Option<&Linux>) -> Result<(), SpecError> {
    let Some(linux) = linux else { return Ok(()) };
    if linux.intel_rdt().is_some() {
        let problem = "cache and memory bandwidth of the host are not divided among VMs; leave it out";
        return Err(SpecError::new("linux.intelRdt", problem));
    }
    if let Some(name) = linux.net_devices().as_ref().and_then(|devices| devices.keys().min()) {
        let problem = "a network device of the host cannot be moved into a VM; put it into the container's network \
                       namespace instead";
        return Err(SpecError::new(format!("linux.netDevices[{name:?}]"), problem));
    }
    Ok(())
}
