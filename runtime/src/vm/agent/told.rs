//! What a guest tells people: no more of it than a log and an engine's answer can take. Engines keep the log of a pod's commands in
//! memory of the host that nobody charges to the pod, and a guest could fill that with one answer for each probe.

use stockade_protocol::agent::AgentError;

/// The longest sentence, in bytes.
const MAX_TEXT: usize = 4 << 10;

/// Most sentences of one answer.
const MAX_WARNINGS: usize = 32;

/// Logs the warnings of an answer.
pub fn warn(warnings: Vec<String>) {
    for warning in shortened(warnings) {
        tracing::warn!("{warning}");
    }
}

fn shortened(mut warnings: Vec<String>) -> Vec<String> {
    let more = warnings.len().saturating_sub(MAX_WARNINGS);
    warnings.truncate(MAX_WARNINGS);
    let mut warnings: Vec<String> = warnings.into_iter().map(cut).collect();
    if more > 0 {
        warnings.push(format!("the guest's agent gives {more} more warnings, which are left out"));
    }
    warnings
}

/// The error without what is too long of it.
pub(super) fn refusal(error: AgentError) -> AgentError {
    AgentError { message: cut(error.message), ..error }
}

fn cut(mut text: String) -> String {
    if text.len() > MAX_TEXT {
        let end = (0..=MAX_TEXT).rev().find(|end| text.is_char_boundary(*end));
        text.truncate(end.unwrap_or(0));
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_guest_cannot_fill_a_log_by_an_answer() {
        // What fits in the longest answer.
        assert_eq!(shortened(vec![String::new(); 256 << 10]).len(), MAX_WARNINGS + 1);
        let long = "é".repeat(100 << 10);
        let shown = shortened(vec![long.clone(), "short".to_owned()]);
        assert!(shown[0].len() < MAX_TEXT + 4 && shown[0].ends_with('…'), "{}", shown[0].len());
        assert_eq!(shown[1..], ["short"]);
    }
}
