//! Names of pools: directories of embedded pools, and pools of puddled.

use super::outcome::Trouble;
use std::path::{Path, PathBuf};
use vernal_format::Uuid;
use vernal_pool::archive::PoolImage;
use vernal_puddled_client::Client;
use vernal_puddled_proto::Access;

/// Where a pool is.
pub enum Place {
    /// A directory.
    Embedded(PathBuf),
    /// A pool of puddled.
    Served(String),
}

impl Place {
    /// The place that a name means.
    pub fn of(name: &str) -> Place {
        if name.contains('/') {
            Place::Embedded(PathBuf::from(name.trim_end_matches('/').to_owned()))
        } else {
            Place::Served(name.to_owned())
        }
    }
}

/// A connection to puddled.
pub fn connect() -> Result<Client, Trouble> {
    Ok(Client::connect_default(&format!(
        "vernal {}",
        env!("CARGO_PKG_VERSION")
    ))?)
}

/// The committed image of a pool. The client keeps it as it is while it lives.
pub fn image(name: &str) -> Result<(PoolImage, Option<Client>), Trouble> {
    match Place::of(name) {
        Place::Embedded(path) => {
            let image = PoolImage::open(&path).map_err(Trouble::of_archive)?;
            Ok((image, None))
        }
        Place::Served(name) => {
            let mut client = connect()?;
            let open = client.open(&name, Access::Snapshot)?;
            let files = open.puddles.into_iter().map(|p| p.file).collect();
            let image = PoolImage::of_files(&name, files).map_err(Trouble::of_archive)?;
            Ok((image, Some(client)))
        }
    }
}

/// 16 random bytes.
pub fn fresh_uuid() -> Result<Uuid, Trouble> {
    Ok(vernal_snapshot::fresh_uuid(Path::new("."))?)
}
