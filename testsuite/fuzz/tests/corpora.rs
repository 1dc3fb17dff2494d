//! Every committed input, and every input cut at many places, is answered by its target.

use std::path::Path;
use vernal_fuzz::TARGETS;

#[test]
fn corpora_are_answered() {
    let mut inputs = 0;
    for target in TARGETS {
        (target.run)(&[]);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("corpus")
            .join(target.name);
        let entries =
            std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
        for entry in entries {
            let path = entry.unwrap().path();
            let bytes = std::fs::read(&path).unwrap();
            println!("{}", path.display());
            (target.run)(&bytes);
            for cut in 1..8 {
                (target.run)(&bytes[..bytes.len() * cut / 8]);
            }
            inputs += 1;
        }
    }
    println!("{inputs} inputs");
    assert!(inputs > TARGETS.len());
}
