//! The table of mutants still fits the source. Raising them takes minutes: `cargo run -p vernal-crash -- mutants`.

use vernal_crash::mutants::{self, crate_folders, workspace_root};

#[test]
fn every_mutant_can_be_planted() {
    let root = workspace_root();
    let broken: Vec<String> = mutants::all()
        .filter_map(|m| m.plant(&root).err().map(|e| format!("{}: {e}", m.name)))
        .collect();
    assert!(broken.is_empty(), "{}", broken.join("\n"));
    assert!(mutants::all().count() >= 20);
}

#[test]
fn every_crate_is_copied() {
    let root = workspace_root();
    let folders = crate_folders(&std::fs::read_to_string(root.join("Cargo.toml")).unwrap());
    assert!(folders.len() >= 5, "{folders:?}");
    for folder in folders {
        assert!(root.join(&folder).is_dir(), "{folder}");
    }
}
