use super::Devices;

#[test]
fn numbers_of_the_first_file_system_stay_and_others_are_apart() {
    let devices = Devices::default();
    let shifts: Vec<_> = (0..100).map(|minor| devices.shift_of((8, minor))).collect();
    assert_eq!(shifts[0].apply(77), 77);
    let mut numbers: Vec<u64> =
        shifts.iter().flat_map(|shift| (1..1000).map(|inode| shift.apply(inode))).collect();
    assert!(numbers.iter().all(|number| (1..1 << 32).contains(number)));
    numbers.sort_unstable();
    numbers.dedup();
    assert_eq!(numbers.len(), 99_900);
    assert_eq!(devices.shift_of((8, 42)), shifts[42]);
}

#[test]
fn no_file_has_the_number_zero() {
    let devices = Devices::default();
    devices.shift_of((0, 1));
    let shift = devices.shift_of((0, 2));
    let zero = shift.apply(1 << 40) ^ 1 << 40;
    assert_eq!(shift.apply(zero), zero);
}

#[test]
fn however_many_there_are() {
    let devices = Devices::default();
    for minor in 0..10_000 {
        devices.shift_of((8, minor));
    }
    assert_eq!(devices.shift_of((8, 0)).apply(5), 5);
}
