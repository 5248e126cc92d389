//! How many workers a process gets, and the tokio runtimes they run on.

use std::fs;
use std::io;
use std::num::NonZeroUsize;
use std::path::Path;
use std::thread;

use tokio::runtime::{Builder, Runtime};

/// What the machine and the cgroup leave to this process.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct CpuBudget {
    /// CPUs the process may be scheduled on; at least 1.
    pub cpus: usize,
    /// CPU time per wall time the cgroup allows, such as 1.5; `None` without a quota.
    pub quota: Option<f64>,
}

impl CpuBudget {
    /// Reads the scheduler's affinity and the cgroup's quota (v2 `cpu.max`, else v1 `cpu.cfs_quota_us`). What cannot be
    /// read counts as no quota.
    #[must_use]
    pub fn detect() -> Self {
        let cpus = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        // `available_parallelism` rounds a quota down; with our own reading 1.5 CPUs become two workers, as in Istio.
        let cpus = affinity().unwrap_or(cpus).max(cpus);
        Self { cpus, quota: cgroup_quota(Path::new("/proc/self/cgroup"), Path::new("/sys/fs/cgroup")) }
    }

    /// Number of workers for a setting in the meaning of Istio's `concurrency`: unset is the quota rounded up, or
    /// `default` without a quota; 0 is every CPU; any other number is taken as it is. Never 0.
    #[must_use]
    pub fn workers(&self, concurrency: Option<usize>, default: usize) -> usize {
        let workers = match (concurrency, self.quota) {
            (Some(0), _) => self.cpus,
            (Some(wanted), _) => wanted,
            (None, Some(quota)) => ceil(quota).min(self.cpus),
            (None, None) => default.min(self.cpus),
        };
        workers.max(1)
    }
}

/// A runtime that lives on the thread that enters it: one per proxy worker, and one for admin work.
///
/// # Errors
/// When the kernel refuses its event queue.
pub fn single() -> io::Result<Runtime> {
    Builder::new_current_thread().enable_all().build()
}

/// A work-stealing runtime, for the control plane. `name` is the name of its threads.
///
/// # Errors
/// When the kernel refuses threads or the event queue.
pub fn multi(workers: usize, name: &str) -> io::Result<Runtime> {
    Builder::new_multi_thread().worker_threads(workers.max(1)).thread_name(name).enable_all().build()
}

fn affinity() -> Option<usize> {
    let set = rustix::thread::sched_getaffinity(None).ok()?;
    usize::try_from(set.count()).ok()
}

/// The smallest quota between the process's cgroup and the root of its tree.
fn cgroup_quota(membership: &Path, root: &Path) -> Option<f64> {
    let membership = fs::read_to_string(membership).ok()?;
    if let Some(path) = membership.lines().find_map(|line| line.strip_prefix("0::")) {
        let v2 = smallest_on_the_way_up(root, path, |folder| {
            parse_cpu_max(&fs::read_to_string(folder.join("cpu.max")).ok()?)
        });
        if v2.is_some() {
            return v2;
        }
    }
    let path = membership.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let controllers = fields.next()?;
        controllers.split(',').any(|name| name == "cpu").then(|| fields.next())?
    })?;
    smallest_on_the_way_up(&root.join("cpu"), path, |folder| {
        let quota: f64 = fs::read_to_string(folder.join("cpu.cfs_quota_us")).ok()?.trim().parse().ok()?;
        let period: f64 = fs::read_to_string(folder.join("cpu.cfs_period_us")).ok()?.trim().parse().ok()?;
        ratio(quota, period)
    })
}

/// Inside a container's cgroup namespace the path may name folders that are not mounted; those are skipped.
fn smallest_on_the_way_up(root: &Path, path: &str, read: impl Fn(&Path) -> Option<f64>) -> Option<f64> {
    let path = Path::new(path.trim_start_matches('/'));
    let found = path.ancestors().filter_map(|folder| read(&root.join(folder)));
    found.reduce(f64::min)
}

/// `cpu.max` holds `<quota|max> <period>` in microseconds (kernel: Documentation/admin-guide/cgroup-v2.rst).
fn parse_cpu_max(text: &str) -> Option<f64> {
    let mut fields = text.split_whitespace();
    let quota = fields.next()?.parse().ok()?;
    ratio(quota, fields.next()?.parse().ok()?)
}

fn ratio(quota: f64, period: f64) -> Option<f64> {
    (quota > 0.0 && period > 0.0 && quota.is_finite()).then(|| quota / period)
}

fn ceil(quota: f64) -> usize {
    // A quota is a small positive number here; `as` saturates should a kernel ever say otherwise.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "positive and rounded up; saturates")]
    let whole = quota.ceil() as usize;
    whole
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_follow_the_setting_then_the_quota_then_the_default() {
        let check = |cpus, quota, setting, expect| {
            assert_eq!(CpuBudget { cpus, quota }.workers(setting, 2), expect, "{cpus} {quota:?} {setting:?}");
        };
        check(8, None, None, 2);
        check(1, None, None, 1);
        check(8, Some(1.5), None, 2);
        check(8, Some(0.1), None, 1);
        check(2, Some(16.0), None, 2);
        check(8, Some(1.0), Some(4), 4);
        check(8, Some(1.0), Some(0), 8);
        assert_eq!(CpuBudget { cpus: 8, quota: None }.workers(None, 0), 1);
    }

    #[test]
    fn cpu_max_is_read_and_max_means_none() {
        assert_eq!(parse_cpu_max("150000 100000\n"), Some(1.5));
        for text in ["max 100000", "", "100000", "0 100000", "1 0", "-1 100000", "inf 1"] {
            assert_eq!(parse_cpu_max(text), None, "{text}");
        }
    }

    #[test]
    fn smallest_quota_of_all_ancestors_wins() {
        let root = tempfile::tempdir().unwrap();
        let membership = root.path().join("membership");
        fs::write(&membership, "0::/pod/container\n").unwrap();
        fs::create_dir_all(root.path().join("pod/container")).unwrap();
        assert_eq!(cgroup_quota(&membership, root.path()), None);
        fs::write(root.path().join("pod/container/cpu.max"), "max 100000").unwrap();
        fs::write(root.path().join("pod/cpu.max"), "50000 100000").unwrap();
        fs::write(root.path().join("cpu.max"), "200000 100000").unwrap();
        assert_eq!(cgroup_quota(&membership, root.path()), Some(0.5));
    }

    #[test]
    fn version_one_quota_is_read_where_there_is_no_version_two() {
        let root = tempfile::tempdir().unwrap();
        let membership = root.path().join("membership");
        fs::write(&membership, "3:memory:/x\n2:cpu,cpuacct:/box\n").unwrap();
        fs::create_dir_all(root.path().join("cpu/box")).unwrap();
        fs::write(root.path().join("cpu/box/cpu.cfs_quota_us"), "250000\n").unwrap();
        fs::write(root.path().join("cpu/box/cpu.cfs_period_us"), "100000\n").unwrap();
        assert_eq!(cgroup_quota(&membership, root.path()), Some(2.5));
        fs::write(root.path().join("cpu/box/cpu.cfs_quota_us"), "-1\n").unwrap();
        assert_eq!(cgroup_quota(&membership, root.path()), None);
    }

    #[test]
    fn this_machine_has_a_budget() {
        assert!(CpuBudget::detect().cpus >= 1);
    }
}
