use std::sync::Arc;

use super::{Budget, Pot};
use crate::files::sys::Errno;

fn budgets(pot: u32, limits: [u32; 2]) -> [Arc<Budget>; 2] {
    let pot = Arc::new(Pot::new(pot));
    limits.map(|limit| Arc::new(Budget::new(Arc::clone(&pot), limit)))
}

/// Takes as many as there are.
fn take_all(budget: &Arc<Budget>) -> Vec<super::Permit> {
    std::iter::from_fn(|| budget.take().ok()).collect()
}

#[test]
fn a_share_has_its_own_limit() {
    let [one, _] = budgets(1000, [10, 10]);
    let all = take_all(&one);
    assert_eq!(all.len(), 10);
    assert_eq!(one.take().unwrap_err(), Errno::new(libc::ENFILE));
    drop(all);
    assert_eq!(one.used(), 0);
    assert!(one.take().is_ok());
}

#[test]
fn something_is_left_for_others() {
    let [one, other] = budgets(900, [1000, 1000]);
    let first = take_all(&one);
    assert_eq!(first.len(), 450);
    let second = take_all(&other);
    assert_eq!(second.len(), 225);
    // What is taken anyway counts, and may be more than there is.
    let trees: Vec<_> = (0..900).map(|_| one.take_anyway()).collect();
    assert!(other.take().is_err() && one.take().is_err());
    drop((trees, first));
    assert_eq!(take_all(&one).len(), 338);
    assert_eq!(second.len(), 225);
}

#[test]
fn three_quarters_are_scarce() {
    let [one, _] = budgets(1000, [8, 8]);
    let mut taken = Vec::new();
    for is_scarce in [false, false, false, false, false, false, true, true] {
        assert_eq!(one.is_scarce(), is_scarce);
        taken.push(one.take().unwrap());
    }
    assert!(one.is_scarce());
}
