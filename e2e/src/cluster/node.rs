//! What happens on the nodes: signals to the processes of one container. The nodes of the test clusters are processes or
//! containers of this machine, so that their processes are seen in its `/proc`.

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use super::{Namespace, wait};

/// The status of a pod's container, of an init container too.
#[must_use]
pub fn container_status<'a>(pod: &'a Value, container: &str) -> Option<&'a Value> {
    let lists = ["initContainerStatuses", "containerStatuses"].map(|list| pod["status"][list].as_array());
    lists.into_iter().flatten().flatten().find(|status| status["name"] == container)
}

/// The processes of a container, by its id in their control group.
fn processes(id: &str) -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    let numbers = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok());
    let inside =
        |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/cgroup")).is_ok_and(|groups| groups.contains(id));
    numbers.filter(inside).filter_map(Pid::from_raw).collect()
}

impl Namespace {
    /// The pod as it is now.
    ///
    /// # Panics
    /// When there is none.
    #[track_caller]
    #[must_use]
    pub fn read_pod(&self, name: &str) -> Value {
        let found = self.cluster.find("v1", "Pod", Some(&self.name), name);
        found.unwrap_or_else(|| panic!("no pod {}/{name}", self.name))
    }

    /// How often a container was started again.
    ///
    /// # Panics
    /// When there is no such pod.
    #[track_caller]
    #[must_use]
    pub fn restarts(&self, pod: &str, container: &str) -> u64 {
        let pod = self.read_pod(pod);
        container_status(&pod, container).and_then(|status| status["restartCount"].as_u64()).unwrap_or(0)
    }

    /// Sends a signal to the processes of one container and waits until the kubelet has started it again.
    ///
    /// # Panics
    /// When the container runs on another machine, or does not come back.
    #[track_caller]
    pub fn restart_container(&self, pod: &str, container: &str, signal: Signal) {
        let before = self.restarts(pod, container);
        let found = self.read_pod(pod);
        let id = container_status(&found, container).and_then(|status| status["containerID"].as_str());
        let id = id.and_then(|id| id.split_once("://")).unwrap_or_else(|| panic!("{pod}/{container} has no id")).1;
        let processes = processes(id);
        assert!(!processes.is_empty(), "{pod}/{container} has no process on this machine");
        for process in processes {
            // One that has ended since needs no signal.
            _ = kill_process(process, signal);
        }
        wait(&format!("{pod}/{container} is started again"), || {
            let pod = self.read_pod(pod);
            let status = container_status(&pod, container).cloned().unwrap_or_default();
            let back = status["restartCount"].as_u64().unwrap_or(0) > before && status["ready"] == true;
            if back { Ok(()) } else { Err(status.to_string()) }
        });
    }
}
