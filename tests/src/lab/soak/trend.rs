//! Whether something grows: by its trend after the warm-up.
//!
//! The trend is the median of the slopes between any two samples (Theil and Sen's): a step, an outlier or two, or memory
//! that is taken and given back by turns move it little, and what is added with every bind moves all of them.

/// This part of the samples is the warm-up: tables reach their size, allocators their working set.
const WARM_UP: usize = 3;

/// One thing that was measured, over all binds.
#[derive(Clone, Debug, PartialEq)]
pub struct Course {
    /// What.
    pub name: String,
    /// What it is counted in.
    pub unit: &'static str,
    /// Binds until then, and the value.
    pub points: Vec<(f64, f64)>,
    /// The most that was seen, between the samples too; where that was looked at.
    pub peak: Option<f64>,
    /// It may seem to grow by so much over all that follows the warm-up; `None`: it is shown, and may grow.
    pub tolerance: Option<f64>,
}

impl Course {
    /// The samples after the warm-up.
    fn settled(&self) -> &[(f64, f64)] {
        self.points.get(self.points.len().div_ceil(WARM_UP)..).unwrap_or_default()
    }

    /// How much it grows with each bind.
    #[must_use]
    pub fn slope(&self) -> f64 {
        let settled = self.settled();
        let mut slopes: Vec<f64> = Vec::new();
        for (at, (x, y)) in settled.iter().enumerate() {
            for (later, value) in settled.iter().skip(at + 1).filter(|(later, _)| later > x) {
                slopes.push((value - y) / (later - x));
            }
        }
        slopes.sort_by(f64::total_cmp);
        let middle = slopes.len() / 2;
        match (slopes.get(middle), slopes.len() % 2) {
            (None, _) => 0.0,
            (Some(slope), 1) => *slope,
            (Some(upper), _) => f64::midpoint(*slopes.get(middle - 1).unwrap_or(upper), *upper),
        }
    }

    /// How much it has grown by its trend, over all that follows the warm-up.
    #[must_use]
    pub fn growth(&self) -> f64 {
        match (self.settled().first(), self.settled().last()) {
            (Some((first, _)), Some((last, _))) => self.slope() * (last - first),
            _ => 0.0,
        }
    }

    /// That it grows, if it does and must not.
    #[must_use]
    pub fn complaint(&self) -> Option<String> {
        let (growth, tolerance) = (self.growth(), self.tolerance?);
        (growth > tolerance).then(|| {
            format!(
                "{} grows: by {growth:.1} {} after the warm-up, where {tolerance:.1} may be chance; {:.0} in a million binds",
                self.name,
                self.unit,
                self.slope() * 1e6
            )
        })
    }

    fn value(&self, at: usize) -> f64 {
        self.points.get(at).map_or(0.0, |(_, value)| *value)
    }
}

/// One line for each, with what it was at the start, after the warm-up, half-way and at the end.
#[must_use]
pub fn table(courses: &[Course]) -> String {
    let heads = ["", "start", "warm", "middle", "end", "peak", "per million", ""];
    let mut rows = vec![heads.map(ToOwned::to_owned)];
    for course in courses {
        let last = course.points.len().saturating_sub(1);
        let warm = course.points.len().div_ceil(WARM_UP).min(last);
        let shown = |value: f64| format!("{value:.0}");
        rows.push([
            format!("{} ({})", course.name, course.unit),
            shown(course.value(0)),
            shown(course.value(warm)),
            shown(course.value(usize::midpoint(warm, last))),
            shown(course.value(last)),
            course.peak.map_or_else(|| "-".to_owned(), shown),
            format!("{:+.1}", course.slope() * 1e6),
            match (course.tolerance, course.complaint()) {
                (None, _) => "may grow",
                (_, None) => "flat",
                (_, Some(_)) => "GROWS",
            }
            .to_owned(),
        ]);
    }
    let widths: Vec<usize> = (0..heads.len())
        .map(|column| rows.iter().map(|row| row.get(column).map_or(0, String::len)).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let cell = if column == 0 { format!("{cell:<width$}") } else { format!("  {cell:>width$}") };
            text.push_str(&cell);
        }
        text.truncate(text.trim_end().len());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(values: &[f64], tolerance: Option<f64>) -> Course {
        let points = values.iter().zip(0..).map(|(value, at)| (f64::from(at) * 1000.0, *value)).collect();
        Course { name: "memory".into(), unit: "KiB", points, peak: None, tolerance }
    }

    #[test]
    fn what_grows_with_every_round_is_complained_of() {
        let leak = course(&[10.0, 50.0, 60.0, 70.0, 79.0, 91.0, 100.0, 110.0, 120.0], Some(20.0));
        assert!((leak.slope() * 1000.0 - 10.0).abs() < 0.5, "{}", leak.slope());
        let said = leak.complaint().unwrap();
        assert!(said.starts_with("memory grows: by 50") && said.contains("in a million binds"), "{said}");
    }

    #[test]
    fn a_warm_up_a_step_an_outlier_and_noise_are_no_growth() {
        for values in [
            [10.0, 80.0, 120.0, 120.0, 120.0, 120.0, 120.0, 120.0, 120.0],
            [10.0, 80.0, 120.0, 120.0, 120.0, 120.0, 120.0, 120.0, 190.0],
            [10.0, 80.0, 120.0, 120.0, 300.0, 120.0, 120.0, 121.0, 120.0],
            [10.0, 80.0, 118.0, 125.0, 117.0, 126.0, 119.0, 124.0, 121.0],
            [10.0, 80.0, 120.0, 110.0, 100.0, 90.0, 80.0, 70.0, 60.0],
        ] {
            assert_eq!(course(&values, Some(20.0)).complaint(), None, "{values:?}");
        }
    }

    #[test]
    fn what_may_grow_may() {
        let log = course(&[0.0, 100.0, 200.0, 300.0, 400.0, 500.0], None);
        assert_eq!(log.complaint(), None);
        assert!((log.growth() - 300.0).abs() < 1e-6);
    }

    #[test]
    fn nothing_is_said_of_too_little() {
        for count in 0..3 {
            assert!(course(&vec![5.0; count], Some(0.0)).growth().abs() < 1e-9);
        }
        assert!(table(&[course(&[], Some(0.0))]).contains("flat"));
    }

    #[test]
    fn the_table_has_a_line_for_each() {
        let text = table(&[
            course(&[1.0, 2.0, 3.0, 4.0, 5.0, 6.0], Some(0.1)),
            course(&[1.0; 6], Some(0.1)),
            course(&[1.0; 6], None),
        ]);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4);
        assert!(lines[1].ends_with("+1000.0     GROWS"), "{text}");
        assert!(lines[2].ends_with("flat") && lines[3].ends_with("may grow"), "{text}");
    }
}
