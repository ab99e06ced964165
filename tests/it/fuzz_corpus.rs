//! Runs the fuzz targets without a fuzzer: on their corpus and on some thousand mutations of it. `just fuzz` searches
//! further.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

#[path = "../../fuzz/src/lib.rs"]
mod targets;

use targets::TARGETS;

/// Mutations per target.
const MUTATIONS: usize = 5_000;
/// Seeds that each target must have.
const SEEDS_MIN: usize = 5;
/// Parts that parsers often mishandle.
const HARD_INPUTS: [&[u8]; 18] = [
    b"\0",
    b"\n",
    b"\"",
    b"\\",
    b"{",
    b"}",
    b"[",
    b"]",
    b",",
    b":",
    b"-",
    b"0",
    b"9999999999999999999",
    b"1e999",
    b"\xff",
    b"\\u0000",
    b"\\ud800",
    "\u{feff}".as_bytes(),
];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz")
}

fn corpus(target: &str) -> Vec<Vec<u8>> {
    let entries = fs::read_dir(folder().join("corpus").join(target)).expect("a corpus");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("entry").path()).collect();
    paths.sort();
    paths.iter().map(|path| fs::read(path).expect("a seed")).collect()
}

fn run(name: &str, target: fn(&[u8]), bytes: &[u8]) {
    // The panic message is on stderr; the bytes reproduce it.
    assert!(catch_unwind(|| target(bytes)).is_ok(), "{name} panics on {:?}", String::from_utf8_lossy(bytes));
}

#[test]
fn no_target_panics_on_its_corpus() {
    for (name, target) in TARGETS {
        let seeds = corpus(name);
        assert!(seeds.len() >= SEEDS_MIN, "{name} has {} seeds", seeds.len());
        for seed in &seeds {
            run(name, target, seed);
        }
    }
}

#[test]
fn no_target_panics_on_mutations_of_its_corpus() {
    let mut random = fastrand::Rng::new();
    for (name, target) in TARGETS {
        let seeds = corpus(name);
        for _ in 0..MUTATIONS {
            let mut bytes = seeds[random.usize(..seeds.len())].clone();
            for _ in 0..random.usize(1..5) {
                let other = &seeds[random.usize(..seeds.len())];
                mutate(&mut random, &mut bytes, other);
            }
            run(name, target, &bytes);
        }
    }
}

fn mutate(random: &mut fastrand::Rng, bytes: &mut Vec<u8>, other: &[u8]) {
    let at = random.usize(..=bytes.len());
    let end = random.usize(at..=bytes.len());
    match random.u8(..6) {
        0 if at < bytes.len() => bytes[at] ^= 1 << random.u8(..8),
        1 => drop(bytes.drain(at..end)),
        2 => {
            let twice = bytes[at..end].to_vec();
            bytes.splice(at..at, twice);
        }
        3 => {
            bytes.truncate(at);
            bytes.extend_from_slice(&other[other.len() - random.usize(..=other.len())..]);
        }
        4 => bytes.insert(at, random.u8(..)),
        _ => drop(bytes.splice(at..at, HARD_INPUTS[random.usize(..HARD_INPUTS.len())].iter().copied())),
    }
}

#[test]
fn every_target_has_a_fuzz_program_and_a_corpus() {
    let names: BTreeSet<&str> = TARGETS.iter().map(|(name, _)| *name).collect();
    let manifest = fs::read_to_string(folder().join("Cargo.toml")).expect("manifest");
    let programs: BTreeSet<&str> = manifest
        .split("[[bin]]")
        .skip(1)
        .filter_map(|part| part.split_once("name = \"")?.1.split_once('"').map(|(name, _)| name))
        .collect();
    assert_eq!(programs, names);
    let folders: BTreeSet<String> = fs::read_dir(folder().join("corpus"))
        .expect("corpus")
        .map(|entry| entry.expect("entry").file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(folders.iter().map(String::as_str).collect::<BTreeSet<_>>(), names);
    for name in names {
        let program = fs::read_to_string(folder().join("fuzz_targets").join(format!("{name}.rs"))).expect("a program");
        assert!(program.contains(&format!("purse_fuzz::{name}(bytes)")), "{name}: {program}");
    }
}

#[test]
fn a_panicking_target_is_reported_with_its_input() {
    let panic = catch_unwind(|| run("never", |bytes| assert!(bytes.is_empty()), b"x")).expect_err("a panic");
    let message = panic.downcast_ref::<String>().expect("a text");
    assert_eq!(message, "never panics on \"x\"");
}
