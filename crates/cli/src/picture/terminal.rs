//! Draws the page map with block characters: what is here, by density, and whose it is, by colour.

use std::io::{self, Write};

use partial_sync::{Owner, OwnerKind, PageAt, PageMapView};
use unicode_width::UnicodeWidthStr;

use super::grid::{COLOURS, Cell, Grid, Ranking, percent, shortened};
use crate::units::{counted, grouped, shown_bytes};

const OWNERS_LISTED: usize = 16;
const BAR: usize = 16;

/// 256-colour codes for owners, readable on light and dark backgrounds.
const PALETTE: [u8; COLOURS] = [33, 71, 135, 37, 173, 168, 101, 67];
const OTHER: u8 = 245;
const DIRTY: u8 = 208;
const FAINT: u8 = 242;

/// How to draw.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    /// Columns of the whole picture.
    pub columns: usize,
    /// Most rows of the grid.
    pub rows: usize,
    /// Only the grid.
    pub brief: bool,
    pub colour: bool,
}

impl Style {
    fn paint(self, colour: u8, text: &str) -> String {
        if self.colour {
            format!("\x1b[38;5;{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn bold(self, text: &str) -> String {
        if self.colour {
            format!("\x1b[1m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Draws the whole picture: counts, grid, legend, owners.
pub(crate) fn draw(out: &mut impl Write, title: &str, map: &PageMapView, style: Style) -> io::Result<()> {
    let label = grouped(map.total().into()).len();
    // A multiple of 8, so that page numbers at the left are easy to add up.
    let columns = (style.columns.saturating_sub(label + 4) / 8 * 8).clamp(8, 128);
    let grid = Grid::new(map, columns, style.rows);
    let ranking = Ranking::new(map);

    if !style.brief {
        headline(out, title, map, style)?;
    }
    for row in grid.rows() {
        let first = row.first().map_or(0, |cell| cell.first);
        write!(
            out,
            "{}  ",
            style.paint(FAINT, &format!("{:>label$}", grouped(first.into())))
        )?;
        writeln!(out, "{}", runs(row, &ranking, style))?;
    }
    if style.brief {
        return Ok(());
    }
    let one = match grid.pages_per_cell {
        1 => "one cell is one page".to_owned(),
        n => format!("one cell is {} pages", grouped(n.into())),
    };
    let legend = ["█ here", "▓▒░ partly", "◆ written locally", "· not here"].join("   ");
    writeln!(out, "\n{:label$}  {legend}   {}\n", "", style.paint(FAINT, &one))?;
    owners(out, map, &ranking, style)
}

fn headline(out: &mut impl Write, title: &str, map: &PageMapView, style: Style) -> io::Result<()> {
    let (present, dirty) = (map.count(PageAt::Present), map.count(PageAt::Dirty));
    let size = u64::from(map.total()) * u64::from(map.page_size);
    writeln!(
        out,
        "{}  {} of {} ({})",
        style.bold(title),
        counted(map.total().into(), "page"),
        shown_bytes(map.page_size.into()),
        shown_bytes(size),
    )?;
    let here = present + dirty;
    let written = match dirty {
        0 => String::new(),
        n => format!(", {} of them written locally", grouped(n.into())),
    };
    let line = format!(
        "{} here ({}){written}",
        counted(here.into(), "page"),
        percent(here, map.total())
    );
    writeln!(out, "{line}\n")
}

/// A row of cells, with one colour code for each run of the same colour.
fn runs(row: &[Cell], ranking: &Ranking, style: Style) -> String {
    let mut line = String::new();
    let mut run = String::new();
    let mut run_colour = None;
    for &cell in row {
        let colour = colour(cell, ranking);
        if run_colour.is_some_and(|c| c != colour) {
            line.push_str(&style.paint(run_colour.unwrap_or(FAINT), &run));
            run.clear();
        }
        run_colour = Some(colour);
        run.push(glyph(cell));
    }
    line + &style.paint(run_colour.unwrap_or(FAINT), &run)
}

fn glyph(cell: Cell) -> char {
    match cell.here() {
        _ if cell.dirty > 0 => '◆',
        0.0 => '·',
        here if here < 1.0 / 3.0 => '░',
        here if here < 2.0 / 3.0 => '▒',
        here if here < 1.0 => '▓',
        _ => '█',
    }
}

fn colour(cell: Cell, ranking: &Ranking) -> u8 {
    match (cell.dirty, ranking.colour(cell.owner)) {
        (1.., _) => DIRTY,
        (0, Some(colour)) => PALETTE[colour],
        (0, None) if cell.present == 0 => FAINT,
        (0, None) => OTHER,
    }
}

fn owners(out: &mut impl Write, map: &PageMapView, ranking: &Ranking, style: Style) -> io::Result<()> {
    let listed = &ranking.order[..ranking.order.len().min(OWNERS_LISTED)];
    let rest = &ranking.order[listed.len()..];
    let mut lines: Vec<Line> = listed
        .iter()
        .map(|&i| {
            Line::of(
                &map.owners[i],
                ranking.colour(Some(i)).map_or(OTHER, |c| PALETTE[c]),
            )
        })
        .collect();
    if !rest.is_empty() {
        lines.push(Line::rest(rest.iter().map(|&i| &map.owners[i])));
    }
    let [absent, present, dirty] = [PageAt::Absent, PageAt::Present, PageAt::Dirty].map(|at| map.unowned(at));
    if absent + present + dirty > 0 {
        let name = "(not known from what is here)".to_owned();
        lines.push(Line {
            name,
            kind: "",
            colour: FAINT,
            here: present + dirty,
            dirty,
            absent,
            more: false,
        });
    }
    let width = lines
        .iter()
        .map(|line| line.name.width())
        .max()
        .unwrap_or(0)
        .max(4);
    let heads = ["here", "written", "not here"];
    let head = format!(
        "   {:width$}  {:8} {:BAR$}  {:>8} {:>8} {:>10}",
        "name", "kind", "", heads[0], heads[1], heads[2]
    );
    writeln!(out, "{}", style.paint(FAINT, head.trim_end()))?;
    for line in &lines {
        line.write(out, width, style)?;
    }
    if lines.iter().any(|line| line.more) {
        writeln!(
            out,
            "{}",
            style.paint(FAINT, "   + and what those lead to, which only they can tell")
        )?;
    }
    Ok(())
}

struct Line {
    name: String,
    kind: &'static str,
    colour: u8,
    here: u32,
    dirty: u32,
    absent: u32,
    more: bool,
}

impl Line {
    fn of(owner: &Owner, colour: u8) -> Self {
        Self {
            name: shortened(&owner.name),
            kind: kind(owner.kind),
            colour,
            here: owner.present + owner.dirty,
            dirty: owner.dirty,
            absent: owner.absent,
            more: owner.absent > 0 && !matches!(owner.kind, OwnerKind::Freelist | OwnerKind::Housekeeping),
        }
    }

    fn rest<'m>(owners: impl Iterator<Item = &'m Owner>) -> Self {
        let mut line = Self {
            name: String::new(),
            kind: "",
            colour: OTHER,
            here: 0,
            dirty: 0,
            absent: 0,
            more: false,
        };
        let mut count = 0;
        for owner in owners {
            let one = Self::of(owner, OTHER);
            line.here += one.here;
            line.dirty += one.dirty;
            line.absent += one.absent;
            line.more |= one.more;
            count += 1;
        }
        line.name = format!("({} more)", grouped(count));
        line
    }

    fn write(&self, out: &mut impl Write, width: usize, style: Style) -> io::Result<()> {
        let space = " ".repeat(width.saturating_sub(self.name.width()));
        let known = (self.here + self.absent).max(1);
        // At least one block for what is not nothing, never all of them for what is not all.
        let full = (u64::from(self.here) * BAR as u64 / u64::from(known)) as usize;
        let full = if self.here > 0 { full.max(1) } else { full };
        let bar = "█".repeat(full) + &"·".repeat(BAR - full.min(BAR));
        let dirty = if self.dirty == 0 {
            String::new()
        } else {
            grouped(self.dirty.into())
        };
        let absent = match (self.absent, self.more) {
            (0, _) => String::new(),
            (n, true) => format!("{}+", grouped(n.into())),
            (n, false) => format!("{} ", grouped(n.into())),
        };
        let line = format!(
            "{} {}{space}  {:8} {}  {:>8} {:>8} {absent:>11}",
            style.paint(self.colour, " ■"),
            self.name,
            self.kind,
            style.paint(self.colour, &bar),
            grouped(self.here.into()),
            dirty,
        );
        writeln!(out, "{}", line.trim_end())
    }
}

fn kind(kind: OwnerKind) -> &'static str {
    match kind {
        OwnerKind::Table => "table",
        OwnerKind::Index => "index",
        OwnerKind::Schema => "schema",
        OwnerKind::Freelist => "free",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cell_shows_how_much_of_it_is_here() {
        let cell = |absent, present, dirty| Cell {
            absent,
            present,
            dirty,
            ..Cell::default()
        };
        let glyphs = [(4, 0, 0), (7, 1, 0), (4, 4, 0), (1, 7, 0), (0, 8, 0), (7, 0, 1)]
            .map(|(a, p, d)| glyph(cell(a, p, d)));
        assert_eq!(glyphs, ['·', '░', '▒', '▓', '█', '◆']);
    }
}
