//! Collections of std in a mapped file: the protocol of `../harness/persist.h` for `cargo vernal`.
//!
//! Maps stay non-empty: an empty `HashMap` points to a constant of the executable, which moves from run to run.

mod arena;

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap, HashSet, LinkedList, VecDeque};
use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::{env, panic, thread};

#[global_allocator]
static ALLOCATOR: arena::Arena = arena::Arena;

const MAGIC: u64 = 0x6172656e61;
const LEN: usize = 48 << 20;

enum Shape {
    Point,
    Label(String),
    Path(Vec<(i32, i32)>),
    Group(Vec<Shape>),
}

#[derive(Clone, Copy)]
#[repr(align(32))]
struct Wide([u64; 8]);

struct Root {
    tree: BTreeMap<u64, String>,
    words: HashMap<String, Vec<u32>>,
    seen: HashSet<u64>,
    ordered: BTreeSet<(u8, String)>,
    queue: VecDeque<Box<[u8]>>,
    heap: BinaryHeap<u64>,
    list: LinkedList<String>,
    shapes: Vec<Shape>,
    shared: Vec<Rc<str>>,
    text: String,
    table: Box<[[u16; 64]; 64]>,
    wide: Vec<Wide>,
    counter: AtomicU64,
    lanes: [Vec<u64>; 4],
    caught: u64,
}

fn mix(mut x: u64) -> u64 {
    x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Root {
    fn new() -> Self {
        let mut root = Self {
            tree: BTreeMap::new(),
            words: HashMap::with_capacity(8),
            seen: HashSet::with_capacity(8),
            ordered: BTreeSet::new(),
            queue: VecDeque::new(),
            heap: BinaryHeap::new(),
            list: LinkedList::new(),
            shapes: Vec::new(),
            shared: Vec::new(),
            text: String::new(),
            table: Box::new([[0; 64]; 64]),
            wide: Vec::new(),
            counter: AtomicU64::new(0),
            lanes: Default::default(),
            caught: 0,
        };
        root.words.insert("always".to_owned(), Vec::new());
        root.seen.insert(u64::MAX);
        root
    }

    fn step(&mut self, n: u64) {
        let x = mix(n);
        let word = format!("word {:x}", x % 300);
        self.tree.insert(x % 2000, format!("{word} at {n}"));
        self.tree.remove(&(x / 2000 % 2000));
        if n % 40 == 0 {
            let mut upper = self.tree.split_off(&1000);
            self.tree.append(&mut upper);
            self.tree.retain(|k, _| k % 7 != n % 7);
        }
        let list = self.words.entry(word.clone()).or_default();
        list.push(n as u32);
        if list.len() > 9 {
            list.drain(..4);
            list.sort_unstable_by(|a, b| b.cmp(a));
        }
        if n % 3 == 0 {
            self.words.remove(&format!("word {:x}", x / 7 % 300));
        }
        self.seen.insert(x % 700);
        self.seen.remove(&(x / 700 % 700));
        self.ordered.insert((x as u8 % 20, word.clone()));
        if self.ordered.len() > 200 {
            self.ordered.pop_first();
        }
        self.queue.push_back(
            word.as_bytes()
                .repeat(1 + x as usize % 4)
                .into_boxed_slice(),
        );
        self.queue.rotate_left(x as usize % self.queue.len());
        if self.queue.len() > 90 {
            self.queue.truncate(40);
            self.queue.shrink_to_fit();
        }
        self.heap.push(x % 5000);
        if self.heap.len() > 150 {
            self.heap.pop();
            self.heap.pop();
        }
        self.list.push_front(word.clone());
        if self.list.len() > 50 {
            let tail = self.list.split_off(25);
            self.list = tail;
        }
        self.shapes.push(match x % 4 {
            0 => Shape::Point,
            1 => Shape::Label(word.clone()),
            2 => Shape::Path((0..x as i32 % 9).map(|i| (i, i * n as i32)).collect()),
            _ => Shape::Group(vec![Shape::Label(word.clone()), Shape::Point]),
        });
        if self.shapes.len() > 70 {
            self.shapes.swap_remove(x as usize % 70);
            self.shapes
                .dedup_by(|a, b| matches!((a, b), (Shape::Point, Shape::Point)));
        }
        let shared = self
            .shared
            .get(x as usize % (self.shared.len() + 1))
            .cloned();
        self.shared
            .push(shared.unwrap_or_else(|| word.as_str().into()));
        if self.shared.len() > 60 {
            self.shared.drain(10..30);
        }
        write!(self.text, "{n}:{:.3};{word:?}", n as f64 / 7.0).unwrap_or_default();
        if self.text.len() > 2000 {
            self.text.replace_range(..1500, "…");
        }
        for (i, row) in self.table.iter_mut().enumerate() {
            if i as u64 % 5 == n % 5 {
                row.iter_mut().enumerate().for_each(|(j, cell)| {
                    *cell = cell.wrapping_mul(3).wrapping_add((i * j) as u16 ^ n as u16)
                });
            }
        }
        self.table.swap(x as usize % 64, n as usize % 64);
        self.wide.push(Wide([x; 8]));
        if self.wide.len() > 40 {
            self.wide.copy_within(20.., 0);
            self.wide.truncate(20);
        }
        self.counter.fetch_add(x % 10, Ordering::Relaxed);
        self.counter.fetch_max(n, Ordering::AcqRel);
        if n % 8 == 0 {
            let caught = panic::catch_unwind(panic::AssertUnwindSafe(|| {
                self.text.push('!');
                let _unwound = word.clone();
                if n % 16 == 0 {
                    panic::resume_unwind(Box::new(n));
                }
            }));
            self.caught += u64::from(caught.is_err());
        }
        if n % 10 == 0 {
            thread::scope(|scope| {
                for (i, lane) in self.lanes.iter_mut().enumerate() {
                    scope.spawn(move || {
                        arena::within(|| {
                            lane.extend((0..20).map(|k| mix(n + k + i as u64)));
                            lane.sort();
                            lane.truncate(100);
                        });
                    });
                }
            });
        }
    }

    fn digest(&self) -> u64 {
        let mut text = String::new();
        let mut put = |part: &dyn std::fmt::Debug| write!(text, "{part:?};").unwrap_or_default();
        put(&self.tree);
        put(&self.words.iter().collect::<BTreeMap<_, _>>());
        put(&self.seen.iter().collect::<BTreeSet<_>>());
        put(&(
            &self.ordered,
            &self.queue,
            &self.list,
            &self.shared,
            &self.text,
        ));
        put(&self.heap.clone().into_sorted_vec());
        put(&(&self.table, &self.counter, &self.lanes, self.caught));
        put(&self.wide.iter().map(|w| w.0).collect::<Vec<_>>());
        fn shape(s: &Shape, out: &mut Vec<u64>) {
            match s {
                Shape::Point => out.push(1),
                Shape::Label(l) => out.extend(l.bytes().map(u64::from)),
                Shape::Path(p) => out.extend(p.iter().map(|p| p.0 as u64 ^ (p.1 as u64) << 32)),
                Shape::Group(g) => g.iter().for_each(|s| shape(s, out)),
            }
        }
        let mut shapes = Vec::new();
        self.shapes.iter().for_each(|s| shape(s, &mut shapes));
        put(&shapes);
        text.bytes().fold(0, |h, b| mix(h ^ u64::from(b)))
    }
}

fn run(args: &[String]) -> Result<(), String> {
    let [path, command, rest @ ..] = args else {
        return Err("use: FILE run STEPS | digest | twin STEPS".to_owned());
    };
    let steps: u64 = rest
        .first()
        .map_or(Ok(0), |s| s.parse().map_err(|e| format!("{s}: {e}")))?;
    let map;
    let base = if path == "-" {
        Vec::leak(vec![0u64; LEN / 8 + 512])
            .as_mut_ptr()
            .cast::<u8>()
            .map_addr(|a| a.next_multiple_of(4096))
    } else {
        map = vernal::Map::options()
            .create(true)
            .len(LEN)
            .open(path)
            .map_err(|e| e.to_string())?;
        map.base()
    };
    // SAFETY: mapped or leaked above, and used by nothing else.
    let header = unsafe { arena::install(base, LEN) };
    let save = || {
        if path == "-" {
            Ok(())
        } else {
            vernal::commit().map_err(|e| e.to_string())
        }
    };
    if header.magic == 0 {
        header.root = arena::within(|| Box::into_raw(Box::new(Root::new()))).cast();
        header.magic = MAGIC;
        save()?;
    }
    // SAFETY: made by this program, in this or an earlier run, at this address.
    let root = unsafe { &mut *header.root.cast::<Root>() };
    let mut out = std::io::stdout().lock();
    let mut print = |line: String| {
        writeln!(out, "{line}")
            .and_then(|()| out.flush())
            .map_err(|e| e.to_string())
    };
    match command.as_str() {
        "digest" => print(format!("{} {:016x}", header.steps, root.digest()))?,
        "run" | "twin" => {
            let twin = command == "twin";
            if twin {
                print(format!("{:016x}", root.digest()))?;
            }
            while header.steps < steps {
                arena::within(|| root.step(header.steps));
                header.steps += 1;
                save()?;
                print(if twin {
                    format!("{:016x}", root.digest())
                } else {
                    header.steps.to_string()
                })?;
            }
        }
        _ => return Err(format!("{command}: no such command")),
    }
    Ok(())
}

fn main() -> ExitCode {
    match run(&env::args().skip(1).collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("rust-arena: {message}");
            ExitCode::from(2)
        }
    }
}
