//! Where third-party sources are: in the cargo registry, as `cargo metadata` says, and in Debian's source packages.

use crate::Result;
use crate::tools::{Tools, run};
use serde_json::Value;
use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Folders of packages.
#[derive(Debug, Clone)]
pub struct Sources {
    packages: HashMap<String, PathBuf>,
}

impl Sources {
    /// Asks cargo; downloads what is missing.
    pub fn find(tools: &Tools) -> Result<Self> {
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let manifest = tools.here.join("Cargo.toml");
        let metadata = |offline: bool| {
            let mut command = Command::new(&cargo);
            command
                .args(["metadata", "--format-version=1", "--manifest-path"])
                .arg(&manifest);
            if offline {
                command.arg("--offline");
            }
            run(&mut command)
        };
        let output = metadata(true).or_else(|_| metadata(false))?;
        let json: Value = serde_json::from_slice(&output.stdout)?;
        let mut packages = HashMap::new();
        for package in json["packages"].as_array().into_iter().flatten() {
            if let (Some(name), Some(manifest)) =
                (package["name"].as_str(), package["manifest_path"].as_str())
                && let Some(folder) = Path::new(manifest).parent()
            {
                packages.insert(name.to_owned(), folder.to_owned());
            }
        }
        Ok(Self { packages })
    }

    /// The folder of a package of the cargo registry.
    pub fn package(&self, name: &str) -> Result<&Path> {
        let folder = self.packages.get(name).map(PathBuf::as_path);
        folder.ok_or_else(|| {
            format!("{name}: not among the packages of vernal-programs; see its Cargo.toml").into()
        })
    }
}

/// The unpacked source of a Debian package, below the working folder. The system's list of sources is only read: a list
/// of our own, with the same archives, asks for sources.
pub fn debian(tools: &Tools, package: &str) -> Result<PathBuf> {
    let base = tools.work.join("debian");
    let unpacked = base.join(package);
    let done = base.join(format!("{package}.unpacked"));
    if done.exists() {
        return Ok(unpacked);
    }
    let private = base.join("apt");
    for folder in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(private.join(folder))?;
    }
    let list = private.join("sources.list");
    fs::write(&list, source_lines()?)?;
    let apt = |arguments: &[&str], folder: &Path| {
        let mut command = Command::new("apt-get");
        command.current_dir(folder);
        command
            .arg("-o")
            .arg(format!("Dir::Etc::sourcelist={}", list.display()));
        command.args(["-o", "Dir::Etc::sourceparts=/dev/null"]);
        command.arg("-o").arg(format!(
            "Dir::State::lists={}",
            private.join("lists").display()
        ));
        command
            .arg("-o")
            .arg(format!("Dir::Cache={}", private.join("cache").display()));
        command.args(["-o", "APT::Sandbox::User="]);
        run(command.args(arguments))
    };
    apt(&["update"], &base)?;
    let fresh = base.join(format!("{package}.new"));
    let _ = fs::remove_dir_all(&fresh);
    fs::create_dir_all(&fresh)?;
    apt(&["source", package], &fresh)?;
    let folder = fs::read_dir(&fresh)?.flatten().find(|e| e.path().is_dir());
    let Some(folder) = folder else {
        return Err(format!(
            "apt-get source {package}: unpacked nothing; dpkg-dev must be installed"
        )
        .into());
    };
    let _ = fs::remove_dir_all(&unpacked);
    fs::rename(folder.path(), &unpacked)?;
    let _ = fs::remove_dir_all(&fresh);
    fs::write(done, "")?;
    Ok(unpacked)
}

/// `deb-src` lines for the distribution's archives among those that the system already uses for binaries.
fn source_lines() -> Result<String> {
    let format = "$(LABEL)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)";
    let output = run(Command::new("apt-get").args([
        "indextargets",
        "--format",
        format,
        "Created-By: Packages",
    ]))?;
    let mut lines: Vec<String> = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| {
            let [label, uri, release, component] =
                line.split('|').collect::<Vec<_>>().try_into().ok()?;
            (label.starts_with("Debian") || label == "Ubuntu")
                .then(|| format!("deb-src {uri} {release} {component}\n"))
        })
        .collect();
    lines.sort();
    lines.dedup();
    if lines.is_empty() {
        return Err(
            "apt-get knows no Debian or Ubuntu archive; add one and run `apt-get update`".into(),
        );
    }
    Ok(lines.concat())
}
