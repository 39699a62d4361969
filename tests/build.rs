//! Turns every folder of `cases/` and every file of `slt/` into a test function: adding one is all that a new test takes.

use std::{env, fs, path::Path};

fn main() {
    let root = env::var("CARGO_MANIFEST_DIR").expect("cargo sets CARGO_MANIFEST_DIR");
    let out = env::var("OUT_DIR").expect("cargo sets OUT_DIR");
    for (folder, runner) in [("cases", "crate::case::run"), ("slt", "crate::slt::run")] {
        let path = Path::new(&root).join(folder);
        println!("cargo::rerun-if-changed={}", path.display());
        let mut names: Vec<String> = fs::read_dir(&path)
            .expect("the folder is part of the repository")
            .map(|entry| entry.expect("readable").file_name().into_string().expect("names are UTF-8"))
            .filter(|name| folder != "cases" || path.join(name).join("case.toml").exists())
            .collect();
        names.sort();
        let tests: String = names
            .iter()
            .map(|name| {
                let function = name.trim_end_matches(".slt").replace(|c: char| !c.is_ascii_alphanumeric(), "_");
                format!("#[test]\nfn {function}() {{\n    {runner}(\"{name}\");\n}}\n")
            })
            .collect();
        fs::write(Path::new(&out).join(format!("{folder}.rs")), tests).expect("OUT_DIR is writable");
    }
}
