//! What is measured: `compare` runs whole jobs beside other programs, `contract` the check of rows too; each writes its section of
//! `RESULTS.md`. `src/bin/` makes the data and times what is no program of its own; which rows break which rule is `spoil`'s. `parts/` times
//! the engine's parts one by one, on the rows of `lineitem`.

pub mod lineitem;
pub mod spoil;
