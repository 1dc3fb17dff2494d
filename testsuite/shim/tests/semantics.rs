//! One program with both ends, with and without the shim: each call gives the same result.

use std::path::Path;
use vernal_shim_tests::{Peer, Place};

fn run(place: &Place, name: &str, wait: Option<&str>) -> (Vec<String>, String) {
    let mut command = place.command(Path::new(env!("CARGO_BIN_EXE_shim-peer")), wait);
    command.arg("semantics").arg(place.socket(name));
    let (well, text) = Peer::start(command).finish();
    assert!(well, "{name}:\n{text}");
    let (notes, lines): (Vec<_>, Vec<_>) = text
        .lines()
        .map(str::to_owned)
        .partition(|l| l.starts_with('#'));
    (lines, notes.join("\n"))
}

#[test]
fn calls_give_the_same_results() {
    let place = Place::new("semantics");
    let (plain, notes) = run(&place, "plain", None);
    assert_eq!(notes, "# segments 0");
    for wait in ["spin", "adaptive", "block"] {
        let (shim, notes) = run(&place, wait, Some(wait));
        // Both ends of one connection, each of which has mapped both segments.
        assert_eq!(notes, "# segments 4", "{wait}: the shim was not in use");
        for (line, (plain, shim)) in plain.iter().zip(&shim).enumerate() {
            assert_eq!(
                plain,
                shim,
                "{wait}: line {}, after {:?}",
                line + 1,
                &plain[..plain.len().min(60)]
            );
        }
        assert_eq!(plain.len(), shim.len());
    }
}
