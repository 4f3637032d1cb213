//! The life of a database that is being served: two servers on one file, a file that is replaced or deleted, many
//! databases in a folder, a history whose disk is full.

mod durable;
mod full_disk;
mod live;
mod many;
mod polls;
mod reach;
mod replaced;
mod second_server;
mod start;
mod start_meets;
mod starts;
mod stopped;
