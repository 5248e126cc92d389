//! `meshctl inject` beside the real `istioctl kube-inject`, over the manifests in `e2e/inject`.
//!
//! Both get Istio's own values and mesh configuration. What they give is compared fact by fact: containers and their
//! order, arguments, ports, mounts, variables, probes, annotations, labels, volumes. A difference is an error unless it is
//! one of [`DEVIATIONS`], and a deviation that never shows is an error too.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use e2e::process::binary;
use serde::Deserialize as _;
use serde_json::Value;

/// A difference that is meant.
struct Deviation {
    /// Manifests that show it; all when empty.
    manifests: &'static [&'static str],
    /// What a fact's path contains.
    path: &'static str,
    /// Why, in short; docs/deviations.md has the whole of it.
    why: &'static str,
}

const DEVIATIONS: &[Deviation] = &[
    Deviation {
        manifests: &["cronjob"],
        path: ".spec.jobTemplate.metadata.",
        why: "annotations and labels of the pod are written to the pod's template, not the job's",
    },
    Deviation { manifests: &["cronjob"], path: ".spec.jobTemplate.spec.template.metadata.", why: "as above" },
    Deviation { manifests: &["cronjob"], path: ".containers[istio-proxy].args", why: "and they are read there, too" },
    Deviation {
        manifests: &["status-port"],
        path: ".env[PROXY_CONFIG].value.statusPort",
        why: "the agent is told its port, so that it listens where probes are led",
    },
    Deviation {
        manifests: &["status-port"],
        path: "prometheus.io/port",
        why: "metrics are merged at the port where the agent is",
    },
    Deviation {
        manifests: &["status-port-none"],
        path: "prometheus.io/",
        why: "without an agent nobody merges metrics",
    },
];

/// What a manifest asks of the comparison: the words of its line `# compare:`.
fn options(text: &str) -> BTreeSet<&str> {
    let line = text.lines().find_map(|line| line.strip_prefix("# compare:"));
    line.into_iter().flat_map(str::split_whitespace).collect()
}

/// Configuration as `istioctl` would install it.
struct Configuration {
    folder: tempfile::TempDir,
}

impl Configuration {
    fn new(istioctl: &Path) -> Self {
        let output = run(Command::new(istioctl).args(["manifest", "generate"]));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let folder = tempfile::tempdir().unwrap();
        for document in serde_yaml_ng::Deserializer::from_slice(&output.stdout) {
            let object = Value::deserialize(document).unwrap();
            for (name, key, file) in [
                ("istio-sidecar-injector", "config", "config"),
                ("istio-sidecar-injector", "values", "values"),
                ("istio", "mesh", "mesh"),
            ] {
                if object["kind"] == "ConfigMap" && object["metadata"]["name"] == name {
                    fs::write(folder.path().join(file), object["data"][key].as_str().unwrap()).unwrap();
                }
            }
        }
        // Ours has its templates built in.
        fs::write(folder.path().join("none"), "").unwrap();
        Self { folder }
    }

    fn theirs(&self, istioctl: &Path, manifest: &Path, native: bool) -> Output {
        let mut command = Command::new(istioctl);
        command.args(["kube-inject", "--revision", "default", "-f"]).arg(manifest);
        command.env("ENABLE_NATIVE_SIDECARS", native.to_string());
        self.run(command, "config")
    }

    /// With the built-in templates (`none`), or with Istio's own text of them (`config`).
    fn ours(&self, manifest: &Path, native: bool, config: &str) -> Output {
        let mut command = Command::new(binary("meshctl"));
        command
            .args(["inject", "--offline", "--nativeSidecar", if native { "true" } else { "false" }, "-f"])
            .arg(manifest);
        self.run(command, config)
    }

    fn run(&self, mut command: Command, config: &str) -> Output {
        for (flag, file) in [("--injectConfigFile", config), ("--valuesFile", "values"), ("--meshConfigFile", "mesh")] {
            command.arg(flag).arg(self.folder.path().join(file));
        }
        run(&command)
    }
}

/// Runs a program that could wait for a cluster for ever, for half a minute at most.
fn run(command: &Command) -> Output {
    let mut limited = Command::new("timeout");
    limited.arg("30").arg(command.get_program()).args(command.get_args());
    limited.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?))));
    limited.env_remove("KUBECONFIG").output().unwrap()
}

/// The facts of all objects in a text.
fn facts(text: &[u8]) -> BTreeMap<String, String> {
    let mut facts = BTreeMap::new();
    for document in serde_yaml_ng::Deserializer::from_slice(text) {
        let object = Value::deserialize(document).unwrap();
        if !object.is_null() {
            let name =
                format!("{}/{}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap_or(""));
            walk(&name, &object, &mut facts);
        }
    }
    facts
}

/// Every leaf by its path. What means nothing is left out: nulls, empty objects, zeros where zero is the default, the
/// order of variables, and what Istio's types add to an object that has none of it.
fn walk(path: &str, value: &Value, facts: &mut BTreeMap<String, String>) {
    match value {
        Value::Null => {}
        Value::Object(map) => {
            for (key, value) in map.iter().filter(|(key, value)| !means_nothing(key, value)) {
                walk(&format!("{path}.{key}"), value, facts);
            }
        }
        Value::Array(items) if items.is_empty() => {}
        Value::Array(items) if items.iter().all(|item| !item.is_object()) => {
            facts.insert(path.to_owned(), value.to_string());
        }
        Value::Array(items) => {
            let keys = ["mountPath", "name", "containerPort", "kind"];
            let key = keys.into_iter().find(|key| items.iter().all(|item| item.get(key).is_some()));
            let names = items.iter().enumerate().map(|(index, item)| {
                let name = key.map_or_else(|| index.to_string(), |key| item[key].to_string());
                name.trim_matches('"').to_owned()
            });
            let names: Vec<String> = names.collect();
            items.iter().zip(&names).for_each(|(item, name)| walk(&format!("{path}[{name}]"), item, facts));
            if path.ends_with("ontainers") {
                facts.insert(format!("{path} order"), names.join(","));
            }
        }
        Value::String(text) if text.starts_with(['{', '[']) => match serde_json::from_str::<Value>(text) {
            // A port list is kept in its order.
            Ok(json) => {
                facts.insert(path.to_owned(), "JSON".to_owned());
                walk(path, &json, facts);
            }
            Err(_) => drop(facts.insert(path.to_owned(), text.clone())),
        },
        leaf => {
            let quantity = path.contains(".resources.").then(|| quantity(leaf)).flatten();
            facts.insert(path.to_owned(), quantity.map_or_else(|| leaf.to_string(), |number| format!("{number}")));
        }
    }
}

fn means_nothing(key: &str, value: &Value) -> bool {
    let zero = key == "initialDelaySeconds" && value == 0;
    let added = matches!(key, "creationTimestamp" | "status" | "strategy" | "updateStrategy") && is_empty(value);
    let empty_text = key == "value" && value == "";
    zero || added || empty_text
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Object(map) => map.values().all(is_empty),
        Value::Number(number) => number.as_i64() == Some(0),
        _ => false,
    }
}

/// The number that a quantity stands for: `2000m` is `2`.
fn quantity(value: &Value) -> Option<f64> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let units = [("m", 1e-3), ("Ki", 1024.0), ("Mi", 1048576.0), ("Gi", 1073741824.0), ("", 1.0)];
    units.iter().find_map(|(unit, factor)| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * factor))
}

/// What differs, as `path: ours / theirs`.
fn difference(ours: &BTreeMap<String, String>, theirs: &BTreeMap<String, String>) -> Vec<String> {
    let paths: BTreeSet<&String> = ours.keys().chain(theirs.keys()).collect();
    let differing = paths.into_iter().filter(|path| ours.get(*path) != theirs.get(*path));
    differing.map(|path| format!("{path}: ours {:?}, theirs {:?}", ours.get(path), theirs.get(path))).collect()
}

/// What differs between the results of the two programs.
fn compare(ours: &Output, theirs: &Output, refused: bool) -> Vec<String> {
    let mut problems = Vec::new();
    for (who, output) in [("ours", ours), ("theirs", theirs)] {
        if output.status.success() == refused {
            problems.push(format!("{who} ended with {}: {}", output.status, String::from_utf8_lossy(&output.stderr)));
        }
    }
    if refused || !problems.is_empty() {
        return problems;
    }
    let (ours, theirs) = (facts(&ours.stdout), facts(&theirs.stdout));
    assert!(!ours.is_empty() && !theirs.is_empty(), "nothing to compare");
    difference(&ours, &theirs)
}

/// The manifests, by name.
fn corpus() -> Vec<(String, PathBuf)> {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "inject"].iter().collect();
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut corpus: Vec<_> = files.map(|path| (path.file_stem().unwrap().to_str().unwrap().to_owned(), path)).collect();
    corpus.sort();
    corpus
}

#[test]
#[ignore = "needs built binaries and the real istioctl: MESH_PEERS=FOLDER cargo test -p e2e peers_inject -- --ignored"]
fn peers_inject_gives_what_istioctl_gives() {
    let peers = std::env::var_os("MESH_PEERS").expect("MESH_PEERS names the folder of istioctl");
    let istioctl = Path::new(&peers).join("istioctl");
    let configuration = Configuration::new(&istioctl);
    let (mut problems, mut shown) = (Vec::new(), BTreeSet::new());
    let corpus = corpus();
    assert!(corpus.len() >= 25, "{} manifests", corpus.len());
    for (name, manifest) in &corpus {
        let text = fs::read_to_string(manifest).unwrap();
        let options = options(&text);
        let native = options.contains("native");
        let theirs = configuration.theirs(&istioctl, manifest, native);
        // The built-in templates, then Istio's own text of them through our engine.
        for config in ["none", "config"] {
            let ours = configuration.ours(manifest, native, config);
            for line in compare(&ours, &theirs, options.contains("refused")) {
                let meant = DEVIATIONS.iter().position(|deviation| {
                    line.contains(deviation.path)
                        && (deviation.manifests.is_empty() || deviation.manifests.contains(&name.as_str()))
                });
                match meant {
                    Some(index) => drop(shown.insert(index)),
                    None => problems.push(format!("{name} ({config}): {line}")),
                }
            }
        }
    }
    for (index, deviation) in DEVIATIONS.iter().enumerate() {
        if !shown.contains(&index) {
            problems.push(format!("no manifest shows the deviation at {}: {}", deviation.path, deviation.why));
        }
    }
    assert!(problems.is_empty(), "{} differences:\n{}", problems.len(), problems.join("\n"));
}
