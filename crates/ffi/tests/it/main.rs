//! The C ABI: its header, and C programs that use it.

mod c_abi;
mod header;
mod silent;
