use super::*;

#[test]
fn many_turns_are_had_at_once_and_further_ones_by_and_by() {
    let mut now = Instant::now();
    let mut pace = Pace::new(now);
    for _ in 0..BURST {
        assert_eq!(pace.turn(now), Duration::ZERO);
    }
    for _ in 0..10 {
        let wait = pace.turn(now);
        assert_eq!(wait, INTERVAL);
        now += wait;
    }
}

#[test]
fn who_has_rested_has_no_more_than_all_turns() {
    let start = Instant::now();
    let mut pace = Pace::new(start);
    assert!((0..BURST).all(|_| pace.turn(start) == Duration::ZERO));
    let later = start + Duration::from_secs(3600);
    assert!((0..BURST).all(|_| pace.turn(later) == Duration::ZERO));
    assert!(pace.turn(later) > Duration::ZERO);
}
