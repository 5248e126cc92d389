use std::fs;
use std::path::Path;

use mesh_api::ids::ClusterId;

use super::*;

struct Bed {
    root: tempfile::TempDir,
    folder: Folder,
    now: Instant,
}

#[expect(clippy::disallowed_methods, reason = "an origin of made-up time")]
fn origin() -> Instant {
    Instant::now()
}

fn mk_folder(root: &Path) -> Folder {
    let contents = Contents::new(ClusterId::from("c"), Str::from("default"));
    let last_good = LastGood::open(root.join("state")).unwrap();
    Folder::new(root.join("config"), contents, Some(last_good))
}

impl Bed {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("config")).unwrap();
        Self { folder: mk_folder(root.path()), root, now: origin() }
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.root.path().join("config").join(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        fs::remove_file(self.root.path().join("config").join(name)).unwrap();
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
    }

    #[track_caller]
    fn check(&mut self, expect: &[&str]) {
        let scan = Scan { all: true, ..Scan::default() };
        assert_eq!(words(&self.folder.scan(&scan, self.now).changes), expect);
        assert!(self.folder.persist().is_none());
    }
}

fn words(changes: &[Change]) -> Vec<String> {
    let word = |change: &Change| match change {
        Change::Upsert { object, .. } => format!("+{}", object.key().name),
        Change::Delete(key) => format!("-{}", key.name),
        Change::Resync { kind, .. } => format!("={kind}"),
        Change::Findings { origin, findings } => format!("{origin}: {}", findings.len()),
    };
    changes.iter().map(word).collect()
}

fn service(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}]}}\n")
}

#[test]
fn a_file_that_is_gone_for_a_moment_was_never_gone() {
    let mut bed = Bed::new();
    bed.write("a.yaml", &service("a"));
    bed.check(&["+a"]);
    bed.remove("a.yaml");
    bed.check(&[]);
    bed.pass(GRACE / 2);
    bed.check(&[]);
    bed.write("a.yaml", &service("a"));
    bed.pass(GRACE);
    bed.check(&[]);
    bed.remove("a.yaml");
    bed.check(&[]);
    bed.pass(GRACE);
    bed.check(&["-a"]);
}

#[test]
fn a_file_that_is_empty_for_a_moment_keeps_its_objects() {
    let mut bed = Bed::new();
    bed.write("a.yaml", &service("a"));
    bed.check(&["+a"]);
    bed.write("a.yaml", "");
    let scanned = bed.folder.scan(&Scan { all: true, ..Scan::default() }, bed.now);
    assert_eq!((scanned.changes.len(), scanned.again), (0, Some(bed.now + GRACE)));
    bed.pass(GRACE);
    bed.check(&["-a"]);
}

#[test]
fn a_file_being_written_waits() {
    let mut bed = Bed::new();
    bed.write("a.yaml", &service("a"));
    let held = Scan { held: BTreeSet::from([Str::from("a.yaml")]), ..Scan::default() };
    assert!(bed.folder.scan(&held, bed.now).changes.is_empty());
    bed.check(&["+a"]);
}

#[test]
fn the_last_good_version_of_a_file_broken_before_a_restart_is_in_force() {
    let mut bed = Bed::new();
    bed.write("a.yaml", &service("a"));
    bed.write("b.yaml", &service("b"));
    bed.check(&["+a", "+b"]);
    bed.write("a.yaml", "kind: [");
    bed.remove("b.yaml");
    bed.folder = mk_folder(bed.root.path());
    bed.check(&["+a", "a.yaml: 2"]);
    // And once more: what is broken has not overwritten it.
    bed.folder = mk_folder(bed.root.path());
    bed.check(&["+a", "a.yaml: 2"]);
    bed.remove("a.yaml");
    bed.folder = mk_folder(bed.root.path());
    bed.check(&[]);
}

#[test]
fn a_folder_that_is_gone_as_a_whole_is_reported_and_changes_nothing() {
    let mut bed = Bed::new();
    bed.write("a.yaml", &service("a"));
    bed.check(&["+a"]);
    let (config, away) = (bed.root.path().join("config"), bed.root.path().join("away"));
    fs::rename(&config, &away).unwrap();
    bed.pass(10 * GRACE);
    let scanned = bed.folder.scan(&Scan::default(), bed.now);
    assert_eq!(words(&scanned.changes), [format!("{}: 1", config.display())]);
    fs::rename(&away, &config).unwrap();
    bed.check(&[&format!("{}: 0", config.display())]);
}

#[test]
fn a_state_folder_that_refuses_is_said_once_and_stops_nothing() {
    let mut bed = Bed::new();
    let state = bed.root.path().join("state");
    // Files cannot be made where a file stands instead of the folder.
    fs::remove_dir(&state).unwrap();
    fs::write(&state, "").unwrap();
    bed.write("a.yaml", &service("a"));
    assert_eq!(words(&bed.folder.scan(&Scan::default(), bed.now).changes), ["+a"]);
    assert_eq!(words(&[bed.folder.persist().unwrap()]), ["state folder: 1"]);
    assert!(bed.folder.persist().is_none());
    fs::remove_file(&state).unwrap();
    fs::create_dir(&state).unwrap();
    assert_eq!(words(&[bed.folder.persist().unwrap()]), ["state folder: 0"]);
    assert_eq!(fs::read_dir(&state).unwrap().count(), 1);
}

#[test]
fn a_file_that_nobody_called_complete_waits_until_it_has_been_left_alone() {
    let mut bed = Bed::new();
    bed.write("a.yaml", &service("a"));
    bed.check(&["+a"]);
    bed.write("a.yaml", &service("b"));
    bed.write("old.yaml", &service("c"));
    let old = fs::File::options().write(true).open(bed.root.path().join("config/old.yaml")).unwrap();
    old.set_modified(SystemTime::now() - Duration::from_secs(60)).unwrap();
    // Written just now: both wait, since they may have come together.
    let path = bed.root.path().join("config/a.yaml");
    let just_now = |path: &Path| {
        let file = fs::File::options().write(true).open(path).unwrap();
        file.set_modified(SystemTime::now()).unwrap();
    };
    just_now(&path);
    let scanned = bed.folder.scan(&Scan::default(), bed.now);
    assert_eq!((words(&scanned.changes), scanned.again), (vec![], Some(bed.now + SETTLE)));
    // It is written on and on: read at last anyway.
    bed.pass(SETTLE_MAX);
    just_now(&path);
    assert_eq!(words(&bed.folder.scan(&Scan::default(), bed.now).changes), ["-a", "+b", "+c"]);
    // And one that was said to be complete does not wait.
    bed.write("a.yaml", &service("d"));
    let scan = Scan { forced: BTreeSet::from([Str::from("a.yaml")]), ..Scan::default() };
    assert_eq!(words(&bed.folder.scan(&scan, bed.now).changes), ["-b", "+d"]);
}
