//! The planner, the page map and the parser of pages against models of them, and against SQLite. One binary, so that SQLite
//! is linked once.

#[cfg(feature = "shuttle")]
mod page_map_interleavings;
mod page_map_model;
mod parser_against_dbstat;
mod planner_properties;
mod planner_simulation;
mod saved_map;
