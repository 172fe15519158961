use std::fs;

use super::set;

#[test]
fn cpus_are_started_and_stopped_up_to_the_last() {
    let directory = tempfile::tempdir().unwrap();
    let file = |cpu: u16| directory.path().join(format!("cpu{cpu}/online"));
    for cpu in 1..4 {
        fs::create_dir(directory.path().join(format!("cpu{cpu}"))).unwrap();
        fs::write(file(cpu), if cpu == 3 { "1\n" } else { "0\n" }).unwrap();
    }
    let online =
        || (1..4).map(|cpu| fs::read_to_string(file(cpu)).unwrap().trim() == "1").collect::<Vec<_>>();
    set(directory.path(), 3).unwrap();
    assert_eq!(online(), [true, true, false]);
    set(directory.path(), 1).unwrap();
    assert_eq!(online(), [false, false, false]);
    set(directory.path(), 4).unwrap();
    let missing = set(directory.path(), 5).unwrap_err();
    assert!(missing.message.contains("CPU 4"), "{}", missing.message);
    assert_eq!(online(), [true, true, true]);
}
