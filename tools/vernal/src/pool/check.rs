//! `vernal pool check`: structure, types, leaks, pointers out of the pool.

use super::name::image;
use super::outcome::{FINE, Outcome, PROBLEM, Report, dangling_json, dangling_text};
use super::{Common, live};
use serde_json::json;
use std::fmt::Write;
use vernal_heap::ObjectSpace;
use vernal_heap::walk::{Budget, Plans, VerifyOptions, reach, verify};

/// Leaks that are listed.
const LISTED: usize = 20;

#[derive(clap::Args)]
pub struct Check {
    /// The pool
    pool: String,
    /// Free the objects that cannot be reached from the root
    #[arg(long)]
    reclaim: bool,
    /// Threads
    #[arg(long, default_value_t = std::thread::available_parallelism().map_or(1, |n| n.get()))]
    jobs: usize,
    #[command(flatten)]
    pub common: Common,
}

pub fn run(options: &Check) -> Outcome {
    let (image, client) = image(&options.pool)?;
    let heap = image.heap();
    let structure = heap.check();
    let plans = Plans::of(heap);
    let verified = verify(
        heap,
        &plans,
        VerifyOptions {
            // Pointers out of the pool are looked for by chunk, and listed apart.
            refuse_external: false,
            ..VerifyOptions::default()
        },
    );
    let (dangling_count, dangling) = image.dangling(LISTED, options.jobs);
    let keep: Vec<u64> = heap.binding_record().into_iter().collect();
    let (reached, walk) = reach(heap, &plans, &keep, Budget::default());
    let leaks = if walk.exhausted {
        Vec::new()
    } else {
        heap.leaks(&reached)?
    };
    let leaked: u64 = leaks.iter().map(|object| object.size).sum();
    let broken =
        structure.more_problems + structure.problems.iter().filter(|p| !p.harmless).count() as u64;
    let other = broken + verified.problem_count + dangling_count;
    let wrong = other + leaks.len() as u64;

    let mut text = String::new();
    let _ = write!(
        text,
        "{}: {} objects, {} bytes used of {} in {} puddles",
        options.pool,
        structure.all.objects,
        structure.all.bytes,
        structure.total,
        image.directory().len()
    );
    for problem in &structure.problems {
        let _ = write!(
            text,
            "\n  structure: at {:#x}: {}",
            problem.addr, problem.what
        );
    }
    for problem in verified.problems.iter().take(LISTED) {
        let _ = write!(text, "\n  pointer: {problem}");
    }
    if dangling_count > 0 {
        let _ = write!(
            text,
            "\n  {dangling_count} pointers lead out of the pool:\n{}",
            dangling_text(&dangling)
        );
    }
    if !leaks.is_empty() {
        let _ = write!(
            text,
            "\n  {} objects ({leaked} bytes) cannot be reached from the root:",
            leaks.len()
        );
    }
    let type_name = |index| {
        heap.type_desc(index)
            .map_or("(no type)", |desc| desc.name())
    };
    for leak in leaks.iter().take(LISTED) {
        let _ = write!(
            text,
            "\n    {} at {:#x}, {} bytes",
            type_name(leak.type_index),
            leak.addr,
            leak.size
        );
    }
    if wrong == 0 {
        text.push_str("; nothing wrong");
    }
    let types = structure.types.iter().map(|(index, used)| {
        json!({"name": type_name(*index), "objects": used.objects, "bytes": used.bytes})
    });
    let json = json!({
        "pool": options.pool,
        "objects": structure.all.objects,
        "used": structure.all.bytes,
        "free_pages": structure.free_pages,
        "free_slots": structure.free_slots,
        "largest_free": structure.largest_free,
        "overhead": structure.overhead,
        "total": structure.total,
        "types": types.collect::<Vec<_>>(),
        "structure": structure.problems.iter().map(|p| json!({"address": format!("{:#x}", p.addr), "what": p.what, "harmless": p.harmless})).collect::<Vec<_>>(),
        "pointers_checked": verified.pointers,
        "pointer_problems": verified.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "pointer_problem_count": verified.problem_count,
        "dangling_count": dangling_count,
        "dangling": dangling_json(&dangling),
        "leaks": leaks.iter().take(LISTED).map(|o| json!({"type": type_name(o.type_index), "address": format!("{:#x}", o.addr), "bytes": o.size})).collect::<Vec<_>>(),
        "leak_count": leaks.len(),
        "leaked": leaked,
        "sound": wrong == 0,
    });
    let mut report = Report {
        code: if wrong == 0 { FINE } else { PROBLEM },
        text,
        json,
    };
    // Freeing relies on a heap whose structure is right, and on pointers that say what they reach.
    if options.reclaim && !leaks.is_empty() && other == 0 {
        drop((image, client));
        let (objects, bytes) = live::reclaim(&options.pool)?;
        report.code = FINE;
        report.text = format!("{}: freed {objects} objects, {bytes} bytes", options.pool);
        if let Some(json) = report.json.as_object_mut() {
            json.insert("reclaimed_count".into(), objects.into());
            json.insert("reclaimed".into(), bytes.into());
        }
    } else if options.reclaim && other > 0 {
        report
            .text
            .push_str("\n  nothing was freed: that needs a pool in which nothing else is wrong");
    }
    Ok(report)
}
