use std::fs;
use std::path::Path;

use super::TARGETS;

#[test]
fn what_fuzzing_has_found_stays_harmless() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("fuzz").join("corpus");
    for (name, run) in TARGETS {
        let mut inputs: Vec<_> = fs::read_dir(corpora.join(name))
            .unwrap_or_else(|error| panic!("the corpus of {name}: {error}"))
            .map(|entry| entry.unwrap().path())
            .collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "the corpus of {name} is empty");
        for input in inputs {
            // Shown if the target panics.
            println!("{}", input.display());
            run(&fs::read(&input).unwrap());
        }
    }
}
