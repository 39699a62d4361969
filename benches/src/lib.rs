//! What is measured: `compare` runs whole jobs beside other programs and writes `RESULTS.md`; `src/bin/` makes the data.
