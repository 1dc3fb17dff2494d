//! The examples of RPC in C and C++, built as their comments say and run against a real puddled; a client that lies; and what the examples
//! do not use.

mod place;

use place::Place;
use vernal_programs::tools::run;

#[test]
fn the_example_in_c() {
    let place = Place::new("words");
    let words = place.build("../examples/words.c");
    let server = place.serve(&words, &["serve", "demo/words", "alpha", "beta", "beacon"]);
    let ask = |prefix| place.says(&words, &["ask", "demo/words", prefix]);
    assert_eq!(ask("be"), "2: beta beacon\n");
    assert_eq!(ask("gamma"), "0:\n");
    let refused = ask("");
    assert!(
        refused.starts_with("refused: ") && refused.ends_with("at least one character (22)\n"),
        "{refused}"
    );
    place.says(&words, &["stop", "demo/words"]);
    server.ends_well();
    let gone = run(&mut place.command(&words, &["ask", "demo/words", "be"]));
    assert!(gone.is_err(), "nobody serves any more");
}

#[test]
fn the_example_in_cxx() {
    let place = Place::new("till");
    let till = place.build("../examples/till.cpp");
    let server = place.serve(&till, &["serve", "demo/till"]);
    let buy = |goods: &[&str]| {
        let mut args = vec!["buy", "demo/till"];
        args.extend(goods);
        place.says(&till, &args)
    };
    let long = "a very long name of something small=3";
    assert_eq!(
        buy(&["bolts=12", long]),
        "bolts x 12: 305\na very long name of something small x 3: 110\ntotal 415\n"
    );
    let refused = buy(&[]);
    assert!(refused.contains("the basket is empty (1)"), "{refused}");
    // The till is as it was: nothing of a call is left behind.
    assert!(buy(&["nuts"]).ends_with("total 29\n"));
    place.says(&till, &["stop", "demo/till"]);
    server.ends_well();
}

#[test]
fn a_client_that_lies_is_refused_and_the_server_goes_on() {
    let place = Place::new("liar");
    let words = place.build("../examples/words.c");
    let liar = place.build("programs/liar.c");
    let mut server = place.serve(&words, &["serve", "demo/liar", "beta", "bbbbbbbbb"]);
    let said = place.says(&liar, &["demo/liar"]);
    let expected = "a wild pointer: -23\nmemory of the client: -23\nfree memory: -23\na text without end: -23\n\
                    bytes for an object: -23\nan object without type: -1\nno object: -1\nno method: -23\n\
                    an honest one: -24\n";
    assert_eq!(said, expected);
    assert!(server.runs());
    assert_eq!(place.says(&words, &["ask", "demo/liar", "be"]), "1: beta\n");
}

/// Streams, calls that are polled or given up, the heap of the channel, handlers that run at once: all over the C interface.
#[test]
fn what_the_examples_do_not_use_works_in_c() {
    let place = Place::new("calls");
    let calls = place.build("programs/calls.c");
    let server = place.serve(&calls, &["serve", "demo/calls", "3"]);
    assert_eq!(place.says(&calls, &["use", "demo/calls"]), "all is well\n");
    server.ends_well();
}

#[test]
fn handlers_in_c_run_in_a_sandbox() {
    let place = Place::new("guarded");
    let guarded = place.build("programs/guarded.c");
    let mut server = place.serve(&guarded, &["serve", "demo/guarded"]);
    let said = place.says(&guarded, &["try", "demo/guarded"]);
    let expected = "a list: 6\na wild pointer: -23\na list again: 6\na copy: 6\nwhat was loaded since: 0\n\
                    what was hidden: -23\nwhat a handler has changed: 1\na loop: -22\nwhat is left of it: 0\na list at last: 6\n";
    assert_eq!(said, expected);
    assert!(server.runs());
}
