//! Rebuilds when a migration is added (cargo notices changed ones by itself), and extracts the two Swagger UI files that
//! `/docs` serves from the crate that contains them.

use std::error::Error;
use std::io::{Cursor, Read as _};
use std::path::Path;
use std::{env, fs};

use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::{CompressionMethod, ZipArchive};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=migrations");
    println!("cargo:rerun-if-changed=build.rs");
    let out = env::var("OUT_DIR")?;
    for file in ["swagger-ui-bundle.js", "swagger-ui.css"] {
        fs::write(Path::new(&out).join(format!("{file}.gz")), gzip_of(file)?)?;
    }
    Ok(())
}

/// Converts a file of the zip archive to gzip. Both formats wrap the same deflate stream, so nothing is recompressed.
///
/// # Source
/// RFC 1952 §2.3.
fn gzip_of(file: &str) -> Result<Vec<u8>, Box<dyn Error>> {
    let mut archive = ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED))?;
    let wanted = format!("/dist/{file}");
    let index = (0..archive.len()).find(|&index| {
        archive.by_index_raw(index).is_ok_and(|entry| entry.name().is_ok_and(|name| name.ends_with(&wanted)))
    });
    let mut entry = archive.by_index_raw(index.ok_or_else(|| format!("the crate has no file {wanted}"))?)?;
    if entry.compression() != CompressionMethod::DEFLATE {
        return Err(format!("{wanted} is not compressed with deflate").into());
    }
    // Deflate, no flags, no time, no level, system unknown.
    let mut gzip = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let (crc, size) = (entry.crc32(), u32::try_from(entry.size())?);
    entry.read_to_end(&mut gzip)?;
    gzip.extend(crc.to_le_bytes());
    gzip.extend(size.to_le_bytes());
    Ok(gzip)
}
