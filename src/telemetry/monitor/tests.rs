//! What is made of a `/proc`, whole, broken, or of this very box.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crossbeam::channel::unbounded;
use tempfile::TempDir;

use super::*;
use crate::clock::{ManualClock, SystemClock};
use crate::config::{Config, Profile};

/// Files of a box with two processors, and of a process whose name is meant to mislead.
const FILES: [(&str, &str); 9] = [
    (
        "stat",
        "cpu  100 20 30 800 50 0 0 0 7 0\ncpu0 50 10 15 400 25 0 0 0 0 0\ncpu1 50 10 15 400 25 0 0 0 0 0\nintr 1 2 3\nbtime 5\n",
    ),
    (
        "meminfo",
        "MemTotal:        8000 kB\nMemFree:          100 kB\nMemAvailable:    2000 kB\nBuffers: 5 kB\n",
    ),
    ("loadavg", "0.50 1.25 2.00 3/456 7890\n"),
    ("sys/fs/file-nr", "3000\t1000\t100000\n"),
    (
        "pressure/cpu",
        "some avg10=12.50 avg60=1.00 avg300=0.00 total=1\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    ),
    (
        "pressure/memory",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    ),
    (
        "self/stat",
        "77 (po) R (int) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 12 0 999 1000000 300 18446744073709551615 0\n",
    ),
    (
        "self/limits",
        "Limit                     Soft Limit           Hard Limit           Units     \nMax cpu time              unlimited            unlimited            seconds   \nMax open files            1024                 524288               files     \n",
    ),
    ("self/fd/0", ""),
];

fn proc() -> TempDir {
    let root = tempfile::tempdir().expect("a directory");
    for (path, text) in FILES {
        write(root.path(), path, text);
    }
    root
}

fn write(root: &Path, path: &str, text: impl AsRef<[u8]>) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("it is made");
    fs::write(path, text).expect("it is written");
}

/// A reader of a box whose control groups are below `groups`.
fn reader(root: &TempDir) -> Reader {
    let settings = Config::builtin(Profile::Test).throttle;
    Reader::new(&Throttle {
        proc: root.path().to_owned(),
        cgroup: root.path().join("groups"),
        ..settings
    })
}

fn read(root: &TempDir) -> ResourceView {
    reader(root).read(Time::ZERO)
}

#[test]
fn each_figure_is_found_where_the_kernel_writes_it() {
    let root = proc();
    for handle in 1..=4 {
        write(root.path(), &format!("self/fd/{handle}"), "");
    }
    let seen = read(&root);
    let host = &seen.host;
    assert_eq!((host.cpus, host.cpu_busy), (Some(2), None));
    assert_eq!(host.load, Some([0.5, 1.25, 2.0]));
    let memory = (host.memory_bytes, host.memory_available_bytes);
    assert_eq!(memory, (Some(8_000 * 1024), Some(2_000 * 1024)));
    assert_eq!(
        (host.open_files, host.max_files),
        (Some(2_000), Some(100_000))
    );
    let pressure = (host.cpu_pressure, host.memory_pressure, host.io_pressure);
    assert_eq!(pressure, (Some(0.125), Some(0.0), None));
    let process = &seen.process;
    assert_eq!(process.threads, Some(12));
    assert_eq!(
        (process.open_files, process.max_files),
        (Some(4), Some(1024))
    );
    let ticks = clock_ticks();
    assert_eq!(process.cpu_s, Some(300.0 / ticks));
    let pages = process.resident_bytes.expect("it is there") / 300;
    assert!(pages.is_power_of_two() && pages >= 4096, "{pages}");
    assert_eq!(seen.memory_used(), Some(0.75));
    assert_eq!(
        seen.files_used(),
        Some(0.02),
        "the box is nearer to its limit"
    );
}

fn clock_ticks() -> f64 {
    rustix::param::clock_ticks_per_second() as f64
}

#[test]
fn processors_are_as_busy_as_they_were_since_the_look_before() {
    let root = proc();
    let mut reader = reader(&root);
    let mut busy = |line: &str| {
        write(root.path(), "stat", line);
        reader.read(Time::ZERO).host.cpu_busy
    };
    assert_eq!(busy("cpu  100 0 0 900 0 0 0 0\n"), None, "the first look");
    assert_eq!(busy("cpu  150 0 0 950 0 0 0 0\n"), Some(0.5));
    assert_eq!(
        busy("cpu  150 0 25 950 25 0 0 0\n"),
        Some(0.5),
        "a disk is no processor"
    );
    assert_eq!(busy("cpu  150 0 25 950 25 0 0 0\n"), None, "no time passed");
    assert_eq!(
        busy("cpu  150 0 25 950 25 10 10 80\n"),
        Some(1.0),
        "interrupts and stolen time"
    );
    assert_eq!(busy("cpu  1 0 0 1 0 0 0 0\n"), None, "it went backwards");
    assert_eq!(busy("cpu  2 0 0 4\n"), Some(0.25), "an old kernel");
    assert_eq!(busy("garbage\n"), None);
    assert_eq!(busy("cpu  9 0 0 9\n"), None, "nothing to compare with");
}

#[test]
fn the_memory_of_a_control_group_counts_where_it_is_nearer_to_its_limit() {
    let root = proc();
    write(
        root.path(),
        "self/cgroup",
        "1:old:/x\n0::/a.slice/b.service\n",
    );
    let group = |path: &str, max: &str, current: &str| {
        let folder = format!("groups/{path}");
        write(root.path(), &format!("{folder}/memory.max"), max);
        write(root.path(), &format!("{folder}/memory.current"), current);
    };
    group("a.slice/b.service", "max\n", "500\n");
    group("a.slice", "1000\n", "950\n");
    group(".", "100000\n", "0\n");
    let stat = "anon 7\ninactive_file 100\nactive_file 3\n";
    write(root.path(), "groups/a.slice/memory.stat", stat);
    let seen = read(&root);
    let usage = (
        seen.host.group_memory_bytes,
        seen.host.group_memory_max_bytes,
    );
    assert_eq!(
        usage,
        (Some(850), Some(1000)),
        "of the slice: ours has no limit"
    );
    assert_eq!(seen.memory_used(), Some(0.85));
    group("a.slice/b.service", "600\n", "600\n");
    assert_eq!(read(&root).memory_used(), Some(1.0), "ours is nearer");
    group("a.slice", "1000\n", "100\n");
    group("a.slice/b.service", "600\n", "6\n");
    assert_eq!(read(&root).memory_used(), Some(0.75), "the box is nearer");
}

#[test]
fn a_control_group_that_makes_no_sense_is_none() {
    let root = proc();
    write(root.path(), "outside/memory.max", "10");
    write(root.path(), "outside/memory.current", "10");
    for own in [
        "0::/../outside",
        "0::",
        "4:memory:/x",
        "",
        "0::/gone",
        "0::/empty",
    ] {
        write(root.path(), "self/cgroup", own);
        write(root.path(), "groups/empty/memory.max", "0");
        let seen = read(&root);
        assert_eq!(seen.host.group_memory_max_bytes, None, "{own:?}");
    }
}

#[test]
fn what_is_missing_is_not_known_and_the_rest_is() {
    for (path, _) in FILES {
        let root = proc();
        fs::remove_file(root.path().join(path)).expect("it was there");
        let seen = read(&root);
        assert!(!seen.is_blank(), "without {path}");
    }
    let nothing = tempfile::tempdir().expect("a directory");
    let seen = read(&nothing);
    assert!(seen.is_blank(), "{seen:?}");
    assert_eq!((seen.memory_used(), seen.files_used()), (None, None));
}

#[test]
fn garbage_is_not_known() {
    let texts: [&[u8]; 14] = [
        b"",
        b"\n\n",
        b")(",
        b"(",
        b") ",
        b"\xff\xfe\x00",
        b"cpu \ncpu0\n",
        b"cpu  1 2 x 4 5 6 7 8",
        b"cpu  18446744073709551615 18446744073709551615 3 4 5",
        b"MemTotal:\nMemAvailable: -1 kB\n",
        b"MemTotal: 0 kB\nMemAvailable: 99999999999999999999 kB\n",
        b"some\nsome avg10=\n",
        b"some avg10=NaN avg60=inf",
        b"Max open files unlimited unlimited files\nMax open files",
    ];
    for text in texts {
        let root = proc();
        for (path, _) in FILES {
            write(root.path(), path, text);
        }
        let seen = read(&root);
        assert_eq!(seen.host.load, None, "{text:?}");
        assert_eq!(seen.memory_used(), None, "{text:?}");
        assert_eq!(
            (seen.process.threads, seen.process.max_files),
            (None, None),
            "{text:?}"
        );
    }
}

#[test]
fn a_share_is_never_more_than_all() {
    let root = proc();
    write(root.path(), "sys/fs/file-nr", "300000 0 1000");
    write(
        root.path(),
        "meminfo",
        "MemTotal: 10 kB\nMemAvailable: 20 kB",
    );
    write(root.path(), "pressure/io", "some avg10=250.00");
    let seen = read(&root);
    assert_eq!(
        (seen.memory_used(), seen.files_used()),
        (Some(0.0), Some(1.0))
    );
    assert_eq!(seen.host.io_pressure, Some(1.0));
}

#[test]
fn this_very_box_is_readable() {
    let mut reader = Reader::new(&Config::builtin(Profile::Dev).throttle);
    let seen = reader.read(Time::ZERO);
    assert!(seen.process.threads.is_some_and(|threads| threads >= 1));
    assert!(
        seen.process
            .resident_bytes
            .is_some_and(|bytes| bytes > 100_000)
    );
    assert!(seen.process.open_files.is_some_and(|open| open >= 3));
    assert!(
        seen.memory_used()
            .is_some_and(|used| (0.0..=1.0).contains(&used))
    );
    let json = serde_json::to_value(&seen).expect("numbers and names");
    assert!(json["box"]["memory_bytes"].is_u64(), "{json}");
    assert!(json["process"]["cpu_s"].is_number(), "{json}");
}

#[test]
fn the_monitor_looks_at_once_and_again_until_it_is_stopped() {
    let root = proc();
    let mut settings = Config::builtin(Profile::Test).throttle;
    settings.proc = root.path().to_owned();
    settings.interval = Duration::from_millis(10);
    let (tell, told) = unbounded();
    let monitor = Monitor::start(&settings, SystemClock::shared(), move |seen| {
        let _ = tell.send(seen);
    });
    let monitor = monitor.expect("a thread");
    let first = told.try_recv().expect("it was told before it returned");
    assert_eq!(first.host.cpus, Some(2));
    write(root.path(), "loadavg", "9.00 0.00 0.00 1/1 1");
    let later = told
        .iter()
        .find(|seen| seen.host.load == Some([9.0, 0.0, 0.0]));
    assert!(later.is_some());
    monitor.stop();
    assert!(
        told.iter().count() < 1_000_000,
        "the sender is gone, so this ends"
    );
    monitor.stop();
}

#[test]
fn a_monitor_whose_clock_stands_still_can_be_stopped() {
    let settings = Config::builtin(Profile::Test).throttle;
    let clock = Arc::new(ManualClock::new());
    let monitor = Monitor::start(&settings, clock, |_| {}).expect("a thread");
    drop(monitor);
}
