//! Lists of CPUs and memory nodes, such as `0-3,7`.

/// More CPUs and nodes than Linux supports.
const MAX: u32 = 1 << 13;

/// The list as bits: number n is bit n % 64 of word n / 64; an empty list has no word.
///
/// # Errors
/// Why the text is not a list.
pub fn parse(list: &str) -> Result<Vec<u64>, String> {
    let mut words: Vec<u64> = Vec::new();
    for part in list.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (Ok(first), Ok(last)) = (first.parse::<u32>(), last.parse::<u32>()) else {
            return Err(format!("{list:?} is not a list such as 0-3,7"));
        };
        if first > last || last >= MAX {
            return Err(format!("{list:?}: {part} is not a range of numbers below {MAX}"));
        }
        for number in first..=last {
            let word = (number / 64) as usize;
            words.resize(words.len().max(word + 1), 0);
            words[word] |= 1 << (number % 64);
        }
    }
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_ranges_are_bits() {
        assert_eq!(parse("0"), Ok(vec![1]));
        assert_eq!(parse("0-3,7"), Ok(vec![0x8f]));
        assert_eq!(parse("64,1"), Ok(vec![2, 1]));
    }

    #[test]
    fn what_is_no_list_is_refused() {
        for text in ["", ",", "a", "3-1", "1-", "-1", "0 1", "9999999", "0-99999999999"] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
