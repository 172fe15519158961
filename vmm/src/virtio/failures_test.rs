use super::{Failures, MAX_REPORTS};

#[test]
fn the_last_cause_of_a_device_is_kept_and_counted() {
    let failures = Failures::new().unwrap();
    failures.add("fs", &"one");
    failures.add("net", &"two");
    failures.add("fs", &"three");
    let all = failures.all();
    let of = |device: &str| all.iter().find(|failure| failure.device == device).unwrap();
    assert_eq!((of("fs").cause.as_str(), of("fs").count), ("three", 2));
    assert_eq!((of("net").cause.as_str(), of("net").count), ("two", 1));
}

#[test]
fn what_the_main_thread_is_told_has_an_end() {
    let failures = Failures::new().unwrap();
    (0..2 * MAX_REPORTS).for_each(|number| failures.add("fs", &number));
    assert_eq!(failures.take_news().len(), MAX_REPORTS);
    failures.add("fs", &"again");
    assert!(failures.take_news().is_empty());
    assert_eq!(failures.all()[0].count as usize, 2 * MAX_REPORTS + 1);
}

#[test]
fn a_cause_has_an_end() {
    let failures = Failures::new().unwrap();
    failures.add("fs", &"x".repeat(10_000));
    assert_eq!(failures.all()[0].cause.len(), super::CAUSE_LIMIT);
}
