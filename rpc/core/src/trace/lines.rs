//! Spans as lines of text on standard error, for programs that give `tracing` nobody who listens.

use std::collections::HashMap;
use std::fmt::{Debug, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, Once, PoisonError};
use std::time::Instant;

use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

/// Asks for lines.
const VARIABLE: &str = "VERNAL_RPC_TRACE";

/// A span that has not ended.
struct Open {
    text: String,
    begun: Instant,
    handles: u32,
}

/// Writes a line when a span ends.
struct Lines {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Open>>,
}

/// Listens if the environment asks for it and nobody else does.
pub(super) fn init() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        if std::env::var_os(VARIABLE).is_some_and(|v| !v.is_empty() && v != "0") {
            let lines = Lines {
                next: AtomicU64::new(0),
                open: Mutex::default(),
            };
            // A program that listens itself has said so before.
            let _ = tracing::subscriber::set_global_default(lines);
        }
    });
}

/// Fields as ` name=value`.
struct Fields<'a>(&'a mut String);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        let _ = write!(self.0, " {}={value:?}", field.name());
    }
}

/// One write for a line. A standard error that is gone is no reason to fail.
fn say(text: &str) {
    let _ = std::io::Write::write_all(&mut std::io::stderr(), format!("{text}\n").as_bytes());
}

impl Lines {
    fn open(&self) -> MutexGuard<'_, HashMap<u64, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Subscriber for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "vernal_rpc"
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn new_span(&self, span: &Attributes<'_>) -> Id {
        let mut text = span.metadata().name().to_owned();
        span.record(&mut Fields(&mut text));
        let id = self.next.fetch_add(1, Ordering::Relaxed) + 1;
        let open = Open {
            text,
            begun: Instant::now(),
            handles: 1,
        };
        self.open().insert(id, open);
        Id::from_u64(id)
    }

    fn record(&self, span: &Id, values: &Record<'_>) {
        if let Some(open) = self.open().get_mut(&span.into_u64()) {
            values.record(&mut Fields(&mut open.text));
        }
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut text = event.metadata().name().to_owned();
        event.record(&mut Fields(&mut text));
        say(&text);
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}

    fn clone_span(&self, id: &Id) -> Id {
        if let Some(open) = self.open().get_mut(&id.into_u64()) {
            open.handles += 1;
        }
        id.clone()
    }

    fn try_close(&self, id: Id) -> bool {
        let mut all = self.open();
        let Some(open) = all.get_mut(&id.into_u64()) else {
            return false;
        };
        open.handles = open.handles.saturating_sub(1);
        if open.handles > 0 {
            return false;
        }
        let ended = all.remove(&id.into_u64());
        drop(all);
        if let Some(ended) = ended {
            say(&format!("{} took={:?}", ended.text, ended.begun.elapsed()));
        }
        true
    }
}
