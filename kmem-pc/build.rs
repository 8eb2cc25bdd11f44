//! Links a kernel with the compiler that is there: no C library, no start files, our own layout.

fn main() {
    let here = std::env::var("CARGO_MANIFEST_DIR").expect("cargo sets it");
    println!("cargo:rerun-if-changed=kernel.ld");
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie"] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
    println!("cargo:rustc-link-arg-bins=-Wl,-T,{here}/kernel.ld");
    for argument in [
        "--build-id=none",
        "-z,max-page-size=4096",
        "-z,noexecstack",
        "--no-dynamic-linker",
        "--gc-sections",
    ] {
        println!("cargo:rustc-link-arg-bins=-Wl,{argument}");
    }
}
