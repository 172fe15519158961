use super::*;

#[test]
fn the_childs_report_is_judged() {
    let all: Vec<u8> = (0..STAGES.len() as u8).flat_map(|stage| [PASSED, stage]).collect();
    let good = judge(&[&all[..], &[DONE]].concat(), true);
    assert!(good.broken.is_none() && good.failed.is_empty());
    assert_eq!(good.passed.len(), STAGES.len());

    let mut report = all.clone();
    report[8] = FAILED;
    let failed = judge(&[&report[..], &[DONE]].concat(), true);
    assert_eq!(failed.failed, [STAGES[4].name]);
    assert!(failed.broken.is_none());

    let broken = judge(&[&all[..2], b"!no"].concat(), true);
    assert_eq!((broken.passed.len(), broken.broken.as_deref()), (1, Some("no")));

    assert!(judge(&all[..2], false).broken.unwrap().contains("hung"));
    assert!(judge(&[DONE], true).broken.is_some());
    assert!(judge(&[], true).broken.is_some());
    assert!(judge(&[PASSED], true).broken.is_some());
}
