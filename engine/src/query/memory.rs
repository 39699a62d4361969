//! How much may a statement hold in memory? Each has a pool of its own, whose consumers share it fairly; all of them draw from one total.

use std::{
    fmt::{self, Display},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use datafusion::{
    error::{DataFusionError, Result},
    execution::memory_pool::{FairSpillPool, MemoryConsumer, MemoryLimit, MemoryPool, MemoryReservation},
};

/// What all statements hold, and may.
#[derive(Debug)]
pub(super) struct Total {
    held: AtomicUsize,
    most: usize,
}

impl Total {
    pub fn new(most: u64) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), most: usize::try_from(most).unwrap_or(usize::MAX) })
    }

    /// A pool for one statement.
    pub fn pool(self: &Arc<Self>, most: Option<u64>) -> Arc<dyn MemoryPool> {
        let most = most.map_or(self.most, |most| usize::try_from(most).unwrap_or(usize::MAX)).min(self.most);
        Arc::new(Pool { own: FairSpillPool::new(most), total: self.clone() })
    }

    fn take(&self, bytes: usize) -> Result<()> {
        let fits = |held: usize| held.checked_add(bytes).filter(|after| *after <= self.most);
        self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits).map(drop).map_err(|held| {
            DataFusionError::ResourcesExhausted(format!(
                "{held} bytes are held by all statements, {bytes} more exceed the {} that may be",
                self.most
            ))
        })
    }

    fn give_back(&self, bytes: usize) {
        self.held.fetch_sub(bytes, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Pool {
    own: FairSpillPool,
    total: Arc<Total>,
}

impl Display for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.own)
    }
}

impl MemoryPool for Pool {
    fn name(&self) -> &str {
        "statement"
    }

    fn register(&self, consumer: &MemoryConsumer) {
        self.own.register(consumer);
    }

    fn unregister(&self, consumer: &MemoryConsumer) {
        self.own.unregister(consumer);
    }

    fn grow(&self, reservation: &MemoryReservation, additional: usize) {
        self.total.held.fetch_add(additional, Ordering::Relaxed);
        self.own.grow(reservation, additional);
    }

    fn shrink(&self, reservation: &MemoryReservation, shrink: usize) {
        self.own.shrink(reservation, shrink);
        self.total.give_back(shrink);
    }

    fn try_grow(&self, reservation: &MemoryReservation, additional: usize) -> Result<()> {
        self.total.take(additional)?;
        self.own.try_grow(reservation, additional).inspect_err(|_| self.total.give_back(additional))
    }

    fn reserved(&self) -> usize {
        self.own.reserved()
    }

    fn memory_limit(&self) -> MemoryLimit {
        self.own.memory_limit()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_has_its_own_limit_and_all_share_one() {
        let total = Total::new(100);
        let (one, other) = (total.pool(Some(60)), total.pool(None));
        let first = MemoryConsumer::new("first").register(&one);
        first.try_grow(50).expect("within both");
        first.try_grow(20).expect_err("over its own");
        let second = MemoryConsumer::new("second").register(&other);
        second.try_grow(60).expect_err("over all");
        second.try_grow(50).expect("within both");
        drop(first);
        second.try_grow(40).expect("the first has gone");
        drop(second);
        assert_eq!(total.held.load(Ordering::Relaxed), 0);
    }
}
