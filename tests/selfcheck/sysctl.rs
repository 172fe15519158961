//! `linux.sysctl`.

use std::fs;

use serde_json::Value;

use crate::config::at;
use crate::findings::Findings;

pub fn check(config: &Value, findings: &mut Findings) {
    let Some(wanted) = at(config, "linux.sysctl").as_object() else { return };
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for (name, value) in wanted {
        let path = format!("linux.sysctl[{name}]");
        match fs::read_to_string(format!("/proc/sys/{}", name.replace('.', "/"))) {
            Ok(found) => findings.equal(&path, "", words(&found), words(value.as_str().unwrap_or_default())),
            Err(error) => findings.unseen(&path, error),
        }
    }
}
