//! Bootstrap tokens: how a workload outside Kubernetes asks for its first certificate.
//!
//! A token is a JWT signed with HMAC-SHA256 by the control plane for itself: it is bound to one workload identity (trust
//! domain, namespace, service account), to the audience `istio-ca`, to a short time, and carries an id. Afterwards the
//! workload renews with its certificate, and an expired token does no harm. Only our own signing algorithm and our own
//! keys are accepted; a token is not looked into before its signature is right.

use std::fmt;
use std::time::{Duration, SystemTime};

use aws_lc_rs::{hmac, rand};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use mesh_api::identity::SpiffeId;
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::cert::hex;
use crate::store::{Store, StoreError, Visibility};
use crate::time::{from_unix, to_unix};

/// Who the tokens are for (Istio: `TOKEN_AUDIENCES`).
pub const AUDIENCE: &str = "istio-ca";
/// Lifetime of a token that nobody asked otherwise for (Istio: `--tokenDuration`).
pub const DEFAULT_TTL: Duration = Duration::from_secs(3600);
/// The longest lifetime of a token.
pub const MAX_TTL: Duration = Duration::from_secs(24 * 3600);
/// Largest token read, in bytes.
pub const MAX_TOKEN_BYTES: usize = 4096;
/// How far the clock that signed may be ahead of the one that verifies.
const CLOCK_SKEW: Duration = Duration::from_secs(60);
/// Name of the entry in the store.
const ENTRY: &str = "token-keys";
/// Bytes of a signing key: the output size of its hash (RFC 7518, section 3.2).
const KEY_BYTES: usize = 32;
/// Keys kept after they were replaced.
const MAX_KEYS: usize = 4;

/// One signing key. Wiped when dropped, never shown.
struct TokenKey {
    /// Names the key in the header of a token.
    id: String,
    secret: Zeroizing<[u8; KEY_BYTES]>,
}

/// The keys that sign (the first) and verify (all) tokens.
pub struct TokenKeys {
    keys: Vec<TokenKey>,
}

/// What a valid token says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// The workload that may use it.
    pub identity: SpiffeId,
    /// Its own name, for logs.
    pub id: String,
    /// Last second of its validity.
    pub expires: SystemTime,
}

/// Why a token is not accepted. Never quotes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Larger than [`MAX_TOKEN_BYTES`].
    #[error("the token is larger than {MAX_TOKEN_BYTES} bytes")]
    TooLarge,
    /// Not three parts of base64.
    #[error("the token is malformed")]
    Malformed,
    /// Signed by somebody else, with another algorithm, or with a key that was withdrawn.
    #[error("the token is not signed by this control plane")]
    UnknownKey,
    /// Changed after it was signed.
    #[error("the token's signature is wrong")]
    Signature,
    /// For something else.
    #[error("the token is not meant for {AUDIENCE}")]
    Audience,
    /// Too old.
    #[error("the token has expired")]
    Expired,
    /// From the future: a clock is wrong.
    #[error("the token is not valid yet")]
    NotYetValid,
}

/// Why the keys could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum TokenKeysError {
    /// The store failed.
    #[error("the keys of bootstrap tokens are not available")]
    Store(#[source] StoreError),
    /// The entry is no list of keys.
    #[error("line {line} of {ENTRY} in the state folder is no key; remove the file to have a new one made")]
    Malformed {
        /// Which line, from 1.
        line: usize,
    },
    /// No randomness.
    #[error("the crypto library could not make a key")]
    Library,
}

/// The claims on the wire (RFC 7519).
#[derive(Serialize, Deserialize)]
struct Wire {
    iss: String,
    sub: SpiffeId,
    aud: [String; 1],
    iat: i64,
    exp: i64,
    jti: String,
}

impl TokenKeys {
    /// New keys that nobody else knows.
    ///
    /// # Errors
    /// Without randomness.
    pub fn generate() -> Result<Self, TokenKeysError> {
        Ok(Self { keys: vec![TokenKey::generate()?] })
    }

    /// The keys of the store; new ones, stored at once, when there are none.
    ///
    /// # Errors
    /// When the store fails or holds something else.
    pub fn load_or_create(store: &dyn Store) -> Result<Self, TokenKeysError> {
        if let Some(keys) = Self::load(store)? {
            return Ok(keys);
        }
        let keys = Self::generate()?;
        keys.save(store)?;
        Ok(keys)
    }

    /// The keys of the store, if it has some.
    ///
    /// # Errors
    /// When the store fails or holds something else.
    pub fn load(store: &dyn Store) -> Result<Option<Self>, TokenKeysError> {
        let Some(content) = store.read(ENTRY, Visibility::Secret).map_err(TokenKeysError::Store)? else {
            return Ok(None);
        };
        let mut keys = Vec::new();
        for (line, text) in (1..).zip(content.split(|byte| *byte == b'\n')).filter(|(_, text)| !text.is_empty()) {
            keys.push(TokenKey::parse(text).ok_or(TokenKeysError::Malformed { line })?);
        }
        if keys.is_empty() || keys.len() > MAX_KEYS {
            return Err(TokenKeysError::Malformed { line: keys.len() });
        }
        Ok(Some(Self { keys }))
    }

    /// Lets a new key sign from now on. Tokens of the former keys stay valid until they expire.
    ///
    /// # Errors
    /// When the store fails; nothing has changed then.
    pub fn rotate(&mut self, store: &dyn Store) -> Result<(), TokenKeysError> {
        self.keys.insert(0, TokenKey::generate()?);
        if let Err(error) = self.save(store) {
            self.keys.remove(0);
            return Err(error);
        }
        self.keys.truncate(MAX_KEYS);
        Ok(())
    }

    fn save(&self, store: &dyn Store) -> Result<(), TokenKeysError> {
        let mut content = Zeroizing::new(String::with_capacity(MAX_KEYS * 128));
        for key in self.keys.iter().take(MAX_KEYS) {
            content.push_str(&key.id);
            content.push(' ');
            STANDARD.encode_string(key.secret.as_slice(), &mut content);
            content.push('\n');
        }
        store.write(ENTRY, content.as_bytes(), Visibility::Secret).map_err(TokenKeysError::Store)
    }

    /// A token for this workload. Lives for `ttl`, at most [`MAX_TTL`].
    ///
    /// # Errors
    /// Without randomness.
    pub fn mint(
        &self,
        identity: &SpiffeId,
        ttl: Duration,
        now: SystemTime,
    ) -> Result<Zeroizing<String>, TokenKeysError> {
        let key = self.keys.first().ok_or(TokenKeysError::Library)?;
        let issued = to_unix(now);
        let ttl = i64::try_from(ttl.min(MAX_TTL).as_secs()).unwrap_or_default().max(1);
        let wire = Wire {
            iss: identity.trust_domain.to_string(),
            sub: identity.clone(),
            aud: [AUDIENCE.to_owned()],
            iat: issued,
            exp: issued.saturating_add(ttl),
            jti: random_id()?,
        };
        let claims = serde_json::to_vec(&wire).map_err(|_| TokenKeysError::Library)?;
        let mut token = Zeroizing::new(String::with_capacity(MAX_TOKEN_BYTES));
        token.push_str(&key.header());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut token);
        let tag = hmac::sign(&key.hmac(), token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(tag.as_ref(), &mut token);
        Ok(token)
    }

    /// What a token says, if it is ours, for us, and of the present.
    ///
    /// # Errors
    /// The first of these that is wrong.
    pub fn verify(&self, token: &str, now: SystemTime) -> Result<Claims, TokenError> {
        if token.len() > MAX_TOKEN_BYTES {
            return Err(TokenError::TooLarge);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(TokenError::Malformed)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Malformed)?;
        // The header is compared as a whole with those we write: no other algorithm and no other key can be named.
        let key = self.keys.iter().find(|key| key.header() == header).ok_or(TokenError::UnknownKey)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| TokenError::Malformed)?;
        // Takes the same time wherever the first wrong byte is.
        hmac::verify(&key.hmac(), signed.as_bytes(), &signature).map_err(|_| TokenError::Signature)?;
        let claims = URL_SAFE_NO_PAD.decode(claims).map_err(|_| TokenError::Malformed)?;
        let wire: Wire = serde_json::from_slice(&claims).map_err(|_| TokenError::Malformed)?;
        if wire.aud != [AUDIENCE] {
            return Err(TokenError::Audience);
        }
        let seconds = to_unix(now);
        if seconds >= wire.exp {
            return Err(TokenError::Expired);
        }
        if seconds.saturating_add(to_unix(SystemTime::UNIX_EPOCH + CLOCK_SKEW)) < wire.iat {
            return Err(TokenError::NotYetValid);
        }
        Ok(Claims { identity: wire.sub, id: wire.jti, expires: from_unix(wire.exp) })
    }
}

impl fmt::Debug for TokenKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.keys.iter().map(|key| &key.id)).finish()
    }
}

impl TokenKey {
    fn generate() -> Result<Self, TokenKeysError> {
        let mut secret = Zeroizing::new([0; KEY_BYTES]);
        rand::fill(&mut *secret).map_err(|_| TokenKeysError::Library)?;
        Ok(Self { id: random_id()?, secret })
    }

    /// `<id> <base64 of the secret>`
    fn parse(line: &[u8]) -> Option<Self> {
        let space = line.iter().position(|byte| *byte == b' ')?;
        let (id, secret) = line.split_at_checked(space)?;
        let id = std::str::from_utf8(id).ok()?;
        if id.is_empty() || id.len() > 64 || !id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return None;
        }
        let secret = Zeroizing::new(STANDARD.decode(secret.trim_ascii()).ok()?);
        let secret: [u8; KEY_BYTES] = secret.as_slice().try_into().ok()?;
        Some(Self { id: id.to_owned(), secret: Zeroizing::new(secret) })
    }

    fn hmac(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &*self.secret)
    }

    /// The JOSE header (RFC 7515) as it stands in a token. An id has no character that JSON would escape.
    fn header(&self) -> String {
        URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"HS256","kid":"{}","typ":"JWT"}}"#, self.id))
    }
}

fn random_id() -> Result<String, TokenKeysError> {
    let mut bytes = [0; 16];
    rand::fill(&mut bytes).map_err(|_| TokenKeysError::Library)?;
    Ok(hex(&bytes))
}

#[cfg(test)]
mod tests;
