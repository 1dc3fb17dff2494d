//! What a person sees: plain lines everywhere, bars and a live line on a terminal.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Where progress goes. Standard output is left to the report when it is JSON.
pub struct Ui {
    json: bool,
    terminal: bool,
}

impl Ui {
    /// `json`: standard output is for the report alone.
    pub fn new(json: bool) -> Ui {
        let ci = std::env::var_os("CI").is_some();
        Ui {
            json,
            terminal: !ci && std::io::stderr().is_terminal(),
        }
    }

    /// Whether a person is watching, and can be asked for a password.
    pub fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// One line for a person.
    pub fn line(&self, text: &str) {
        // A reader that has gone away (`| head`) is no reason to stop the work.
        if self.json {
            let _ = writeln!(std::io::stderr(), "{text}");
        } else {
            let mut out = std::io::stdout();
            let _ = writeln!(out, "{text}").and_then(|()| out.flush());
        }
    }

    /// The report, on standard output, in JSON mode; nothing otherwise.
    pub fn report(&self, report: &serde_json::Value) {
        if self.json {
            // A reader that has gone away did not want it.
            let _ = writeln!(std::io::stdout(), "{report}");
        }
    }

    /// A bar of `total` steps; nothing when nobody is watching.
    pub fn bar(&self, label: &str, total: u64) -> ProgressBar {
        let bar = self.on_terminal(ProgressBar::new(total));
        let style = ProgressStyle::with_template(
            "  {prefix:<14} [{bar:32}] {pos}/{len}  {elapsed_precise}  {msg}",
        );
        if let Ok(style) = style {
            bar.set_style(style.progress_chars("=> "));
        }
        bar.set_prefix(label.to_owned());
        bar
    }

    /// A live line for work of unknown length; nothing when nobody is watching.
    pub fn spinner(&self, label: &str) -> ProgressBar {
        let bar = self.on_terminal(ProgressBar::new_spinner());
        if let Ok(style) =
            ProgressStyle::with_template("  {spinner} {prefix} {elapsed}  {wide_msg}")
        {
            bar.set_style(style);
        }
        bar.set_prefix(label.to_owned());
        if self.terminal {
            bar.enable_steady_tick(Duration::from_millis(200));
        }
        bar
    }

    fn on_terminal(&self, bar: ProgressBar) -> ProgressBar {
        if !self.terminal {
            bar.set_draw_target(ProgressDrawTarget::hidden());
        }
        bar
    }
}

/// A duration as people read it: `0.8 s`, `34 s`, `4 min 05 s`.
pub fn seconds(duration: Duration) -> String {
    let s = duration.as_secs_f64();
    if s < 10.0 {
        format!("{s:.1} s")
    } else if s < 120.0 {
        format!("{s:.0} s")
    } else {
        format!(
            "{} min {:02} s",
            duration.as_secs() / 60,
            duration.as_secs() % 60
        )
    }
}
