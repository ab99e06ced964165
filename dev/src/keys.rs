//! The keys of the roles: random, generated once into the state folder and reused.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::{At, DevError};
use crate::folder::write_private;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Keys {
    /// Signs access tokens.
    pub access: String,
    /// Signs events between the roles.
    pub events: String,
}

impl Keys {
    pub(crate) fn load_or_generate(folder: &Path) -> Result<Self, DevError> {
        let path = folder.join("keys.json");
        if let Ok(keys) = serde_json::from_str(&fs::read_to_string(&path).unwrap_or_default()) {
            return Ok(keys);
        }
        let keys = Self { access: random_key()?, events: random_key()? };
        let text = serde_json::to_string(&keys).map_err(|error| DevError::Failed(error.to_string()))?;
        write_private(&path, &text)?;
        Ok(keys)
    }
}

/// 64 hexadecimal characters.
fn random_key() -> Result<String, DevError> {
    let source = Path::new("/dev/urandom");
    let mut random = [[0; 16]; 2];
    File::open(source).and_then(|mut file| file.read_exact(random.as_flattened_mut())).at(source)?;
    let [first, second] = random.map(u128::from_ne_bytes);
    Ok(format!("{first:032x}{second:032x}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::folder::tests::fresh_path;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_random_private_and_kept() {
        let folder = fresh_path();
        fs::create_dir(&folder).unwrap();
        let first = Keys::load_or_generate(&folder).unwrap();
        let mode = fs::metadata(folder.join("keys.json")).unwrap().permissions().mode();
        let second = Keys::load_or_generate(&folder).unwrap();
        fs::remove_file(folder.join("keys.json")).unwrap();
        let others = Keys::load_or_generate(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(first, second);
        assert_eq!(mode & 0o777, 0o600);
        assert!(first.access.len() == 64 && first.access != first.events && first.access != others.access);
    }
}
