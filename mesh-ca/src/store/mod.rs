//! Where an authority keeps what must survive a restart: its key, its certificates, the keys of its tokens.

#[cfg(any(test, feature = "file"))]
pub mod file;

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;

use zeroize::Zeroizing;

/// Entries by name, as a Secret holds them; wiped when dropped.
pub type Entries = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// Who may read an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Visibility {
    /// The owner only: keys.
    Secret,
    /// Everybody: root certificates.
    Public,
}

/// A few named entries, each replaced as a whole.
pub trait Store: Send + Sync {
    /// The content of an entry; `None` when there is none.
    ///
    /// # Errors
    /// When it is there and cannot be read, or when others than the owner could read a secret.
    fn read(&self, name: &str, visibility: Visibility) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError>;

    /// Replaces an entry: after an error, or a crash at any moment, it is as before or wholly new.
    ///
    /// # Errors
    /// When it cannot be written; what to do about it is in the message.
    fn write(&self, name: &str, content: &[u8], visibility: Visibility) -> Result<(), StoreError>;
}

/// An entry that could not be read or written.
#[derive(Debug)]
pub struct StoreError {
    /// What was being done, such as `write`.
    pub action: &'static str,
    /// To what: a path, or the name of an object.
    pub entry: String,
    /// What an operator can do about it; empty when there is nothing to say.
    pub hint: String,
    /// What the system said.
    pub source: Box<dyn Error + Send + Sync>,
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {} {}", self.action, self.entry)?;
        if self.hint.is_empty() { Ok(()) } else { write!(f, " ({})", self.hint) }
    }
}

impl Error for StoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.source)
    }
}
