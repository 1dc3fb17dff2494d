//! Programs that serve and call over `vernal-rpc-core` are killed at any moment, and so is puddled: nobody gets stuck, every answer
//! is right, nothing is left.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use vernal_puddled_tests::rpc::assert_empty;
use vernal_puddled_tests::{Actor, Place, until};

const CLIENTS: usize = 3;

struct Campaign {
    place: Place,
    server: Option<Actor>,
    clients: Vec<Option<Actor>>,
    seed: u64,
    started: u64,
}

impl Campaign {
    fn new(seed: u64) -> Campaign {
        let mut place = Place::new(
            env!("CARGO_BIN_EXE_puddled-under-test"),
            env!("CARGO_BIN_EXE_puddled-actor"),
        );
        place.start();
        Campaign {
            place,
            server: None,
            clients: (0..CLIENTS).map(|_| None).collect(),
            seed,
            started: 0,
        }
    }

    fn random(&mut self, n: u64) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed % n
    }

    fn program(&mut self, words: &[&str]) -> Actor {
        let from = Path::new(env!("CARGO_BIN_EXE_puddled-rpc-program"));
        self.started += 1;
        let program = self
            .place
            .copy_of(from, &format!("rpc-{}", self.started % 16));
        let mut command = Command::new(&program);
        command.args(words);
        self.place.run_command(command, program, None)
    }

    /// Starts whoever is missing.
    fn fill(&mut self) {
        if self.server.is_none() {
            self.server = Some(self.program(&["serve", "campaign/shop"]));
        }
        for i in 0..CLIENTS {
            if self.clients[i].is_none() {
                let seed = (self.random(u64::MAX - 1) + 1).to_string();
                self.clients[i] = Some(self.program(&["call", "campaign/shop", &seed]));
            }
        }
    }

    fn kill(&mut self, who: usize) {
        let actor = match who {
            0 => self.server.take(),
            n => self.clients[n - 1].take(),
        };
        if let Some(actor) = actor {
            actor.kill();
        }
    }

    /// Every program that lives completes calls.
    fn all_go_on(&mut self) {
        let all = self
            .server
            .iter_mut()
            .chain(self.clients.iter_mut().flatten());
        for actor in all {
            let before = count(actor);
            until("a program is stuck", || count(actor) > before);
        }
    }
}

/// The calls that a program has completed; it says why when it has ended.
fn count(actor: &mut Actor) -> u64 {
    let answer = actor.try_ask("count").unwrap_or_else(|| actor.answer());
    let number = answer.strip_prefix("ok ").and_then(|n| n.parse().ok());
    number.unwrap_or_else(|| panic!("a program has ended: {answer}"))
}

/// Kills so often, and looks now and then whether the living go on.
fn campaign(of_puddled: bool) {
    let set = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let seed = set("CAMPAIGN_SEED").unwrap_or(0x1e37_79b9_7f4a_7c15).max(1);
    let kills = set("CAMPAIGN_ROUNDS").unwrap_or(120);
    println!("again with CAMPAIGN_SEED={seed} CAMPAIGN_ROUNDS={kills}");
    let mut c = Campaign::new(seed);
    let began = Instant::now();
    for round in 0..kills {
        c.fill();
        // From the first instruction to the middle of calls.
        let most = [300, 3_000, 15_000][c.random(3) as usize];
        let pause = Duration::from_micros(c.random(most));
        std::thread::sleep(pause);
        if of_puddled && c.random(8) == 0 {
            c.place.kill();
            c.place.start();
        }
        let who = c.random(1 + CLIENTS as u64) as usize;
        c.kill(who);
        if c.random(4) == 0 {
            let also = c.random(1 + CLIENTS as u64) as usize;
            c.kill(also);
        }
        if round % 20 == 19 {
            c.fill();
            c.all_go_on();
        }
    }
    c.fill();
    c.all_go_on();
    println!("{kills} rounds in {:?}", began.elapsed());
    // A server that goes by itself, under its clients; and clients without one.
    if let Some(server) = c.server.take() {
        server.end();
    }
    for client in c.clients.iter_mut().filter_map(Option::take) {
        client.end();
    }
    assert_empty(&c.place, &[]);
}

#[test]
fn programs_are_killed_at_any_moment() {
    campaign(false);
}

#[test]
fn programs_and_puddled_are_killed_at_any_moment() {
    campaign(true);
}
