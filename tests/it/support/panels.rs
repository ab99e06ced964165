//! Renders dashboard panels for the documentation.
#![expect(clippy::float_arithmetic, reason = "coordinates")]

use std::path::Path;

use plotters::prelude::*;

/// Title, and a line of (seconds, value) per series.
pub type Panel = (String, Vec<Vec<(f64, f64)>>);

const COLUMNS: usize = 3;
const PANEL: (u32, u32) = (420, 230);

/// Renders the panels into one SVG, three per row.
pub fn render(path: &Path, panels: &[Panel]) {
    let rows = panels.len().div_ceil(COLUMNS);
    let size = (PANEL.0 * u32::try_from(COLUMNS).expect("columns"), PANEL.1 * u32::try_from(rows).expect("rows"));
    let sheet = SVGBackend::new(path, size).into_drawing_area();
    sheet.fill(&WHITE).expect("rendered");
    for (area, (title, series)) in sheet.split_evenly((rows, COLUMNS)).iter().zip(panels) {
        let all = || series.iter().flatten().copied().filter(|(_, value)| value.is_finite());
        let seconds = all().map(|point| point.0).fold(1.0, f64::max);
        let most = all().map(|point| point.1).fold(0.0, f64::max);
        let top = if most > 0.0 { most * 1.15 } else { 1.0 };
        let mut chart = ChartBuilder::on(area)
            .caption(title, ("sans-serif", 15))
            .margin(8)
            .x_label_area_size(22)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..seconds, 0.0..top)
            .expect("rendered");
        chart.configure_mesh().light_line_style(WHITE).x_labels(4).y_labels(4).draw().expect("rendered");
        for (index, points) in series.iter().enumerate() {
            let line = points.iter().copied().filter(|(_, value)| value.is_finite());
            chart.draw_series(LineSeries::new(line, Palette99::pick(index).stroke_width(2))).expect("rendered");
        }
    }
    sheet.present().expect("written");
}
