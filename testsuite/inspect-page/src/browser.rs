//! Headless Chromium, driven through its DevTools pipe: one JSON message after the other, each ended by a zero byte.
//!
//! A shell moves the pipe to the descriptors 3 and 4, where Chromium expects it.

use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// How long the browser may take for one answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// A promise that two frames have been drawn since; or that a second has passed, should nothing be drawn.
const FRAMES: &str = "new Promise(done => { requestAnimationFrame(() => requestAnimationFrame(done)); setTimeout(done, 1000); })";

/// Where Chromium is, if it is installed.
pub fn installed() -> Option<PathBuf> {
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .flat_map(|dir| names.map(|name| dir.join(name)))
        .find(|file| file.is_file())
}

/// A running browser with one page.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: mpsc::Receiver<Value>,
    session: String,
    next: u64,
    /// Errors and exceptions that the page has reported.
    pub complaints: Vec<String>,
}

/// What went wrong, for a person.
pub type Outcome<T> = Result<T, String>;

impl Browser {
    /// Starts the browser with a profile in `profile`.
    pub fn start(program: &Path, profile: &Path) -> Outcome<Browser> {
        let mut child = Command::new("sh")
            .args([
                "-c",
                "exec \"$0\" \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>/dev/null",
            ])
            .arg(program)
            .args([
                "--headless",
                // Root in a container has no user namespaces for the browser's own sandbox; it opens one local file.
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--remote-debugging-pipe",
                "--window-size=1280,800",
            ])
            .arg(format!("--user-data-dir={}", profile.display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|e| format!("cannot start {}: {e}", program.display()))?;
        let to = child.stdin.take().ok_or("no pipe to the browser")?;
        let out = child.stdout.take().ok_or("no pipe from the browser")?;
        let (send, from) = mpsc::channel();
        std::thread::spawn(move || read_messages(out, &send));
        let mut browser = Browser {
            child,
            to,
            from,
            session: String::new(),
            next: 0,
            complaints: Vec::new(),
        };
        let target = browser.call("Target.createTarget", json!({"url": "about:blank"}))?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let session = browser.call("Target.attachToTarget", attach)?;
        browser.session = session["sessionId"].as_str().unwrap_or_default().to_owned();
        browser.call("Page.enable", json!({}))?;
        browser.call("Runtime.enable", json!({}))?;
        browser.call("Network.enable", json!({}))?;
        let threads = json!({"timeDomain": "threadTicks"});
        browser.call("Performance.enable", threads)?;
        Ok(browser)
    }

    /// Sends one command and waits for its answer.
    pub fn call(&mut self, method: &str, params: Value) -> Outcome<Value> {
        self.next += 1;
        let id = self.next;
        let mut message = json!({"id": id, "method": method, "params": params});
        if !self.session.is_empty() {
            message["sessionId"] = json!(self.session);
        }
        let mut text = message.to_string().into_bytes();
        text.push(0);
        self.to
            .write_all(&text)
            .map_err(|e| format!("{method}: the browser has gone away: {e}"))?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let answer = self
                .from
                .recv_timeout(left)
                .map_err(|e| format!("{method}: no answer from the browser: {e}"))?;
            self.note(&answer);
            if answer["id"] == json!(id) {
                return match answer.get("error") {
                    Some(error) => Err(format!("{method}: {error}")),
                    None => Ok(answer["result"].clone()),
                };
            }
        }
    }

    /// Keeps what the page complains of, and every address that it asks the network for.
    fn note(&mut self, message: &Value) {
        let params = &message["params"];
        match message["method"].as_str() {
            Some("Runtime.exceptionThrown") => self
                .complaints
                .push(params["exceptionDetails"]["exception"]["description"].to_string()),
            Some("Runtime.consoleAPICalled") if params["type"] == "error" => {
                self.complaints.push(params["args"].to_string());
            }
            Some("Network.requestWillBeSent") => {
                let url = params["request"]["url"].as_str().unwrap_or_default();
                let local = ["file:", "data:", "blob:", "about:"];
                if !local.iter().any(|scheme| url.starts_with(scheme)) {
                    self.complaints.push(format!("the page asks for {url}"));
                }
            }
            _ => {}
        }
    }

    /// Opens the file and waits until its script says that it is ready.
    pub fn open(&mut self, file: &Path, hash: &str) -> Outcome<()> {
        // A new document even when only the hash differs.
        self.call("Page.navigate", json!({"url": "about:blank"}))?;
        let url = format!("file://{}{hash}", file.display());
        self.call("Page.navigate", json!({"url": url}))?;
        let ready = "new Promise(done => { const look = () => document.body && document.body.dataset.ready ? done(true) : setTimeout(look, 20); look(); })";
        // The context of about:blank goes away under the first question.
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.evaluate(ready) {
                Ok(_) => return Ok(()),
                Err(e) if Instant::now() > deadline => return Err(e),
                Err(_) => {}
            }
        }
    }

    /// The value of a JavaScript expression, awaited.
    pub fn evaluate(&mut self, expression: &str) -> Outcome<Value> {
        let params = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", params)?;
        match answer.get("exceptionDetails") {
            Some(e) => Err(format!("{expression}: {}", e["exception"]["description"])),
            None => Ok(answer["result"]["value"].clone()),
        }
    }

    /// Presses and releases the left button on the element that `selector` names, until the page has seen that click there,
    /// exactly once.
    ///
    /// A browser drops input that comes before a page's first picture, and a click whose element is replaced or moved
    /// between press and release goes elsewhere. So a guard in the page lets one click on that element through, holds up every
    /// other one, and says when it came.
    pub fn click(&mut self, selector: &str) -> Outcome<()> {
        self.guard(
            "click",
            &format!("event.target.closest?.({})", json!(selector)),
        )?;
        // Where the element is when frames have settled, and whether nothing lies above it there.
        let place = format!(
            "(async () => {{ await {FRAMES}; const e = document.querySelector({}); if (!e) return 'missing'; e.scrollIntoView({{block: 'nearest'}}); await {FRAMES}; const r = e.getBoundingClientRect(), x = r.left + Math.min(r.width, 200) / 2, y = r.top + r.height / 2, top = document.elementFromPoint(x, y); return r.width && r.height && top && e.contains(top) ? [x, y] : 'hidden'; }})()",
            json!(selector)
        );
        self.until(&format!("{selector} to take a click"), |browser| {
            let place = browser.evaluate(&place)?;
            let (Some(x), Some(y)) = (place[0].as_f64(), place[1].as_f64()) else {
                return Ok(Err(format!("it is {place}")));
            };
            for kind in ["mousePressed", "mouseReleased"] {
                let event =
                    json!({"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1});
                browser.call("Input.dispatchMouseEvent", event)?;
            }
            browser.landed()
        })
    }

    /// Types `text` into the search field and presses Enter, until the page has begun that search, exactly once.
    pub fn search(&mut self, text: &str) -> Outcome<()> {
        self.guard(
            "submit",
            "document.getElementById('query').value === wanted",
        )?;
        self.evaluate(&format!("void (window.wanted = {})", json!(text)))?;
        self.until(&format!("the search for {text:?}"), |browser| {
            browser.evaluate(
                "document.getElementById('query').focus(), document.getElementById('query').select()",
            )?;
            browser.call("Input.insertText", json!({"text": text}))?;
            for kind in ["rawKeyDown", "char", "keyUp"] {
                let event = json!({"type": kind, "windowsVirtualKeyCode": 13, "key": "Enter", "text": "\r"});
                browser.call("Input.dispatchKeyEvent", event)?;
            }
            browser.landed()
        })
    }

    /// Lets the page see one event `kind` for which `meant` holds, and no other until the next guard.
    fn guard(&mut self, kind: &str, meant: &str) -> Outcome<()> {
        let guard = format!(
            "(() => {{ const guard = window.guard = {{ landed: false }}; for (const kind of ['click', 'submit']) addEventListener(kind, event => {{ if (window.guard !== guard) return; if (kind === '{kind}' && !guard.landed && ({meant})) {{ guard.landed = true; return; }} event.stopImmediatePropagation(); event.preventDefault(); }}, true); }})()"
        );
        self.evaluate(&guard).map(|_| ())
    }

    /// Whether the guarded event has come, when all that it causes has been drawn.
    fn landed(&mut self) -> Outcome<Result<(), String>> {
        let landed = self.evaluate(&format!(
            "(async () => {{ await {FRAMES}; return guard.landed; }})()"
        ))?;
        Ok(match landed.as_bool() {
            Some(true) => Ok(()),
            _ => Err("the page has not seen it".to_owned()),
        })
    }

    /// Asks until the answer is `Ok`, for as long as a loaded machine may need.
    pub fn until<T>(
        &mut self,
        what: &str,
        mut ask: impl FnMut(&mut Browser) -> Outcome<Result<T, String>>,
    ) -> Outcome<T> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match ask(self)? {
                Ok(value) => return Ok(value),
                Err(why) if Instant::now() > deadline => {
                    return Err(format!("waited for {what}: {why}"));
                }
                Err(_) => {}
            }
            self.evaluate(FRAMES)?;
        }
    }

    /// Seconds that the page's main thread has computed: they do not grow with the load of the machine.
    pub fn computed(&mut self) -> Outcome<f64> {
        let answer = self.call("Performance.getMetrics", json!({}))?;
        let metrics = answer["metrics"].as_array().cloned().unwrap_or_default();
        let task = metrics.iter().find(|m| m["name"] == "TaskDuration");
        task.and_then(|m| m["value"].as_f64())
            .ok_or_else(|| "the browser does not say how long it has computed".to_owned())
    }

    /// The text of the first element that `selector` names.
    pub fn text(&mut self, selector: &str) -> Outcome<String> {
        let value = self.evaluate(&format!(
            "document.querySelector({})?.textContent",
            json!(selector)
        ))?;
        value
            .as_str()
            .map(str::to_owned)
            .ok_or_else(|| format!("there is no {selector}"))
    }

    /// A picture of the page as base64 of a PNG.
    pub fn picture(&mut self) -> Outcome<String> {
        let answer = self.call("Page.captureScreenshot", json!({"format": "png"}))?;
        Ok(answer["data"].as_str().unwrap_or_default().to_owned())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // The shell has become the browser: this is its pid, and it takes its own children along.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read_messages(out: ChildStdout, send: &mpsc::Sender<Value>) {
    let mut out = BufReader::new(out);
    let mut bytes = Vec::new();
    while let Ok(1..) = out.read_until(0, &mut bytes) {
        bytes.pop();
        if let Ok(message) = serde_json::from_slice(&bytes)
            && send.send(message).is_err()
        {
            return;
        }
        bytes.clear();
    }
}
