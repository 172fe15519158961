use super::*;

#[test]
fn every_stage_begins_where_it_is_skipped_to() {
    let program = program();
    for (index, stage) in STAGES.iter().enumerate() {
        let start = stage_start(index) - CODE;
        assert!(program[start..].starts_with(stage.instructions), "{}", stage.name);
    }
    assert_eq!(program[stage_start(STAGES.len()) - CODE], HLT);
    assert!(CODE + program.len() < HANDLER);
}

#[test]
fn a_gate_holds_its_handler() {
    let gate = interrupt_gate(0x1234_5678_9abc_def0);
    assert_eq!(gate[..2], [0xf0, 0xde]);
    assert_eq!(gate[6..12], [0xbc, 0x9a, 0x78, 0x56, 0x34, 0x12]);
    assert_eq!(gate[2..6], [8, 0, 0, 0x8e]);
}
