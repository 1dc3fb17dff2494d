//! The table of mutants still fits the source. Raising them takes minutes: `cargo run -p vernal-crash -- mutants`.

use vernal_crash::mutants::{self, workspace_root};

#[test]
fn every_mutant_can_be_planted() {
    let root = workspace_root();
    let broken: Vec<String> = mutants::all()
        .filter_map(|m| m.plant(&root).err().map(|e| format!("{}: {e}", m.name)))
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(mutants::all().count() >= 20);
}
