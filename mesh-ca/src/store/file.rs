//! A store in a folder: one file an entry, written beside its place, synced, then moved there.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind, Read, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use super::{Store, StoreError, Visibility};

/// Largest entry read, in bytes.
const MAX_ENTRY_BYTES: u64 = 4 * 1024 * 1024;
/// The file that says that a process writes here.
const LOCK: &str = "lock";

/// A folder that only its owner can enter (mode 0700; secrets in it 0600).
#[derive(Debug)]
pub struct FileStore {
    folder: PathBuf,
    /// Held, not read: the lock ends with the process, however that ends. `None` in a store that only reads.
    lock: Option<File>,
}

impl FileStore {
    /// Opens a folder for reading and writing, makes it if it is not there, and keeps other writers out.
    ///
    /// # Errors
    /// When it cannot be made, when others than the owner could change it, or when another process writes to it.
    pub fn open(folder: &Path) -> Result<Self, StoreError> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(folder);
        made.map_err(|error| failed("create", folder, error))?;
        let mode = fs::metadata(folder).map_err(|error| failed("examine", folder, error))?.mode();
        if mode & 0o022 != 0 {
            return Err(too_open("use", folder, mode, "700"));
        }
        let path = folder.join(LOCK);
        let lock = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let lock = lock.map_err(|error| failed("open", &path, error))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { folder: folder.to_owned(), lock: Some(lock) }),
            Err(TryLockError::WouldBlock) => Err(StoreError {
                action: "use",
                entry: folder.display().to_string(),
                hint: "stop the other process, or give this one a folder of its own".to_owned(),
                source: "another process uses it".into(),
            }),
            Err(TryLockError::Error(error)) => Err(failed("lock", &path, error)),
        }
    }

    /// Opens a folder for reading, also while another process writes to it. Writing is refused.
    #[must_use]
    pub fn read_only(folder: &Path) -> Self {
        Self { folder: folder.to_owned(), lock: None }
    }

    /// The folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    fn path(&self, action: &'static str, name: &str) -> Result<PathBuf, StoreError> {
        let legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        let path = self.folder.join(name);
        if name.is_empty() || name.starts_with('.') || name == LOCK || !name.bytes().all(legal) {
            return Err(failed(action, &path, io::Error::from(ErrorKind::InvalidFilename)));
        }
        Ok(path)
    }

    /// Writes and syncs the file that is to take the place of the entry.
    fn write_beside(beside: &Path, content: &[u8], mode: u32) -> io::Result<()> {
        // A file left by a crash may have another mode; `create_new` makes sure that ours counts.
        match fs::remove_file(beside) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(beside)?;
        file.write_all(content)?;
        // A full disk may only show here.
        file.sync_all()
    }
}

impl Store for FileStore {
    fn read(&self, name: &str, visibility: Visibility) -> Result<Option<Zeroizing<Vec<u8>>>, StoreError> {
        let path = self.path("read", name)?;
        let mut file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &path, error)),
        };
        let meta = file.metadata().map_err(|error| failed("read", &path, error))?;
        if visibility == Visibility::Secret && meta.mode() & 0o077 != 0 {
            return Err(too_open("read", &path, meta.mode(), "600"));
        }
        if meta.len() > MAX_ENTRY_BYTES {
            return Err(failed("read", &path, io::Error::from(ErrorKind::FileTooLarge)));
        }
        // Room for all of it at once, so that no half-grown buffer with a secret is left behind.
        let mut content = Zeroizing::new(Vec::with_capacity(usize::try_from(meta.len()).unwrap_or_default() + 1));
        let read = Read::by_ref(&mut file).take(MAX_ENTRY_BYTES).read_to_end(&mut content);
        read.map_err(|error| failed("read", &path, error))?;
        Ok(Some(content))
    }

    fn write(&self, name: &str, content: &[u8], visibility: Visibility) -> Result<(), StoreError> {
        let path = self.path("write", name)?;
        if self.lock.is_none() {
            return Err(failed("write", &path, io::Error::from(ErrorKind::ReadOnlyFilesystem)));
        }
        let mode = match visibility {
            Visibility::Secret => 0o600,
            Visibility::Public => 0o644,
        };
        let beside = self.folder.join(format!(".{name}.new"));
        let moved = Self::write_beside(&beside, content, mode).and_then(|()| fs::rename(&beside, &path));
        if let Err(error) = moved {
            // The half-written file is of no use and, on a full disk, in the way.
            let _ = fs::remove_file(&beside);
            return Err(failed("write", &path, error));
        }
        // The move itself is only safe once the folder is on the disk.
        let synced = File::open(&self.folder).and_then(|folder| folder.sync_all());
        synced.map_err(|error| failed("sync", &self.folder, error))
    }
}

fn failed(action: &'static str, path: &Path, error: io::Error) -> StoreError {
    let hint = match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "the disk is full: free some space; nothing was changed",
        ErrorKind::PermissionDenied => "the folder must belong to the user that runs this process",
        ErrorKind::ReadOnlyFilesystem => "it is open for reading only",
        ErrorKind::NotADirectory => "a part of the path is a file",
        _ => "",
    };
    StoreError { action, entry: path.display().to_string(), hint: hint.to_owned(), source: error.into() }
}

fn too_open(action: &'static str, path: &Path, mode: u32, wanted: &str) -> StoreError {
    StoreError {
        action,
        entry: path.display().to_string(),
        hint: format!("run: chmod {wanted} {}", path.display()),
        source: format!("others than its owner have access to it (mode {:03o})", mode & 0o777).into(),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::metadata(path).unwrap().mode() & 0o777
    }

    #[test]
    fn folder_and_secrets_are_for_the_owner_only() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a/state");
        let store = FileStore::open(&folder).unwrap();
        store.write("ca.pem", b"secret", Visibility::Secret).unwrap();
        store.write("root-cert.pem", b"public", Visibility::Public).unwrap();
        assert_eq!(mode(&folder), 0o700);
        assert_eq!(mode(&folder.join("ca.pem")), 0o600);
        assert_eq!(&**store.read("ca.pem", Visibility::Secret).unwrap().unwrap(), b"secret");
        assert_eq!(store.read("other", Visibility::Secret).unwrap(), None);
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 3, "nothing but the lock and the two entries");
    }

    #[test]
    fn a_secret_that_others_can_read_is_refused_with_the_remedy() {
        let root = tempfile::tempdir().unwrap();
        let store = FileStore::open(&root.path().join("state")).unwrap();
        store.write("ca.pem", b"secret", Visibility::Secret).unwrap();
        let path = store.folder().join("ca.pem");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = store.read("ca.pem", Visibility::Secret).unwrap_err();
        assert!(error.to_string().contains("chmod 600"), "{error}");
        assert!(store.read("ca.pem", Visibility::Public).is_ok());
    }

    #[test]
    fn a_folder_that_others_can_change_is_refused() {
        let root = tempfile::tempdir().unwrap();
        fs::set_permissions(root.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let error = FileStore::open(root.path()).unwrap_err();
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }

    #[test]
    fn one_process_writes_others_may_read() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("state");
        let store = FileStore::open(&folder).unwrap();
        store.write("a", b"1", Visibility::Public).unwrap();
        let error = FileStore::open(&folder).unwrap_err();
        assert!(error.to_string().contains("stop the other process"), "{error}");
        let reader = FileStore::read_only(&folder);
        assert_eq!(&**reader.read("a", Visibility::Public).unwrap().unwrap(), b"1");
        assert!(reader.write("a", b"2", Visibility::Public).is_err());
        drop(store);
        FileStore::open(&folder).unwrap();
    }

    #[test]
    fn a_failed_write_leaves_the_old_content_and_no_rest() {
        let root = tempfile::tempdir().unwrap();
        let store = FileStore::open(&root.path().join("state")).unwrap();
        // A folder cannot be replaced by a file: the move fails after the content was written.
        fs::create_dir(store.folder().join("taken")).unwrap();
        assert!(store.write("taken", b"x", Visibility::Secret).is_err());
        assert!(store.folder().join("taken").is_dir());
        assert!(!store.folder().join(".taken.new").exists());
    }

    #[test]
    fn a_file_left_by_a_crash_is_replaced() {
        let root = tempfile::tempdir().unwrap();
        let store = FileStore::open(&root.path().join("state")).unwrap();
        fs::write(store.folder().join(".ca.pem.new"), "half").unwrap();
        store.write("ca.pem", b"whole", Visibility::Secret).unwrap();
        assert_eq!(mode(&store.folder().join("ca.pem")), 0o600);
        assert_eq!(&**store.read("ca.pem", Visibility::Secret).unwrap().unwrap(), b"whole");
    }

    #[test]
    fn names_cannot_leave_the_folder() {
        let root = tempfile::tempdir().unwrap();
        let store = FileStore::open(&root.path().join("state")).unwrap();
        for name in ["", "..", "../x", "a/b", ".hidden", "lock", "a\0b"] {
            assert!(store.write(name, b"x", Visibility::Public).is_err(), "{name:?}");
            assert!(store.read(name, Visibility::Public).is_err(), "{name:?}");
        }
    }

    #[test]
    fn a_full_disk_is_named() {
        // No file can grow on this device: the write itself fails, as on a full disk.
        let error = OpenOptions::new().write(true).open("/dev/full").unwrap().write_all(b"x").unwrap_err();
        let error = failed("write", Path::new("/state/ca.pem"), error);
        assert!(error.to_string().contains("/state/ca.pem (the disk is full"), "{error}");
    }
}
