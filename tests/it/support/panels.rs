//! Renders dashboard panels for the documentation.
#![expect(clippy::float_arithmetic, reason = "coordinates")]

use std::path::Path;

use plotters::prelude::*;

/// A line, and what the legend calls it.
pub struct Line {
    pub name: String,
    /// Seconds and values.
    pub points: Vec<(f64, f64)>,
}

pub struct Panel {
    pub title: String,
    /// As Grafana names it: `s`, `bytes`, `reqps`.
    pub unit: String,
    pub lines: Vec<Line>,
}

const COLUMNS: usize = 3;
const PANEL: (u32, u32) = (420, 300);
const CHART_HEIGHT: u32 = 190;
const LEGEND_LINE: i32 = 14;
/// Names that fit below a chart.
const LEGEND_MAX: usize = 7;

/// A value on the axis, with its unit.
fn label(value: f64, unit: &str) -> String {
    let short = |value: f64| {
        let text = format!("{value:.3}");
        text.trim_end_matches('0').trim_end_matches('.').to_owned()
    };
    match unit {
        "s" if value.abs() < 1.0 => format!("{} ms", short(value * 1000.0)),
        "s" => format!("{} s", short(value)),
        "bytes" => format!("{:.0} MiB", value / 1024.0 / 1024.0),
        "percentunit" => format!("{} %", short(value * 100.0)),
        "reqps" | "cps" => format!("{}/s", short(value)),
        _ => short(value),
    }
}

/// Renders the panels into one SVG, three per row, each with its legend.
pub fn render(path: &Path, panels: &[Panel]) {
    let rows = panels.len().div_ceil(COLUMNS);
    let size = (PANEL.0 * u32::try_from(COLUMNS).expect("columns"), PANEL.1 * u32::try_from(rows).expect("rows"));
    let sheet = SVGBackend::new(path, size).into_drawing_area();
    sheet.fill(&WHITE).expect("rendered");
    for (area, panel) in sheet.split_evenly((rows, COLUMNS)).iter().zip(panels) {
        let (chart_area, legend) = area.split_vertically(CHART_HEIGHT);
        let all = || panel.lines.iter().flat_map(|line| &line.points).copied().filter(|(_, value)| value.is_finite());
        let seconds = all().map(|point| point.0).fold(1.0, f64::max);
        let most = all().map(|point| point.1).fold(0.0, f64::max);
        let top = if most > 0.0 { most * 1.15 } else { 1.0 };
        let mut chart = ChartBuilder::on(&chart_area)
            .caption(&panel.title, ("sans-serif", 15))
            .margin(8)
            .x_label_area_size(22)
            .y_label_area_size(62)
            .build_cartesian_2d(0.0..seconds, 0.0..top)
            .expect("rendered");
        let mut mesh = chart.configure_mesh();
        mesh.light_line_style(WHITE).x_labels(4).y_labels(4);
        mesh.x_label_formatter(&|second| format!("{second:.0} s"));
        mesh.y_label_formatter(&|value| label(*value, &panel.unit)).draw().expect("drawn");
        for (index, line) in panel.lines.iter().enumerate() {
            let color = Palette99::pick(index);
            let points = line.points.iter().copied().filter(|(_, value)| value.is_finite());
            chart.draw_series(LineSeries::new(points, color.stroke_width(2))).expect("rendered");
        }
        let mut y = 2;
        for (index, line) in panel.lines.iter().enumerate() {
            let hidden = panel.lines.len().saturating_sub(index);
            if index + 1 == LEGEND_MAX && hidden > 1 {
                write(&legend, y, &format!("and {hidden} more"));
                break;
            }
            let dash = [(70, y + 2), (82, y + 10)];
            legend.draw(&Rectangle::new(dash, Palette99::pick(index).filled())).expect("drawn");
            write(&legend, y, &line.name);
            y += LEGEND_LINE;
        }
    }
    sheet.present().expect("written");
}

fn write(legend: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>, y: i32, name: &str) {
    legend.draw(&Text::new(name.to_owned(), (88, y), ("sans-serif", 12))).expect("drawn");
}
