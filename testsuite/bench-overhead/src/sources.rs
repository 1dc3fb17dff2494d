//! Where the measured programs' sources lie: in the packages that this crate names and cargo has downloaded.

use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders of the packages.
pub struct Sources {
    sqlite: PathBuf,
    lua: PathBuf,
    zstd: PathBuf,
}

/// One program to build.
pub struct Program {
    /// Name of the row.
    pub row: String,
    /// C files, the workload first.
    pub files: Vec<PathBuf>,
    /// Include folders.
    pub includes: Vec<PathBuf>,
    /// Further flags.
    pub flags: Vec<&'static str>,
    /// Libraries.
    pub libs: Vec<&'static str>,
    /// Argument that makes one run take a few tenths of a second.
    pub scale: u32,
}

/// Asks cargo where the packages lie.
pub fn locate() -> Result<Sources, String> {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
    let out = Command::new(&cargo)
        .args(["metadata", "--format-version=1", "--manifest-path"])
        .arg(&manifest)
        .output()
        .map_err(|e| format!("cannot run {cargo} metadata: {e}"))?;
    if !out.status.success() {
        return Err(format!(
            "{cargo} metadata: {}",
            String::from_utf8_lossy(&out.stderr).trim()
        ));
    }
    let meta: serde_json::Value =
        serde_json::from_slice(&out.stdout).map_err(|e| format!("cargo metadata: {e}"))?;
    let folder = |name: &str, below: &str| -> Result<PathBuf, String> {
        let packages = meta["packages"]
            .as_array()
            .map(Vec::as_slice)
            .unwrap_or_default();
        let found = packages
            .iter()
            .find(|p| p["name"] == name)
            .and_then(|p| p["manifest_path"].as_str());
        let path = found
            .and_then(|m| Path::new(m).parent())
            .map(|p| p.join(below));
        let path =
            path.ok_or_else(|| format!("cargo metadata does not list the package {name}"))?;
        if path.exists() {
            Ok(path)
        } else {
            Err(format!("{name} has no {}", path.display()))
        }
    };
    Ok(Sources {
        sqlite: folder("libsqlite3-sys", "sqlite3")?,
        lua: folder("lua-src", "lua-5.4.8")?,
        zstd: folder("zstd-sys", "zstd/lib")?,
    })
}

impl Sources {
    /// The program of a row.
    pub fn program(&self, row: &str) -> Result<Program, String> {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("workloads");
        let mut files = vec![here.join(format!("{row}.c"))];
        let (includes, flags, libs, scale): (Vec<PathBuf>, Vec<&str>, Vec<&str>, u32) = match row {
            "sqlite" => {
                files.push(self.sqlite.join("sqlite3.c"));
                let flags = vec![
                    "-DSQLITE_THREADSAFE=0",
                    "-DSQLITE_OMIT_LOAD_EXTENSION",
                    "-DSQLITE_ENABLE_FTS5",
                    "-DSQLITE_ENABLE_RTREE",
                ];
                (vec![self.sqlite.clone()], flags, vec!["-lm"], 6)
            }
            "lua" => {
                files.extend(c_files(&self.lua, &["lua.c", "luac.c"])?);
                (
                    vec![self.lua.clone()],
                    vec!["-DLUA_USE_POSIX"],
                    vec!["-lm"],
                    4,
                )
            }
            "zstd" => {
                for part in ["common", "compress", "decompress"] {
                    files.extend(c_files(&self.zstd.join(part), &[])?);
                }
                (
                    vec![self.zstd.clone()],
                    vec!["-DZSTD_DISABLE_ASM=1", "-DZSTD_LEGACY_SUPPORT=0"],
                    vec![],
                    2,
                )
            }
            "stencil" => (vec![], vec![], vec![], 20),
            other => {
                return Err(format!(
                    "there is no row {other}: choose from sqlite, lua, zstd, stencil"
                ));
            }
        };
        Ok(Program {
            row: row.to_owned(),
            files,
            includes,
            flags,
            libs,
            scale,
        })
    }
}

fn c_files(dir: &Path, without: &[&str]) -> Result<Vec<PathBuf>, String> {
    let entries =
        std::fs::read_dir(dir).map_err(|e| format!("cannot read {}: {e}", dir.display()))?;
    let mut files: Vec<PathBuf> = entries
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.extension().is_some_and(|x| x == "c"))
        .filter(|p| !without.iter().any(|w| p.ends_with(w)))
        .collect();
    files.sort();
    Ok(files)
}
