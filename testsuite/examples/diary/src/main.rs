//! diary: entries and their tags in a pool, in safe Rust.
//!
//! ```text
//! cargo run -- POOL write TEXT [TAG...]    list    strike NUMBER    check
//! cargo run -- POOL stress N               N random changes, one transaction each; prints the number of each
//! ```
//!
//! POOL is a directory ("./diary.pool").
#![forbid(unsafe_code)]

use std::process::ExitCode;
use vernal::{Error, PBox, PString, PVec, Persist, Pool, RootMut, Tx};

/// How an entry came about.
#[derive(Persist, Debug, Clone, Copy, PartialEq)]
#[repr(u8)]
enum Origin {
    Written,
    Generated,
}

#[derive(Persist)]
#[repr(C)]
struct Entry<'p> {
    origin: Origin,
    number: u64,
    text: PString<'p>,
    tags: PVec<'p, PString<'p>>,
    older: Option<PBox<'p, Entry<'p>>>,
}

/// The root object.
#[derive(Persist)]
#[repr(C)]
struct Diary<'p> {
    newest: Option<PBox<'p, Entry<'p>>>,
    entries: u64,
    written: u64,
    changes: u64,
}

impl<'p> Diary<'p> {
    fn write(
        &mut self,
        tx: &Tx<'p>,
        origin: Origin,
        text: &str,
        tags: &[&str],
    ) -> Result<(), Error> {
        let mut stored = PVec::new();
        for tag in tags {
            stored.push(tx, tx.string(tag)?)?;
        }
        self.written += 1;
        self.entries += 1;
        self.changes += 1;
        self.newest = Some(tx.alloc(Entry {
            origin,
            number: self.written,
            text: tx.string(text)?,
            tags: stored,
            older: self.newest.take(),
        })?);
        Ok(())
    }

    /// Unlinks an entry; dropping it frees it, its text and its tags.
    fn strike(&mut self, number: u64) -> Result<(), String> {
        let mut link = &mut self.newest;
        while link.as_ref().is_some_and(|e| e.number != number) {
            link = &mut link.as_mut().ok_or("no such entry")?.older;
        }
        let mut gone = link.take().ok_or(format!("there is no entry {number}"))?;
        *link = gone.older.take();
        self.entries -= 1;
        self.changes += 1;
        Ok(())
    }

    fn iter(&self) -> impl Iterator<Item = &Entry<'p>> {
        std::iter::successors(self.newest.as_deref(), |e| e.older.as_deref())
    }

    fn check(&self) -> Result<(), String> {
        let numbers: Vec<u64> = self.iter().map(|e| e.number).collect();
        if numbers.len() as u64 != self.entries {
            return Err(format!(
                "{} entries instead of {}",
                numbers.len(),
                self.entries
            ));
        }
        if !numbers.is_sorted_by(|a, b| a > b) || numbers.first().is_some_and(|n| *n > self.written)
        {
            return Err("the entries are out of order".into());
        }
        match self
            .iter()
            .find(|e| !e.text.ends_with('.') && e.origin == Origin::Generated)
        {
            Some(torn) => Err(format!("entry {} is torn: {}", torn.number, torn.text)),
            None => Ok(()),
        }
    }
}

/// One change, drawn from the number of the changes so far.
fn random_change<'p>(
    tx: &Tx<'p>,
    diary: &mut RootMut<'_, Diary<'p>>,
) -> Result<(), Box<dyn std::error::Error>> {
    let random = (diary.changes + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 20;
    if diary.entries > 50 || (random.is_multiple_of(3) && diary.entries > 0) {
        let nth = (random % diary.entries) as usize;
        let number = diary.iter().nth(nth).map_or(0, |e| e.number);
        Ok(diary.strike(number)?)
    } else {
        let text = format!("{}.", "word ".repeat((random % 40) as usize));
        Ok(diary.write(
            tx,
            Origin::Generated,
            &text,
            &["stress", &random.to_string()],
        )?)
    }
}

fn run(arguments: &[&str]) -> Result<(), Box<dyn std::error::Error>> {
    let [path, command, rest @ ..] = arguments else {
        return Err(
            "use: diary POOL write TEXT [TAG...] | list | strike NUMBER | check | stress N".into(),
        );
    };
    let mut pool = Pool::<Diary>::open(path, |_| {
        Ok(Diary {
            newest: None,
            entries: 0,
            written: 0,
            changes: 0,
        })
    })?;
    match (*command, rest) {
        ("write", [text, tags @ ..]) => {
            pool.tx(|tx, mut diary| diary.write(tx, Origin::Written, text, tags))?
        }
        ("strike", [number]) => {
            let number = number.parse()?;
            pool.tx(|_, mut diary| Ok::<_, Box<dyn std::error::Error>>(diary.strike(number)?))?;
        }
        ("list", []) => {
            for entry in pool.root().iter() {
                println!("{} {} {:?}", entry.number, entry.text, entry.tags);
            }
        }
        ("check", []) => {
            let diary = pool.root();
            diary.check()?;
            println!(
                "consistent: {} entries, change {}",
                diary.entries, diary.changes
            );
        }
        ("stress", [count]) => {
            for _ in 0..count.parse::<u64>()? {
                let change = pool.tx(|tx, mut diary| {
                    random_change(tx, &mut diary)?;
                    Ok::<_, Box<dyn std::error::Error>>(diary.changes)
                })?;
                println!("{change}");
            }
        }
        _ => return Err(format!("{command}: no such command, or wrong arguments").into()),
    }
    Ok(pool.close()?)
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("diary: {e}");
            ExitCode::FAILURE
        }
    }
}
