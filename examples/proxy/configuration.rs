//! The cache as a file sets it up.

use std::path::Path;

use larder::CacheLayer;

/// The layer of the file. A capacity on the command line wins over that of the file.
#[cfg(feature = "config")]
pub fn layer(file: &Path, capacity: Option<u64>) -> Result<CacheLayer, String> {
    let config = larder::Config::from_file(file).map_err(|error| error.to_string())?;
    let config = match capacity {
        Some(bytes) => config.capacity(bytes),
        None => config,
    };
    CacheLayer::from_config(&config).map_err(|error| error.to_string())
}

#[cfg(not(feature = "config"))]
pub fn layer(_: &Path, _: Option<u64>) -> Result<CacheLayer, String> {
    Err("--config: this program was built without the feature; use cargo run --release --features config --example proxy".into())
}
