//! Every cell of the table of attacks: tried for real, against a server of its own, and compared with what the table says.

use vernal_puddled_tests::Actor;
use vernal_rpc_core::modes::{ATTACKS, Attack, MODES, Mode, Outcome};
use vernal_rpc_tests::guarded::{HONEST, SECRET};
use vernal_rpc_tests::world::World;

/// What was seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Seen {
    /// The caller got an error, and the server served on.
    Refused,
    /// The handler did what the client wanted, and the server served on.
    Took,
    /// The client has read or written what is not its.
    Harmed,
    /// The server has died or hangs.
    Gone,
}

/// A server under attack, and a client of it that is none of the attackers.
struct Victim {
    server: Actor,
    honest: Actor,
    addrs: Vec<String>,
    other: String,
}

impl Victim {
    fn new(world: &World, mode: Mode) -> Victim {
        let mut server: Actor = world.actor("server");
        let addrs = server.ok(&format!("serve shop {}", mode.name()));
        let mut honest: Actor = world.actor("honest");
        honest.ok("connect shop");
        let other = honest.ok("put");
        Victim {
            server,
            honest,
            addrs: addrs.split(' ').map(str::to_owned).collect(),
            other,
        }
    }

    fn attacked(&mut self, world: &World, attack: &Attack, mode: Mode) -> Seen {
        let [since, hidden, before, counter] = &self.addrs[..] else {
            panic!("{:?}", self.addrs);
        };
        let target = match attack.key {
            "private" => since,
            "hidden" => hidden,
            "before" => before,
            "other" => &self.other,
            "write" => counter,
            _ => "0",
        };
        // A server that is expected to hang need not be waited for long.
        let patience = match (attack.key, attack.ends(mode)) {
            ("loop" | "cycle", Outcome::Open) => 1,
            _ => 60,
        };
        let mut client: Actor = world.actor("client");
        let answer = match ["release", "credits", "noise"].contains(&attack.key) {
            true => client.ok(&format!("attack shop {}", attack.key)),
            false => {
                client.ok("connect shop");
                client.ok(&format!("try {} {target} {patience}", attack.key))
            }
        };
        client.end();
        let served = self.honest.ask(&format!("honest {patience}"));
        let seen = if served != format!("ok {HONEST}") {
            Seen::Gone
        } else if answer == format!("took {SECRET}")
            || self.server.ok("counter") != HONEST.to_string()
        {
            Seen::Harmed
        } else if answer.starts_with("took") {
            Seen::Took
        } else {
            let told = answer.starts_with("error") || answer == "put out";
            assert!(told, "{answer}");
            Seen::Refused
        };
        println!("{:>10} {:>8}: {seen:?}, {answer}", attack.key, mode.name());
        seen
    }
}

#[test]
fn every_cell_of_the_table_is_true() {
    let world = World::start(
        env!("CARGO_BIN_EXE_rpc-puddled"),
        env!("CARGO_BIN_EXE_rpc-guarded"),
    );
    let mut wrong = Vec::new();
    for mode in MODES {
        let mut victim = None;
        for attack in &ATTACKS {
            let server = victim.get_or_insert_with(|| Victim::new(&world, mode));
            let seen = server.attacked(&world, attack, mode);
            let expected = attack.ends(mode);
            let fits = match expected {
                Outcome::Closed => seen == Seen::Refused,
                // Misled or ended, in a process that serves nobody else.
                Outcome::Contained => {
                    mode == Mode::Process && matches!(seen, Seen::Took | Seen::Refused)
                }
                Outcome::Open => seen != Seen::Refused,
            };
            if !fits {
                let (key, mode) = (attack.key, mode.name());
                wrong.push(format!("{key} in {mode}: {seen:?}, not {expected:?}"));
            }
            if matches!(seen, Seen::Gone | Seen::Harmed) {
                victim = None;
                world.settled(0, 0, 0);
            }
        }
        drop(victim);
        world.settled(0, 0, 0);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
