//! The barrier's protocol loses nothing, and every step of it is needed.

use vernal_crash::litmus::{Protocol, Size, search};

/// The smallest program in which every broken protocol loses an update, and one commit more.
const SIZE: Size = Size {
    stores: [2, 1],
    commits: 2,
};

#[test]
fn the_protocol_loses_no_update() {
    let verdict = search(Protocol::CORRECT, SIZE);
    println!("{} states", verdict.states);
    assert_eq!(verdict.lost, None);
    assert!(verdict.states > 100_000, "the model has shrunk");
}

#[test]
fn every_step_of_the_protocol_is_needed() {
    for broken in Protocol::BROKEN {
        let verdict = search(broken, SIZE);
        let steps = verdict
            .lost
            .unwrap_or_else(|| panic!("'{}' loses nothing: the model is blind", broken.name));
        println!(
            "{}: {} states, lost in {} steps",
            broken.name,
            verdict.states,
            steps.len()
        );
    }
}
