//! Recipes check their arguments before they install or build anything, and `./justw` works wherever it is started.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::process::{Pid, Signal, kill_process_group};

use crate::support::repository;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn justw(arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new("./justw");
    command.args(arguments).current_dir(root()).envs(variables.iter().copied());
    command.output().expect("./justw")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim().to_owned()
}

/// A folder with executable scripts; dropping it deletes them.
struct Scripts(PathBuf);

impl Scripts {
    fn create(scripts: &[(&str, &str)]) -> Self {
        let folder = std::env::temp_dir().join(format!("purse-recipes-{}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir(&folder).expect("folder");
        for (name, script) in scripts {
            let path = folder.join(name);
            fs::write(&path, script).expect("script");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).expect("executable");
        }
        Self(folder)
    }
}

impl Drop for Scripts {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `PATH` with another folder; the first one wins.
fn path_with(first: &str, last: &str) -> String {
    format!("{first}:{}:{last}", std::env::var("PATH").expect("PATH"))
}

#[test]
fn an_invalid_argument_of_a_recipe_is_reported_before_anything_else() {
    for (arguments, message) in [
        (&["bench", "posts", "nosuch"][..], "parts: there is no `nosuch`; choose from: process posts "),
        (&["test-versions", "14"], "versions: there is no `14`; choose from: installed 16 17 18"),
        (&["fuzz", "abc"], "seconds: `abc` is not a whole number above 0"),
        (&["fuzz", "1", "nosuch"], "target: there is no `nosuch`; choose from: amount cursor "),
        (&["soak", "1; exit 0"], "seconds: `1; exit 0` is not a whole number above 0"),
        (&["fuzz-http", "$(exit 0)"], "requests: `$(exit 0)` is not a whole number above 0"),
        (&["schemathesis", "it's"], "examples: `it's` is not a whole number above 0"),
        (&["model", "0"], "sequences: `0` is not a whole number above 0"),
    ] {
        let Output { status, stdout, stderr } = justw(arguments, &[]);
        assert_eq!((status.code(), text(&stdout)), (Some(64), String::new()), "{arguments:?}: {}", text(&stderr));
        assert!(text(&stderr).starts_with(message), "{arguments:?}: {}", text(&stderr));
    }
}

#[test]
fn an_empty_variable_counts_as_unset() {
    // `./justw` looks for `just` in the cache folder that the test moves.
    let path = path_with("/nowhere", &format!("{}/bin", text(&justw(&["--evaluate", "tools"], &[]).stdout)));
    let (path, home) = (("PATH", path.as_str()), ("HOME", "/home/ada"));
    for (cache, target, expected) in
        [("", "", "/home/ada/.cache/purse/target"), ("/cache", "", "/cache/purse/target"), ("", "/target", "/target")]
    {
        let variables = [path, home, ("XDG_CACHE_HOME", cache), ("CARGO_TARGET_DIR", target)];
        let output = justw(&["--evaluate", "CARGO_TARGET_DIR"], &variables);
        assert_eq!(text(&output.stdout), expected, "{}", text(&output.stderr));
    }
}

/// With scripts in the place of `just` and of the stack, and without a terminal.
#[test]
fn the_stack_takes_the_place_of_justw_so_that_ctrl_c_ends_it_without_an_error() {
    let just = r#"#!/bin/sh
case "$*" in
  --version) echo just 1.99.0 ;;
  "--justfile $ROOT/justfile --working-directory $ROOT _up") ;;
  *"--evaluate purse-dev") echo "$STACK" ;;
  *) exit 1 ;;
esac
"#;
    let stack = "#!/bin/sh\ntrap 'exit 0' INT\necho \"$$ $JUST_COMMAND $(pwd)\"\nwhile :; do sleep 0.1; done\n";
    let scripts = Scripts::create(&[("just", just), ("stack", stack)]);
    let link = scripts.0.join("a link");
    symlink(root().join("justw"), &link).expect("link");
    let mut command = Command::new(&link);
    command.arg("up").current_dir("/").stdout(Stdio::piped()).process_group(0);
    command.env("PATH", path_with(&scripts.0.display().to_string(), "/nowhere"));
    let mut child = command.env("ROOT", root()).env("STACK", scripts.0.join("stack")).spawn().expect("./justw");
    let mut line = String::new();
    BufReader::new(child.stdout.take().expect("output")).read_line(&mut line).expect("line");
    kill_process_group(Pid::from_child(&child), Signal::INT).expect("signal");
    let status = child.wait().expect("status");
    assert_eq!(line.trim(), format!("{} {} {}", child.id(), link.display(), root().display()));
    assert_eq!(status.code(), Some(0));
}

/// The recipes, by name, as `just` reads them.
fn recipes() -> serde_json::Map<String, serde_json::Value> {
    let dump = justw(&["--dump", "--dump-format", "json"], &[]);
    let justfile: serde_json::Value = serde_json::from_slice(&dump.stdout).expect("JSON");
    justfile["recipes"].as_object().expect("recipes").clone()
}

#[test]
fn a_recipe_that_fails_prints_the_message_of_its_command_alone() {
    let recipes = recipes();
    assert!(recipes.len() > 40, "only {} recipes", recipes.len());
    for (name, recipe) in &recipes {
        let attributes = recipe["attributes"].as_array().expect("attributes");
        assert!(attributes.contains(&"no-exit-message".into()), "{name} has no attribute no-exit-message");
    }
}

#[test]
fn the_justfile_is_short_because_long_recipes_are_scripts() {
    let lines =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("justfile")).expect("justfile").lines().count();
    assert!(lines < 250, "{lines} lines: move what is long into a script beside what it serves");
}

#[test]
fn the_list_of_recipes_describes_each_and_fits_100_columns() {
    let list = text(&justw(&["--list", "--unsorted"], &[("JUST_COLOR", "never")]).stdout);
    let long: Vec<&str> = list.lines().filter(|line| line.chars().count() > 100).collect();
    assert!(long.is_empty(), "{}", long.join("\n"));
    for (name, recipe) in recipes().iter().filter(|(_, recipe)| recipe["private"] == false) {
        let doc = recipe["doc"].as_str().unwrap_or_else(|| panic!("{name} has no description"));
        assert!(list.contains(&format!("# {doc}")), "{name} is not listed with `{doc}`");
    }
}

/// `just test` runs the tests of a feature by the names of these modules.
#[test]
fn tests_that_need_a_feature_are_in_the_modules_that_are_run_with_it() {
    const MAIN: &str = "tests/it/main.rs";
    let gate = ["cfg(", "feature"].concat();
    let sources = repository::sources("tests/it").into_iter();
    let gated: Vec<String> = sources.filter(|name| name != MAIN && repository::text(name).contains(&gate)).collect();
    assert_eq!(gated, [""; 0]);
    let main = repository::text(MAIN);
    let modules: Vec<&str> =
        main.split(&format!("#[{gate} = ")).skip(1).filter_map(|rest| rest.lines().nth(1)).collect();
    assert_eq!(modules, ["mod faults;", "mod otlp;"]);
}
