//! The table of programs: their sources, flags, and at which levels a brief run builds them.

use crate::Result;
use crate::build::Level;
use crate::sources::{self, Sources};
use crate::tools::Tools;
use std::path::{Path, PathBuf};

/// One C or C++ program.
#[derive(Debug, Clone, Copy)]
pub struct Program {
    /// Its name.
    pub name: &'static str,
    /// What it exercises, for the report.
    pub about: &'static str,
    /// Steps of the audited run.
    pub steps: u64,
    /// The levels of a brief run; a long one takes all.
    pub brief: &'static [Level],
    /// C++ instead of C.
    pub cxx: bool,
    sources: fn(&Tools, &Sources) -> Result<Recipe>,
}

/// How to compile and link it.
#[derive(Debug, Clone, Default)]
pub struct Recipe {
    /// Every source file, the harness first.
    pub files: Vec<PathBuf>,
    /// Flags for each of them.
    pub flags: Vec<String>,
    /// Libraries.
    pub libraries: Vec<&'static str>,
}

impl Program {
    /// The sources and flags; fetches what is missing.
    pub fn recipe(&self, tools: &Tools, sources: &Sources) -> Result<Recipe> {
        (self.sources)(tools, sources).map_err(|e| format!("{}: {e}", self.name).into())
    }
}

use Level::{FullLto, O0, O2, O3, ThinLto};

/// Every C and C++ program, those that take longest to build first.
pub const PROGRAMS: &[Program] = &[
    Program {
        name: "sqlite",
        about: "SQLite: database and every allocation in the file",
        steps: 200,
        brief: &[FullLto, O0],
        cxx: false,
        sources: sqlite,
    },
    Program {
        name: "zstd",
        about: "Zstandard: streaming contexts in the file",
        steps: 130,
        brief: &[O2, O0],
        cxx: false,
        sources: zstd,
    },
    Program {
        name: "kyoto",
        about: "Kyoto Cabinet HashDB, its own log off",
        steps: 200,
        brief: &[O2],
        cxx: true,
        sources: kyoto,
    },
    Program {
        name: "lua",
        about: "Lua: a whole interpreter in the file",
        steps: 400,
        brief: &[O0, O2, O3, FullLto, ThinLto],
        cxx: false,
        sources: lua,
    },
    Program {
        name: "boost",
        about: "Boost.Interprocess managed_mapped_file",
        steps: 300,
        brief: &[O0, FullLto],
        cxx: true,
        sources: boost,
    },
    Program {
        name: "cxx",
        about: "every container of the C++ library",
        steps: 300,
        brief: &[O0, O2, O3, FullLto],
        cxx: true,
        sources: cxx,
    },
];

fn harness(tools: &Tools, name: &str) -> PathBuf {
    tools.here.join("harness").join(name)
}

fn flags(words: &[&str]) -> Vec<String> {
    words.iter().map(|w| (*w).to_owned()).collect()
}

/// The files with `extension` in `folder`, sorted, without those named.
fn files_in(folder: &Path, extension: &str, without: &[&str]) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == extension))
        .filter(|p| {
            !p.file_stem()
                .is_some_and(|s| without.iter().any(|w| s == *w))
        })
        .collect();
    files.sort();
    Ok(files)
}

fn include(folder: &Path) -> String {
    format!("-I{}", folder.display())
}

fn lua(tools: &Tools, sources: &Sources) -> Result<Recipe> {
    let package = sources.package("lua-src")?;
    let mut versions: Vec<PathBuf> = std::fs::read_dir(package)?
        .flatten()
        .map(|e| e.path())
        .filter(|p| {
            p.file_name()
                .is_some_and(|n| n.to_string_lossy().starts_with("lua-5.4"))
        })
        .collect();
    versions.sort();
    let folder = versions
        .pop()
        .ok_or("the package lua-src holds no lua-5.4")?;
    let mut files = vec![harness(tools, "lua.c")];
    // Without the programs, and without the libraries that keep FILE pointers or load other libraries.
    files.extend(files_in(
        &folder,
        "c",
        &[
            "lua", "luac", "onelua", "loslib", "liolib", "linit", "ldblib", "loadlib",
        ],
    )?);
    Ok(Recipe {
        files,
        flags: vec![include(&folder)],
        libraries: vec!["-lm"],
    })
}

fn sqlite(tools: &Tools, sources: &Sources) -> Result<Recipe> {
    let folder = sources.package("libsqlite3-sys")?.join("sqlite3");
    let mut flags = flags(&[
        "-DSQLITE_THREADSAFE=0",
        "-DSQLITE_OMIT_LOAD_EXTENSION",
        "-DSQLITE_ENABLE_DESERIALIZE",
    ]);
    flags.push(include(&folder));
    Ok(Recipe {
        files: vec![harness(tools, "sqlite.c"), folder.join("sqlite3.c")],
        flags,
        libraries: vec!["-lm"],
    })
}

fn zstd(tools: &Tools, sources: &Sources) -> Result<Recipe> {
    let folder = sources.package("zstd-sys")?.join("zstd/lib");
    let mut files = vec![harness(tools, "zstd.c")];
    for part in ["common", "compress", "decompress"] {
        files.extend(files_in(&folder.join(part), "c", &[])?);
    }
    // Its decoder in assembly cannot be instrumented; zstd's own switch leaves it out.
    let mut flags = flags(&["-DZSTD_DISABLE_ASM", "-DZSTD_LEGACY_SUPPORT=0"]);
    flags.push(include(&folder));
    Ok(Recipe {
        files,
        flags,
        libraries: vec![],
    })
}

fn boost(tools: &Tools, _: &Sources) -> Result<Recipe> {
    Ok(Recipe {
        files: vec![harness(tools, "boost.cpp")],
        flags: flags(&["-std=c++17"]),
        libraries: vec!["-lpthread"],
    })
}

fn cxx(tools: &Tools, _: &Sources) -> Result<Recipe> {
    Ok(Recipe {
        files: vec![harness(tools, "cxx.cpp")],
        flags: flags(&["-std=c++17"]),
        libraries: vec![],
    })
}

fn kyoto(tools: &Tools, _: &Sources) -> Result<Recipe> {
    let folder = sources::debian(tools, "kyotocabinet")?;
    let mut files = vec![harness(tools, "kyoto.cc")];
    for name in [
        "kcutil",
        "kcthread",
        "kcfile",
        "kccompress",
        "kccompare",
        "kcmap",
        "kcregex",
        "kcdb",
        "kchashdb",
    ] {
        files.push(folder.join(name).with_extension("cc"));
    }
    let mut flags = flags(&["-std=c++11", "-D_MYNOZLIB"]);
    // What its configure script would fill in.
    for name in [
        "PREFIX",
        "INCLUDEDIR",
        "LIBDIR",
        "BINDIR",
        "LIBEXECDIR",
        "APPINC",
        "APPLIBS",
    ] {
        flags.push(format!("-D_KC_{name}=\"\""));
    }
    flags.push(include(&folder));
    Ok(Recipe {
        files,
        flags,
        libraries: vec!["-lpthread"],
    })
}
