//! The table `[compression]`.

use super::reader::Section;
use crate::compression::Compression;

/// The codings that this build of the application has.
const CODINGS: &[(&str, Compression)] = &[
    ("none", Compression::off()),
    #[cfg(feature = "gzip")]
    ("gzip", Compression::gzip()),
    #[cfg(feature = "brotli")]
    ("br", Compression::brotli()),
    #[cfg(feature = "zstd")]
    ("zstd", Compression::zstd()),
];

pub(super) fn read(section: &Section<'_>) -> Compression {
    let mut compression = match section.field("coding") {
        Some(field) => field.word(CODINGS).unwrap_or_default(),
        None => {
            section.wrong("`coding` is missing: it says how to compress, or \"none\"");
            Compression::off()
        }
    };
    let percent = |name| {
        let field = section.field(name)?;
        let number = field.number(0)?;
        let percent = u8::try_from(number).ok().filter(|percent| *percent <= 100);
        if percent.is_none() {
            field.wrong("it is at most 100");
        }
        percent
    };
    if let Some(level) = percent("level") {
        compression = compression.level(level);
    }
    if let Some(percent) = percent("min_saving") {
        compression = compression.min_saving(percent);
    }
    if let Some(size) = section.size("min_size") {
        compression = compression.min_size(usize::try_from(size).unwrap_or(usize::MAX));
    }
    compression
}
