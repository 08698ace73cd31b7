//! Writes libtorch's folder into the worker's run path, so that it starts without LD_LIBRARY_PATH, and compiles the few
//! lines of C++ that set libtorch's switches. LD_LIBRARY_PATH still wins over a run path: that is how one binary meets
//! another libtorch.

use std::path::{Path, PathBuf};

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    println!("cargo:rerun-if-env-changed=LIBTORCH_INCLUDE");
    println!("cargo:rerun-if-changed=switches.cpp");
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
        println!("cargo:rustc-env=ATFLOW_LIBTORCH_LIB={lib}");
        // As torch-sys has it: the headers lie beside the libraries unless somebody says otherwise.
        let beside = || Path::new(&lib).parent().map(Path::to_path_buf).unwrap_or_default();
        let root = std::env::var_os("LIBTORCH_INCLUDE").map_or_else(beside, PathBuf::from);
        let mut build = cc::Build::new();
        build.cpp(true).std("c++17").warnings(false).include(root.join("include")).file("switches.cpp");
        build.compile("switches");
    }
}
