//! notes: a list of notes that lives in a mapped file, linked by plain pointers.
//!
//! ```text
//! cargo vernal run --release -- FILE add TEXT    list    drop NUMBER    check
//! cargo vernal run --release -- FILE stress N    N random changes, one commit each; prints the last durable one
//! ```
//!
//! The file starts with a [`Header`]; everything else is [`Note`]s, newest first, and a list of free ones.

use std::process::ExitCode;
use std::{env, ptr};

/// Bytes of text in a note.
const TEXT: usize = 104;
const FILE_LEN: usize = 4 << 20;

/// The beginning of the file. All zeros is an empty list.
#[repr(C)]
struct Header {
    newest: *mut Note,
    free: *mut Note,
    /// Notes that were ever handed out.
    used: usize,
    notes: usize,
    changes: u64,
}

#[repr(C)]
struct Note {
    next: *mut Note,
    length: usize,
    text: [u8; TEXT],
}

/// The notes in a mapped file. Only this type follows its pointers.
struct Notes {
    map: vernal::Map,
}

impl Notes {
    fn open(path: &str) -> Result<Self, vernal::Error> {
        Ok(Self {
            map: vernal::Map::options()
                .create(true)
                .len(FILE_LEN)
                .open(path)?,
        })
    }

    fn header(&mut self) -> &mut Header {
        // SAFETY: the file is larger than a header, page-aligned and mapped by this process alone; any bytes are a header.
        unsafe { &mut *self.map.base().cast() }
    }

    fn note_at(&mut self, index: usize) -> *mut Note {
        let first = size_of::<Header>().next_multiple_of(size_of::<Note>());
        self.map
            .base()
            .wrapping_add(first + index * size_of::<Note>())
            .cast()
    }

    fn capacity(&self) -> usize {
        self.map.len() / size_of::<Note>() - 1
    }

    fn add(&mut self, text: &str) -> Result<(), String> {
        let mut length = text.len().min(TEXT);
        while !text.is_char_boundary(length) {
            length -= 1;
        }
        let free = self.header().free;
        let note = if free.is_null() {
            let used = self.header().used;
            if used >= self.capacity() {
                return Err(format!("the file is full: it holds {used} notes"));
            }
            self.header().used = used + 1;
            self.note_at(used)
        } else {
            // SAFETY: the free list holds notes of this file.
            self.header().free = unsafe { (*free).next };
            free
        };
        let mut value = Note {
            next: self.header().newest,
            length,
            text: [0; TEXT],
        };
        value.text[..length].copy_from_slice(&text.as_bytes()[..length]);
        // SAFETY: the note lies in the file and is in no list.
        unsafe { note.write(value) };
        let header = self.header();
        header.newest = note;
        header.notes += 1;
        header.changes += 1;
        Ok(())
    }

    fn drop_note(&mut self, number: usize) -> Result<(), String> {
        let mut link = ptr::from_mut(&mut self.header().newest);
        for _ in 0..number {
            // SAFETY: `link` is the head or the `next` of a note in the list.
            unsafe {
                if (*link).is_null() {
                    break;
                }
                link = &raw mut (**link).next;
            }
        }
        // SAFETY: as above; the note that is taken out goes to the free list.
        unsafe {
            let note = *link;
            if note.is_null() {
                return Err(format!("there is no note {number}"));
            }
            *link = (*note).next;
            let header = self.header();
            (*note).next = header.free;
            header.free = note;
            header.notes -= 1;
            header.changes += 1;
        }
        Ok(())
    }

    fn texts(&mut self) -> Vec<String> {
        let mut texts = Vec::new();
        let mut note = self.header().newest;
        while !note.is_null() && texts.len() <= self.capacity() {
            // SAFETY: the list holds notes of this file.
            unsafe {
                texts.push(
                    String::from_utf8_lossy(&(&(*note).text)[..(*note).length.min(TEXT)])
                        .into_owned(),
                );
                note = (*note).next;
            }
        }
        texts
    }

    fn check(&mut self) -> Result<String, String> {
        let notes = self.texts().len();
        let mut free = 0;
        let mut note = self.header().free;
        while !note.is_null() && free <= self.capacity() {
            free += 1;
            // SAFETY: the free list holds notes of this file.
            note = unsafe { (*note).next };
        }
        let header = self.header();
        if notes != header.notes || notes + free != header.used {
            return Err(format!(
                "{notes} notes and {free} free, but {} and {} in use",
                header.notes, header.used
            ));
        }
        Ok(format!(
            "consistent: {notes} notes after {} changes",
            header.changes
        ))
    }
}

fn run(args: &[String]) -> Result<(), String> {
    let usage = "use: notes FILE add TEXT | list | drop NUMBER | check | stress CHANGES";
    let [path, command, rest @ ..] = args else {
        return Err(usage.to_owned());
    };
    let mut notes = Notes::open(path).map_err(|e| e.to_string())?;
    match (command.as_str(), rest) {
        ("add", [text]) => notes.add(text)?,
        ("list", []) => notes
            .texts()
            .iter()
            .enumerate()
            .for_each(|(number, text)| println!("{number} {text}")),
        ("drop", [number]) => {
            notes.drop_note(number.parse().map_err(|e| format!("{number}: {e}"))?)?
        }
        ("check", []) => println!("{}", notes.check()?),
        ("stress", [count]) => {
            let count: u64 = count.parse().map_err(|e| format!("{count}: {e}"))?;
            let mut random = notes.header().changes | 1;
            for _ in 0..count {
                random = random
                    .wrapping_mul(6364136223846793005)
                    .wrapping_add(1442695040888963407);
                let present = notes.header().notes;
                if present > 0 && (random >> 60 < 7 || present > 1000) {
                    notes.drop_note((random >> 33) as usize % present)?;
                } else {
                    notes.add(&format!("note {random:016x}"))?;
                }
                vernal::commit().map_err(|e| e.to_string())?;
                println!("{}", notes.header().changes);
            }
        }
        _ => return Err(usage.to_owned()),
    }
    notes.map.close().map_err(|e| e.to_string())
}

fn main() -> ExitCode {
    let args: Vec<String> = env::args().skip(1).collect();
    match run(&args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("notes: {message}");
            ExitCode::from(2)
        }
    }
}
