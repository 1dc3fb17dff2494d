//! Generates the peers' interfaces from `schema/`; nothing without the feature `peers`.
#![forbid(unsafe_code)]

#[cfg(feature = "peers")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=schema");
    tonic_prost_build::configure().compile_protos(&["schema/bench.proto"], &["schema"])?;
    capnpc::CompilerCommand::new()
        .src_prefix("schema")
        .file("schema/bench.capnp")
        .run()?;
    Ok(())
}

#[cfg(not(feature = "peers"))]
fn main() {}
