//! `meshctl analyze` beside the real `istioctl analyze`, over the golden cases of the analysis.
//!
//! Without a cluster istioctl leaves out every check that looks at Kubernetes' own kinds, so that only the others are
//! compared: the same messages about the same objects, in the same words but for [`WORDS`].

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use e2e::process::binary;
use serde_json::Value;

/// Codes that istioctl tells without a cluster.
const COMPARED: [&str; 22] = [
    "IST0002", "IST0101", "IST0109", "IST0128", "IST0129", "IST0130", "IST0131", "IST0132", "IST0134", "IST0138",
    "IST0151", "IST0152", "IST0153", "IST0154", "IST0155", "IST0160", "IST0165", "IST0177", "IST0106", "IST0157",
    "IST0163", "IST0164",
];
/// Codes whose words are ours: rules of single objects have texts and hints of their own, and one of Istio's has a typing
/// error.
const WORDS: [&str; 3] = ["IST0002", "IST0106", "IST0155"];
/// Objects that only our rules refuse: `~` can be in no object's name, and so in no reference to one.
const STRICTER: [(&str, &str); 1] = [("IST0106", "VirtualService shop/bad")];
/// What istioctl looks up without a cluster.
const LOOKED_UP: [&str; 3] = ["gateway", "host+subset", "mirror+subset"];

/// How often each message is told.
type Told = BTreeMap<(String, String, String), usize>;

fn told(program: &Path, file: &Path) -> Told {
    let mut command = Command::new("timeout");
    command.arg("30").arg(program).args(["analyze", "--use-kube=false", "-A", "-o", "json"]).arg(file);
    let output = command.env_remove("KUBECONFIG").output().unwrap();
    let messages: Value = serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)));
    let text = |message: &Value, field: &str| message[field].as_str().unwrap_or_default().to_owned();
    let mut told = Told::new();
    for message in messages.as_array().unwrap() {
        let (code, origin, words) = (text(message, "code"), text(message, "origin"), text(message, "message"));
        let looked_up = LOOKED_UP.iter().any(|what| words.starts_with(&format!("Referenced {what} ")));
        let stricter = STRICTER.contains(&(&code, &origin));
        if !COMPARED.contains(&code.as_str()) || (code == "IST0101" && !looked_up) || stricter {
            continue;
        }
        if WORDS.contains(&code.as_str()) {
            // That the object is told of, not how often.
            told.insert((code, origin, String::new()), 1);
        } else {
            *told.entry((code, origin, words)).or_default() += 1;
        }
    }
    told
}

#[test]
#[ignore = "needs built binaries and the real istioctl: MESH_PEERS=FOLDER cargo test -p e2e peers_analyze -- --ignored"]
fn peers_analyze_tells_the_same_as_istioctl() {
    let peers = std::env::var_os("MESH_PEERS").expect("MESH_PEERS names the folder of istioctl");
    let (ours, theirs) = (binary("meshctl"), Path::new(&peers).join("istioctl"));
    let cases: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../meshd/core/tests/analyze"].iter().collect();
    let mut files: Vec<PathBuf> = fs::read_dir(cases).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|ending| ending == "yaml"));
    files.sort();
    let mut compared = 0;
    for file in files {
        let (expect, found) = (told(&theirs, &file), told(&ours, &file));
        compared += expect.len();
        assert_eq!(found, expect, "{}", file.display());
    }
    assert!(compared > 30, "only {compared} messages were compared");
}
