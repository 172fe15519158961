use super::*;
use crate::state::ContainerError;
use anyhow::Context;

#[test]
fn a_program_that_cannot_run_has_a_status_of_its_own() {
    let agent = |kind| AgentError { kind, message: "no".to_owned() };
    let error = || anyhow::Error::from(ClientError::Agent(agent(ErrorKind::ExecutableNotFound)));
    assert_eq!(exit_status(&error()), 127);
    assert_eq!(exit_status(&Err::<(), _>(error()).context("while").unwrap_err()), 127);
    assert_eq!(exit_status(&agent(ErrorKind::NotExecutable).into()), 126);
    assert_eq!(exit_status(&agent(ErrorKind::Internal).into()), 1);
    assert_eq!(exit_status(&ContainerError::NotRunning.into()), 1);
}
