//! Where the server programs are on this machine, and the command that installs them where they are missing.
//!
//! An explicit environment variable wins, then PATH, then the folders of the Debian and Homebrew packages that are not on
//! PATH.

use std::env;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};

use crate::error::DevError;
use crate::hints::variable;

const BREW_PREFIXES: [&str; 3] = ["/opt/homebrew", "/usr/local", "/home/linuxbrew/.linuxbrew"];

#[derive(Clone, Debug)]
pub(crate) struct Programs {
    /// The folder of `initdb`, `postgres` and `psql`.
    pub postgres_bin: PathBuf,
    /// `rabbitmq-server` itself, not a wrapper that changes user.
    pub rabbitmq_server: PathBuf,
    /// Erlang's port mapper, which a RabbitMQ node registers with.
    pub epmd: PathBuf,
}

impl Programs {
    /// An error names everything that is missing.
    pub(crate) fn locate() -> Result<Self, DevError> {
        let (postgres_bin, rabbitmq) = (postgres_bin_dir(), rabbitmq_server().zip(epmd()));
        let missing = match (&postgres_bin, &rabbitmq) {
            (None, None) => "PostgreSQL and RabbitMQ are",
            (None, Some(_)) => "PostgreSQL is",
            _ => "RabbitMQ is",
        };
        match (postgres_bin, rabbitmq) {
            (Some(postgres_bin), Some((rabbitmq_server, epmd))) => Ok(Self { postgres_bin, rabbitmq_server, epmd }),
            _ => Err(DevError::Unavailable(format!("{missing} not installed; {}", remedy()))),
        }
    }
}

fn remedy() -> &'static str {
    if cfg!(target_os = "macos") {
        "type: brew install postgresql@17 rabbitmq"
    } else if Path::new("/usr/bin/apt-get").exists() {
        "type: sudo apt-get install -y --no-install-recommends postgresql rabbitmq-server"
    } else {
        "install both servers with this system's package manager, or name them with PG_BIN_DIR and RABBITMQ_SERVER"
    }
}

fn postgres_bin_dir() -> Option<PathBuf> {
    let complete = |dir: &PathBuf| ["initdb", "postgres", "psql"].iter().all(|name| dir.join(name).is_file());
    if let Some(named) = variable("PG_BIN_DIR") {
        return Some(PathBuf::from(named)).filter(complete);
    }
    // PATH has a link; the other programs are beside its target.
    let on_path = on_path("initdb").and_then(|found| found.canonicalize().ok()?.parent().map(Path::to_path_buf));
    let brewed = BREW_PREFIXES.iter().map(|prefix| newest_under(&Path::new(prefix).join("opt"), "postgresql", "bin"));
    std::iter::once(on_path)
        .chain(std::iter::once(newest_under(Path::new("/usr/lib/postgresql"), "", "bin")))
        .chain(brewed)
        .flatten()
        .find(complete)
}

fn rabbitmq_server() -> Option<PathBuf> {
    if let Some(named) = variable("RABBITMQ_SERVER") {
        return Some(PathBuf::from(named)).filter(|path| path.is_file());
    }
    // Debian's /usr/sbin/rabbitmq-server changes user and folder; the program behind it does neither.
    let packaged = PathBuf::from("/usr/lib/rabbitmq/bin/rabbitmq-server");
    let brewed = BREW_PREFIXES.iter().map(|prefix| Path::new(prefix).join("sbin/rabbitmq-server"));
    std::iter::once(packaged).chain(brewed).find(|path| path.is_file()).or_else(|| on_path("rabbitmq-server"))
}

fn epmd() -> Option<PathBuf> {
    let beside_erl = on_path("erl").and_then(|erl| Some(erl.canonicalize().ok()?.parent()?.join("epmd")));
    let brewed = BREW_PREFIXES.iter().flat_map(|prefix| {
        let prefix = Path::new(prefix);
        [Some(prefix.join("bin/epmd")), newest_under(&prefix.join("opt"), "erlang", "bin").map(|bin| bin.join("epmd"))]
    });
    [on_path("epmd"), beside_erl, Some(PathBuf::from("/usr/lib/erlang/bin/epmd"))]
        .into_iter()
        .chain(brewed)
        .flatten()
        .find(|path| path.is_file())
}

fn on_path(program: &str) -> Option<PathBuf> {
    env::split_paths(&env::var_os("PATH")?).map(|dir| dir.join(program)).find(|path| path.is_file())
}

/// `last` in the newest folder of `parent` that has it and whose name starts with `name_start`.
fn newest_under(parent: &Path, name_start: &str, last: &str) -> Option<PathBuf> {
    let mut found: Vec<(u32, PathBuf)> = fs::read_dir(parent)
        .ok()?
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(name_start))
        .map(|entry| (version_in(&entry.file_name()), entry.path().join(last)))
        .filter(|(_, path)| path.is_dir())
        .collect();
    found.sort();
    found.pop().map(|(_, path)| path)
}

/// The first number in a folder name: 17 of `postgresql@17`, 9 of `9.6`, 0 where there is none.
fn version_in(name: &OsStr) -> u32 {
    let name = name.to_string_lossy();
    let digits: String = name.chars().skip_while(|c| !c.is_ascii_digit()).take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_nine_is_older_than_fifteen() {
        let parent = crate::folder::tests::fresh_path();
        for version in ["9.6", "15", "10"] {
            fs::create_dir_all(parent.join(version).join("bin")).unwrap();
        }
        fs::create_dir_all(parent.join("18")).unwrap();
        let newest = newest_under(&parent, "", "bin");
        fs::remove_dir_all(&parent).unwrap();
        assert_eq!(newest, Some(parent.join("15/bin")));
    }

    #[test]
    fn the_version_is_read_from_a_brew_folder() {
        assert_eq!(version_in(OsStr::new("postgresql@17")), 17);
        assert_eq!(version_in(OsStr::new("erlang")), 0);
    }

    #[test]
    fn the_remedy_fits_on_one_line() {
        assert_eq!(remedy().lines().count(), 1);
    }
}
