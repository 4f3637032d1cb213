//! Curves of milliseconds over the size of a database as an SVG, both axes logarithmic, to be read on white and on black.

use std::fmt::Write as _;

/// One line.
pub(super) struct Curve {
    pub(super) name: String,
    /// Which of the colors; those that belong together have the same.
    pub(super) color: usize,
    pub(super) dashed: bool,
    /// Values by the number of the size.
    pub(super) values: Vec<(usize, f64)>,
}

/// They stand out from white and from black.
const COLORS: [&str; 7] = [
    "#3b82f6", "#f97316", "#22a565", "#a855f7", "#e0479e", "#0ea5b7", "#b58900",
];
const LEFT: f64 = 76.0;
const TOP: f64 = 64.0;
const WIDTH: f64 = 810.0;
const HEIGHT: f64 = 420.0;
/// What is less than that, or nothing, is drawn at it.
const LEAST: f64 = 0.01;

/// The whole picture. `sizes` are names and bytes, the smallest first.
pub(super) fn svg(sizes: &[&str], bytes: &[f64], curves: &[Curve]) -> String {
    let values = || {
        curves
            .iter()
            .flat_map(|curve| &curve.values)
            .map(|(_, value)| *value)
    };
    let scale = Scale::of(values().fold(LEAST, f64::max));
    let (first, last) = (
        bytes.first().copied().unwrap_or(1.0),
        bytes.last().copied().unwrap_or(1.0),
    );
    let x = |nth: usize| LEFT + WIDTH * (bytes[nth] / first).log10() / (last / first).log10().max(1.0);
    let mut svg = String::new();
    let mut line = |text: std::fmt::Arguments<'_>| {
        // A string takes everything.
        let _ = writeln!(svg, "{text}");
    };
    let (bottom, right) = (TOP + HEIGHT, LEFT + WIDTH);
    let legend = bottom + 76.0;
    let height = legend + 22.0 * curves.len().div_ceil(2) as f64;
    let width = 920.0;
    line(format_args!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}" role="img" font-family="ui-sans-serif, system-ui, sans-serif" font-size="13">
<title>What a replica costs, by the size of its database</title>
<style>.bg{{fill:#ffffff}}.t{{fill:#1f2328}}.f{{fill:#656d76}}.g{{stroke:#d8dee4}}@media(prefers-color-scheme:dark){{.bg{{fill:#0d1117}}.t{{fill:#e6edf3}}.f{{fill:#8d96a0}}.g{{stroke:#30363d}}}}</style>
<rect class="bg" width="{width}" height="{height}" rx="8"/>
<text x="24" y="36" class="t" font-size="17" font-weight="600">What a replica costs, by the size of its database</text>"#
    ));
    for (nth, power) in (scale.least..=scale.most).enumerate() {
        let value = 10f64.powi(power);
        let y = bottom - HEIGHT * nth as f64 / f64::from(scale.most - scale.least);
        line(format_args!(
            r#"<line class="g" x1="{LEFT}" x2="{right}" y1="{y:.1}" y2="{y:.1}"/><text class="f" x="{:.1}" y="{:.1}" text-anchor="end">{value}</text>"#,
            LEFT - 8.0,
            y + 4.5
        ));
    }
    for (nth, name) in sizes.iter().enumerate() {
        let x = x(nth);
        line(format_args!(
            r#"<line class="g" x1="{x:.1}" x2="{x:.1}" y1="{TOP}" y2="{bottom}"/><text class="f" x="{x:.1}" y="{:.1}" text-anchor="middle">{name}</text>"#,
            bottom + 20.0
        ));
    }
    let middle = TOP + HEIGHT / 2.0;
    line(format_args!(
        r#"<text class="t" x="{:.1}" y="{:.1}" text-anchor="middle">size of the database</text>
<text class="t" transform="translate(26 {middle:.1}) rotate(-90)" text-anchor="middle">milliseconds</text>"#,
        LEFT + WIDTH / 2.0,
        bottom + 44.0
    ));
    for (nth, curve) in curves.iter().enumerate() {
        let color = COLORS[curve.color % COLORS.len()];
        let dashes = if curve.dashed {
            r#" stroke-dasharray="6 4""#
        } else {
            ""
        };
        let points: Vec<_> = curve
            .values
            .iter()
            .map(|(size, value)| (x(*size), bottom - HEIGHT * scale.part(*value)))
            .collect();
        let path: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let stroke = format!(r#"stroke="{color}" stroke-width="2"{dashes}"#);
        line(format_args!(
            r#"<g><title>{}</title><polyline fill="none" {stroke} points="{}"/>"#,
            curve.name,
            path.join(" ")
        ));
        for (x, y) in points {
            line(format_args!(
                r#"<circle cx="{x:.1}" cy="{y:.1}" r="3" fill="{color}"/>"#
            ));
        }
        let (x, y) = (24.0 + 450.0 * (nth % 2) as f64, legend + 22.0 * (nth / 2) as f64);
        line(format_args!(
            r#"</g><line x1="{x}" x2="{}" y1="{}" y2="{}" {stroke}/><text class="t" x="{}" y="{y}">{}</text>"#,
            x + 30.0,
            y - 4.5,
            y - 4.5,
            x + 38.0,
            curve.name
        ));
    }
    line(format_args!("</svg>"));
    svg
}

/// Powers of ten between which all values are drawn.
#[derive(Debug, PartialEq)]
struct Scale {
    least: i32,
    most: i32,
}

impl Scale {
    fn of(largest: f64) -> Self {
        let least = LEAST.log10().round() as i32;
        Self {
            least,
            most: (largest.log10().ceil() as i32).max(least + 1),
        }
    }

    /// How far up a value is, from 0 to 1.
    fn part(&self, value: f64) -> f64 {
        (value.max(LEAST).log10() - f64::from(self.least)) / f64::from(self.most - self.least)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scale_reaches_from_what_is_drawn_least_to_above_the_largest() {
        let scale = Scale::of(42.0);
        assert_eq!(scale, Scale { least: -2, most: 2 });
        assert_eq!(
            [0.0, 0.01, 1.0, 100.0].map(|value| scale.part(value)),
            [0.0, 0.0, 0.5, 1.0]
        );
    }
}
