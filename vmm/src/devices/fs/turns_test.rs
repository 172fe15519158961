use std::time::{Duration, Instant};

use super::{IN_FLIGHT, STUCK_AFTER, Turns};

const RING: usize = 1024;

/// Takes all turns that a share has, and lets `count` more requests wait.
fn flood(turns: &mut Turns<usize>, share: u32, count: usize, now: Instant) {
    while turns.take(share) {}
    (0..count).for_each(|number| turns.wait(share, number, || now));
}

#[test]
fn a_share_has_few_requests_at_the_server_and_others_theirs() {
    let mut turns = Turns::<usize>::new(RING);
    assert_eq!((0..10).filter(|_| turns.take(1)).count(), IN_FLIGHT);
    assert_eq!((0..10).filter(|_| turns.take(2)).count(), IN_FLIGHT);
}

#[test]
fn those_of_a_share_wait_in_their_order_and_shares_take_turns() {
    let now = Instant::now();
    let mut turns = Turns::new(RING);
    flood(&mut turns, 1, 2, now);
    flood(&mut turns, 2, 2, now);
    assert_eq!(turns.next(), None);
    turns.done(1, || now);
    // One that comes now does not overtake those that wait.
    assert!(!turns.take(1));
    assert_eq!(turns.next(), Some((1, 0)));
    turns.done(1, || now);
    turns.done(2, || now);
    let next = [turns.next(), turns.next(), turns.next()];
    assert!(next.contains(&Some((1, 1))) && next.contains(&Some((2, 0))) && next[2].is_none(), "{next:?}");
}

#[test]
fn a_share_is_forgotten_when_it_has_nothing() {
    let now = Instant::now();
    let mut turns = Turns::<usize>::new(RING);
    for share in 0..10_000 {
        assert!(turns.take(share));
        turns.done(share, || now);
    }
    assert!(turns.shares.is_empty());
}

#[test]
fn a_share_is_forgotten_when_it_has_lost_what_it_had() {
    let start = Instant::now();
    let mut turns = Turns::new(RING);
    // The server takes nothing.
    (0..RING as u32).for_each(|share| turns.wait(share, 0, || start));
    let shed = std::iter::from_fn(|| turns.shed(start + STUCK_AFTER)).count();
    assert!(shed > 0);
    assert_eq!(turns.shares.len(), RING - shed);
}

#[test]
fn a_share_that_makes_headway_loses_nothing_however_much_it_has() {
    let start = Instant::now();
    let mut turns = Turns::new(RING);
    flood(&mut turns, 1, RING, start);
    assert!(turns.is_crowded());
    turns.done(1, || start + STUCK_AFTER);
    assert_eq!(turns.shed(start + STUCK_AFTER + Duration::from_secs(1)), None);
}

#[test]
fn stuck_shares_leave_room_for_others() {
    let start = Instant::now();
    let late = start + STUCK_AFTER;
    for stuck in 1..20 {
        let mut turns = Turns::new(RING);
        (0..stuck).for_each(|share| flood(&mut turns, share, RING / stuck as usize, start));
        while turns.shed(late).is_some() {}
        assert!(turns.waiting <= RING * stuck as usize / (stuck as usize + 2) + stuck as usize, "{stuck}");
        assert!(!turns.is_crowded());
    }
}

#[test]
fn a_share_that_waits_for_little_keeps_it_for_ever() {
    let start = Instant::now();
    let mut turns = Turns::new(RING);
    flood(&mut turns, 1, RING / 4, start);
    assert!(!turns.is_crowded());
    assert_eq!(turns.shed(start + Duration::from_secs(3600)), None);
}
