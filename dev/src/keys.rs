//! The keys of the roles: random, generated once into the state folder and reused.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use crate::error::{At, DevError};
use crate::folder::write_private;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Keys {
    /// Signs access tokens.
    pub access: String,
    /// Signs events between the roles.
    pub events: String,
    /// Signs receipts. Empty in the file of an earlier release.
    #[serde(default)]
    pub receipts: String,
}

impl Keys {
    pub(crate) fn load_or_generate(folder: &Path) -> Result<Self, DevError> {
        let path = folder.join("keys.json");
        let stored: Option<Self> = serde_json::from_str(&fs::read_to_string(&path).unwrap_or_default()).ok();
        let keys = match stored {
            Some(keys) if !keys.receipts.is_empty() => return Ok(keys),
            Some(keys) => Self { receipts: STANDARD.encode(random()?), ..keys },
            None => Self { access: random_key()?, events: random_key()?, receipts: STANDARD.encode(random()?) },
        };
        let text = serde_json::to_string(&keys).map_err(|error| DevError::Failed(error.to_string()))?;
        write_private(&path, &text)?;
        Ok(keys)
    }
}

/// 64 hexadecimal characters.
fn random_key() -> Result<String, DevError> {
    Ok(random()?.iter().fold(String::new(), |text, byte| text + &format!("{byte:02x}")))
}

fn random() -> Result<[u8; 32], DevError> {
    let source = Path::new("/dev/urandom");
    let mut bytes = [0; 32];
    File::open(source).and_then(|mut file| file.read_exact(&mut bytes)).at(source)?;
    Ok(bytes)
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
        let earlier = format!(r#"{{"access":"{}","events":"{}"}}"#, first.access, first.events);
        fs::write(folder.join("keys.json"), earlier).unwrap();
        let upgraded = Keys::load_or_generate(&folder).unwrap();
        let kept = Keys::load_or_generate(&folder).unwrap();
        fs::remove_file(folder.join("keys.json")).unwrap();
        let others = Keys::load_or_generate(&folder).unwrap();
        fs::remove_dir_all(&folder).unwrap();
        assert_eq!(first, second);
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!((&upgraded.access, &upgraded.events), (&first.access, &first.events));
        assert!(kept == upgraded && upgraded.receipts != first.receipts);
        assert_eq!(STANDARD.decode(&first.receipts).unwrap().len(), 32);
        assert!(first.access.len() == 64 && first.access != first.events && first.access != others.access);
    }
}
