//! Just enough of the tar format (POSIX ustar) for images: fixed owner and time, so that equal contents are equal bytes.

use anyhow::{Context, Result, bail};
use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

/// Size of a block; headers take one, contents are padded to it.
const BLOCK: usize = 512;

/// Writes entries one after the other.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    out: W,
}

impl<W: Write> Writer<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out }
    }

    pub(crate) fn folder(&mut self, path: &str) -> Result<()> {
        self.header(&format!("{path}/"), b'5', 0, 0o755, "")
    }

    pub(crate) fn link(&mut self, path: &str, to: &str) -> Result<()> {
        self.header(path, b'2', 0, 0o777, to)
    }

    pub(crate) fn bytes(&mut self, path: &str, bytes: &[u8]) -> Result<()> {
        let size = u64::try_from(bytes.len()).context("a length")?;
        self.header(path, b'0', size, 0o644, "")?;
        self.out.write_all(bytes)?;
        self.pad(size)
    }

    pub(crate) fn file(&mut self, path: &str, mode: u32, from: &Path) -> Result<()> {
        let mut file = File::open(from).with_context(|| format!("opening {}", from.display()))?;
        let size = file.metadata()?.len();
        self.header(path, b'0', size, mode, "")?;
        let copied = io::copy(&mut file, &mut self.out).with_context(|| format!("reading {}", from.display()))?;
        if copied != size {
            bail!("{} changed while it was read", from.display());
        }
        self.pad(size)
    }

    /// Two empty blocks end an archive.
    pub(crate) fn finish(mut self) -> Result<W> {
        self.out.write_all(&[0; 2 * BLOCK])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn pad(&mut self, size: u64) -> Result<()> {
        let over = usize::try_from(size % BLOCK as u64)?;
        Ok(self.out.write_all(&[0; BLOCK][..(BLOCK - over) % BLOCK])?)
    }

    fn header(&mut self, path: &str, kind: u8, size: u64, mode: u32, link: &str) -> Result<()> {
        let mut block = [0_u8; BLOCK];
        put(&mut block, 0, 100, path)?;
        put(&mut block, 100, 8, &format!("{mode:07o}"))?;
        put(&mut block, 108, 8, "0000000")?;
        put(&mut block, 116, 8, "0000000")?;
        put(&mut block, 124, 12, &format!("{size:011o}"))?;
        put(&mut block, 136, 12, "00000000000")?;
        put(&mut block, 148, 8, "        ")?;
        block[156] = kind;
        put(&mut block, 157, 100, link)?;
        put(&mut block, 257, 6, "ustar")?;
        put(&mut block, 263, 2, "00")?;
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        put(&mut block, 148, 8, &format!("{sum:06o}\0 "))?;
        Ok(self.out.write_all(&block)?)
    }
}

fn put(block: &mut [u8; BLOCK], at: usize, room: usize, text: &str) -> Result<()> {
    let Some(field) = block.get_mut(at..at + room).and_then(|field| field.get_mut(..text.len())) else {
        bail!("`{text}` has no room in a tar header ({room} bytes)");
    };
    field.copy_from_slice(text.as_bytes());
    Ok(())
}
