//! A program with pools: it opens pools of puddled with `vernal-pool`, as every program does, and keeps a list in each.
//!
//! ```text
//! open NAME w|r|c|d  push NAME FIRST COUNT (one transaction)    torn NAME VALUE (no commit)
//! list NAME          big NAME BYTES (forces growth)             close NAME
//! embed DIR (makes a direct pool without puddled)               abort
//! toil NAME FIRST COUNT (a transaction for each; says each number that is durable)
//! ```

use std::collections::BTreeMap;
use std::io::{BufRead, Write};

use vernal_format::types::{Shape, TypeBuilder, TypeDesc};
use vernal_pool::program::ProgramType;
use vernal_pool::{OpenOptions, Pool, capi, tx};

fn node_type() -> ProgramType {
    let next = Shape::Pointer {
        target: "node".into(),
        target_id: 0,
    };
    let blob = TypeBuilder::new("node", 16, 8)
        .member("next", 0, next)
        .member("value", 8, Shape::Integer(8))
        .build()
        .expect("a valid type");
    ProgramType {
        desc: TypeDesc::parse(&blob).expect("a valid type"),
        bound: Vec::new(),
    }
}

/// What compiled code does: a store and its mark.
fn store(addr: u64, value: u64) {
    // SAFETY: callers pass the address of a word of an object that they have just allocated, or reached from the root.
    unsafe { (addr as *mut u64).write_volatile(value) };
    vernal_snapshot::thread::mark_range(addr, 8);
}

fn load(addr: u64) -> u64 {
    // SAFETY: as for `store`.
    unsafe { (addr as *const u64).read_volatile() }
}

struct Program {
    pools: BTreeMap<String, Pool>,
    node: ProgramType,
}

type Answer = Result<String, String>;

impl Program {
    fn pool(&self, name: &str) -> Result<&Pool, String> {
        self.pools
            .get(name)
            .ok_or_else(|| format!("Local {name} is not open"))
    }

    fn push(&self, pool: &Pool, value: u64) -> Result<(), vernal_pool::Error> {
        let root = match pool.root() {
            Some(root) => root,
            None => {
                let root = pool.alloc(16, &self.node, 1)?;
                pool.set_root(root)?;
                root
            }
        };
        let node = pool.alloc(16, &self.node, 1)?;
        store(node, load(root));
        store(node + 8, value);
        // The node is new; the root is not. Buffered pools need not be told.
        capi::tx_add(root, 8)?;
        store(root, node);
        Ok(())
    }

    fn obey(&mut self, words: &[&str]) -> Answer {
        let number = |s: &str| s.parse::<u64>().map_err(|e| format!("Local {s}: {e}"));
        let failed = |e: vernal_pool::Error| {
            let debug = format!("{e:?}");
            let kind = debug.split([' ', '(', '{']).next().unwrap_or("Error");
            format!("{kind} {e}")
        };
        match words {
            ["open", name, how] => {
                let options = OpenOptions {
                    create: matches!(*how, "c" | "d"),
                    exclusive: false,
                    read_only: *how == "r",
                    direct: *how == "d",
                    eager: false,
                };
                let pool = Pool::open_served(name, options).map_err(failed)?;
                self.pools.insert((*name).to_owned(), pool);
                Ok(String::new())
            }
            ["push", name, first, count] => {
                let (first, count) = (number(first)?, number(count)?);
                tx::begin().map_err(failed)?;
                let pool = self.pool(name)?;
                for value in first..first + count {
                    self.push(pool, value).map_err(failed)?;
                }
                tx::commit().map_err(failed)?;
                Ok(String::new())
            }
            ["embed", dir] => {
                let options = OpenOptions {
                    create: true,
                    direct: true,
                    ..OpenOptions::default()
                };
                let pool = Pool::open(std::path::Path::new(dir), options).map_err(failed)?;
                self.pools.insert((*dir).to_owned(), pool);
                Ok(String::new())
            }
            ["abort"] => tx::abort().map(|()| String::new()).map_err(failed),
            ["toil", name, first, count] => {
                let (first, count) = (number(first)?, number(count)?);
                let pool = self.pool(name)?;
                for value in first..first + count {
                    tx::begin().map_err(failed)?;
                    self.push(pool, value).map_err(failed)?;
                    tx::commit().map_err(failed)?;
                    println!("ok {value}");
                    let _ = std::io::stdout().flush();
                }
                Ok(String::new())
            }
            ["torn", name, value] => {
                let value = number(value)?;
                tx::begin().map_err(failed)?;
                self.push(self.pool(name)?, value).map_err(failed)?;
                Ok(String::new())
            }
            ["list", name] => {
                let pool = self.pool(name)?;
                let mut values = Vec::new();
                let mut at = pool.root().map_or(0, load);
                while at != 0 && values.len() < 10_000 {
                    values.push(load(at + 8).to_string());
                    at = load(at);
                }
                Ok(values.join(","))
            }
            ["big", name, bytes] => {
                let bytes = number(bytes)?;
                tx::begin().map_err(failed)?;
                let addr = self.pool(name)?.alloc_bytes(bytes).map_err(failed)?;
                store(addr, 7);
                tx::commit().map_err(failed)?;
                Ok(format!("{addr:#x}"))
            }
            ["close", name] => {
                let pool = self.pools.remove(*name);
                let pool = pool.ok_or_else(|| format!("Local {name} is not open"))?;
                pool.close().map(|()| String::new()).map_err(failed)
            }
            _ => Err(format!("Local what is {words:?}?")),
        }
    }
}

fn main() {
    let mut program = Program {
        pools: BTreeMap::new(),
        node: node_type(),
    };
    for line in std::io::stdin().lock().lines().map_while(Result::ok) {
        let words: Vec<&str> = line.split(' ').collect();
        match program.obey(&words) {
            Ok(text) => println!("ok {text}"),
            Err(text) => println!("err {}", text.replace('\n', " ")),
        }
        let _ = std::io::stdout().flush();
    }
}
