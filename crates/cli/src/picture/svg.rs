//! Draws the page map as an SVG that stands alone: no script, no font, no outside reference; light or dark as the reader
//! has it. Each
//! cell that is here tells its pages when the pointer rests on it.

use partial_sync::{OwnerKind, PageAt, PageMapView};

use super::grid::{COLOURS, Cell, Grid, Ranking, percent, shortened};
use crate::units::{counted, grouped, shown_bytes};

const COLUMNS: usize = 72;
const MOST_ROWS: usize = 40;
/// A cell and the gap to the next, in pixels.
const STEP: usize = 12;
const SIDE: usize = 10;
const MARGIN: usize = 24;
const LINE: usize = 20;
const OWNERS_LISTED: usize = 12;

const PALETTE: [&str; COLOURS] = [
    "#3b82f6", "#22a565", "#9b5de5", "#14a3a8", "#d9822b", "#d6488e", "#8a8f3c", "#5b7fa6",
];
const OTHER: &str = "#8b949e";
const DIRTY: &str = "#f97316";

/// The picture, as the text of an SVG file.
pub(crate) fn svg(title: &str, map: &PageMapView) -> String {
    let grid = Grid::new(map, COLUMNS, MOST_ROWS);
    let ranking = Ranking::new(map);
    let grid_top = MARGIN + 56;
    let legend_top = grid_top + grid.rows().count() * STEP + 24;
    let listed = &ranking.order[..ranking.order.len().min(OWNERS_LISTED)];
    let owner_rows = listed.len().div_ceil(2);
    let width = 2 * MARGIN + COLUMNS * STEP;
    let height = legend_top + LINE + owner_rows * LINE + MARGIN;

    let mut out = String::new();
    let mut put = |text: &str| out.push_str(text);
    put(&format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         role=\"img\" font-family=\"ui-sans-serif, system-ui, sans-serif\" font-size=\"13\">\n\
         <title>{}: which pages are here</title>\n\
         <style>.bg{{fill:#ffffff}}.t{{fill:#1f2328}}.f{{fill:#656d76}}.a{{fill:#e6e9ed}}\
         @media(prefers-color-scheme:dark){{.bg{{fill:#0d1117}}.t{{fill:#e6edf3}}.f{{fill:#8d96a0}}.a{{fill:#21262d}}}}</style>\n\
         <rect class=\"bg\" width=\"{width}\" height=\"{height}\" rx=\"8\"/>\n",
        escaped(title)
    ));
    let (present, dirty) = (map.count(PageAt::Present), map.count(PageAt::Dirty));
    let here = present + dirty;
    let size = shown_bytes(u64::from(map.total()) * u64::from(map.page_size));
    let written = if dirty == 0 {
        String::new()
    } else {
        format!(", {} of them written locally", grouped(dirty.into()))
    };
    put(&text(
        MARGIN,
        MARGIN + 14,
        "t\" font-size=\"17\" font-weight=\"600",
        title,
    ));
    let of = counted(map.total().into(), "page");
    let line = format!(
        "{} of {of} here ({}){written}; {size} in all",
        grouped(here.into()),
        percent(here, map.total())
    );
    put(&text(MARGIN, MARGIN + 36, "f", &line));
    // What is not here is one pattern behind the grid, so that the file is as large as what is here.
    put(&format!(
        "<pattern id=\"absent\" x=\"{MARGIN}\" y=\"{grid_top}\" width=\"{STEP}\" height=\"{STEP}\" \
         patternUnits=\"userSpaceOnUse\"><rect class=\"a\" width=\"{SIDE}\" height=\"{SIDE}\" rx=\"2\"/></pattern>\n"
    ));
    for (y, row) in grid.rows().enumerate() {
        let (top, length) = (grid_top + y * STEP, row.len() * STEP);
        put(&format!(
            "<rect x=\"{MARGIN}\" y=\"{top}\" width=\"{length}\" height=\"{STEP}\" fill=\"url(#absent)\"/>\n"
        ));
        for (x, &cell) in row.iter().enumerate().filter(|(_, cell)| cell.here() > 0.0) {
            put(&square(MARGIN + x * STEP, top, cell, &ranking, map));
        }
    }
    let one = match grid.pages_per_cell {
        1 => "one square is one page".to_owned(),
        n => format!(
            "one square is {} pages; the fuller, the more of them are here",
            grouped(n.into())
        ),
    };
    let mut x = MARGIN;
    for (fill, name) in [(DIRTY, "written locally"), ("", "not here")] {
        let fill = if fill.is_empty() {
            "class=\"a\"".to_owned()
        } else {
            format!("fill=\"{fill}\"")
        };
        put(&format!(
            "<rect x=\"{x}\" y=\"{}\" width=\"{SIDE}\" height=\"{SIDE}\" rx=\"2\" {fill}/>\n",
            legend_top - 10
        ));
        put(&text(x + 16, legend_top, "t", name));
        x += 130;
    }
    put(&text(x, legend_top, "f", &one));
    for (at, &i) in listed.iter().enumerate() {
        let owner = &map.owners[i];
        let (x, y) = (
            MARGIN + (at % 2) * COLUMNS * STEP / 2,
            legend_top + LINE + at / 2 * LINE + 6,
        );
        let fill = ranking.colour(Some(i)).map_or(OTHER, |c| PALETTE[c]);
        put(&format!(
            "<rect x=\"{x}\" y=\"{}\" width=\"{SIDE}\" height=\"{SIDE}\" rx=\"2\" fill=\"{fill}\"/>\n",
            y - 10
        ));
        let kind = match owner.kind {
            OwnerKind::Index => " (index)",
            _ => "",
        };
        let here = owner.present + owner.dirty;
        let absent = if owner.absent == 0 {
            String::new()
        } else {
            format!(" of {}+", grouped(owner.known().into()))
        };
        let line = format!(
            "{}{kind}: {}{absent} here",
            shortened(&owner.name),
            grouped(here.into())
        );
        put(&text(x + 16, y, "t", &line));
    }
    out.push_str("</svg>\n");
    out
}

fn square(x: usize, y: usize, cell: Cell, ranking: &Ranking, map: &PageMapView) -> String {
    let fill = match cell.dirty {
        0 => ranking.colour(cell.owner).map_or(OTHER, |c| PALETTE[c]),
        _ => DIRTY,
    };
    let opacity = 0.25 + 0.75 * cell.here();
    let pages = match cell.pages() {
        1 => format!("page {}", grouped(cell.first.into())),
        n => {
            let (first, last) = (grouped(cell.first.into()), grouped(cell.last.into()));
            format!(
                "pages {first} to {last}: {} of {n} here",
                cell.present + cell.dirty
            )
        }
    };
    let owner = cell
        .owner
        .and_then(|i| map.owners.get(i))
        .map_or(String::new(), |o| format!(", {}", o.name));
    format!(
        "<rect x=\"{x}\" y=\"{y}\" width=\"{SIDE}\" height=\"{SIDE}\" rx=\"2\" fill=\"{fill}\" \
         fill-opacity=\"{opacity:.2}\"><title>{}</title></rect>\n",
        escaped(&(pages + &owner))
    )
}

fn text(x: usize, y: usize, class: &str, text: &str) -> String {
    format!(
        "<text x=\"{x}\" y=\"{y}\" class=\"{class}\">{}</text>\n",
        escaped(text)
    )
}

/// Text for XML; what XML cannot hold becomes a question mark.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            c if c.is_control() || matches!(c, '\u{fffe}' | '\u{ffff}') => out.push('?'),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_text() {
        assert_eq!(escaped("<b>&\"\u{1}"), "&lt;b&gt;&amp;&quot;?");
    }
}
