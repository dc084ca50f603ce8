//! The cache as a file sets it up.

use std::path::Path;

use larder::CacheLayer;

/// The layer of the file. A capacity on the command line wins over that of the file.
pub fn layer(file: &Path, capacity: Option<u64>) -> Result<CacheLayer, String> {
    let config = larder::Config::from_file(file).map_err(|error| error.to_string())?;
    let config = match capacity {
        Some(bytes) => config.capacity(bytes),
        None => config,
    };
    CacheLayer::from_config(&config).map_err(|error| error.to_string())
}
