//! What the pictures show: the grid of cells, the order and colours of owners, and the texts that both ways to draw share.

use partial_sync::{PageAt, PageMapView};
use unicode_width::UnicodeWidthStr;

/// Columns of the longest name that is shown.
const LONGEST_NAME: usize = 28;
/// Owners with a colour of their own; the others share one.
pub(super) const COLOURS: usize = 8;

/// A run of pages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Cell {
    /// The first page.
    pub(super) first: u32,
    /// The last page.
    pub(super) last: u32,
    pub(super) absent: u32,
    pub(super) present: u32,
    pub(super) dirty: u32,
    /// To whom most of its pages that are here belong, or, when none is here, most of those that are not.
    pub(super) owner: Option<usize>,
}

impl Cell {
    pub(super) fn pages(self) -> u32 {
        self.absent + self.present + self.dirty
    }

    /// Which part of its pages is here, from 0 to 1.
    pub(super) fn here(self) -> f64 {
        f64::from(self.present + self.dirty) / f64::from(self.pages().max(1))
    }
}

/// Cells in page order, `columns` in a row.
#[derive(Debug)]
pub(super) struct Grid {
    columns: usize,
    pub(super) pages_per_cell: u32,
    cells: Vec<Cell>,
}

impl Grid {
    /// Gives each cell as few pages as fit into so many rows, a power of two.
    pub(super) fn new(map: &PageMapView, columns: usize, most_rows: usize) -> Self {
        let room = (columns * most_rows).max(1);
        let pages_per_cell = (map.pages().len().div_ceil(room).max(1) as u32).next_power_of_two();
        let runs = map.pages().chunks(pages_per_cell as usize);
        let cells = (1..)
            .step_by(pages_per_cell as usize)
            .zip(runs)
            .map(|(first, pages)| {
                let mut cell = Cell {
                    first,
                    last: first + pages.len() as u32 - 1,
                    ..Cell::default()
                };
                for page in pages {
                    match page.at {
                        PageAt::Absent => cell.absent += 1,
                        PageAt::Present => cell.present += 1,
                        PageAt::Dirty => cell.dirty += 1,
                    }
                }
                let is_any_here = cell.absent < cell.pages();
                let counted = pages
                    .iter()
                    .filter(|page| (page.at != PageAt::Absent) == is_any_here);
                cell.owner = most_frequent(counted.filter_map(|page| page.owner()));
                cell
            });
        Self {
            columns,
            pages_per_cell,
            cells: cells.collect(),
        }
    }

    pub(super) fn rows(&self) -> impl Iterator<Item = &[Cell]> {
        self.cells.chunks(self.columns.max(1))
    }
}

fn most_frequent(owners: impl Iterator<Item = usize>) -> Option<usize> {
    let mut counts: Vec<(usize, u32)> = vec![];
    for owner in owners {
        match counts.iter_mut().find(|(known, _)| *known == owner) {
            Some((_, count)) => *count += 1,
            None => counts.push((owner, 1)),
        }
    }
    counts
        .into_iter()
        .max_by_key(|(_, count)| *count)
        .map(|(owner, _)| owner)
}

/// Owners by size, the largest first, and the colour of each (`None`: the shared one).
pub(super) struct Ranking {
    pub(super) order: Vec<usize>,
    colours: Vec<Option<usize>>,
}

impl Ranking {
    pub(super) fn new(map: &PageMapView) -> Self {
        let mut order: Vec<usize> = (0..map.owners.len())
            .filter(|&i| map.owners[i].known() > 0)
            .collect();
        order.sort_by_key(|&i| std::cmp::Reverse(map.owners[i].known()));
        let mut colours = vec![None; map.owners.len()];
        for (colour, &owner) in order.iter().take(COLOURS).enumerate() {
            colours[owner] = Some(colour);
        }
        Self { order, colours }
    }

    pub(super) fn colour(&self, owner: Option<usize>) -> Option<usize> {
        owner.and_then(|owner| self.colours.get(owner).copied().flatten())
    }
}

/// "12.3 %", with more digits where there would be none.
pub(super) fn percent(part: u32, whole: u32) -> String {
    let percent = 100.0 * f64::from(part) / f64::from(whole.max(1));
    match percent {
        p if p == 0.0 || p == 100.0 => format!("{p:.0} %"),
        p if p < 0.1 => format!("{p:.3} %"),
        p if p > 99.9 => "99.9 %".into(),
        p => format!("{p:.1} %"),
    }
}

/// A name that fits, without anything that a terminal would obey.
pub(super) fn shortened(name: &str) -> String {
    let name: String = name
        .chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .collect();
    if name.width() <= LONGEST_NAME {
        return name;
    }
    name.chars().take(LONGEST_NAME - 1).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_owner_wins() {
        assert_eq!(most_frequent([1, 2, 2, 3].into_iter()), Some(2));
        assert_eq!(most_frequent(std::iter::empty()), None);
    }

    #[test]
    fn a_percentage_never_claims_all_or_nothing_wrongly() {
        assert_eq!(percent(0, 10), "0 %");
        assert_eq!(percent(10, 10), "100 %");
        assert_eq!(percent(1, 100_000), "0.001 %");
        assert_eq!(percent(99_999, 100_000), "99.9 %");
        assert_eq!(percent(0, 0), "0 %");
    }

    #[test]
    fn names_cannot_write_to_the_terminal() {
        assert_eq!(shortened("a\x1b[31mb"), "a?[31mb");
        assert_eq!(shortened(&"long".repeat(20)).chars().count(), LONGEST_NAME);
    }
}
