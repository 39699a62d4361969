//! What a run tells whoever watches it.

/// Something worth showing while a run goes on.
#[derive(Debug, Clone)]
pub enum Event {
    /// Planned; staging starts.
    Started {
        /// The run's id.
        run: String,
        /// Bytes that sources expect to read, where known.
        bytes_total: Option<u64>,
    },
    /// Sent about ten times a second while rows move.
    Progress {
        /// Rows read so far.
        rows_read: u64,
        /// Bytes read so far.
        bytes_read: u64,
        /// Rows rejected so far.
        rows_rejected: u64,
    },
    /// Everything is staged; expectations and books follow.
    Staged,
    /// The decision is recorded; destinations are being published.
    Publishing,
    /// A sentence for the person.
    Note(String),
}
