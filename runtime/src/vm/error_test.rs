use super::*;

#[test]
fn an_error_is_one_line_with_stage_and_console() {
    let error = MachineError::Failed {
        reason: "the guest reset its machine".to_owned(),
        kernel: "/boot/k".into(),
        stage: Some(Stage::DriverReady),
        console: "a\n\n[1.0] Kernel panic\r\n\u{1b}[0m---\n".to_owned(),
    };
    let text = error.to_string();
    assert!(!text.contains('\n') && !text.contains('\u{1b}'), "{text}");
    assert!(!text.contains("/boot/k"), "it was loaded: {text}");
    assert!(text.contains(Stage::DriverReady.describe()) && text.contains("Kernel panic"), "{text}");
}

#[test]
fn only_the_consoles_last_lines_are_shown() {
    let console: String = (0..100).map(|n| format!("line {n}\n")).collect();
    let text = shown(&console);
    assert!(text.contains("line 99") && text.contains("line 92") && !text.contains("line 91"), "{text}");
    assert!(shown("").contains("empty"));
}

#[test]
fn a_panics_reason_is_shown_before_its_stack() {
    let mut console = "booting\nKernel panic - not syncing: no init\n".to_owned();
    console.extend((0..100).map(|n| format!("frame {n}\n")));
    let text = shown(&console);
    assert!(text.contains("no init") && text.contains("frame 0") && !text.contains("frame 99"), "{text}");
}
