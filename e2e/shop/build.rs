//! Compiles the shop's protocol with a compiler written in Rust, so that no `protoc` is needed.

use anyhow::{Context, Result};

fn main() -> Result<()> {
    println!("cargo::rerun-if-changed=proto/shop.proto");
    let files = protox::compile(["proto/shop.proto"], ["proto"]).context("compiling proto/shop.proto")?;
    tonic_prost_build::configure().compile_fds(files).context("generating code for proto/shop.proto")
}
