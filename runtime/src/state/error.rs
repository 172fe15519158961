//! Errors of containers' states, which callers recognise by their text.

/// An error that engines recognise by its text; the words are runc's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum ContainerError {
    /// There is no container with this ID.
    #[error("container {0:?} does not exist")]
    DoesNotExist(String),
    /// There is a container with this ID already.
    #[error("container with id exists: {0:?}; choose another ID or delete it")]
    Exists(String),
    /// A signal for a container that has stopped.
    #[error("container not running")]
    NotRunning,
    /// Start of a container that runs.
    #[error("cannot start an already running container")]
    AlreadyRunning,
    /// Start of a container that has stopped.
    #[error("cannot start a container that has stopped")]
    HasStopped,
    /// Start of a container that is paused.
    #[error("cannot start a container in the paused state")]
    StartPaused,
    /// Exec in a container that has ended.
    #[error("cannot exec in a stopped container")]
    ExecStopped,
    /// Exec in a container that is paused.
    #[error("cannot exec in a paused container (use --ignore-paused to override)")]
    ExecPaused,
    /// Exec in a container that `create` has not finished.
    #[error("cannot exec in a container that is still being created")]
    ExecCreating,
    /// Pause of a container that is paused already, or neither created nor running.
    #[error("cannot pause the container: container not running; it is {0}")]
    CannotPause(&'static str),
    /// Resume of a container that is not paused.
    #[error("container not paused")]
    NotPaused,
    /// Delete without `--force`.
    #[error("cannot delete container {id:?} that is not stopped: it is {status} (use --force to kill it)")]
    NotStopped {
        /// The container's ID.
        id: String,
        /// Its status.
        status: &'static str,
    },
}
