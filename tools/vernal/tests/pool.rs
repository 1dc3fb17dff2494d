//! `vernal pool` and `vernal inspect` on embedded pools, as a user runs them.

mod made;

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output, Stdio};

fn vernal(dir: &Path, words: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_vernal"))
        .args(words)
        .current_dir(dir)
        // No puddled of this machine has a part in these tests.
        .env("VERNAL_PUDDLED", dir.join("no-such-socket"))
        .output()
        .unwrap()
}

/// Runs with --json; the exit code and what was said.
fn json(dir: &Path, words: &[&str]) -> (i32, Value) {
    let mut all = words.to_vec();
    all.push("--json");
    let output = vernal(dir, &all);
    let text = if output.stdout.is_empty() {
        &output.stderr
    } else {
        &output.stdout
    };
    let value = serde_json::from_slice(text)
        .unwrap_or_else(|e| panic!("{words:?}: {e}: {}", String::from_utf8_lossy(text)));
    (output.status.code().unwrap(), value)
}

#[test]
fn a_pool_from_create_to_rm() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    assert_eq!(json(dir, &["pool", "create", "./a"]).0, 0);
    let (code, again) = json(dir, &["pool", "create", "./a"]);
    assert!(
        code == 2 && again["error"].as_str().unwrap().contains("already"),
        "{again}"
    );
    let (code, list) = json(dir, &["pool", "ls", "."]);
    assert_eq!(
        (code, list["pools"][0]["puddles"].as_u64()),
        (0, Some(1)),
        "{list}"
    );
    assert_eq!(list["pools"][0]["state"], "closed");
    let (code, check) = json(dir, &["pool", "check", "./a"]);
    assert_eq!((code, &check["sound"]), (0, &Value::Bool(true)), "{check}");
    assert_eq!(json(dir, &["pool", "relocate", "./a"]).0, 0);
    assert_eq!(json(dir, &["pool", "rm", "./a"]).0, 0);
    assert_eq!(json(dir, &["pool", "check", "./a"]).0, 2);
    assert!(!dir.join("a/root.puddle").exists());
}

#[test]
fn archives_in_every_way() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    made::pool(&dir.join("a"), 5000, 64, 0, 0);
    let objects = |pool: &str| {
        let (code, check) = json(dir, &["pool", "check", pool]);
        assert_eq!(code, 0, "{check}");
        check["objects"].as_u64().unwrap()
    };
    let all = objects("./a");
    assert!(all > 5000);
    assert_eq!(json(dir, &["pool", "export", "./a", "a.archive"]).0, 0);
    assert_eq!(
        json(dir, &["pool", "import", "a.archive", "--as", "./b"]).0,
        0
    );
    assert_eq!(json(dir, &["pool", "export", "./b", "b/../b.dir/"]).0, 0);
    assert_eq!(
        json(dir, &["pool", "import", "--move", "--as", "./c", "b.dir"]).0,
        0
    );
    assert!(!dir.join("b.dir").exists());
    assert_eq!(json(dir, &["pool", "clone", "./c", "./d"]).0, 0);
    // Through a pipe, from one process to the other.
    let mut export = Command::new(env!("CARGO_BIN_EXE_vernal"))
        .args(["pool", "export", "./d", "-", "--json"])
        .current_dir(dir)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let import = Command::new(env!("CARGO_BIN_EXE_vernal"))
        .args(["pool", "import", "--as", "./e", "-"])
        .current_dir(dir)
        .stdin(export.stdout.take().unwrap())
        .status()
        .unwrap();
    assert!(import.success() && export.wait().unwrap().success());
    // Opened as a program does: the pointers are rewritten, and the list is still whole.
    assert_eq!(json(dir, &["pool", "relocate", "./e"]).0, 0);
    for pool in ["./b", "./c", "./d", "./e"] {
        assert_eq!(objects(pool), all, "{pool}");
    }
    let (code, list) = json(dir, &["pool", "ls", "."]);
    assert_eq!((code, list["pools"].as_array().unwrap().len()), (0, 5));
    let taken = json(dir, &["pool", "import", "a.archive", "--as", "./b"]);
    assert!(taken.0 == 2 && taken.1["error"].as_str().unwrap().contains("exists"));
}

#[test]
fn what_leads_out_of_a_pool_is_refused_unless_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    made::pool(&dir.join("a"), 100, 64, 0xdead_0000, 0);
    let (code, check) = json(dir, &["pool", "check", "./a"]);
    assert_eq!((code, check["dangling_count"].as_u64()), (1, Some(1)));
    let (code, export) = json(dir, &["pool", "export", "./a", "a.archive"]);
    assert_eq!(code, 1, "{export}");
    assert_eq!(export["dangling"][0]["field"], "node.next");
    assert_eq!(export["dangling"][0]["target"], "0xdead0000");
    assert_eq!(
        std::fs::read_dir(dir).unwrap().count(),
        1,
        "something was left behind"
    );
    let allowed = ["pool", "export", "./a", "a.archive", "--allow-dangling"];
    assert_eq!(json(dir, &allowed).0, 0);
    assert_eq!(json(dir, &["pool", "export", "./a", "d/"]).0, 1);
    assert!(!dir.join("d").exists());
}

#[test]
fn pointers_in_memory_without_type_keep_a_pool_where_it_is() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    made::pool(&dir.join("a"), 100, 64, 0, 0);
    let (memory, node) = made::untyped(&dir.join("a"), 1);
    assert_eq!(json(dir, &["pool", "check", "./a"]).0, 1);
    for words in [
        &["pool", "export", "./a", "a.archive"][..],
        &["pool", "export", "./a", "a.dir/"],
        &["pool", "clone", "./a", "./b"],
        &["pool", "relocate", "./a"],
    ] {
        let (code, said) = json(dir, words);
        assert_eq!(code, 1, "{words:?}: {said}");
        assert_eq!(said["untyped_count"], 1, "{said}");
        assert_eq!(said["untyped"][0]["object"], format!("{memory:#x}"));
        assert_eq!(said["untyped"][0]["target"], format!("{node:#x}"));
        assert!(
            said["error"].as_str().unwrap().contains("--allow-untyped"),
            "{said}"
        );
        assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1);
        let mut allowed = words.to_vec();
        allowed.push("--allow-untyped");
        let (code, said) = json(dir, &allowed);
        assert_eq!(code, 0, "{allowed:?}: {said}");
        for copy in ["a.archive", "a.dir", "b"] {
            let _ = std::fs::remove_file(dir.join(copy));
            let _ = std::fs::remove_dir_all(dir.join(copy));
        }
    }
    // Who opens a copy that was allowed is told, too: the copy has addresses of its own.
    let allowed = ["pool", "clone", "./a", "./b", "--allow-untyped"];
    assert_eq!(json(dir, &allowed).0, 0);
    let opened = || vernal_pool::Pool::open(&dir.join("b"), Default::default());
    let error = opened().unwrap_err().to_string();
    assert!(
        error.contains(&format!("{node:#x}")) && error.contains("VERNAL_ALLOW_UNTYPED"),
        "{error}"
    );
    // The pool itself stays usable, and one whose untyped memory holds only numbers travels.
    let original = vernal_pool::Pool::open(&dir.join("a"), Default::default()).unwrap();
    original.close().unwrap();
    made::pool(&dir.join("c"), 100, 64, 0, 0);
    made::untyped(&dir.join("c"), 0);
    assert_eq!(json(dir, &["pool", "clone", "./c", "./d"]).0, 0);
    assert_eq!(json(dir, &["pool", "relocate", "./d"]).0, 0);
}

#[test]
fn leaks_are_found_and_reclaimed() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    made::pool(&dir.join("a"), 100, 64, 0, 7);
    let (code, check) = json(dir, &["pool", "check", "./a"]);
    assert_eq!(
        (code, check["leak_count"].as_u64()),
        (1, Some(7)),
        "{check}"
    );
    assert_eq!(check["leaks"][0]["type"], "node");
    let (code, freed) = json(dir, &["pool", "check", "--reclaim", "./a"]);
    assert_eq!(
        (code, freed["reclaimed_count"].as_u64()),
        (0, Some(7)),
        "{freed}"
    );
    let (code, check) = json(dir, &["pool", "check", "./a"]);
    assert_eq!((code, check["leak_count"].as_u64()), (0, Some(0)));
}

#[test]
fn a_pool_as_a_page() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    made::pool(&dir.join("a"), 1000, 64, 0, 0);
    let (code, said) = json(dir, &["inspect", "./a", "--html", "a.html"]);
    assert_eq!(code, 0, "{said}");
    assert!(said["objects"].as_u64().unwrap() >= 1000);
    let page = std::fs::read_to_string(dir.join("a.html")).unwrap();
    assert!(
        page.contains("\"name\":\"node\"") && !page.contains("http:") && !page.contains("https:")
    );
}

#[test]
fn trouble_is_told_with_its_code() {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for words in [
        &["pool", "check", "./none"][..],
        &["pool", "export", "./none", "x"],
        &["pool", "import", "none", "--as", "./x"],
        &["pool", "rm", "./none"],
        &["pool", "ls"],
        &["pool", "check", "served"],
        &["pool", "accept", "./none"],
        &["inspect", "./none", "--html", "x"],
    ] {
        let (code, said) = json(dir, words);
        assert_eq!(code, 2, "{words:?}: {said}");
        assert!(
            said["error"].as_str().is_some_and(|e| e.len() > 10),
            "{words:?}: {said}"
        );
    }
    assert_eq!(vernal(dir, &["pool", "check"]).status.code(), Some(2));
    std::fs::write(dir.join("junk"), "no archive at all, only text").unwrap();
    let (code, said) = json(dir, &["pool", "import", "junk", "--as", "./x"]);
    assert!(
        code == 2 && said["error"].as_str().unwrap().contains("archive"),
        "{said}"
    );
}
