//! SIGKILL of the client and of the server at every step of a conversation: nothing is left, the other side learns of it, and a restart
//! is not in anybody's way.

use std::process::Command;

use vernal_puddled_tests::Actor;
use vernal_rpc_tests::conformance::eventually;
use vernal_rpc_tests::world::{World, field};

const ACTOR: &str = env!("CARGO_BIN_EXE_rpc-actor");

fn world() -> World {
    World::start(env!("CARGO_BIN_EXE_rpc-puddled"), ACTOR)
}

/// A process that kills itself at a step.
fn doomed(world: &World, at: u64) -> Doomed {
    let mut command = Command::new(ACTOR);
    command
        .env("VERNAL_PUDDLED", world.place.socket())
        .env("VERNAL_RPC_TEST_KILL_AT", at.to_string());
    Doomed::spawn(command)
}

/// Its pipes.
struct Doomed {
    child: std::process::Child,
    to: std::process::ChildStdin,
    from: std::io::BufReader<std::process::ChildStdout>,
}

impl Doomed {
    fn spawn(mut command: Command) -> Doomed {
        use std::process::Stdio;
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = vernal_puddled_tests::spawn(&mut command);
        let to = child.stdin.take().expect("a pipe");
        let from = std::io::BufReader::new(child.stdout.take().expect("a pipe"));
        Doomed { child, to, from }
    }

    /// Its answer; `None`: it is dead.
    fn ask(&mut self, line: &str) -> Option<String> {
        use std::io::{BufRead, Write};
        writeln!(self.to, "{line}").ok()?;
        let mut answer = String::new();
        match self.from.read_line(&mut answer) {
            Ok(n) if n > 0 => Some(answer.trim_end().to_owned()),
            _ => None,
        }
    }

    /// Waits for its end; whether it was killed.
    fn end(mut self) -> bool {
        use std::os::unix::process::ExitStatusExt;
        drop(self.to);
        let status = self.child.wait().expect("a child of ours");
        status.signal() == Some(9)
    }
}

/// What a client does, all of it; `None`: it died on the way.
fn client_script(client: &mut Doomed) -> Option<()> {
    for line in [
        "connect shop verify adaptive",
        "echo 1 20",
        "echo 1 2000",
        "sum 1 50",
        "list 1 50",
        "shared 1",
        "stream 1 40",
        "close 1",
        "connect shop verify block",
        "sum 2 50",
    ] {
        client.ask(line)?;
    }
    Some(())
}

#[test]
fn clients_die_at_every_step() {
    let world = world();
    let mut server: Actor = world.actor("server");
    server.ok("serve shop verify 0");
    let mut other: Actor = world.actor("other");
    let conn = other.ok("connect shop verify adaptive");
    other.ok(&format!("shared {conn}"));
    other.ok(&format!("sum {conn} 50"));
    // The ring segments of the connection, its heap, and the channel's.
    world.settled(1, 1, 4);
    let mut step = 1;
    let mut deaths = 0;
    loop {
        let mut client = doomed(&world, step);
        let survived = client_script(&mut client).is_some();
        let killed = client.end();
        deaths += u64::from(killed);
        world.settled(1, 1, 4);
        assert_eq!(
            other.ok(&format!("sum {conn} 50")),
            "50 1225",
            "step {step}"
        );
        if survived && !killed {
            break;
        }
        // All steps of connecting and leaving, then some of the many that calls have.
        step += if step < 60 { 1 } else { 7 };
        assert!(step < 5000, "the script does not end");
    }
    println!("{deaths} deaths in {step} steps");
    assert!(deaths > 40, "{deaths}");
    assert_eq!(field(&server.ok("stats shop"), "corrupt"), 0);
    other.end();
    server.end();
    world.settled(0, 0, 0);
}

#[test]
fn servers_die_at_every_step() {
    let world = world();
    let mut step = 1;
    let mut deaths = 0;
    loop {
        let mut server = doomed(&world, step);
        let mut survived = server.ask("serve shop verify 0").is_some();
        let mut client: Actor = world.actor("client");
        let answer = client.ask("connect shop verify adaptive");
        let mut seen = vec![answer.clone()];
        if answer.starts_with("ok") {
            for line in [
                "echo 1 20",
                "echo 1 2000",
                "sum 1 50",
                "list 1 50",
                "shared 1",
                "stream 1 40",
            ] {
                let answer = client.ask(line);
                let fine = answer.starts_with("ok");
                seen.push(answer);
                if !fine {
                    break;
                }
            }
            client.ok("close 1");
        }
        let last = seen.last().cloned().unwrap_or_default();
        survived &= last.starts_with("ok") && server.ask("shutdown shop").is_some();
        let killed = server.end();
        deaths += u64::from(killed);
        if !last.starts_with("ok") {
            let kinds = ["err PeerDied", "err NotFound", "err Other", "err Access"];
            assert!(
                kinds.iter().any(|k| last.starts_with(k)),
                "step {step}: {seen:?}"
            );
        }
        // A restart is not in anybody's way, at once.
        let mut next: Actor = world.actor("next");
        next.ok("serve shop verify 0");
        let conn = client.ok("connect shop verify adaptive");
        assert_eq!(
            client.ok(&format!("sum {conn} 50")),
            "50 1225",
            "step {step}"
        );
        client.end();
        next.ok("shutdown shop");
        next.end();
        world.settled(0, 0, 0);
        if survived && !killed {
            break;
        }
        step += if step < 40 { 1 } else { 5 };
        assert!(step < 5000, "the script does not end");
    }
    println!("{deaths} deaths in {step} steps");
    assert!(deaths > 30, "{deaths}");
}

#[test]
fn random_kills_of_busy_processes() {
    let world = world();
    for round in 0..12u64 {
        let mut server: Actor = world.actor("server");
        server.ok(&format!("serve shop verify {}", round % 2));
        let mut clients: Vec<Actor> = (0..3).map(|_| world.actor("client")).collect();
        for (n, client) in clients.iter_mut().enumerate() {
            let wait = ["adaptive", "block", "adaptive"][n];
            client.ok(&format!("connect shop verify {wait}"));
            client.send("tamper 1 100 100000");
        }
        eventually("they are busy", || {
            field(&server.ok("stats shop"), "calls") > 50
        });
        if round % 3 == 0 {
            server.kill();
            for mut client in clients {
                let answer = client.answer();
                assert!(answer.starts_with("err PeerDied"), "{answer}");
                client.end();
            }
        } else {
            for client in clients {
                client.kill();
            }
            eventually("the server sees it", || {
                field(&server.ok("stats shop"), "clients") == 0
            });
            server.ok("shutdown shop");
            server.end();
        }
        world.settled(0, 0, 0);
    }
}
