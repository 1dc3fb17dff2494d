//! How long it takes to recover what a killed program has left: prints times, checks what was recovered.

use std::path::Path;
use std::time::Instant;

use vernal_puddled_tests::{Actor, Place};

const ROUNDS: usize = 41;

fn place() -> Place {
    Place::new(
        env!("CARGO_BIN_EXE_puddled-under-test"),
        env!("CARGO_BIN_EXE_puddled-actor"),
    )
}

fn program(place: &Place, name: &str) -> Actor {
    place.run(Path::new(env!("CARGO_BIN_EXE_puddled-program")), name, None)
}

/// The value of a metric.
fn metric(place: &Place, name: &str) -> u64 {
    let text = place.client().metrics().expect("puddled serves");
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(&format!("puddled_{name} ")));
    line.and_then(|v| v.parse().ok())
        .unwrap_or_else(|| panic!("no {name} in {text}"))
}

fn median(all: &mut [u64]) -> u64 {
    all.sort_unstable();
    all[all.len() / 2]
}

/// Kills a writer after `commits` small commits and one larger, again and again.
fn measure(what: &str, commits: u64, grow: bool) {
    let mut place = place();
    place.start();
    let names = [
        "recovery_microseconds_total",
        "recovery_check_microseconds_total",
        "settling_microseconds_total",
    ];
    let mut times: [Vec<u64>; 4] = Default::default();
    for round in 0..ROUNDS {
        let pool = format!("pool{round}");
        let mut writer = program(&place, "writer");
        writer.ok(&format!("open {pool} c"));
        if grow {
            writer.ok(&format!("big {pool} 3000000"));
            writer.ok(&format!("big {pool} 5000000"));
        }
        for i in 0..commits {
            writer.ok(&format!("push {pool} {i} 1"));
        }
        writer.ok(&format!("push {pool} 1000 4"));
        writer.ok(&format!("torn {pool} 99"));
        let before = names.map(|n| metric(&place, n));
        let began = Instant::now();
        writer.kill();
        place.wait_settled();
        times[3].push(u64::try_from(began.elapsed().as_micros()).unwrap());
        for (i, name) in names.into_iter().enumerate() {
            times[i].push(metric(&place, name) - before[i]);
        }
        let mut reader = program(&place, "reader");
        reader.ok(&format!("open {pool} r"));
        let list = reader.ok(&format!("list {pool}"));
        assert!(list.starts_with("1003,1002,1001,1000"), "{list}");
        reader.end();
        place.wait_settled();
        place.client().remove(&pool).expect("nobody has it open");
    }
    let [all, check, settle, seen] = times.each_mut().map(|t| median(t));
    println!(
        "{what}: recovery {all} µs (checking the journal {check} of it), settled {settle} µs, seen by a client {seen} µs"
    );
}

#[test]
#[ignore = "prints times: run it in release, alone"]
fn recovery_times() {
    println!("{}, medians of {ROUNDS}", std::env::temp_dir().display());
    measure("one transaction", 0, false);
    measure("200 transactions", 200, false);
    measure("three puddles", 0, true);
}
