//! What a user does with the page, and what must be seen then.

use crate::browser::{Browser, Outcome};
use crate::pool::{CHAIN, Pool};
use serde_json::json;
use std::fs::File;
use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::time::Instant;
use vernal_cli::page::{self, About, Limits};
use vernal_format::Uuid;

/// One test.
pub type Test = fn(&mut Bench) -> Outcome<()>;

/// All tests, in the order in which they run.
pub const TESTS: &[(&str, Test)] = &[
    ("the overview shows puddles and their fill", overview),
    ("types show their layouts and counts", types),
    ("the graph opens from the root, one click a level", expand),
    ("search by address", by_address),
    ("search by type", by_type),
    ("search by a field's value", by_value),
    ("search by text", by_text),
    ("who points here, and back", backwards),
    ("a search is kept in the address", kept_in_address),
    ("text of the pool stays text", hostile_text),
    ("a small window", small_window),
    ("a million objects: the page loads", large_loads),
    ("a million objects: every part answers", large_answers),
];

/// Seconds that a user waits without wondering. The page's own work is measured, not the load of the machine.
const USABLE: f64 = 10.0;

/// The browser and the pages.
pub struct Bench {
    browser: Browser,
    small: Pool,
    small_page: PathBuf,
    large: Pool,
    large_page: PathBuf,
    objects: u64,
    keep: Option<PathBuf>,
    _dir: tempfile::TempDir,
}

/// Writes the pages and starts the browser.
pub fn prepare(program: &Path, objects: u64, keep: Option<PathBuf>) -> Outcome<Bench> {
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let (small, small_page) = make(dir.path(), "small", 100)?;
    let (large, large_page) = make(dir.path(), "large", objects)?;
    if let Some(keep) = &keep {
        for page in [&small_page, &large_page] {
            let name = page.file_name().unwrap_or_default();
            std::fs::copy(page, keep.join(name)).map_err(|e| e.to_string())?;
        }
    }
    let browser = Browser::start(program, &dir.path().join("profile"))?;
    Ok(Bench {
        browser,
        small,
        small_page,
        large,
        large_page,
        objects,
        keep,
        _dir: dir,
    })
}

fn make(dir: &Path, name: &str, sensors: u64) -> Outcome<(Pool, PathBuf)> {
    let pool = Pool::new(sensors).map_err(|e| e.to_string())?;
    let about = About {
        name: format!("{name} & <i>pool</i>"),
        uuid: Uuid([1; 16]),
        mode: "buffered",
    };
    let model = page::collect(&pool, &pool.directory(), about, Limits::default());
    let path = dir.join(format!("{name}.html"));
    let mut out = BufWriter::new(File::create_new(&path).map_err(|e| e.to_string())?);
    page::write(&model, &mut out).map_err(|e| e.to_string())?;
    Ok((pool, path))
}

impl Bench {
    /// Errors that the page has reported since the last test.
    pub fn complaints(&mut self) -> Outcome<()> {
        match std::mem::take(&mut self.browser.complaints) {
            list if list.is_empty() => Ok(()),
            list => Err(format!("the page complains: {}", list.join("; "))),
        }
    }

    fn open_small(&mut self, hash: &str) -> Outcome<()> {
        let page = self.small_page.clone();
        self.browser.open(&page, hash)
    }

    fn picture(&mut self, name: &str) -> Outcome<()> {
        let Some(keep) = self.keep.clone() else {
            return Ok(());
        };
        let base64 = self.browser.picture()?;
        std::fs::write(keep.join(format!("{name}.png.base64")), base64).map_err(|e| e.to_string())
    }

    /// Waits for a title of the hits that begins so.
    fn hits(&mut self, expected: &str) -> Outcome<()> {
        self.browser.until("the hits", |browser| {
            let title = browser.text("#hitstitle")?;
            Ok(expect(title.starts_with(expected), || {
                format!("they say {title:?} instead of {expected:?}")
            }))
        })
    }

    /// Waits for a row of the explorer that has all `parts`.
    fn has_row(&mut self, parts: &[&str]) -> Outcome<()> {
        self.browser.until("a row", |browser| {
            let rows = rows(browser)?;
            let found = rows
                .iter()
                .any(|row| parts.iter().all(|part| row.contains(part)));
            Ok(expect(found, || {
                format!("no row with {parts:?} in {rows:#?}")
            }))
        })
    }

    /// Clicks the triangle of the row whose text begins so, as soon as there is one.
    fn twist(&mut self, label: &str) -> Outcome<()> {
        let find = format!(
            "[...document.querySelectorAll('#tree .row')].find(row => row.textContent.replace(/^[▸▾]/, '').startsWith({}))?.dataset.row",
            json!(label)
        );
        let row = self.browser.until("a row", |browser| {
            let row = browser.evaluate(&find)?;
            let row = row.as_str().map(str::to_owned);
            Ok(row.ok_or_else(|| format!("none begins with {label:?}")))
        })?;
        self.browser
            .click(&format!("#tree .row[data-row='{row}'] .twist"))
    }
}

/// Rows of the explorer that can be seen.
fn rows(browser: &mut Browser) -> Outcome<Vec<String>> {
    let rows = browser
        .evaluate("[...document.querySelectorAll('#tree .row')].map(row => row.textContent)")?;
    let rows = rows.as_array().cloned().unwrap_or_default();
    Ok(rows
        .iter()
        .filter_map(|row| row.as_str().map(str::to_owned))
        .collect())
}

/// What a step costs.
struct Clock {
    began: Instant,
    before: f64,
}

impl Clock {
    fn start(bench: &mut Bench) -> Outcome<Clock> {
        Ok(Clock {
            before: bench.browser.computed()?,
            began: Instant::now(),
        })
    }

    /// Seconds of computing since then. Another document may have begun to count from zero.
    fn computed(&self, bench: &mut Bench) -> Outcome<f64> {
        let now = bench.browser.computed()?;
        Ok(if now < self.before {
            now
        } else {
            now - self.before
        })
    }
}

fn expect(fine: bool, why: impl FnOnce() -> String) -> Outcome<()> {
    if fine { Ok(()) } else { Err(why()) }
}

fn overview(bench: &mut Bench) -> Outcome<()> {
    bench.open_small("")?;
    let facts = bench.browser.text("#facts")?;
    expect(
        facts.contains("102objects") && facts.contains("1 puddle") && facts.contains("buffered"),
        || facts.clone(),
    )?;
    // The first cells are headers, then come objects, and the end is empty.
    let cells = bench.browser.evaluate(
        "(() => { const c = document.querySelector('#puddles canvas'), x = c.getContext('2d'); const at = n => [...x.getImageData(n % c.width, Math.floor(n / c.width), 1, 1).data].join(); return [at(16), at(300)]; })()",
    )?;
    expect(cells[0] != cells[1], || {
        format!("full and empty cells look alike: {cells}")
    })?;
    bench.picture("overview")
}

fn types(bench: &mut Bench) -> Outcome<()> {
    bench.open_small("")?;
    bench.browser.click("nav [data-view=types]")?;
    bench.browser.click("tr[data-type=sensor]")?;
    let layout = bench.browser.text(".layout")?;
    expect(
        ["+8", "next", "pointer64", "sensor", "reading", "float64"]
            .iter()
            .all(|part| layout.contains(part)),
        || layout.clone(),
    )?;
    bench.picture("types")?;
    bench.browser.click("tr[data-type=sensor] button")?;
    bench.hits("100 × sensor")
}

fn expand(bench: &mut Bench) -> Outcome<()> {
    bench.open_small("")?;
    bench.browser.click("nav [data-view=objects]")?;
    bench.has_row(&["sensors", "100"])?;
    bench.has_row(&["title", "\"field trial <b>\""])?;
    bench.twist("buckets")?;
    bench.twist("slot")?;
    bench.twist("slot[0]")?;
    bench.has_row(&["name", "\"node 0\""])?;
    // Opened, closed and opened again: the rows of the first time are gone.
    for _ in 0..3 {
        bench.twist("next")?;
    }
    bench.has_row(&["id", "1"])?;
    bench.has_row(&["reading", "0.5"])?;
    bench.picture("objects")
}

fn by_address(bench: &mut Bench) -> Outcome<()> {
    bench.open_small("")?;
    let inside = bench.small.sensor(17) + 11;
    bench.browser.search(&format!("{inside:#x}"))?;
    bench.hits("1 object at 0x")?;
    bench.has_row(&["id", "17"])?;
    bench.browser.search("0x10")?;
    bench.hits("0 objects")
}

fn by_type(bench: &mut Bench) -> Outcome<()> {
    bench.open_small("")?;
    bench.browser.search("SENS")?;
    bench.hits("100 objects of a type like")?;
    bench.browser.search("no such type")?;
    bench.hits("0 objects")
}

fn by_value(bench: &mut Bench) -> Outcome<()> {
    bench.open_small("")?;
    for (query, expected) in [
        ("id=42", "1 object with"),
        ("reading > 45", "9 objects with"),
        ("reading<=0.5", "2 objects with"),
        ("state=true", "50 objects with"),
        ("name=\"node 7\"", "1 object with"),
        ("next=null", "13 objects with"),
        ("nothing=1", "0 objects with"),
    ] {
        bench.browser.search(query)?;
        bench.hits(expected).map_err(|e| format!("{query}: {e}"))?;
    }
    Ok(())
}

fn by_text(bench: &mut Bench) -> Outcome<()> {
    bench.open_small("")?;
    bench.browser.search("\"node 3\"")?;
    // node 3, node 30 … node 39.
    bench.hits("11 objects with")
}

fn backwards(bench: &mut Bench) -> Outcome<()> {
    bench.open_small("")?;
    let addr = bench.small.sensor(CHAIN + 2);
    bench.browser.search(&format!("{addr:#x}"))?;
    bench.browser.click("#who")?;
    bench.hits("1 pointing to sensor")?;
    bench.browser.click("#hits .row")?;
    bench.has_row(&["id", "9"])?;
    bench.browser.click("#back")?;
    bench.has_row(&["id", "10"])?;
    bench.browser.click("#toroot")?;
    bench.has_row(&["sensors", "100"])
}

fn kept_in_address(bench: &mut Bench) -> Outcome<()> {
    bench.open_small("#q=id%3D5")?;
    bench.hits("1 object with")?;
    bench.has_row(&["name", "\"node 5\""])
}

fn hostile_text(bench: &mut Bench) -> Outcome<()> {
    bench.open_small("")?;
    let name = bench.browser.text("#name")?;
    expect(name == "small & <i>pool</i>", || name.clone())?;
    let made = bench
        .browser
        .evaluate("document.querySelectorAll('i, b:not(.fact b)').length")?;
    expect(made == json!(0), || {
        format!("{made} elements came from the pool's text")
    })
}

fn small_window(bench: &mut Bench) -> Outcome<()> {
    let narrow = json!({"width": 420, "height": 740, "deviceScaleFactor": 1, "mobile": false});
    bench
        .browser
        .call("Emulation.setDeviceMetricsOverride", narrow)?;
    bench.open_small("#q=id%3D5")?;
    bench.has_row(&["name", "\"node 5\""])?;
    let outcome = bench.browser.until("the narrow layout", |browser| {
        let wide = browser.evaluate("document.documentElement.scrollWidth > innerWidth + 1")?;
        Ok(expect(wide == json!(false), || {
            "the page is wider than its window".to_owned()
        }))
    });
    bench.picture("narrow")?;
    bench
        .browser
        .call("Emulation.clearDeviceMetricsOverride", json!({}))?;
    outcome
}

fn large_loads(bench: &mut Bench) -> Outcome<()> {
    let bytes = std::fs::metadata(&bench.large_page).map_or(0, |m| m.len());
    let page = bench.large_page.clone();
    let clock = Clock::start(bench)?;
    bench.browser.open(&page, "")?;
    println!(
        "      {} objects, page of {:.1} MiB, loaded in {:.2} s",
        bench.objects,
        bytes as f64 / f64::from(1 << 20),
        clock.began.elapsed().as_secs_f64()
    );
    expect(clock.computed(bench)? < 6.0 * USABLE, || {
        "loading takes a minute".to_owned()
    })
}

fn large_answers(bench: &mut Bench) -> Outcome<()> {
    let objects = bench.objects;
    let some = objects * 2 / 3;
    let addr = bench.large.sensor(some);
    let group = |n: u64| {
        let digits = n.to_string();
        let mut out = String::new();
        for (at, digit) in digits.chars().enumerate() {
            if at > 0 && (digits.len() - at).is_multiple_of(3) {
                out.push(',');
            }
            out.push(digit);
        }
        out
    };
    let steps = [
        (format!("id={some}"), "1 object with".to_owned()),
        (format!("{addr:#x}"), "1 object at".to_owned()),
        (format!("\"node {some}\""), "1 object with".to_owned()),
        (
            "sensor".to_owned(),
            format!("{} objects of", group(objects)),
        ),
    ];
    for (query, expected) in steps {
        let clock = Clock::start(bench)?;
        bench.browser.search(&query)?;
        bench.hits(&expected).map_err(|e| format!("{query}: {e}"))?;
        let computed = clock.computed(bench)?;
        println!("      {query}: {:.0} ms of computing", computed * 1e3);
        expect(computed < USABLE, || format!("{query} takes too long"))?;
    }
    // The list of a million hits reaches its end, and only what can be seen is there.
    let end = format!("{:#x}", bench.large.sensor(objects - 1));
    bench.browser.until("the end of the list", |browser| {
        let last = browser.evaluate(
            "(() => { const box = document.getElementById('hits'), rows = [...box.querySelectorAll('.row')]; box.scrollTop = box.scrollHeight; return [rows.length, rows.pop()?.textContent]; })()",
        )?;
        Ok(expect(
            last[0].as_u64().is_some_and(|n| n < 200)
                && last[1].as_str().is_some_and(|text| text.contains(&end)),
            || format!("it is {last}, not {end}"),
        ))
    })?;
    let clock = Clock::start(bench)?;
    bench.browser.search(&format!("id={some}"))?;
    bench.browser.click("#who")?;
    bench.hits("1 pointing to sensor")?;
    let computed = clock.computed(bench)?;
    println!(
        "      who points here: {:.0} ms of computing",
        computed * 1e3
    );
    // A table of 125 000 slots opens a page at a time.
    bench.browser.click("#toroot")?;
    bench.twist("buckets")?;
    bench.twist("slot")?;
    bench.browser.until("the end of a page of slots", |browser| {
        let rows = browser.evaluate(
            "(() => { const box = document.getElementById('tree'); box.scrollTop = box.scrollHeight; return [...box.querySelectorAll('.row')].map(r => r.textContent).join('|'); })()",
        )?;
        Ok(expect(
            rows.as_str().is_some_and(|rows| rows.contains(" more…")),
            || format!("no further page is offered: {rows}"),
        ))
    })?;
    bench.picture("large")
}
