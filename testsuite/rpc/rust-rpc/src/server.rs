//! The server: each handler reads all of its argument.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use vernal::{Error, PBox, PVec, Tx};
use vernal_rpc::{Call, ChannelOptions, Failure, Items, Reply, Sandbox};

use crate::Result;
use crate::types::*;

fn leaf<'q>(heap: &Tx<'q>, l: &Leaf<'_>) -> std::result::Result<Leaf<'q>, Error> {
    Ok(Leaf {
        text: heap.string(&l.text)?,
        kind: l.kind,
    })
}

/// A copy of a tree: whatever of it is no value would be met here.
pub fn copy<'q>(heap: &Tx<'q>, t: &Tree<'_>) -> std::result::Result<Tree<'q>, Error> {
    let mut children = PVec::new();
    for child in &t.children {
        children.push(heap, copy(heap, child)?)?;
    }
    let boxed = heap.alloc(leaf(heap, &t.boxed)?)?;
    let mut boxes: PVec<'q, PBox<'q, Leaf<'q>>> = PVec::new();
    for b in &t.boxes {
        boxes.push(heap, heap.alloc(leaf(heap, b)?)?)?;
    }
    Ok(Tree {
        name: heap.string(&t.name)?,
        kinds: t.kinds,
        is_root: t.is_root,
        letter: t.letter,
        wide: t.wide,
        back: t.back.map(|_| vernal::Ptr::to(&boxed)),
        boxed,
        maybe: match &t.maybe {
            Some(tree) => Some(heap.alloc(copy(heap, tree)?)?),
            None => None,
        },
        children,
        pair: [heap.string(&t.pair[0])?, heap.string(&t.pair[1])?],
        rows: [leaf(heap, &t.rows[0])?, leaf(heap, &t.rows[1])?],
        numbers: heap.vec(t.numbers.iter().copied())?,
        letters: heap.vec(t.letters.iter().copied())?,
        flags: heap.vec(t.flags.iter().copied())?,
        boxed_letter: heap.alloc(*t.boxed_letter)?,
        boxed_flag: heap.alloc(*t.boxed_flag)?,
        boxed_row: heap.alloc(*t.boxed_row)?,
        boxes,
    })
}

/// Handlers in helper processes.
pub fn guarded(name: &str) -> Result<()> {
    let chan = ChannelOptions::new().sandbox(Sandbox::Process).open(name)?;
    chan.serve(ECHO, |call: Call<Tree>| {
        call.reply(|heap| copy(heap, &call))
    })?;
    chan.serve(PLAIN, |call: Call<Plain>| Ok(Reply::value(*call)))?;
    chan.serve(FAIL, |call: Call<u32>| match *call {
        0 => panic!("as asked"),
        code => Err(Failure::new(code, "as asked")),
    })?;
    chan.serve(DIE, |_: Call<()>| std::process::abort())?;
    chan.prefork()?;
    println!("ready");
    chan.run()?;
    Ok(())
}

pub fn serve(name: &str) -> Result<()> {
    let chan = ChannelOptions::new().threads(3).open(name)?;
    chan.serve(ECHO, |call: Call<Tree>| {
        call.reply(|heap| copy(heap, &call))
    })?;
    chan.serve(PLAIN, |call: Call<Plain>| Ok(Reply::value(*call)))?;
    let hanging: Arc<Mutex<HashMap<u64, [u64; 2]>>> = Arc::default();
    let counts = Arc::clone(&hanging);
    chan.serve(HANG, move |call: Call<u64>| {
        let count = |n: usize| counts.lock().unwrap().entry(*call).or_default()[n] += 1;
        count(0);
        while !call.is_cancelled() {
            std::thread::sleep(Duration::from_millis(1));
        }
        count(1);
        Ok(Reply::value(()))
    })?;
    chan.serve(HANGING, move |call: Call<u64>| {
        let counts = hanging.lock().unwrap();
        Ok(Reply::value(counts.get(&call).copied().unwrap_or_default()))
    })?;
    chan.serve(FAIL, |call: Call<u32>| match *call {
        0 => panic!("as asked"),
        code => Err(Failure::new(code, format!("code {code}, as asked"))),
    })?;
    chan.serve(DIE, |_: Call<()>| std::process::abort())?;
    chan.serve(WHO, |call: Call<()>| {
        let peer = call.peer();
        Ok(Reply::value(Who {
            uid: peer.uid.unwrap_or(u32::MAX),
            pid: peer.pid.unwrap_or(u32::MAX),
        }))
    })?;
    chan.serve_stream(COUNT, |most: Call<u64>, mut items: Items<u64>| {
        (0..*most).try_for_each(|n| items.send(Reply::value(n)))
    })?;
    chan.serve_stream(TEXTS, |most: Call<u64>, mut items: Items<Leaf>| {
        for n in 0..*most {
            items.send(most.reply(|heap| {
                let text = heap.string(&format!("text {n}"))?;
                Ok(Leaf {
                    text,
                    kind: Kind::Leaf,
                })
            })?)?;
        }
        match *most {
            13 => Err(Failure::new(13, "an unlucky number")),
            _ => Ok(()),
        }
    })?;
    let table = chan.share::<Leaf>(|heap| {
        let text = heap.string("for all")?;
        Ok(Leaf {
            text,
            kind: Kind::Other,
        })
    })?;
    chan.serve(TABLE, move |call: Call<()>| call.share(&table))?;
    chan.serve(COUNTED, |call: Call<()>| {
        let reply = call.reply::<Counted>(|heap| {
            Ok(Counted {
                text: heap.string("a reply that nobody gets")?,
            })
        })?;
        drop(reply);
        call.reply(|heap| {
            Ok(Counted {
                text: heap.string("a reply")?,
            })
        })
    })?;
    chan.serve(DROPS, |_: Call<()>| {
        Ok(Reply::value(DROPPED.load(Ordering::SeqCst)))
    })?;
    chan.serve(LARGE, |call: Call<Large>| Ok(Reply::value(*call)))?;
    chan.serve(PADDED, |call: Call<Padded>| call.reply(|_| Ok(*call)))?;
    chan.serve(OBJECT, |call: Call<Plain>| Ok(Reply::value(*call)))?;
    chan.serve(FLAG_AS_BYTE, |call: Call<u8>| Ok(Reply::value(*call)))?;
    chan.serve(SUM, |call: Call<Node>| {
        let mut total = Total { sum: 0, count: 0 };
        let mut next = Some(&*call);
        while let Some(node) = next {
            total.sum += node.value;
            total.count += 1;
            next = node.next.as_deref();
        }
        Ok(Reply::value(total))
    })?;
    let stops = chan.clone();
    chan.serve(STOP, move |_: Call<()>| {
        stops.shutdown(Duration::from_secs(1));
        Ok(Reply::value(()))
    })?;
    let address = chan.listen_tcp((Ipv4Addr::LOCALHOST, 0).into(), None)?;
    println!("ready\n{address}");
    chan.run()?;
    Ok(())
}
