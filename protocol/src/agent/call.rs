//! The [`Request`]s with their answers.

use std::ops::RangeInclusive;

use super::{
    AgentError, ContainerState, Exec, MAX_CONTAINERS, MAX_PROCESSES, OLDEST_VERSION, ProcessEntry, ProcessId,
    Request, Response, VERSION,
};
use crate::call::{self, calls};
use crate::container::Container;
use crate::network::NetworkChange;
use crate::settings::{Confinement, SelinuxPolicy, Settings};

impl call::Response for Response {
    type Refusal = AgentError;

    fn accepted(self) -> Result<Self, AgentError> {
        match self {
            Self::Error(error) => Err(error),
            other => Ok(other),
        }
    }
}

/// All versions that this build speaks.
const ALL: RangeInclusive<u16> = OLDEST_VERSION..=VERSION;

/// The versions since 0.2.
const SINCE_0_2: RangeInclusive<u16> = 2..=VERSION;

calls! {
    /// Builds a container; the answer is what could not be applied.
    Create(container: Container) in ALL,
        Request::Create(Box::new(container)) => Response::Created { warnings, .. } => warnings, Vec<String>;
    /// Makes another process in a container; the answer is what could not be applied.
    MakeProcess(exec: Exec) in ALL,
        Request::Exec(Box::new(exec)) => Response::Created { warnings, .. } => warnings, Vec<String>;
    /// Lets a created process execute its program.
    Start(process: ProcessId) in ALL,
        Request::Start(process) => Response::Started => (), ();
    /// Sends this signal to the init of a container or, with `all`, to all of its processes.
    Signal(container: String, signal: i32, all: bool) in ALL,
        Request::Signal { container, signal, all } => Response::Signalled => (), ();
    /// Reads the state of a container.
    State(container: String) in ALL,
        Request::State { container } => Response::State(state) => state, ContainerState;
    /// Kills what is left of a container and forgets it.
    Delete(container: String) in ALL,
        Request::Delete { container } => Response::Deleted => (), ();
    /// Freezes the processes of a container.
    Pause(container: String) in ALL,
        Request::Pause { container } => Response::Paused => (), ();
    /// Lets the frozen processes of a container go on.
    Resume(container: String) in ALL,
        Request::Resume { container } => Response::Resumed => (), ();
    /// Lists the processes of a container.
    Processes(container: String) in ALL,
        Request::Processes { container } =>
            Response::Processes(processes) if processes.len() <= MAX_PROCESSES => processes, Vec<ProcessEntry>;
    /// Reads the files of a container's cgroup: their names and contents.
    CgroupFiles(container: String) in ALL,
        Request::CgroupFiles { container } => Response::CgroupFiles(files) => files, Vec<(String, String)>;
    /// Writes these files of a container's cgroup.
    Update(container: String, values: Vec<(String, String)>) in ALL,
        Request::Update { container, values } => Response::Updated => (), ();
    /// Changes the network of the guest.
    Network(change: NetworkChange) in ALL,
        Request::Network(Box::new(change)) => Response::NetworkChanged => (), ();
    /// Lists the IDs of the containers of the guest.
    Containers() in ALL,
        Request::Containers =>
            Response::Containers(containers) if containers.len() <= MAX_CONTAINERS => containers, Vec<String>;
    /// Makes the guest use this many CPUs.
    SetCpus(count: u16) in ALL,
        Request::SetCpus { count } => Response::CpusSet => (), ();
    /// Makes the guest's kernel take over the node's settings; the answer is what it does not take.
    TakeSettings(settings: Settings) in SINCE_0_2,
        Request::Settings(Box::new(settings)) => Response::SettingsTaken(refused) => refused, Vec<String>;
    /// Says what confines the process of this name, which is made next over the same connection.
    Confine(process: ProcessId, confinement: Confinement) in SINCE_0_2,
        Request::Confine { process, confinement: Box::new(confinement) } => Response::Confined => (), ();
    /// Loads an SELinux policy into the guest's kernel.
    LoadSelinux(policy: SelinuxPolicy) in SINCE_0_2,
        Request::Selinux(Box::new(policy)) => Response::SelinuxLoaded => (), ();
}
