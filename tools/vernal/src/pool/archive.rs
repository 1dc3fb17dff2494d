//! `vernal pool export`, `import` and `clone`.

use super::Common;
use super::make::mode_bits;
use super::name::{Place, connect, image};
use super::outcome::{Outcome, Report, Trouble, dangling_json, finish_on};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;
use std::fs::{File, OpenOptions};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use vernal_format::archive::{Manifest, PoolMode};
use vernal_pool::archive::{
    self, ArchiveFailure, Arrived, Destination, ExportOptions, Exported, Identities, PoolImage,
    ReadOptions, Source, Target, set_identities,
};
use vernal_puddled_client::{Client as Connection, Import as Staged};
use vernal_puddled_proto::PoolKind;

/// Pointers out of the pool that are listed.
const LISTED: usize = 20;

#[derive(clap::Args)]
pub struct Export {
    /// The pool
    pool: String,
    /// The archive: a file, `-` for standard output, or a directory if it ends with '/'
    archive: String,
    /// Export although pointers lead out of the pool
    #[arg(long)]
    allow_dangling: bool,
    /// Export although memory without type holds what looks like pointers. Dangerous: nobody rewrites them, and a program that follows one crashes, or worse
    #[arg(long)]
    allow_untyped: bool,
    /// Return when the archive is on the disk
    #[arg(long)]
    sync: bool,
    #[command(flatten)]
    common: Common,
}

#[derive(clap::Args)]
pub struct Import {
    /// The archive: a file, `-` for standard input, or a directory
    archive: String,
    /// The new pool; the archived pool's name if not given
    #[arg(long = "as", value_name = "POOL")]
    pool: Option<String>,
    /// Take the archive's files over instead of copying them, where file system and place allow; the archive is removed. Their checksums are not compared
    #[arg(long = "move")]
    take: bool,
    /// Who may read and write it, in octal (only for pools of puddled)
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    #[command(flatten)]
    pub common: Common,
}

#[derive(clap::Args)]
pub struct Clone {
    /// The pool
    from: String,
    /// The copy
    to: String,
    /// Clone although memory without type holds what looks like pointers. Dangerous: nobody rewrites them, and a program that follows one crashes, or worse
    #[arg(long)]
    allow_untyped: bool,
    /// Who may read and write it, in octal (only for pools of puddled)
    #[arg(long, value_name = "MODE")]
    mode: Option<String>,
    #[command(flatten)]
    pub common: Common,
}

/// Threads that search beside the one that copies.
fn jobs() -> usize {
    std::thread::available_parallelism().map_or(1, |n| n.get().div_ceil(2))
}

/// Refuses to make a copy that would crash, unless the user wants it.
pub fn refuse_untyped(image: &PoolImage, allowed: bool) -> Result<(), Trouble> {
    if allowed {
        return Ok(());
    }
    image
        .refuse_untyped(LISTED, jobs())
        .map_err(Trouble::of_archive)
}

/// A bar on a terminal, nothing elsewhere.
struct Bar(ProgressBar);

impl Bar {
    fn new(common: Common) -> Bar {
        let bar = ProgressBar::no_length();
        bar.set_draw_target(if common.json {
            ProgressDrawTarget::hidden()
        } else {
            ProgressDrawTarget::stderr()
        });
        let style = ProgressStyle::with_template(
            "{bytes:>10} of {total_bytes:<10} {bytes_per_sec:>12}  {wide_bar} {eta}",
        );
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Bar(bar)
    }

    /// What is told how many bytes are done.
    fn told(&self) -> impl Fn(u64) + Sync + '_ {
        |bytes| self.0.inc(bytes)
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Exports; the exit code. Reports go to standard error when standard output is the archive.
pub fn run_export(options: &Export) -> u8 {
    finish_on(options.common, export(options), options.archive == "-")
}

fn export(options: &Export) -> Outcome {
    let (image, _client) = image(&options.pool)?;
    let bar = Bar::new(options.common);
    bar.0
        .set_length(image.directory().iter().map(|entry| entry.size).sum());
    let told = bar.told();
    let how = ExportOptions {
        allow_dangling: options.allow_dangling,
        allow_untyped: options.allow_untyped,
        list: LISTED,
    };
    let path = Path::new(&options.archive);
    let exported = if options.archive == "-" {
        let out = std::io::stdout().as_fd().try_clone_to_owned()?;
        let to = Destination::Stream(&File::from(out), "standard output");
        archive::export(&image, to, how, &told).map_err(Trouble::of_archive)?
    } else if options.archive.ends_with('/') || path.is_dir() {
        to_directory(&image, path, how, &told)?
    } else {
        to_file(&image, path, how, options.sync, &told)?
    };
    if options.sync && path.is_dir() {
        for entry in std::fs::read_dir(path)? {
            File::open(entry?.path())?.sync_all()?;
        }
        File::open(path)?.sync_all()?;
    }
    drop(told);
    drop(bar);
    let Exported {
        written,
        dangling_count,
        dangling,
    } = exported;
    let mut text = format!(
        "{}: {} bytes in {}",
        options.pool, written.bytes, options.archive
    );
    if dangling_count > 0 {
        text.push_str(&format!("; {dangling_count} pointers lead out of the pool"));
    }
    Ok(Report::fine(
        text,
        json!({"pool": options.pool, "archive": options.archive, "bytes": written.bytes, "stored": written.stored,
            "dangling_count": dangling_count, "dangling": dangling_json(&dangling)}),
    ))
}

/// Another name first: a file under the archive's name is always a whole one.
fn to_file(
    image: &PoolImage,
    path: &Path,
    how: ExportOptions,
    sync: bool,
    told: &(dyn Fn(u64) + Sync),
) -> Result<Exported, Trouble> {
    let name = path.display().to_string();
    // Devices and pipes are written where they are.
    if path.exists() && !path.is_file() {
        let out = OpenOptions::new().write(true).open(path)?;
        return archive::export(image, Destination::Stream(&out, &name), how, told)
            .map_err(Trouble::of_archive);
    }
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".part-{}", std::process::id()));
    let part = PathBuf::from(part);
    let out = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&part)
        .map_err(|e| Trouble::new(format!("{}: {e}", part.display())))?;
    let done = archive::export(image, Destination::Stream(&out, &name), how, told)
        .map_err(Trouble::of_archive)
        .and_then(|exported| {
            if sync {
                out.sync_all()?;
            }
            std::fs::rename(&part, path)?;
            Ok(exported)
        });
    if done.is_err() {
        let _ = std::fs::remove_file(&part);
    }
    done
}

fn to_directory(
    image: &PoolImage,
    path: &Path,
    how: ExportOptions,
    told: &(dyn Fn(u64) + Sync),
) -> Result<Exported, Trouble> {
    let made = !path.exists();
    if made {
        std::fs::create_dir(path).map_err(|e| Trouble::new(format!("{}: {e}", path.display())))?;
    } else if std::fs::read_dir(path)?.next().is_some() {
        return Err(Trouble::new(format!(
            "{} is not empty: give a new directory for the archive",
            path.display()
        )));
    }
    let done = archive::export(image, Destination::Directory(path), how, told);
    if done.is_err() {
        // It was empty: all in it is ours.
        for index in 0..image.directory().len() {
            let _ = std::fs::remove_file(archive::puddle_file(path, index));
        }
        if made {
            let _ = std::fs::remove_dir(path);
        }
    }
    done.map_err(Trouble::of_archive)
}

pub fn import(options: &Import) -> Outcome {
    let bar = Bar::new(options.common);
    let told = bar.told();
    let path = Path::new(&options.archive);
    let stdin;
    let file;
    let source = if options.archive == "-" {
        stdin = File::from(std::io::stdin().as_fd().try_clone_to_owned()?);
        Source::Stream(&stdin, "standard input")
    } else if path.is_dir() {
        Source::Directory(path)
    } else {
        file = File::open(path).map_err(|e| Trouble::new(format!("{}: {e}", options.archive)))?;
        Source::Stream(&file, &options.archive)
    };
    let Some(pool) = &options.pool else {
        return Err(Trouble::new(
            "say what the new pool is called: --as NAME for a pool of puddled, --as ./NAME for a directory",
        ));
    };
    let manifest = match Place::of(pool) {
        Place::Embedded(to) => {
            if options.mode.is_some() {
                return Err(Trouble::new(
                    "--mode is for pools of puddled: an embedded pool's directory has a mode",
                ));
            }
            let how = ReadOptions { take: options.take };
            let manifest = archive::import(source, &to, how, &told).map_err(Trouble::of_archive)?;
            // The files of a directory are gone by now; a single file was copied, or shares its blocks with the pool.
            if options.take && path.is_file() {
                std::fs::remove_file(path)?;
            }
            manifest
        }
        Place::Served(name) => {
            let mode = mode_bits(options.mode.as_deref())?;
            let manifest = served(source, &name, mode, &told)?;
            if options.take && path.is_file() {
                std::fs::remove_file(path)?;
            } else if options.take && path.is_dir() {
                archive::remove_taken(path, &manifest)?;
            }
            manifest
        }
    };
    drop(told);
    drop(bar);
    Ok(Report::fine(
        format!(
            "{pool}: imported, {} bytes in {} puddles",
            manifest.total_size(),
            manifest.puddles.len()
        ),
        json!({"pool": pool, "archive": options.archive, "label": manifest.label, "bytes": manifest.total_size(),
            "puddles": manifest.puddles.len(), "types": manifest.types.len()}),
    ))
}

/// Files of a pool that puddled makes and nobody sees yet.
struct Served<'a> {
    client: &'a mut Connection,
    name: &'a str,
    mode: u16,
    staged: Option<Staged>,
}

impl Target for Served<'_> {
    fn files(&mut self, manifest: &Manifest) -> Result<Vec<(PathBuf, File)>, ArchiveFailure> {
        let sizes: Vec<u64> = manifest.puddles.iter().map(|p| p.size).collect();
        let kind = match manifest.mode {
            PoolMode::Buffered => PoolKind::Buffered,
            PoolMode::Direct => PoolKind::Direct,
        };
        let refused = |e: &dyn std::fmt::Display| ArchiveFailure::Refused {
            name: self.name.to_owned(),
            why: e.to_string(),
        };
        let staged = self
            .client
            .import_begin(self.name, self.mode, kind, &sizes, true)
            .map_err(|e| refused(&e))?;
        let files = files_of(&staged).map_err(|e| refused(&e))?;
        self.staged = Some(staged);
        Ok(files)
    }

    fn directory(&self) -> Option<&Path> {
        None
    }
}

fn files_of(staged: &Staged) -> std::io::Result<Vec<(PathBuf, File)>> {
    let clone = |p: &vernal_puddled_client::Granted| {
        let name = PathBuf::from(format!("puddle {}", p.info.id));
        Ok((name, p.file.try_clone()?))
    };
    staged.puddles.iter().map(clone).collect()
}

/// Imports into puddled. Until `import_finish` nobody sees anything, and the end of the connection takes it away.
fn served(
    source: Source<'_>,
    name: &str,
    mode: u16,
    told: &(dyn Fn(u64) + Sync),
) -> Result<Manifest, Trouble> {
    let mut client = connect()?;
    let mut target = Served {
        client: &mut client,
        name,
        mode,
        staged: None,
    };
    let arrived = match source {
        Source::Stream(file, shown) => archive::read_stream(file, shown, &mut target, told),
        Source::Directory(path) => {
            archive::read_directory(path, &mut target, ReadOptions::default(), told)
        }
    }
    .map_err(Trouble::of_archive)?;
    let staged = target.staged.take();
    publish(&mut client, staged, arrived, name)
}

/// Gives a staged pool its identities, and makes it one that others see.
fn publish(
    client: &mut Connection,
    staged: Option<Staged>,
    arrived: Arrived,
    name: &str,
) -> Result<Manifest, Trouble> {
    let Some(staged) = staged else {
        return Err(Trouble::new(format!("{name}: puddled gave no files")));
    };
    let identities = Identities {
        pool: staged.id.into(),
        label: name.to_owned(),
        puddles: staged.puddles.iter().map(|p| p.info.id.into()).collect(),
    };
    set_identities(&arrived, &identities).map_err(Trouble::of_archive)?;
    let id = staged.id;
    let Arrived {
        manifest, files, ..
    } = arrived;
    // puddled finishes an import when nobody else can write to its files any more.
    drop((staged, files));
    client.import_finish(id)?;
    Ok(manifest)
}

pub fn clone(options: &Clone) -> Outcome {
    let bar = Bar::new(options.common);
    let told = bar.told();
    let manifest = match (Place::of(&options.from), Place::of(&options.to)) {
        (Place::Served(from), Place::Served(to)) => {
            let mut client = connect()?;
            let mode = mode_bits(options.mode.as_deref())?;
            let staged = client.clone_begin(&from, &to, mode)?;
            let files = files_of(&staged)?;
            let copies = files.iter().map(|(_, file)| file.try_clone());
            let copies = copies.collect::<Result<Vec<File>, _>>()?;
            let image = PoolImage::of_files(&from, copies).map_err(Trouble::of_archive)?;
            // What is staged goes away with the connection if this refuses it.
            refuse_untyped(&image, options.allow_untyped)?;
            let manifest = image.manifest();
            drop(image);
            let arrived = Arrived {
                manifest,
                files,
                taken: None,
            };
            publish(&mut client, Some(staged), arrived, &to)?
        }
        (_, Place::Embedded(to)) => {
            let (image, _client) = image(&options.from)?;
            refuse_untyped(&image, options.allow_untyped)?;
            archive::clone(&image, &to, &told).map_err(Trouble::of_archive)?
        }
        (Place::Embedded(_), Place::Served(to)) => {
            let (image, _) = image(&options.from)?;
            refuse_untyped(&image, options.allow_untyped)?;
            let mut client = connect()?;
            let mut target = Served {
                client: &mut client,
                name: &to,
                mode: mode_bits(options.mode.as_deref())?,
                staged: None,
            };
            let arrived =
                archive::copy_into(&image, &mut target, &told).map_err(Trouble::of_archive)?;
            let staged = target.staged.take();
            publish(&mut client, staged, arrived, &to)?
        }
    };
    drop(told);
    drop(bar);
    Ok(Report::fine(
        format!(
            "{}: cloned from {}, {} bytes in {} puddles",
            options.to,
            options.from,
            manifest.total_size(),
            manifest.puddles.len()
        ),
        json!({"pool": options.to, "from": options.from, "bytes": manifest.total_size(), "puddles": manifest.puddles.len()}),
    ))
}
