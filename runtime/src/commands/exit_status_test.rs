use super::*;
use crate::state::ContainerError;
use crate::vm::agent::ClientError;
use anyhow::Context;
use stockade_protocol::agent::{AgentError, ErrorKind};

#[test]
fn only_an_exec_has_a_status_of_its_own() {
    let kinds = [ErrorKind::ExecutableNotFound, ErrorKind::NotExecutable, ErrorKind::Internal];
    for kind in kinds {
        let error = ClientError::Agent(AgentError { kind, message: "no".to_owned() });
        let error = anyhow::Error::from(error).context("while");
        assert_eq!(exit_status(&error), 1, "{kind:?}");
        assert_eq!(exit_status(&Err::<(), _>(error).context(ExecFailed).unwrap_err()), 255, "{kind:?}");
    }
    assert_eq!(exit_status(&ContainerError::NotRunning.into()), 1);
}
