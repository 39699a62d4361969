//! What is due of a schedule, and what becomes of it? A function of the schedule, of what was settled before, and of the time that it is
//! given: no clock, no state, no I/O. The scheduler and `weir schedule simulate` both ask here, so that what is simulated is what happens.

mod due;
pub mod simulate;

pub use due::{Action, BEHIND, BUSY, CANCELS, JOINED_MAX, MISSED, OVERTAKEN, SLOTS_MAX, Slot, Standing, awaited, begin, due};
pub use simulate::simulate;
