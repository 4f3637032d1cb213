//! The page map as a picture. A database of any size becomes a grid of a bounded number of cells, each for a run of
//! pages; [`mod@terminal`] and [`svg()`] draw it.

mod grid;
mod svg;
mod terminal;

pub(crate) use svg::svg;
pub(crate) use terminal::{Style, draw};
