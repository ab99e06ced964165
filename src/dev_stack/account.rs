//! The account that PostgreSQL runs under when we are root, because its programs refuse root.
//!
//! `postgres` where a package made it, else the traditional nobody. The account has to pass through every folder above
//! its data, which is checked first: PostgreSQL's own message about it names neither the folder nor the way out.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::getuid;

use super::error::DevStackError;

const NOBODY: Account = Account { uid: 65534, gid: 65534 };

/// A user and its main group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// The account to change to, `None` when we are not root and need none.
    pub(super) fn for_postgres() -> Option<Self> {
        let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
        getuid().is_root().then(|| named("postgres", &known).unwrap_or(NOBODY))
    }

    /// Lets the command run as this account.
    pub(super) fn apply(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    /// Hands a file or folder to this account.
    pub(super) fn give(self, path: &Path) -> Result<(), DevStackError> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid)).map_err(|e| DevStackError::file(path, e))
    }

    /// Whether the account can pass through the folder and everything above it.
    pub(super) fn check_passage(self, folder: &Path) -> Result<(), DevStackError> {
        for ancestor in folder.ancestors().filter(|path| !path.as_os_str().is_empty()) {
            let metadata = fs::metadata(ancestor).map_err(|e| DevStackError::file(ancestor, e))?;
            let needed = match (metadata.uid() == self.uid, metadata.gid() == self.gid) {
                (true, _) => 0o100,
                (false, true) => 0o010,
                (false, false) => 0o001,
            };
            if metadata.mode() & needed == 0 {
                return Err(DevStackError::NotTraversable { path: ancestor.to_path_buf() });
            }
        }
        Ok(())
    }
}

/// The account of that name in the text of /etc/passwd.
fn named(name: &str, passwd: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        if fields.next()? != name {
            return None;
        }
        let uid = fields.nth(1)?.parse().ok()?;
        Some(Account { uid, gid: fields.next()?.parse().ok()? })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\npostgresql:x:7:8::/:/x\npostgres:x:102:104:PostgreSQL,,,:/var/lib/postgresql:/bin/bash\n";

    #[test]
    fn the_account_is_found_by_its_whole_name() {
        assert_eq!(named("postgres", PASSWD), Some(Account { uid: 102, gid: 104 }));
        assert_eq!(named("postgre", PASSWD), None);
        assert_eq!(named("postgres", "postgres:x:notanumber:104::/:/x"), None);
    }

    #[test]
    fn a_closed_folder_is_named() {
        let closed = std::env::temp_dir().join(format!("purse-closed-{}", std::process::id()));
        fs::create_dir_all(closed.join("inner")).unwrap();
        fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let stranger = Account { uid: 4_000_000, gid: 4_000_000 };
        let refused = stranger.check_passage(&closed.join("inner"));
        fs::remove_dir_all(&closed).unwrap();
        assert!(matches!(refused, Err(DevStackError::NotTraversable { path }) if path == closed));
    }
}
