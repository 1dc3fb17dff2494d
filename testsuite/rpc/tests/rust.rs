//! The crate `vernal-rpc`: its example, and a program that uses and attacks every part of it, in processes of their own.

mod place;

use std::path::{Path, PathBuf};

use place::Place;
use vernal_programs::rust::plain;
use vernal_programs::tools::run;

fn build(place: &Place, folder: &str, name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    plain(&place.tools, &folder, name).expect("it compiles")
}

#[test]
fn the_example_in_rust() {
    let place = Place::new("shop");
    let shop = build(&place, "../examples/shop", "shop");
    let goods = ["serve", "demo/shop", "bolts=12", "long nuts=7", "nuts=3"];
    let (server, tcp) = place.serve_and_say(&shop, &goods, 2);
    for address in ["demo/shop", &tcp] {
        let find = |words: &[&str]| {
            let mut args = vec!["find", address];
            args.extend(words);
            place.says(&shop, &args)
        };
        assert_eq!(find(&["nuts"]), "3 nuts\n7 long nuts\n");
        assert_eq!(find(&["screws"]), "");
        let refused = find(&[]);
        assert!(
            refused.starts_with("refused: ") && refused.contains("code 22"),
            "{refused}"
        );
        let all = place.says(&shop, &["list", address]);
        assert_eq!(all, "12 bolts\n7 long nuts\n3 nuts\n");
    }
    place.says(&shop, &["stop", "demo/shop"]);
    server.ends_well();
    assert!(run(&mut place.command(&shop, &["list", "demo/shop"])).is_err());
}

#[test]
fn every_part_works_and_no_lie_is_taken() {
    let place = Place::new("rust");
    let program = build(&place, "rust-rpc", "rust-rpc");
    let (server, tcp) = place.serve_and_say(&program, &["serve", "t/rust"], 2);
    for address in ["t/rust", &tcp] {
        assert_eq!(place.says(&program, &["check", address]), "ok\n");
        assert_eq!(place.says(&program, &["lie", address]), "ok\n");
    }
    place.says(&program, &["stop", "t/rust"]);
    server.ends_well();
}

#[test]
fn rust_and_cxx_call_each_other() {
    let place = Place::new("rust-cxx");
    let rust = build(&place, "rust-rpc", "rust-rpc");
    let cxx = place.build("programs/sums.cpp");
    let args = ["serve", "t/cxx", "a secret"];
    let (_cxx_server, tcp) = place.serve_and_say(&cxx, &args, 2);
    assert_eq!(place.says(&rust, &["sum", "t/cxx", ""]), "ok\n");
    assert_eq!(place.says(&rust, &["sum", &tcp, "a secret"]), "ok\n");
    let other = run(&mut place.command(&rust, &["sum", &tcp, "another"]));
    let refused = other.expect_err("another secret").to_string();
    assert!(refused.contains("token"), "{refused}");
    let (rust_server, tcp) = place.serve_and_say(&rust, &["serve", "t/rust"], 2);
    assert_eq!(place.says(&rust, &["sum", "t/rust", ""]), "ok\n");
    for address in ["t/rust", &tcp] {
        assert_eq!(place.says(&cxx, &["ask", address]), "42 of 2\n");
    }
    place.says(&rust, &["stop", "t/rust"]);
    rust_server.ends_well();
}

#[test]
fn a_handler_that_aborts_in_its_helper_fails_its_call() {
    let place = Place::new("rust-guarded");
    let program = build(&place, "rust-rpc", "rust-rpc");
    let mut server = place.serve(&program, &["guarded", "t/guarded"]);
    for _ in 0..2 {
        let said = place.says(&program, &["abort", "t/guarded"]);
        assert_eq!(said, "ok\n");
    }
    assert!(server.runs());
}

#[test]
fn a_server_that_dies_is_noticed_and_its_replies_stay() {
    let place = Place::new("rust-dies");
    let program = build(&place, "rust-rpc", "rust-rpc");
    for over_tcp in [false, true] {
        let (mut server, tcp) = place.serve_and_say(&program, &["serve", "t/dies"], 2);
        let address = if over_tcp { &tcp } else { "t/dies" };
        assert_eq!(place.says(&program, &["die", address]), "ok\n");
        server.ends();
    }
}
