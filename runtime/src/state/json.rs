//! The state of a container in the form that hooks get.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Serialize;

use super::record::Record;
use crate::oci;

impl Record {
    /// The state of the container as JSON (runtime-spec runtime "State"), for a hook's standard input. `pid` is the PID
    /// of the container's process in the hook's PID namespace, if it is known.
    pub fn state_json(&self, status: &str, pid: Option<i32>) -> String {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct State<'a> {
            oci_version: &'a str,
            id: &'a str,
            status: &'a str,
            #[serde(skip_serializing_if = "Option::is_none")]
            pid: Option<i32>,
            bundle: Cow<'a, str>,
            annotations: &'a HashMap<String, String>,
        }
        let state = State {
            oci_version: oci::SPEC_VERSION,
            id: &self.id,
            status,
            pid,
            bundle: self.bundle.to_string_lossy(),
            annotations: &self.annotations,
        };
        // Strings and numbers always do.
        serde_json::to_string(&state).unwrap_or_default()
    }
}
