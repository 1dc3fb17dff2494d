//! The examples of RPC in C and C++, built as their comments say and run against a real puddled; and a client that lies.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketAddrUnix, SocketType};
use vernal_programs::tools::{Tools, run};

const PATIENCE: Duration = Duration::from_secs(60);

/// Whether somebody takes connections there.
fn serves(path: &Path) -> bool {
    let socket = rustix::net::socket(AddressFamily::UNIX, SocketType::SEQPACKET, None);
    let address = SocketAddrUnix::new(path);
    match (socket, address) {
        (Ok(socket), Ok(address)) => rustix::net::connect(&socket, &address).is_ok(),
        _ => false,
    }
}

/// puddled with a folder of its own.
struct Place {
    folder: PathBuf,
    tools: Tools,
    daemon: Child,
}

impl Place {
    fn new(name: &str) -> Place {
        let tools = Tools::find().expect("the tools are built: `cargo build --release`");
        assert!(
            tools.bin.join("puddled").exists(),
            "puddled is not in {}: run `cargo build --release` first",
            tools.bin.display()
        );
        let folder = std::env::temp_dir().join(format!("vernal-rpc-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("a folder");
        let daemon = Command::new(tools.bin.join("puddled"))
            .arg("--data")
            .arg(folder.join("data"))
            .arg("--socket")
            .arg(folder.join("sock"))
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("puddled starts");
        let mut place = Place {
            folder,
            tools,
            daemon,
        };
        let until = Instant::now() + PATIENCE;
        while !serves(&place.folder.join("sock")) {
            let ended = place.daemon.try_wait().expect("a child of ours");
            assert!(
                ended.is_none() && Instant::now() < until,
                "puddled does not serve"
            );
            std::thread::sleep(Duration::from_millis(5));
        }
        place
    }

    fn build(&self, source: &str) -> PathBuf {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join(source);
        let cxx = source.extension().is_some_and(|e| e == "cpp");
        let out = self.folder.join(source.file_stem().expect("a name"));
        let mut command = Command::new(self.tools.compiler(cxx));
        if cxx {
            command.arg("-std=c++17");
        }
        let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../runtime/capi/include");
        command.args(["-O2", "-Wall", "-Wextra", "-Werror", "-I"]);
        run(command.arg(include).arg(&source).arg("-o").arg(&out)).expect("it compiles");
        out
    }

    fn command(&self, program: &Path, args: &[&str]) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .env("LD_LIBRARY_PATH", &self.tools.bin)
            .env("VERNAL_PUDDLED", self.folder.join("sock"))
            .stdin(Stdio::null());
        command
    }

    fn serve(&self, program: &Path, args: &[&str]) -> Server {
        let mut child = self
            .command(program, args)
            .stdout(Stdio::piped())
            .spawn()
            .expect("a server");
        let mut line = String::new();
        let out = child.stdout.as_mut().expect("its output");
        BufReader::new(out).read_line(&mut line).expect("a line");
        assert_eq!(line, "ready\n");
        Server(child)
    }

    fn says(&self, program: &Path, args: &[&str]) -> String {
        let output = run(&mut self.command(program, args)).expect("it works");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// Killed at the end, if it has not ended by itself.
struct Server(Child);

impl Server {
    fn ends_well(mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.0.try_wait().expect("a child of ours") {
                assert!(status.success(), "{status}");
                return;
            }
            assert!(Instant::now() < until, "the server goes on");
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn runs(&mut self) -> bool {
        self.0.try_wait().expect("a child of ours").is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_example_in_c() {
    let place = Place::new("words");
    let words = place.build("../examples/words.c");
    let server = place.serve(&words, &["serve", "demo/words", "alpha", "beta", "beacon"]);
    let ask = |prefix| place.says(&words, &["ask", "demo/words", prefix]);
    assert_eq!(ask("be"), "2: beta beacon\n");
    assert_eq!(ask("gamma"), "0:\n");
    let refused = ask("");
    assert!(
        refused.starts_with("refused: ") && refused.ends_with("at least one character (22)\n"),
        "{refused}"
    );
    place.says(&words, &["stop", "demo/words"]);
    server.ends_well();
    let gone = run(&mut place.command(&words, &["ask", "demo/words", "be"]));
    assert!(gone.is_err(), "nobody serves any more");
}

#[test]
fn the_example_in_cxx() {
    let place = Place::new("till");
    let till = place.build("../examples/till.cpp");
    let server = place.serve(&till, &["serve", "demo/till"]);
    let buy = |goods: &[&str]| {
        let mut args = vec!["buy", "demo/till"];
        args.extend(goods);
        place.says(&till, &args)
    };
    let long = "a very long name of something small=3";
    assert_eq!(
        buy(&["bolts=12", long]),
        "bolts x 12: 305\na very long name of something small x 3: 110\ntotal 415\n"
    );
    let refused = buy(&[]);
    assert!(refused.contains("the basket is empty (1)"), "{refused}");
    // The till is as it was: nothing of a call is left behind.
    assert!(buy(&["nuts"]).ends_with("total 29\n"));
    place.says(&till, &["stop", "demo/till"]);
    server.ends_well();
}

#[test]
fn a_client_that_lies_is_refused_and_the_server_goes_on() {
    let place = Place::new("liar");
    let words = place.build("../examples/words.c");
    let liar = place.build("programs/liar.c");
    let mut server = place.serve(&words, &["serve", "demo/liar", "beta", "bbbbbbbbb"]);
    let said = place.says(&liar, &["demo/liar"]);
    let expected = "a wild pointer: -23\nmemory of the client: -23\nfree memory: -23\na text without end: -23\n\
                    bytes for an object: -23\nan object without type: -1\nno object: -1\nno method: -23\n\
                    an honest one: -24\n";
    assert_eq!(said, expected);
    assert!(server.runs());
    assert_eq!(place.says(&words, &["ask", "demo/liar", "be"]), "1: beta\n");
}
