use proptest::prelude::*;

use super::*;

/// A question for `a.b`, with what comes after it, and counts of records.
fn message(counts: [u8; 4], rest: &[u8]) -> Vec<u8> {
    let mut message = vec![7, 7, 1, 0];
    message.extend(counts.into_iter().flat_map(|count| [0, count]));
    message.extend([1, b'a', 1, b'b', 0, 0, 1, 0, 1]);
    message.extend(rest);
    message
}

#[test]
fn an_answer_that_fits_stays_as_it_is() {
    let answer = message([1, 1, 0, 0], &[1; 400]);
    assert_eq!(fit(&message([1, 0, 0, 0], &[]), answer.clone()), answer);
}

#[test]
fn a_longer_one_says_that_it_is_cut_off() {
    let query = message([1, 0, 0, 0], &[]);
    let mut expected = query.clone();
    expected[FLAGS] |= TRUNCATED;
    assert_eq!(fit(&query, message([1, 9, 0, 0], &[1; 600])), expected);
}

#[test]
fn a_client_that_takes_more_gets_more() {
    let opt = [0, 0, 41, 4, 208, 0, 0, 0, 0, 0, 0];
    let query = message([1, 0, 0, 1], &opt);
    assert_eq!(limit(&query), 1232);
    let answer = message([1, 9, 0, 0], &[1; 1000]);
    assert_eq!(fit(&query, answer.clone()), answer);
    assert!(fit(&query, message([1, 9, 0, 0], &[1; 1300])).len() < 100);
    // Less than everybody has to take is not less.
    assert_eq!(limit(&message([1, 0, 0, 1], &[0, 0, 41, 0, 9, 0, 0, 0, 0, 0, 0])), 512);
}

#[test]
fn a_datagram_comes_from_the_resolver() {
    let packet = packet(b"abc", "10.0.0.1:4660".parse().unwrap());
    assert_eq!(packet[12..20], [127, 0, 0, 11, 10, 0, 0, 1]);
    assert_eq!(packet[20..28], [0, 53, 0x12, 0x34, 0, 11, 0, 0]);
    assert_eq!(&packet[28..], b"abc");
}

proptest! {
    #[test]
    fn whatever_a_container_asks_and_the_host_answers_has_its_limit(
        query in prop::collection::vec(any::<u8>(), 0..80),
        answer in prop::collection::vec(any::<u8>(), HEADER..2000),
    ) {
        prop_assert!(fit(&query, answer).len() <= limit(&query).max(HEADER + 260));
    }
}
