//! CPU time and memory of a node's parts: of its services by process, of pods by cgroup, so that pods that are gone count too.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::Amounts;

/// The kernel's unit of CPU time in `/proc`: USER_HZ.
const TICKS_PER_SECOND: f64 = 100.0;
/// The cgroup above all pods.
const ALL_PODS: &str = "kubepods";

/// A pod that lives as long as the measurement.
#[derive(Clone, Debug)]
pub struct StandingPod {
    /// What it is called in the table.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// What was used until now.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// CPU seconds by part: services, standing pods, and `workers`, which are all other pods.
    pub cpu: Amounts,
    /// The most memory that a process of a standing pod ever had resident, in bytes.
    pub peak_memory: Amounts,
    /// CPU seconds of the whole machine, whatever ran on it.
    pub machine: f64,
}

/// What the node whose run folder this is used until now. A part of which no process lives has nothing.
///
/// # Errors
/// When `/proc` can't be read, or no pod is found.
pub fn read(run: &Path, pods: &[StandingPod]) -> Result<Usage> {
    let mut usage = Usage {
        machine: machine(&fs::read_to_string("/proc/stat")?).context("/proc/stat has no first line")?,
        ..Usage::default()
    };
    let run = run.display().to_string();
    let (mut all_pods, mut standing) = (None, BTreeMap::<&String, PathBuf>::new());
    for entry in fs::read_dir("/proc")? {
        let process = entry?.path();
        // A process may end between two looks.
        let (Ok(arguments), Ok(cgroup)) = (
            fs::read_to_string(process.join("cmdline")),
            fs::read_to_string(process.join("cgroup")),
        ) else {
            continue;
        };
        let cgroup = cgroup_of(&cgroup);
        if let Some(pod) = pods.iter().find(|pod| cgroup.to_string_lossy().contains(&pod.uid)) {
            all_pods = up_to(&cgroup, ALL_PODS).or(all_pods);
            standing.extend(up_to(&cgroup, &pod.uid).map(|cgroup| (&pod.name, cgroup)));
            let peak = fs::read_to_string(process.join("status"))
                .ok()
                .and_then(|text| peak_memory(&text));
            let known = usage.peak_memory.entry(pod.name.clone()).or_default();
            *known = known.max(peak.unwrap_or_default());
        } else if arguments.contains(&run) {
            let seconds = fs::read_to_string(process.join("stat"))
                .ok()
                .and_then(|text| process_seconds(&text));
            *usage.cpu.entry(program(&arguments)).or_default() += seconds.unwrap_or_default();
        }
    }
    let all_pods = all_pods.context("no pod of this cluster runs on this machine")?;
    let mut workers = cgroup_seconds(&all_pods)?;
    for (name, cgroup) in standing {
        let seconds = cgroup_seconds(&cgroup)?;
        workers -= seconds;
        usage.cpu.insert(name.clone(), seconds);
    }
    usage.cpu.insert("workers".to_owned(), workers);
    Ok(usage)
}

/// The folder that tells a process's CPU time: of version 1 that of `cpuacct`, else of the one tree.
fn cgroup_of(text: &str) -> PathBuf {
    let lines = text.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        Some((parts.next()?, parts.next()?))
    });
    let mut found = PathBuf::new();
    for (controllers, path) in lines {
        let of = |tree: &str| {
            Path::new("/sys/fs/cgroup")
                .join(tree)
                .join(path.trim_start_matches('/'))
        };
        if controllers.split(',').any(|controller| controller == "cpuacct") {
            return of(controllers);
        }
        if controllers.is_empty() {
            found = of("");
        }
    }
    found
}

/// The path up to the part that holds `name`.
fn up_to(path: &Path, name: &str) -> Option<PathBuf> {
    path.ancestors()
        .filter(|ancestor| {
            let last = ancestor.file_name().map(|last| last.to_string_lossy().into_owned());
            last.is_some_and(|last| last.contains(name))
        })
        .last()
        .map(Path::to_path_buf)
}

/// CPU seconds of a cgroup, with what was below it and is gone.
fn cgroup_seconds(cgroup: &Path) -> Result<f64> {
    if let Ok(nanoseconds) = fs::read_to_string(cgroup.join("cpuacct.usage")) {
        return Ok(nanoseconds.trim().parse::<f64>()? / 1e9);
    }
    let file = cgroup.join("cpu.stat");
    let text = fs::read_to_string(&file).with_context(|| format!("{} can't be read", file.display()))?;
    let microseconds = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
    Ok(microseconds
        .context("cpu.stat has no usage_usec")?
        .trim()
        .parse::<f64>()?
        / 1e6)
}

/// CPU seconds of a process, from its `stat`.
fn process_seconds(text: &str) -> Option<f64> {
    // Its name, in brackets, may hold anything.
    let (_, rest) = text.rsplit_once(") ")?;
    let mut fields = rest.split(' ').skip(11);
    let mut ticks = || fields.next()?.parse::<f64>().ok();
    Some((ticks()? + ticks()?) / TICKS_PER_SECOND)
}

/// The most memory that a process had resident, from its `status`, in bytes.
fn peak_memory(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    Some(line.trim().trim_end_matches(" kB").parse::<f64>().ok()? * 1024.0)
}

/// CPU seconds that the machine was busy, from `/proc/stat`.
fn machine(text: &str) -> Option<f64> {
    let numbers = text.lines().next()?.split_whitespace().skip(1);
    let ticks: Vec<f64> = numbers.filter_map(|number| number.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq; guests are in user.
    Some((ticks.get(..3)?.iter().sum::<f64>() + ticks.get(5..7)?.iter().sum::<f64>()) / TICKS_PER_SECOND)
}

/// The program of a command line, without its folder.
fn program(arguments: &str) -> String {
    let first = arguments.split('\0').next().unwrap_or_default();
    first.rsplit('/').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn cgroups_of_both_versions_are_found() {
        let one = "4:memory:/c/node/kubepods/podX/y\n2:cpu,cpuacct:/c/node/kubepods/podX/y\n0::/c/services\n";
        let path = cgroup_of(one);
        assert_eq!(path, Path::new("/sys/fs/cgroup/cpu,cpuacct/c/node/kubepods/podX/y"));
        assert_eq!(
            up_to(&path, "X").unwrap(),
            Path::new("/sys/fs/cgroup/cpu,cpuacct/c/node/kubepods/podX")
        );
        assert_eq!(
            up_to(&path, ALL_PODS).unwrap(),
            Path::new("/sys/fs/cgroup/cpu,cpuacct/c/node/kubepods")
        );
        assert_eq!(cgroup_of("0::/c/node\n"), Path::new("/sys/fs/cgroup/c/node"));
    }

    #[test]
    fn times_and_memory_are_read() {
        let stat = "7 (a ) b) S 1 7 7 0 -1 4194560 2000 0 9 0 250 50 0 0 20 0 5 0 100 0 0";
        assert_eq!(process_seconds(stat), Some(3.0));
        assert_eq!(peak_memory("VmPeak:\t  9 kB\nVmHWM:\t    2048 kB\n"), Some(2_097_152.0));
        assert_eq!(machine("cpu  100 50 50 9000 10 0 100 5 0 0\ncpu0 1\n"), Some(3.0));
        assert_eq!(program("/usr/bin/etcd\0--data-dir\0/x"), "etcd");
    }
}
