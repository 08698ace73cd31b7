//! Writes libtorch's folder into the worker's run path, so that it starts without LD_LIBRARY_PATH.
//! LD_LIBRARY_PATH still wins over a run path: that is how one binary meets another libtorch.

fn main() {
    println!("cargo:rerun-if-env-changed=LIBTORCH");
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
        println!("cargo:rustc-env=ATFLOW_LIBTORCH_LIB={lib}");
    }
}
