use plotters::prelude::*;

const SIZE: (u32, u32) = (900, 480);
const COLOURS: [RGBColor; 7] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(127, 127, 127),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(23, 190, 207),
];

/// An SVG with one line per series, over a logarithmic x-axis.
pub fn lines(title: &str, series: &[(&str, Vec<(f64, f64)>)]) -> String {
    let mut picture = String::new();
    let all = || series.iter().flat_map(|(_, points)| points.iter().copied());
    let (from, to) = (all().map(|p| p.0).fold(f64::INFINITY, f64::min), all().map(|p| p.0).fold(1.0, f64::max));
    let most = all().map(|p| p.1).fold(1.0, f64::max) * 1.1;
    let area = SVGBackend::with_string(&mut picture, SIZE).into_drawing_area();
    area.fill(&WHITE).expect("drawn");
    let mut chart = ChartBuilder::on(&area)
        .caption(title, ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(36)
        .y_label_area_size(70)
        .build_cartesian_2d((from..to).log_scale(), 0.0..most)
        .expect("drawn");
    chart.configure_mesh().light_line_style(WHITE).draw().expect("drawn");
    for ((name, points), colour) in series.iter().zip(COLOURS) {
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2));
        chart
            .draw_series(line)
            .expect("drawn")
            .label(*name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2)));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled()))).expect("drawn");
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .draw()
        .expect("drawn");
    area.present().expect("drawn");
    drop(chart);
    drop(area);
    picture
}
