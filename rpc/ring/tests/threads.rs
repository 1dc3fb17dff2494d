//! Two real threads, every way of waiting: nothing is lost, out of order or doubled, and everybody wakes.

mod support;

use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use support::*;
use vernal_ring::*;

/// The client keeps some calls in flight; the server answers each with the same words.
fn echo(client: WaitPolicy, server: WaitPolicy, slots: usize, depth: u64, calls: u64) {
    let (a, b) = (Memory::area(slots), Memory::area(slots));
    let (pa, pb) = EventPark::pair();
    let mut client = endpoint(&a, &b, slots, pa, client);
    let mut server = endpoint(&b, &a, slots, pb, server);
    std::thread::scope(|s| {
        s.spawn(move || {
            for _ in 0..calls {
                let Ok(Received::Message(m)) = server.recv(None) else {
                    panic!("no call")
                };
                while let Err(e) = server.try_send(&m) {
                    assert!(matches!(e, SendError::Full { .. }), "{e}");
                    // Two full rings would wait for each other: the client takes replies while it sends.
                    while !server.producer.has_room().expect("sound") {
                        std::thread::yield_now();
                    }
                }
            }
        });
        let (mut sent, mut got) = (0, 0);
        while got < calls {
            while sent < calls && sent < got + depth {
                match client.try_send(&message(sent)) {
                    Ok(()) => sent += 1,
                    Err(SendError::Full { .. }) => break,
                    Err(e) => panic!("{e}"),
                }
            }
            let Ok(Received::Message(m)) = client.recv(None) else {
                panic!("no reply")
            };
            assert_eq!(m, message(got));
            got += 1;
        }
        assert_eq!(client.try_recv(), Ok(None));
    });
}

#[test]
fn one_call_at_a_time() {
    for client in [WaitPolicy::Adaptive, WaitPolicy::Block] {
        for server in [WaitPolicy::Adaptive, WaitPolicy::Block] {
            echo(client, server, 4, 1, 500);
        }
    }
}

#[test]
fn spinning_sides_give_way() {
    echo(WaitPolicy::Spin, WaitPolicy::Spin, 4, 1, 200);
    echo(WaitPolicy::Spin, WaitPolicy::Block, 64, 16, 200);
}

#[test]
fn many_calls_in_flight() {
    for depth in [2, 7, 32, 1000] {
        echo(WaitPolicy::Adaptive, WaitPolicy::Adaptive, 8, depth, 5000);
        echo(WaitPolicy::Block, WaitPolicy::Block, 32, depth, 5000);
    }
}

#[test]
fn a_producer_sleeps_until_there_are_credits() {
    let (a, b) = (Memory::area(4), Memory::area(4));
    let (pa, pb) = EventPark::pair();
    for policy in [WaitPolicy::Adaptive, WaitPolicy::Block, WaitPolicy::Spin] {
        let (a, b) = (Memory::area(4), Memory::area(4));
        let mut producer = endpoint(&a, &b, 4, pa.clone(), policy);
        let mut consumer = endpoint(&b, &a, 4, pb.clone(), policy);
        std::thread::scope(|s| {
            s.spawn(move || {
                for i in 0..2000 {
                    while producer.try_send(&message(i)).is_err() {
                        assert_eq!(producer.wait_room(None), Ok(None));
                    }
                }
            });
            for i in 0..2000 {
                assert_eq!(consumer.recv(None), Ok(Received::Message(message(i))));
            }
        });
    }
    drop((a, b));
}

#[test]
fn a_deadline_ends_a_wait_of_any_kind() {
    for policy in [WaitPolicy::Spin, WaitPolicy::Adaptive, WaitPolicy::Block] {
        let (a, b) = (Memory::area(4), Memory::area(4));
        let mut side = endpoint(&a, &b, 4, EventPark::pair().0, policy);
        let deadline = Instant::now() + Duration::from_millis(5);
        assert_eq!(side.recv(Some(deadline)), Ok(Received::Deadline));
        assert!(Instant::now() >= deadline);
        for i in 0..4 {
            side.try_send(&message(i)).expect("room");
        }
        let deadline = Instant::now() + Duration::from_millis(5);
        assert_eq!(side.wait_room(Some(deadline)), Ok(Some(Received::Deadline)));
        assert!(Instant::now() >= deadline);
    }
}

/// A park that says that the peer is gone.
struct Gone;

impl Park for Gone {
    type Stop = &'static str;
    fn block(&mut self, _: Option<Instant>) -> ControlFlow<&'static str> {
        ControlFlow::Break("gone")
    }
    fn check(&mut self) -> ControlFlow<&'static str> {
        ControlFlow::Break("gone")
    }
    fn wake(&mut self) {}
}

#[test]
fn the_end_of_the_peer_ends_a_wait_of_any_kind() {
    for policy in [WaitPolicy::Spin, WaitPolicy::Adaptive, WaitPolicy::Block] {
        let (a, b) = (Memory::area(4), Memory::area(4));
        let mut side = endpoint(&a, &b, 4, Gone, policy);
        // What has arrived before comes first.
        support::producer(&b, &a, 4, 0)
            .try_send(&message(7))
            .expect("room");
        assert_eq!(side.recv(None), Ok(Received::Message(message(7))));
        assert_eq!(side.recv(None), Ok(Received::Stopped("gone")));
    }
}

#[test]
fn a_broken_ring_ends_a_wait() {
    let (a, b) = (Memory::area(4), Memory::area(4));
    let mut side = endpoint(&a, &b, 4, EventPark::pair().0, WaitPolicy::Block);
    b.as_ref()[16].store(99 << 16, std::sync::atomic::Ordering::Relaxed);
    assert!(matches!(
        side.recv(None),
        Err(Corrupt::Sequence { slot: 0, .. })
    ));
}
