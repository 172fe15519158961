use std::sync::Arc;

use super::{Budget, Pot};
use crate::files::{Limits, sys::Errno};

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

#[test]
fn a_process_that_may_have_few_descriptors_has_some_left_for_others_and_itself() {
    assert_eq!(Limits::of(1 << 20), Limits::default());
    assert_eq!(Limits::of(u64::MAX), Limits::default());
    for all in [64, 1024, 4096, 1 << 19] {
        let Limits { descriptors, descriptors_per_share, .. } = Limits::of(all.into());
        let [greedy, other] = budgets(descriptors, [descriptors_per_share; 2]);
        let taken = take_all(&greedy).len();
        let rest = take_all(&other).len();
        assert!(taken <= all as usize / 2 && rest >= all as usize / 8, "{all}: {taken}, {rest}");
        assert!(descriptors <= all - (all / 4).min(1 << 14), "{all}");
    }
}
