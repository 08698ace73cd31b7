//! Adds libtorch's folder to the worker's run path and compiles the C++ code for what tch lacks.
//!
//! The worker then starts without LD_LIBRARY_PATH. LD_LIBRARY_PATH overrides a run path, so one binary can use another
//! libtorch.

use std::path::{Path, PathBuf};

/// libtorch's switches, and TorchScript.
const SOURCES: [&str; 2] = ["switches.cpp", "script.cpp"];

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    for file in SOURCES {
        println!("cargo:rerun-if-changed={file}");
    }
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
        println!("cargo:rustc-env=ATFLOW_LIBTORCH_LIB={lib}");
        // Like torch-sys: the headers are next to the libraries unless overridden.
        let beside = || Path::new(&lib).parent().map(Path::to_path_buf).unwrap_or_default();
        let root = std::env::var_os("LIBTORCH_INCLUDE").map_or_else(beside, PathBuf::from);
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").warnings(false).include(root.join("include")).files(SOURCES);
        build.compile("switches");
    }
}
