//! The file that the tour copies, and a place for the copy.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::console::size;
use crate::exit::Exit;

/// How large a file is made where none is given.
const BYTES: u64 = 8 << 20;

/// A file, and a folder of its own for what the tour writes. The folder goes away with this.
pub struct Sample {
    /// The file that is copied.
    pub file: PathBuf,
    /// How many bytes it has.
    pub bytes: u64,
    folder: PathBuf,
}

impl Sample {
    /// A file that is there, for a machine with so many bytes of RAM.
    pub fn existing(path: &Path, ram: u64) -> Result<Self, Exit> {
        let bad = |why: String| Exit::BadInput(format!("--file {}: {why}", path.display()));
        // It is opened here, so that one that cannot be read is found before anything is done.
        let metadata = fs::metadata(path).map_err(|error| bad(error.to_string()))?;
        if metadata.is_dir() {
            return Err(bad("it is a directory: give a file".into()));
        }
        if !metadata.is_file() {
            return Err(bad("it is no ordinary file: give one that has a size".into()));
        }
        if metadata.len() == 0 {
            return Err(bad("it is empty: give a file that has something in it".into()));
        }
        // The rest is for descriptors, tables and what the devices note of the file.
        let most = ram / 8 * 7;
        if metadata.len() > most {
            return Err(bad(format!(
                "its {} do not fit the machine's RAM of {}: give a file of up to {}",
                size(metadata.len()),
                size(ram),
                size(most)
            )));
        }
        File::open(path).map_err(|error| bad(error.to_string()))?;
        Ok(Sample { file: path.to_owned(), bytes: metadata.len(), folder: folder()? })
    }

    /// A new one, of bytes that no page repeats.
    pub fn make() -> Result<Self, Exit> {
        let folder = folder()?;
        let sample = Sample { file: folder.join("sample"), bytes: BYTES, folder };
        write(&sample.file, BYTES)?;
        Ok(sample)
    }

    /// How many bytes the texts copied from one device to another.
    pub const FOUR_MEGABYTES: u64 = 4 << 20;

    /// A file of so many bytes.
    pub fn four_megabytes(&self) -> Result<PathBuf, Exit> {
        let file = self.folder.join("4MB");
        write(&file, Self::FOUR_MEGABYTES)?;
        Ok(file)
    }

    /// Where the copy goes.
    pub fn copy(&self) -> PathBuf {
        self.place("copy")
    }

    /// Where something else of the tour's goes.
    pub fn place(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Sample {
    fn drop(&mut self) {
        // What cannot be removed is in the folder for temporary files, where it does no harm.
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Writes a file of bytes that no page repeats.
fn write(path: &Path, bytes: u64) -> Result<(), Exit> {
    let written = File::create(path).and_then(|file| {
        let mut out = BufWriter::new(file);
        let mut x = 1u64;
        for _ in 0..bytes / 8 {
            // Knuth's linear congruential generator for 64 bits.
            x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            out.write_all(&x.to_le_bytes())?;
        }
        out.flush()
    });
    written.map_err(|error| Exit::Failed(format!("cannot write {}: {error}", path.display())))
}

fn folder() -> Result<PathBuf, Exit> {
    let folder = std::env::temp_dir().join(format!("kmem-{}", std::process::id()));
    fs::create_dir_all(&folder)
        .map_err(|error| Exit::Failed(format!("cannot make {}: {error}", folder.display())))?;
    Ok(folder)
}
