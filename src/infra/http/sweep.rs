/// Removes counts that no longer limit a client.
pub trait Sweep: Send + Sync {
    /// To be called periodically; otherwise counts are kept forever.
    fn sweep(&self);
}
