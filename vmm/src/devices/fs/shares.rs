//! shares
#[derive(Clone, Default)]
pub struct Shares;
#[derive(Debug, thiserror::Error)]
#[error("no")]
pub struct ShareError;
impl Shares {
    pub fn add(&self, _: &str) -> Result<(), ShareError> {
        Err(ShareError)
    }
    pub fn remove(&self, _: &str) -> Result<(), ShareError> {
        Err(ShareError)
    }
}
