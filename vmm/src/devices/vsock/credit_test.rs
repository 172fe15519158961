use super::*;

#[test]
fn the_guest_gets_no_more_than_it_has_room_for() {
    let mut credit = Credit::new(100);
    assert_eq!(credit.allowance(), 0);
    credit.learn(50, 0);
    assert_eq!(credit.allowance(), 50);
    credit.spend(50);
    assert_eq!(credit.allowance(), 0);
    credit.learn(50, 20);
    assert_eq!(credit.allowance(), 20);
    // A shrunken buffer, and a count of bytes that were never sent.
    credit.learn(10, 20);
    assert_eq!(credit.allowance(), 0);
    credit.learn(50, 51);
    assert_eq!(credit.allowance(), 0);
}

#[test]
fn counters_wrap() {
    let mut credit = Credit::new(u32::MAX);
    credit.learn(100, 0);
    for step in 1..=5u32 {
        credit.spend(u32::MAX / 4);
        credit.learn(100, (u32::MAX / 4).wrapping_mul(step));
        assert_eq!(credit.allowance(), 100);
        credit.receive(u32::MAX / 4).unwrap();
        credit.forward(u32::MAX / 4);
    }
    assert_eq!(credit.receive(u32::MAX), Ok(()));
    assert_eq!(credit.receive(1), Err(Overrun));
}

#[test]
fn the_guest_may_not_send_more_than_its_credit() {
    let mut credit = Credit::new(100);
    assert_eq!(credit.receive(101), Err(Overrun));
    credit.receive(100).unwrap();
    assert_eq!(credit.receive(1), Err(Overrun));
    credit.forward(1);
    assert_eq!(credit.receive(2), Err(Overrun));
    assert_eq!(credit.receive(1), Ok(()));
}

#[test]
fn room_is_announced_when_half_of_the_smaller_buffer_is_used() {
    for (guest_window, half) in [(1000, 50), (20, 10)] {
        let mut credit = Credit::new(100);
        credit.learn(guest_window, 0);
        credit.receive(half).unwrap();
        credit.forward(half);
        assert!(!credit.is_update_due());
        credit.receive(1).unwrap();
        assert!(credit.is_update_due());
        assert_eq!(credit.announce(), (100, half));
        assert!(!credit.is_update_due());
    }
}

#[test]
fn nothing_is_announced_while_nothing_has_left() {
    let mut credit = Credit::new(100);
    credit.learn(100, 0);
    credit.receive(100).unwrap();
    assert!(!credit.is_update_due());
    credit.forward(1);
    assert!(credit.is_update_due());
}
