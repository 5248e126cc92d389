//! Where charts and profiles come from: the binary itself, or a folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use crate::error::CliError;

/// manifests/charts and manifests/profiles as they were when this binary was built.
const EMBEDDED: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/manifests.rs"));
/// Most files of a folder of charts.
const MAX_FILES: usize = 2000;
/// Largest of them (bytes).
const MAX_FILE_BYTES: u64 = 8 << 20;
/// Deepest folder.
const MAX_DEPTH: usize = 8;

/// Charts and profiles by path, such as `charts/base/Chart.yaml`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files(BTreeMap<String, String>);

impl Files {
    /// Those of this binary.
    #[must_use]
    pub fn embedded() -> Self {
        Self(EMBEDDED.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect())
    }

    /// Those of a folder that has `charts` and `profiles`, as manifests/ of the source has. What it lacks of profiles, this
    /// binary has.
    ///
    /// # Errors
    /// When it cannot be read, or has no charts.
    pub fn folder(root: &Path) -> Result<Self, CliError> {
        let mut files = Self::default();
        files.walk(&root.join("charts"), "charts", 0)?;
        if root.join("profiles").is_dir() {
            files.walk(&root.join("profiles"), "profiles", 0)?;
        }
        for (name, text) in EMBEDDED.iter().filter(|(name, _)| name.starts_with("profiles/")) {
            files.0.entry((*name).to_owned()).or_insert_with(|| (*text).to_owned());
        }
        if !files.0.contains_key("charts/istiod/Chart.yaml") {
            return Err(CliError::user(format!("{} has no charts of ours", root.display()))
                .hint("the folder must hold charts/base, charts/istiod and charts/gateway"));
        }
        Ok(files)
    }

    fn walk(&mut self, folder: &Path, name: &str, depth: usize) -> Result<(), CliError> {
        let failed = |path: &Path, error: &std::io::Error| {
            CliError::user(format!("cannot read {}", path.display())).because(error)
        };
        for entry in fs::read_dir(folder).map_err(|error| failed(folder, &error))? {
            let path = entry.map_err(|error| failed(folder, &error))?.path();
            let Some(last) = path.file_name().and_then(|last| last.to_str()).filter(|last| !last.starts_with('.'))
            else {
                continue;
            };
            let name = format!("{name}/{last}");
            let facts = fs::metadata(&path).map_err(|error| failed(&path, &error))?;
            if facts.is_dir() && depth < MAX_DEPTH {
                self.walk(&path, &name, depth + 1)?;
                continue;
            }
            if !facts.is_file() || facts.len() > MAX_FILE_BYTES || self.0.len() >= MAX_FILES {
                return Err(CliError::user(format!("{} is too large, too deep, or one too many", path.display())));
            }
            let text = fs::read_to_string(&path).map_err(|error| failed(&path, &error))?;
            self.0.insert(name, text);
        }
        Ok(())
    }

    /// The file of that path.
    #[must_use]
    pub fn get(&self, path: &str) -> Option<&str> {
        self.0.get(path).map(String::as_str)
    }

    /// Files below a folder: their paths in it, and texts.
    pub fn below<'a>(&'a self, folder: &'a str) -> impl Iterator<Item = (&'a str, &'a str)> {
        let all = self.0.iter();
        all.filter_map(move |(path, text)| Some((path.strip_prefix(folder)?.strip_prefix('/')?, text.as_str())))
    }

    /// Names of the profiles, ordered.
    #[must_use]
    pub fn profiles(&self) -> Vec<&str> {
        self.below("profiles").filter_map(|(path, _)| path.strip_suffix(".yaml")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_holds_what_the_source_has() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests");
        let folder = Files::folder(&root).unwrap();
        let embedded = Files::embedded();
        let names = |files: &Files| files.0.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&embedded), names(&folder));
        for (name, text) in &folder.0 {
            assert!(embedded.get(name) == Some(text), "{name} differs");
        }
        assert_eq!(embedded.profiles(), ["default", "demo", "minimal"]);
    }

    #[test]
    fn a_folder_without_charts_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert!(Files::folder(folder.path()).is_err());
        fs::create_dir(folder.path().join("charts")).unwrap();
        assert!(Files::folder(folder.path()).unwrap_err().to_string().contains("charts/istiod"));
    }
}
