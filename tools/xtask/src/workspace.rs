//! Where things are: the workspace, its packages and the build's outputs.

use crate::Result;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What `cargo metadata` says about the workspace.
pub struct Workspace {
    /// The folder of the root Cargo.toml.
    pub root: PathBuf,
    /// Cargo's target directory.
    pub target: PathBuf,
    /// The workspace's own crates.
    pub crates: Vec<Crate>,
}

/// One crate of the workspace.
pub struct Crate {
    pub name: String,
    /// Its folder, relative to the root, with `/`.
    pub folder: String,
    /// Workspace crates that it uses, in normal and build dependencies; sorted.
    pub uses: Vec<String>,
    /// Workspace crates that only its tests use; sorted.
    pub tests_use: Vec<String>,
}

impl Workspace {
    /// Asks cargo, without the network.
    pub fn load() -> Result<Workspace> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .ancestors()
            .nth(2)
            .ok_or("xtask has been moved")?
            .to_owned();
        let output = Command::new(cargo())
            .args(["metadata", "--format-version=1", "--no-deps"])
            .current_dir(&root)
            .output()
            .map_err(|e| format!("cannot run cargo metadata: {e}"))?;
        if !output.status.success() {
            return Err(format!(
                "cargo metadata failed:\n{}",
                String::from_utf8_lossy(&output.stderr)
            )
            .into());
        }
        let metadata: Value = serde_json::from_slice(&output.stdout)?;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let packages = metadata["packages"]
            .as_array()
            .ok_or("cargo metadata lists no packages")?;
        let names: Vec<String> = packages.iter().map(|p| text(&p["name"])).collect();
        let mut crates = Vec::new();
        for package in packages {
            let manifest = PathBuf::from(text(&package["manifest_path"]));
            let folder = manifest.parent().unwrap_or(&root);
            let folder = folder
                .strip_prefix(&root)
                .unwrap_or(folder)
                .to_string_lossy()
                .into_owned();
            let mut uses = Vec::new();
            let mut tests_use = Vec::new();
            for dependency in package["dependencies"].as_array().into_iter().flatten() {
                let name = text(&dependency["name"]);
                if names.contains(&name) {
                    let list = if dependency["kind"] == "dev" {
                        &mut tests_use
                    } else {
                        &mut uses
                    };
                    list.push(name);
                }
            }
            for list in [&mut uses, &mut tests_use] {
                list.sort();
                list.dedup();
            }
            tests_use.retain(|name| !uses.contains(name));
            crates.push(Crate {
                name: text(&package["name"]),
                folder,
                uses,
                tests_use,
            });
        }
        crates.sort_by(|a, b| a.folder.cmp(&b.folder));
        Ok(Workspace {
            root,
            target: PathBuf::from(text(&metadata["target_directory"])),
            crates,
        })
    }

    /// Whether the workspace has a crate of this name.
    pub fn has(&self, name: &str) -> bool {
        self.crates.iter().any(|c| c.name == name)
    }

    /// A tool that `cargo build --release` made.
    pub fn tool(&self, name: &str) -> Result<PathBuf> {
        let path = self.target.join("release").join(name);
        if path.exists() {
            return Ok(path);
        }
        Err(format!("{} is missing: run `cargo xtask build`", path.display()).into())
    }

    /// `cargo` with `arguments`, at the root.
    pub fn cargo(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(cargo());
        command.args(arguments).current_dir(&self.root);
        command
    }
}

fn cargo() -> std::ffi::OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into())
}
