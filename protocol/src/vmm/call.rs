//! The [`Request`]s and [`super::FilesRequest`]s with their answers.

use std::ops::RangeInclusive;

use super::{
    CpuPosition, DeviceFailure, Disk, Figures, Nic, OLDEST_VERSION, Request, Response, ThreadTime, VERSION,
};
use crate::call::{self, calls};

impl call::Response for Response {
    type Refusal = String;

    fn accepted(self) -> Result<Self, String> {
        match self {
            Self::Error(reason) => Err(reason),
            other => Ok(other),
        }
    }
}

/// All versions that this build's runtime speaks.
const ALL: RangeInclusive<u16> = OLDEST_VERSION..=VERSION;

calls! {
    /// Serves `/shares/NAME` of the VMM's mount namespace as `/NAME` of the guest's share.
    AddShare(name: String) in 1..=1,
        Request::AddShare { name } => Response::Done => (), ();
    /// Stops serving this directory, and drops every descriptor below it.
    RemoveShare(name: String) in 1..=1,
        Request::RemoveShare { name } => Response::Done => (), ();
    /// Reads the part of the guest's console that the VMM keeps.
    Console() in ALL,
        Request::Console => Response::Console(bytes) => bytes, Vec<u8>;
    /// Reads the figures of the VMM.
    ReadFigures() in ALL,
        Request::Figures => Response::Figures(figures) => figures, Figures;
    /// Puts a network device into a free slot; the answer is the slot.
    AddNic(nic: Nic) in ALL,
        Request::AddNic(nic) => Response::Slot(slot) => slot, u8;
    /// Puts a disk into a free slot; the answer is the slot.
    AddDisk(disk: Disk) in ALL,
        Request::AddDisk(disk) => Response::Slot(slot) => slot, u8;
    /// Takes a device out of this slot.
    RemoveDevice(slot: u8) in ALL,
        Request::RemoveDevice { slot } => Response::Done => (), ();
    /// Reads the CPU times of the VMM's threads and of its file server.
    Threads() in ALL,
        Request::Threads => Response::Threads(threads) => threads, Vec<ThreadTime>;
    /// Reads how much memory the guest has in use, in MiB.
    Memory() in ALL,
        Request::Memory => Response::Memory { mib } => mib, u32;
    /// Gives the machine at least this many CPUs.
    AddVcpus(count: u8) in ALL,
        Request::AddVcpus { count } => Response::Done => (), ();
    /// Reads the position of the boot CPU.
    Position() in ALL,
        Request::Position => Response::Position(position) => position, CpuPosition;
    /// Reads the last failure of each device that has failed.
    Failures() in 2..=VERSION,
        Request::Failures => Response::Failures(failures) => failures, Vec<DeviceFailure>;
}

/// The requests to the file server.
pub mod files {
    use super::super::{FilesRequest as Request, FilesResponse as Response, VERSION};
    use crate::call::{self, calls};

    impl call::Response for Response {
        type Refusal = String;

        fn accepted(self) -> Result<Self, String> {
            match self {
                Self::Error(reason) => Err(reason),
                other => Ok(other),
            }
        }
    }

    calls! {
        /// Adds an empty share of this name.
        AddShare(name: String) in 2..=VERSION,
            Request::AddShare { name } => Response::Done => (), ();
        /// Shows trees of these names in a share.
        AddTrees(share: String, names: Vec<String>) in 2..=VERSION,
            Request::AddTrees { share, names } => Response::Done => (), ();
        /// Removes the share of this name.
        RemoveShare(name: String) in 2..=VERSION,
            Request::RemoveShare { name } => Response::Done => (), ();
    }
}
