//! shop: a server that finds goods, and its clients, in safe Rust.
//!
//! ```text
//! cargo run -- serve CHANNEL NAME=PRICE...    find CHANNEL WORD...    list CHANNEL    stop CHANNEL
//! ```
//!
//! CHANNEL is a name of puddled ("shop/stock"), which has to run; for clients also what the server says that it listens to.
#![forbid(unsafe_code)]

use std::net::Ipv4Addr;
use std::process::ExitCode;
use std::time::Duration;

use vernal::{PString, PVec, Persist};
use vernal_rpc::{Call, Channel, Failure, Items, Method, Ref, StreamMethod};

/// What a client looks for.
#[derive(Persist)]
#[repr(C)]
struct Query<'p> {
    words: PVec<'p, PString<'p>>,
    order: Order,
}

#[derive(Persist, Debug, Clone, Copy, PartialEq)]
#[repr(u8)]
enum Order {
    Name = 1,
    Price = 4,
}

#[derive(Persist)]
#[repr(C)]
struct Item<'p> {
    name: PString<'p>,
    price: u64,
}

#[derive(Persist)]
#[repr(C)]
struct Found<'p> {
    items: PVec<'p, Item<'p>>,
}

/// The methods of the channel, with the types of their arguments and replies.
const FIND: Method<Query, Found> = Method::new(1);
const LIST: StreamMethod<u64, Item> = StreamMethod::new(2);
const STOP: Method<(), ()> = Method::new(3);

/// The code of a query without words.
const NO_WORDS: u32 = 22;

fn serve(name: &str, goods: &[(String, u64)]) -> Result<(), vernal_rpc::Error> {
    let chan = Channel::open(name)?;
    let stock = goods.to_vec();
    chan.serve(FIND, move |call: Call<Query>| {
        if call.words.is_empty() {
            return Err(Failure::new(NO_WORDS, "look for at least one word"));
        }
        let fits = |name: &str| call.words.iter().any(|word| name.contains(word.as_str()));
        let mut found: Vec<_> = stock.iter().filter(|(name, _)| fits(name)).collect();
        match call.order {
            Order::Name => found.sort(),
            Order::Price => found.sort_by_key(|(_, price)| *price),
        }
        call.reply(|heap| {
            let mut items = PVec::new();
            for (name, price) in found {
                let name = heap.string(name)?;
                items.push(
                    heap,
                    Item {
                        name,
                        price: *price,
                    },
                )?;
            }
            Ok(Found { items })
        })
    })?;
    let stock = goods.to_vec();
    chan.serve_stream(LIST, move |most: Call<u64>, mut items: Items<Item>| {
        for (name, price) in stock.iter().filter(|(_, price)| *price <= *most) {
            items.send(most.reply(|heap| {
                let name = heap.string(name)?;
                Ok(Item {
                    name,
                    price: *price,
                })
            })?)?;
        }
        Ok(())
    })?;
    let stops = chan.clone();
    chan.serve(STOP, move |_: Call<()>| {
        stops.shutdown(Duration::from_secs(1));
        Ok(vernal_rpc::Reply::value(()))
    })?;
    let address = chan.listen_tcp((Ipv4Addr::LOCALHOST, 0).into(), None)?;
    println!("ready\n{address}");
    chan.run()
}

fn find(name: &str, words: &[&str]) -> Result<(), vernal_rpc::Error> {
    let conn = vernal_rpc::connect(name)?;
    let query = conn.build::<Query>(|heap| {
        let mut list = PVec::new();
        for word in words {
            list.push(heap, heap.string(word)?)?;
        }
        Ok(Query {
            words: list,
            order: Order::Price,
        })
    })?;
    let found: Ref<Found> = match conn.call(FIND, &query) {
        Ok(found) => found,
        Err(e) if e.application_code() == Some(NO_WORDS) => {
            println!("refused: {e}");
            return Ok(());
        }
        Err(e) => return Err(e),
    };
    for item in &found.items {
        println!("{} {}", item.price, item.name);
    }
    Ok(())
}

fn list(name: &str) -> Result<(), vernal_rpc::Error> {
    let conn = vernal_rpc::connect(name)?;
    for item in conn.stream(LIST, &u64::MAX)? {
        let item = item?;
        println!("{} {}", item.price, item.name);
    }
    Ok(())
}

fn run(arguments: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    match arguments {
        ["serve", name, goods @ ..] => {
            let mut stock = Vec::new();
            for good in goods {
                let (name, price) = good.split_once('=').ok_or("write NAME=PRICE")?;
                stock.push((name.to_owned(), price.parse()?));
            }
            serve(name, &stock)?;
        }
        ["find", name, words @ ..] => find(name, words)?,
        ["list", name] => list(name)?,
        ["stop", name] => {
            vernal_rpc::connect(name)?.call(STOP, &())?;
        }
        _ => return Err("use: shop serve|find|list|stop CHANNEL ...".into()),
    }
    Ok(())
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("shop: {e}");
            ExitCode::FAILURE
        }
    }
}
