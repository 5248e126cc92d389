//! Minting bootstrap tokens from the state folder, beside a control plane that runs or before it first does.

use std::path::Path;
use std::time::{Duration, SystemTime};

use mesh_api::identity::SpiffeId;
use mesh_ca::store::StoreError;
use mesh_ca::store::file::FileStore;
use mesh_ca::token::{TokenKeys, TokenKeysError};
use zeroize::Zeroizing;

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum MintError {
    /// The keys cannot be read or made.
    #[error("the keys of bootstrap tokens cannot be used")]
    Keys(#[source] TokenKeysError),
    /// The folder cannot be opened, to make keys in it.
    #[error("the state folder cannot be opened")]
    Store(#[source] StoreError),
}

/// A token with which a workload of this identity gets its first certificate. The keys are those of the control plane that
/// uses the folder; where none has used it yet, they are made, and the control plane finds them.
///
/// # Errors
/// When the folder, or the keys in it, cannot be used.
pub fn mint(
    state_dir: &Path,
    identity: &SpiffeId,
    ttl: Duration,
    now: SystemTime,
) -> Result<Zeroizing<String>, MintError> {
    let keys = match TokenKeys::load(&FileStore::read_only(state_dir)).map_err(MintError::Keys)? {
        Some(keys) => keys,
        None => {
            let store = FileStore::open(state_dir).map_err(MintError::Store)?;
            TokenKeys::load_or_create(&store).map_err(MintError::Keys)?
        }
    };
    keys.mint(identity, ttl, now).map_err(MintError::Keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_minted_before_the_first_start_is_accepted_after_it() {
        let root = tempfile::tempdir().unwrap();
        let state = root.path().join("state");
        let identity = SpiffeId::parse("spiffe://cluster.local/ns/shop/sa/web").unwrap();
        let now = SystemTime::now();
        let token = mint(&state, &identity, Duration::from_secs(60), now).unwrap();
        let store = FileStore::open(&state).unwrap();
        let keys = TokenKeys::load_or_create(&store).unwrap();
        assert_eq!(keys.verify(&token, now).unwrap().identity, identity);
        // And while the control plane holds the folder.
        let token = mint(&state, &identity, Duration::from_secs(60), now).unwrap();
        assert!(keys.verify(&token, now).is_ok());
    }
}
