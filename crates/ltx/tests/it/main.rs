//! Whole files: what is written is read back, what is damaged is refused, and other programs agree.

mod damage;
mod foreign;
mod legacy;
mod misuse;
mod round_trip;
mod rules;
mod support;
