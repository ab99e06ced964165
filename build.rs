//! Tells cargo that a new migration is a reason to build again; it notices changed ones by itself.

fn main() {
    println!("cargo:rerun-if-changed=migrations");
}
