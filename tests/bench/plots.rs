//! Plots as SVG whose colours follow the reader's light or dark scheme. Own code: the libraries for
//! plots write fixed colours, and these are three simple forms.

use std::fmt::Write;

/// The colours, by class; the names are those of series.
const STYLE: &str = r#"  <style>
    text { font-family: system-ui, "Segoe UI", "Liberation Sans", Arial, sans-serif; font-size: 13px; fill: #1f2328; }
    .title { font-size: 15px; font-weight: 600; }
    .dim { fill: #59636e; }
    .end { text-anchor: end; }
    .mid { text-anchor: middle; }
    .page { fill: #ffffff; }
    .grid { stroke: #d1d9e0; }
    .spread { stroke: #1f2328; stroke-width: 1.2; }
    .line { fill: none; stroke-width: 2; }
    .s0 { fill: #0969da; stroke: #0969da; } .s1 { fill: #bc4c00; stroke: #bc4c00; }
    .s2 { fill: #1a7f37; stroke: #1a7f37; } .s3 { fill: #8250df; stroke: #8250df; }
    .s4 { fill: #9a6700; stroke: #9a6700; } .s5 { fill: #818b98; stroke: #818b98; }
    .s6 { fill: #cf222e; stroke: #cf222e; } .s7 { fill: #1b7c83; stroke: #1b7c83; }
    .dashed { stroke-dasharray: 6 5; }
    rect { stroke: none !important; }
    .line { fill: none !important; }
    @media (prefers-color-scheme: dark) {
      text { fill: #e6edf3; }
      .dim { fill: #9198a1; }
      .page { fill: #0d1117; }
      .grid { stroke: #3d444d; }
      .spread { stroke: #e6edf3; }
      .s0 { fill: #4493f8; stroke: #4493f8; } .s1 { fill: #db6d28; stroke: #db6d28; }
      .s2 { fill: #3fb950; stroke: #3fb950; } .s3 { fill: #ab7df8; stroke: #ab7df8; }
      .s4 { fill: #d29922; stroke: #d29922; } .s5 { fill: #656c76; stroke: #656c76; }
      .s6 { fill: #f85149; stroke: #f85149; } .s7 { fill: #39c5cf; stroke: #39c5cf; }
    }
  </style>
"#;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 215.0;
const RIGHT: f64 = 90.0;
const TOP: f64 = 64.0;

/// One bar: the number, and quartiles where it has some.
pub(crate) type Bar = (f64, Option<(f64, f64)>);

/// From numbers to places on the page.
#[derive(Clone, Copy)]
struct Scale {
    low: f64,
    high: f64,
    logarithmic: bool,
    from: f64,
    to: f64,
}

impl Scale {
    fn at(&self, number: f64) -> f64 {
        let place = |n: f64| if self.logarithmic { n.max(f64::MIN_POSITIVE).log10() } else { n };
        let share = (place(number) - place(self.low)) / (place(self.high) - place(self.low));
        self.from + share.clamp(0.0, 1.02) * (self.to - self.from)
    }

    /// Where lines of the grid go.
    fn ticks(&self) -> Vec<f64> {
        if self.logarithmic {
            let decades = self.low.log10().floor() as i32..=self.high.log10().ceil() as i32;
            let all = decades.map(|decade| 10f64.powi(decade));
            return all.filter(|n| *n >= self.low * 0.999 && *n <= self.high * 1.001).collect();
        }
        let raw = (self.high - self.low) / 5.0;
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|n| n * power).into_iter().find(|s| *s >= raw);
        let step = step.unwrap_or(10.0 * power);
        let count = ((self.high - self.low) / step).floor() as usize;
        (0..=count).map(|n| self.low + n as f64 * step).collect()
    }
}

/// Groups of horizontal bars, one bar for each series; `None` where a series has no number.
pub(crate) fn bars(
    title: &str,
    unit: &str,
    logarithmic: bool,
    series: &[&str],
    groups: &[(String, Vec<Option<Bar>>)],
) -> String {
    let numbers = || groups.iter().flat_map(|(_, bars)| bars.iter().flatten().map(|bar| bar.0));
    let most = numbers().filter(|n| n.is_finite()).fold(0.0, f64::max).max(1e-9);
    let least = numbers().filter(|n| *n > 0.0).fold(f64::INFINITY, f64::min);
    let low = if logarithmic { 10f64.powf((least / 1.5).log10().floor()) } else { 0.0 };
    let scale = Scale { low, high: most, logarithmic, from: LEFT, to: WIDTH - RIGHT };
    let group_height = series.len() as f64 * 16.0 + 12.0;
    let bottom = TOP + groups.len() as f64 * group_height;
    let mut svg = head(title, unit, bottom + 34.0, series);
    grid(&mut svg, &scale, bottom);
    for (at, (label, bars)) in groups.iter().enumerate() {
        let top = TOP + at as f64 * group_height + 6.0;
        let middle = top + (group_height - 12.0) / 2.0 + 4.0;
        text(&mut svg, "end", LEFT - 8.0, middle, label);
        for (number, bar) in bars.iter().enumerate() {
            let Some((value, spread)) = bar else { continue };
            let (y, end) = (top + number as f64 * 16.0, scale.at(*value));
            let width = (end - LEFT).max(1.0);
            let _ = writeln!(
                svg,
                r#"  <rect class="s{number}" x="{LEFT}" y="{y:.1}" width="{width:.1}" height="13"/>"#
            );
            let mut label_at = end;
            if let Some((low, high)) = spread {
                let (from, to, y) = (scale.at(*low), scale.at(*high), y + 6.5);
                line(&mut svg, "spread", (from, y), (to, y));
                label_at = label_at.max(to);
            }
            text(&mut svg, "dim", label_at + 6.0, y + 11.0, &short(*value));
        }
    }
    svg + "</svg>\n"
}

/// Bars that are made of parts, each a series; the sum stands at the end.
pub(crate) fn stacks(
    title: &str,
    unit: &str,
    series: &[&str],
    stacks: &[(String, Vec<f64>)],
) -> String {
    let most = stacks.iter().map(|(_, parts)| parts.iter().sum()).fold(1e-9, f64::max);
    let scale = Scale { low: 0.0, high: most, logarithmic: false, from: LEFT, to: WIDTH - RIGHT };
    let bottom = TOP + stacks.len() as f64 * 36.0;
    let mut svg = head(title, unit, bottom + 34.0, series);
    grid(&mut svg, &scale, bottom);
    for (at, (label, parts)) in stacks.iter().enumerate() {
        let y = TOP + at as f64 * 36.0 + 6.0;
        text(&mut svg, "end", LEFT - 8.0, y + 16.0, label);
        let mut sum = 0.0;
        for (number, part) in parts.iter().enumerate() {
            let (from, to) = (scale.at(sum), scale.at(sum + part.max(0.0)));
            sum += part.max(0.0);
            let _ = writeln!(
                svg,
                r#"  <rect class="s{number}" x="{from:.1}" y="{y:.1}" width="{:.1}" height="24"/>"#,
                to - from
            );
        }
        text(&mut svg, "dim", scale.at(sum) + 6.0, y + 16.0, &short(sum));
    }
    svg + "</svg>\n"
}

/// Lines over a common axis, with a mark at each point. `logarithmic`: the x axis, the y axis.
pub(crate) fn lines(
    title: &str,
    units: (&str, &str),
    logarithmic: (bool, bool),
    series: &[(&str, Vec<(f64, f64)>)],
) -> String {
    const HEIGHT: f64 = 280.0;
    let points = || series.iter().flat_map(|(_, points)| points.iter());
    let range = |get: fn(&(f64, f64)) -> f64, logarithmic: bool| {
        let high = points().map(get).filter(|n| n.is_finite()).fold(1e-9, f64::max);
        let least = points().map(get).filter(|n| *n > 0.0).fold(f64::INFINITY, f64::min);
        (if logarithmic { least / 1.3 } else { 0.0 }, high * 1.05)
    };
    let (x_low, x_high) = range(|p| p.0, logarithmic.0);
    let (y_low, y_high) = range(|p| p.1, logarithmic.1);
    let (bottom, from, to) = (TOP + HEIGHT, 80.0, WIDTH - 30.0);
    let x = Scale { low: x_low, high: x_high, logarithmic: logarithmic.0, from, to };
    let y = Scale { low: y_low, high: y_high, logarithmic: logarithmic.1, from: bottom, to: TOP };
    let names: Vec<&str> = series.iter().map(|(name, _)| *name).collect();
    let mut svg = head(title, units.1, bottom + 40.0, &names);
    grid(&mut svg, &x, bottom);
    for tick in y.ticks() {
        line(&mut svg, "grid", (from, y.at(tick)), (to, y.at(tick)));
        text(&mut svg, "dim end", from - 6.0, y.at(tick) + 4.0, &short(tick));
    }
    text(&mut svg, "dim end", to, bottom + 34.0, units.0);
    for (number, (_, points)) in series.iter().enumerate() {
        let places: Vec<String> =
            points.iter().map(|p| format!("{:.1},{:.1}", x.at(p.0), y.at(p.1))).collect();
        let _ =
            writeln!(svg, r#"  <polyline class="s{number} line" points="{}"/>"#, places.join(" "));
        if points.len() < 40 {
            for p in points {
                let (x, y) = (x.at(p.0), y.at(p.1));
                let _ =
                    writeln!(svg, r#"  <circle class="s{number}" cx="{x:.1}" cy="{y:.1}" r="3"/>"#);
            }
        }
    }
    svg + "</svg>\n"
}

/// Three digits.
pub(crate) fn short(number: f64) -> String {
    match number.abs() {
        n if !n.is_finite() => "∞".to_owned(),
        0.0 => "0".to_owned(),
        n if n >= 1e6 => format!("{:.2e}", number),
        n if n >= 100.0 => format!("{number:.0}"),
        n if n >= 10.0 => trimmed(format!("{number:.1}")),
        n if n >= 0.1 => trimmed(format!("{number:.2}")),
        _ => trimmed(format!("{number:.4}")),
    }
}

fn trimmed(text: String) -> String {
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn head(title: &str, unit: &str, height: f64, series: &[&str]) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height:.0}\" width=\"{WIDTH}\" \
         height=\"{height:.0}\" role=\"img\" aria-labelledby=\"t\">\n  <title id=\"t\">{}</title>\n{STYLE}  \
         <rect class=\"page\" width=\"{WIDTH}\" height=\"{height:.0}\" rx=\"6\"/>\n",
        escaped(title)
    );
    text(&mut svg, "title", 16.0, 24.0, &format!("{title}, {unit}"));
    let mut x = 16.0;
    for (number, name) in series.iter().enumerate() {
        let _ = writeln!(
            svg,
            r#"  <rect class="s{number}" x="{x:.1}" y="37" width="12" height="12"/>"#
        );
        text(&mut svg, "dim", x + 17.0, 48.0, name);
        x += 34.0 + name.chars().count() as f64 * 7.0;
    }
    svg
}

/// Vertical lines and their numbers below.
fn grid(svg: &mut String, scale: &Scale, bottom: f64) {
    for tick in scale.ticks() {
        let x = scale.at(tick);
        line(svg, "grid", (x, TOP - 4.0), (x, bottom));
        text(svg, "dim mid", x, bottom + 18.0, &short(tick));
    }
}

fn line(svg: &mut String, class: &str, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(
        svg,
        r#"  <line class="{class}" x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}"/>"#
    );
}

fn text(svg: &mut String, class: &str, x: f64, y: f64, words: &str) {
    let words = escaped(words);
    let _ = writeln!(svg, r#"  <text class="{class}" x="{x:.1}" y="{y:.1}">{words}</text>"#);
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
