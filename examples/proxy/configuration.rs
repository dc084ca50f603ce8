//! The cache as a file sets it up.

use std::path::Path;

use larder::CacheLayer;

/// A layer set up as the file says. A capacity on the command line wins over that of the file.
pub fn configured(layer: CacheLayer, file: &Path, capacity: Option<u64>) -> Result<CacheLayer, String> {
    let config = larder::Config::from_file(file).map_err(|error| error.to_string())?;
    let config = match capacity {
        Some(bytes) => config.capacity(bytes),
        None => config,
    };
    layer.configured(&config).map_err(|error| error.to_string())
}
