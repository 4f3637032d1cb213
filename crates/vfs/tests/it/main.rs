//! A replica under SQLite, and its page map on a disk that fails. One binary, so that SQLite is linked once.

mod page_map_saves;
mod replica;
