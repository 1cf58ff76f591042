//! What was seen of the box and of this process.

use serde::Serialize;

use crate::clock::Time;

/// The box and this process at one moment, for pages, metrics, alerts and the throttle. Whatever could not be read is
/// `None`. As JSON: the fields below under these names.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ResourceView {
    /// When.
    #[serde(skip)]
    pub at: Time,
    /// This process.
    pub process: ProcessView,
    /// The box.
    #[serde(rename = "box")]
    pub host: HostView,
}

/// This process at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct ProcessView {
    /// Processor time that it took since its start, in seconds.
    pub cpu_s: Option<f64>,
    /// Memory that it has in use, in bytes.
    pub resident_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
    /// Open file handles.
    pub open_files: Option<u64>,
    /// How many it may have open.
    pub max_files: Option<u64>,
}

/// The box at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct HostView {
    /// Processors.
    pub cpus: Option<u64>,
    /// The part of their time since the look before that was used, 0 to 1; unknown at the first look.
    pub cpu_busy: Option<f64>,
    /// How many were running or about to, on average over 1, 5 and 15 minutes.
    pub load: Option<[f64; 3]>,
    /// Memory, in bytes.
    pub memory_bytes: Option<u64>,
    /// What of it can be had without paging, caches included, in bytes.
    pub memory_available_bytes: Option<u64>,
    /// Memory that the control group of this process has in use, caches that can be dropped excepted, in bytes: its own,
    /// or the one above it that is nearest to its limit. Unknown where none has a limit.
    pub group_memory_bytes: Option<u64>,
    /// How much that group may have, in bytes.
    pub group_memory_max_bytes: Option<u64>,
    /// Open file handles.
    pub open_files: Option<u64>,
    /// How many there may be.
    pub max_files: Option<u64>,
    /// The part of the last 10 s in which somebody had to wait for a processor, 0 to 1.
    pub cpu_pressure: Option<f64>,
    /// The same for memory.
    pub memory_pressure: Option<f64>,
    /// The same for disks.
    pub io_pressure: Option<f64>,
}

impl ResourceView {
    /// The part of memory that is not available, 0 to 1: of the box's, or of what the control group of this process may
    /// have, whichever is more.
    pub fn memory_used(&self) -> Option<f64> {
        let free = share(self.host.memory_available_bytes, self.host.memory_bytes);
        let group = share(
            self.host.group_memory_bytes,
            self.host.group_memory_max_bytes,
        );
        let all = free.map(|free| 1.0 - free);
        all.into_iter().chain(group).reduce(f64::max)
    }

    /// The part of the file handles that is used, 0 to 1: of this process or of the box, whichever is more.
    pub fn files_used(&self) -> Option<f64> {
        let own = share(self.process.open_files, self.process.max_files);
        let all = share(self.host.open_files, self.host.max_files);
        own.into_iter().chain(all).reduce(f64::max)
    }

    /// Whether nothing at all could be read.
    pub fn is_blank(&self) -> bool {
        let (at, blank) = (self.at, ResourceView::default());
        *self == ResourceView { at, ..blank }
    }
}

/// At most all of it.
fn share(part: Option<u64>, of: Option<u64>) -> Option<f64> {
    let of = of.filter(|&of| of > 0)?;
    Some((part? as f64 / of as f64).min(1.0))
}
