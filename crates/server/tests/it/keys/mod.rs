//! Keys and tokens in files: their forms, which key a token is checked with, and reading them again while a server runs.

mod forms;
mod minting;
mod reloading;
mod signing;
mod tls;
