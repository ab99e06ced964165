//! The account that PostgreSQL runs under when we are root, because its programs refuse to run as root.
//!
//! `postgres` where a package created it, else `nobody`. PostgreSQL's own message about a folder that this account cannot
//! enter names neither the folder nor the remedy, so that is checked first.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use rustix::process::getuid;

use crate::error::{At, DevError};

const NOBODY: Account = Account { uid: 65534, gid: 65534 };

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    uid: u32,
    gid: u32,
}

impl Account {
    /// `None` when we are not root and need no other account.
    pub(crate) fn for_postgres() -> Option<Self> {
        let known = fs::read_to_string("/etc/passwd").unwrap_or_default();
        getuid().is_root().then(|| named("postgres", &known).unwrap_or(NOBODY))
    }

    pub(crate) fn apply(self, command: &mut Command) {
        command.uid(self.uid).gid(self.gid);
    }

    pub(crate) fn own(self, path: &Path) -> Result<(), DevError> {
        std::os::unix::fs::chown(path, Some(self.uid), Some(self.gid)).at(path)
    }

    /// An error unless the account can enter the folder and everything above it.
    pub(crate) fn check_access(self, folder: &Path) -> Result<(), DevError> {
        for ancestor in folder.ancestors().filter(|path| !path.as_os_str().is_empty()) {
            let metadata = fs::metadata(ancestor).at(ancestor)?;
            let needed = match (metadata.uid() == self.uid, metadata.gid() == self.gid) {
                (true, _) => 0o100,
                (false, true) => 0o010,
                (false, false) => 0o001,
            };
            if metadata.mode() & needed == 0 {
                return Err(DevError::Unavailable(format!(
                    "PostgreSQL does not run as root, and the account it runs under cannot enter {}; set \
                     PURSE_DEV_DIR to a folder under /var/tmp",
                    ancestor.display()
                )));
            }
        }
        Ok(())
    }
}

fn named(name: &str, passwd: &str) -> Option<Account> {
    let line = passwd.lines().find(|line| line.split(':').next() == Some(name))?;
    let mut ids = line.split(':').skip(2);
    Some(Account { uid: ids.next()?.parse().ok()?, gid: ids.next()?.parse().ok()? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::tests::fresh_path;

    const PASSWD: &str = "root:x:0:0:root:/root:/bin/bash\npostgresql:x:7:8::/:/x\npostgres:x:102:104:PostgreSQL,,,:/var/lib/postgresql:/bin/bash\n";

    #[test]
    fn the_account_is_found_by_its_whole_name() {
        assert_eq!(named("postgres", PASSWD), Some(Account { uid: 102, gid: 104 }));
        assert_eq!(named("postgre", PASSWD), None);
        assert_eq!(named("postgres", "postgres:x:notanumber:104::/:/x"), None);
    }

    #[test]
    fn a_closed_folder_is_named() {
        let closed = fresh_path();
        fs::create_dir_all(closed.join("inner")).unwrap();
        fs::set_permissions(&closed, std::os::unix::fs::PermissionsExt::from_mode(0o700)).unwrap();
        let stranger = Account { uid: 4_000_000, gid: 4_000_000 };
        let refused = stranger.check_access(&closed.join("inner"));
        fs::remove_dir_all(&closed).unwrap();
        let expected = format!("cannot enter {};", closed.display());
        assert!(matches!(&refused, Err(DevError::Unavailable(text)) if text.contains(&expected)), "{refused:?}");
    }
}
