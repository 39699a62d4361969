//! The one end-to-end test binary: `cases/` folders, `slt/` files, and the tests that need a program (kills, full disks, races).
#![allow(clippy::unwrap_used)]

mod asked;
mod case;
mod codes;
mod crash;
mod crash_shim;
mod disk;
mod docs;
mod doors;
mod doors_tls;
mod editors;
mod exactly_once;
mod flight_door;
mod flights;
mod format;
mod fuzz;
mod guessed;
mod hostile;
mod http_sql;
mod invalid;
mod lake;
mod large;
mod left;
mod live;
mod mended;
mod minimise;
mod plan_data;
mod postgres_door;
mod project;
mod prompt;
mod recorded;
mod referee;
mod replaced;
mod scheduled;
mod schedules;
mod served;
mod servers;
mod slt;
mod tested;
mod tidy;
mod together;
mod tpch;
mod types;
mod warehouse;
mod watched;

/// One test per folder of `tests/cases/`.
mod cases {
    include!(concat!(env!("OUT_DIR"), "/cases.rs"));
}

/// One test per file of `tests/slt/`.
mod sql {
    include!(concat!(env!("OUT_DIR"), "/slt.rs"));
}
