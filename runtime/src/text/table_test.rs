use proptest::prelude::*;

use super::*;

#[test]
fn columns_are_as_wide_as_their_widest_cell() {
    let rows = [["ID", "PID"], ["a-rather-long-id", "1"]].map(|row| row.map(String::from));
    assert_eq!(align(&rows), "ID                 PID\na-rather-long-id   1\n");
    let rows = [["ID", "PID"], ["a", "1"]].map(|row| row.map(String::from));
    assert_eq!(align(&rows), "ID          PID\na           1\n");
}

#[test]
fn a_guest_cannot_steer_the_terminal() {
    assert_eq!(printable("a\u{1b}[2Jb\r\n\u{9b}31m\u{202e}c"), "a\\u{1b}[2Jb\\r\\n\\u{9b}31m\\u{202e}c");
    assert_eq!(printable("naïve 漢字"), "naïve 漢字");
}

proptest! {
    #[test]
    fn every_row_is_one_line_without_controls(cells: Vec<(String, String)>) {
        let rows: Vec<[String; 2]> = cells.into_iter().map(|(a, b)| [a, b]).collect();
        let text = align(&rows);
        prop_assert_eq!(text.lines().count(), rows.len());
        prop_assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    }
}
