//! What the files of a folder say together: objects, findings, and what changed since it was last asked.
//!
//! Pure: texts in, changes out. A file that cannot be used as a whole keeps its last good version: all of it, because the
//! documents of a file belong together. A file that never was good gives what can be read of it, and for a policy that cannot be
//! read one that lets nobody in. Of objects that several files define, the first file by path wins.

use std::collections::{BTreeMap, BTreeSet};

use mesh_api::codes::Code;
use mesh_api::finding::{Finding, Severity};
use mesh_api::ids::{ClusterId, ObjectKey};
use mesh_api::object::AnyObject;
use mesh_api::parse;
use mesh_api::received::received;
use mesh_api::text::Str;
use mesh_api::typed::line_of;
use mesh_api::validate::validate;
use mesh_api_xds::encoded::Version;
use meshd_core::world::Change;
use serde_json::Value;

use crate::source::stand_in::stand_in;

/// Most findings kept of one file.
const MAX_FINDINGS: usize = 200;

/// All files of a folder.
#[derive(Debug)]
pub(crate) struct Contents {
    cluster: ClusterId,
    default_namespace: Str,
    files: BTreeMap<Str, FileState>,
    /// What is wrong with files and folders that cannot be read, by path.
    unreadable: BTreeMap<Str, Finding>,
    /// Which version of which file each object told came from.
    told: BTreeMap<ObjectKey, (Str, u64)>,
    /// Findings told, by origin.
    told_findings: BTreeMap<Str, Vec<Finding>>,
    /// Counts versions of files, so that an object that was told is known again.
    versions: u64,
}

#[derive(Debug)]
struct FileState {
    /// Hash of the text last read.
    text: Version,
    /// The objects in force.
    objects: Vec<Placed>,
    /// Version of `objects`.
    version: u64,
    /// Whether `objects` come from a text without errors.
    good: bool,
    /// Findings of the text last read.
    findings: Vec<Finding>,
}

#[derive(Clone, Debug)]
struct Placed {
    key: ObjectKey,
    object: AnyObject,
    line: usize,
}

/// What became of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It is the text that was read before.
    Same,
    /// It is in force, and without errors.
    Good,
    /// It has errors, and the last good version stays.
    KeptLastGood,
    /// It has errors, there is no good version, and what can be read of it is in force.
    Partly,
}

impl Contents {
    /// No files. Objects are of `cluster`, and of `default_namespace` when they name none.
    pub(crate) fn new(cluster: ClusterId, default_namespace: Str) -> Self {
        Self {
            cluster,
            default_namespace,
            files: BTreeMap::new(),
            unreadable: BTreeMap::new(),
            told: BTreeMap::new(),
            told_findings: BTreeMap::new(),
            versions: 0,
        }
    }

    /// Whether a file gives any object at present.
    pub(crate) fn has_objects(&self, path: &str) -> bool {
        self.files.get(path).is_some_and(|file| !file.objects.is_empty())
    }

    /// Takes in the text of a file.
    pub(crate) fn set(&mut self, path: &Str, text: &[u8]) -> Taken {
        self.unreadable.remove(path);
        let hash = Version::of(text);
        if self.files.get(path).is_some_and(|file| file.text == hash) {
            return Taken::Same;
        }
        let read = self.read(path, text);
        let had_good = self.files.get(path).is_some_and(|file| file.good);
        if read.broken && had_good {
            if let Some(file) = self.files.get_mut(path) {
                file.text = hash;
                file.findings = read.findings;
                file.findings.insert(0, kept_last_good(path, &file.findings));
            }
            return Taken::KeptLastGood;
        }
        self.versions += 1;
        let (version, good) = (self.versions, !read.broken);
        let file = FileState { text: hash, objects: read.objects, version, good, findings: read.findings };
        self.files.insert(path.clone(), file);
        if good { Taken::Good } else { Taken::Partly }
    }

    /// Takes in what was the last good text of a file before a restart. What no longer reads without errors is not used.
    pub(crate) fn restore(&mut self, path: &Str, text: &[u8]) {
        let read = self.read(path, text);
        if !read.broken && !self.files.contains_key(path) {
            self.versions += 1;
            let (version, text) = (self.versions, Version::of(text));
            let file = FileState { text, objects: read.objects, version, good: true, findings: read.findings };
            self.files.insert(path.clone(), file);
        }
    }

    /// A file or folder is there and cannot be read: what is known of it stays.
    pub(crate) fn set_unreadable(&mut self, path: &Str, why: &str) {
        let finding = Finding::new(Code::Unreadable, "", format!("cannot be read: {why}")).at(path.clone());
        let known = self.files.keys().any(|file| file == path || file.starts_with(&format!("{path}/")));
        let hint = if known { "what was last read of it stays in force" } else { "" };
        self.unreadable.insert(path.clone(), finding.hint(hint));
    }

    /// Keeps only what is there: files in `present`, and files below what cannot be read. Returns the paths that are gone.
    pub(crate) fn retain(&mut self, present: &dyn Fn(&str) -> bool, unreadable: &BTreeSet<Str>) -> Vec<Str> {
        self.unreadable.retain(|path, _| unreadable.contains(path));
        let below = |path: &str| {
            let covers = |above: &Str| {
                path == above.as_str() || path.strip_prefix(above.as_str()).is_some_and(|rest| rest.starts_with('/'))
            };
            unreadable.iter().any(covers)
        };
        let gone: Vec<Str> = self.files.keys().filter(|path| !present(path) && !below(path)).cloned().collect();
        for path in &gone {
            self.files.remove(path);
        }
        gone
    }

    /// What differs from what was told before. Deletions come first, so that an object that moves between files is never
    /// deleted after it was told.
    pub(crate) fn changes(&mut self) -> Vec<Change> {
        let mut winners: BTreeMap<&ObjectKey, (&Str, &FileState, &Placed)> = BTreeMap::new();
        let mut findings: BTreeMap<Str, Vec<Finding>> = BTreeMap::new();
        for (path, file) in &self.files {
            let mut said: Vec<Finding> = file.findings.clone();
            for placed in &file.objects {
                if let Some((first, _, winner)) = winners.get(&placed.key) {
                    said.push(duplicate(path, placed, first, winner));
                } else {
                    winners.insert(&placed.key, (path, file, placed));
                }
            }
            said.truncate(MAX_FINDINGS);
            if !said.is_empty() {
                findings.insert(path.clone(), said);
            }
        }
        for (path, finding) in &self.unreadable {
            findings.entry(path.clone()).or_default().push(finding.clone());
        }
        let gone: Vec<ObjectKey> = self.told.keys().filter(|key| !winners.contains_key(key)).cloned().collect();
        let mut changes: Vec<Change> = gone.iter().cloned().map(Change::Delete).collect();
        let mut told = BTreeMap::new();
        for (key, (path, file, placed)) in winners {
            let source = (path.clone(), file.version);
            if self.told.get(key) != Some(&source) {
                let (cluster, object) = (self.cluster.clone(), placed.object.clone());
                changes.push(Change::Upsert { cluster, object });
            }
            told.insert(key.clone(), source);
        }
        self.told = told;
        let repaired = self.told_findings.keys().filter(|origin| !findings.contains_key(*origin));
        changes.extend(repaired.map(|origin| Change::Findings { origin: origin.clone(), findings: Vec::new() }));
        for (origin, said) in &findings {
            if self.told_findings.get(origin) != Some(said) {
                changes.push(Change::Findings { origin: origin.clone(), findings: said.clone() });
            }
        }
        self.told_findings = findings;
        changes
    }

    fn read(&self, path: &str, text: &[u8]) -> Read {
        let text = match std::str::from_utf8(text) {
            Ok(text) => text,
            Err(error) => {
                let line = 1 + text.iter().take(error.valid_up_to()).filter(|byte| **byte == b'\n').count();
                let finding = Finding::new(Code::Syntax, "", "is not UTF-8").at(format!("{path}:{line}"));
                return Read { objects: Vec::new(), findings: vec![finding], broken: true };
            }
        };
        let parsed = parse::parse(text, &self.default_namespace);
        let mut read = Read { objects: Vec::new(), findings: Vec::new(), broken: false };
        for finding in parsed.findings {
            let finding = if finding.origin.is_empty() {
                finding.at(path)
            } else {
                // The parser knows no file names and says `line 12`.
                let origin = format!("{path}:{}", finding.origin.trim_start_matches("line "));
                finding.at(origin)
            };
            read.findings.push(finding);
        }
        for object in parsed.objects {
            match object {
                Ok(item) => self.read_item(path, text, item, &mut read),
                Err(error) => {
                    let (stand_in, mut finding) = self.stand_in(text, &error);
                    read.objects.extend(stand_in);
                    finding.key = finding.key.map(|key| key.in_cluster(self.cluster.clone()));
                    finding.message = in_document(error.document, &finding.message);
                    read.findings.push(finding.at(format!("{path}:{}", error.line)));
                }
            }
        }
        read.broken = read.findings.iter().any(Finding::is_error);
        read.findings.truncate(MAX_FINDINGS);
        read
    }

    /// What takes the place of a policy that cannot be read, as with objects of a cluster, and what to tell.
    fn stand_in(&self, text: &str, error: &parse::ParseError) -> (Option<Placed>, Finding) {
        let refused = error.key.as_ref().and_then(|key| {
            let value = object_at(text, error.line, key)?;
            received(key.kind, &value.to_string()).err()
        });
        let (Some(key), Some(mut refused)) = (&error.key, refused) else { return (None, error.to_finding()) };
        refused.meta.namespace = key.namespace.clone();
        refused.finding = error.to_finding();
        let (object, finding) = stand_in(key.kind, &refused);
        let key = key.clone().in_cluster(self.cluster.clone());
        (object.map(|object| Placed { key, object, line: error.line }), finding)
    }

    fn read_item(&self, path: &str, text: &str, item: parse::Item, read: &mut Read) {
        let key = item.object.key().in_cluster(self.cluster.clone());
        let findings: Vec<Finding> = item.findings.into_iter().chain(validate(&item.object)).collect();
        if !findings.is_empty() {
            // The text from the document's first line on; a parser of one document stops at the next marker.
            let from_document = lines_from(text, item.line);
            for mut finding in findings {
                let below = line_of(from_document, &finding.path).unwrap_or(1);
                let line = item.line.saturating_add(below).saturating_sub(1);
                finding.message = in_document(item.document, &finding.message);
                read.findings.push(finding.on(key.clone()).at(format!("{path}:{line}")));
            }
        }
        read.objects.push(Placed { key, object: item.object, line: item.line });
    }
}

/// What a text holds.
struct Read {
    objects: Vec<Placed>,
    findings: Vec<Finding>,
    broken: bool,
}

fn in_document(document: usize, message: &str) -> Str {
    // Most files have one document; there the number says nothing.
    if document == 0 { Str::from(message) } else { Str::from(format!("document {}: {message}", document + 1)) }
}

/// The object of this key in the document that a line belongs to, by itself or in a list.
fn object_at(text: &str, line: usize, key: &ObjectKey) -> Option<Value> {
    let before = text.lines().take(line).enumerate();
    let start = before.filter(|(_, line)| line.starts_with("---")).last().map_or(0, |(index, _)| index);
    let document = parse::parse_value(lines_from(text, start + 1), "").ok()?;
    let is = |value: &&Value| {
        let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
        text("/kind") == Some(key.kind.as_str()) && text("/metadata/name") == Some(key.name.as_str())
    };
    let items = document.get("items").and_then(Value::as_array).into_iter().flatten();
    std::iter::once(&document).chain(items).find(is).cloned()
}

/// The text from a line (from 1) on, cut before the next document.
fn lines_from(text: &str, line: usize) -> &str {
    let mut rest = text;
    for _ in 1..line {
        rest = rest.split_once('\n').map_or("", |(_, rest)| rest);
    }
    let begin =
        if rest.starts_with("---") { rest.split_once('\n').map_or(rest.len(), |(first, _)| first.len()) } else { 0 };
    let end = rest.get(begin..).and_then(|tail| tail.find("\n---")).map_or(rest.len(), |at| begin + at);
    rest.get(..end).unwrap_or(rest)
}

fn kept_last_good(path: &str, findings: &[Finding]) -> Finding {
    let code = findings.iter().find(|finding| finding.is_error()).map_or(Code::Syntax, |finding| finding.code);
    let mut finding = Finding::new(code, "", "the file has errors; its last good version stays in force").at(path);
    finding.severity = Severity::Warning;
    finding.hint("repair the errors named below, or delete the file to remove its objects")
}

fn duplicate(path: &str, placed: &Placed, first: &str, winner: &Placed) -> Finding {
    Finding::new(Code::DuplicateObject, "", format!("is already defined at {first}:{}, which wins", winner.line))
        .on(placed.key.clone())
        .at(format!("{path}:{}", placed.line))
        .hint("delete one of the two")
}

#[cfg(test)]
mod tests;
