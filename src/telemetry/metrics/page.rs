//! What Prometheus reads: values that are read at this moment from whoever has them, and those that were counted.

use prometheus::proto::{Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};
use prometheus::{Encoder, TextEncoder};

use super::table::PREFIX;

/// The media type of [`Page::text`].
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// A row of a family: the values of its labels, and its own.
pub type Row<'a, const N: usize> = ([&'a str; N], f64);

/// A page of metrics on its way: whoever has values that need not be counted puts them there.
#[derive(Debug, Default)]
pub struct Page {
    families: Vec<MetricFamily>,
}

impl Page {
    pub(super) fn of(families: Vec<MetricFamily>) -> Page {
        Page { families }
    }

    /// Values that go up and down. `name` without the prefix.
    pub fn gauges<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        rows: impl IntoIterator<Item = Row<'a, N>>,
    ) {
        self.add(MetricType::GAUGE, name, help, labels, rows);
    }

    /// One value that goes up and down. `name` without the prefix.
    pub fn gauge(&mut self, name: &str, help: &str, value: f64) {
        self.gauges(name, help, [], [([], value)]);
    }

    /// Values that only go up. `name` without the prefix, and with `_total` at its end.
    pub fn counters<'a, const N: usize>(
        &mut self,
        name: &str,
        help: &str,
        labels: [&str; N],
        rows: impl IntoIterator<Item = Row<'a, N>>,
    ) {
        self.add(MetricType::COUNTER, name, help, labels, rows);
    }

    /// One value that only goes up. `name` without the prefix, and with `_total` at its end.
    pub fn counter(&mut self, name: &str, help: &str, value: f64) {
        self.counters(name, help, [], [([], value)]);
    }

    fn add<'a, const N: usize>(
        &mut self,
        kind: MetricType,
        name: &str,
        help: &str,
        labels: [&str; N],
        rows: impl IntoIterator<Item = Row<'a, N>>,
    ) {
        let rows = rows.into_iter();
        let metrics: Vec<Metric> = rows.map(|row| metric(kind, labels, row)).collect();
        // A family without a member says nothing, and the encoder takes it for a mistake.
        if metrics.is_empty() {
            return;
        }
        let mut family = MetricFamily::default();
        family.set_name(format!("{PREFIX}{name}"));
        family.set_help(help.to_owned());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.families.push(family);
    }

    /// The page, in the text format, version 0.0.4; families stand in the order of their names.
    pub fn text(mut self) -> Vec<u8> {
        self.families
            .retain(|family| !family.get_metric().is_empty());
        self.families
            .sort_by(|one, other| one.name().cmp(other.name()));
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.families, &mut text) {
            log::error!("metrics can't be written: {error}");
        }
        text
    }
}

fn metric<const N: usize>(kind: MetricType, names: [&str; N], row: Row<'_, N>) -> Metric {
    let (values, value) = row;
    let labels = names.iter().zip(values).map(|(name, value)| {
        let mut label = LabelPair::default();
        label.set_name((*name).to_owned());
        label.set_value(value.to_owned());
        label
    });
    let mut metric = Metric::from_label(labels.collect());
    match kind {
        MetricType::COUNTER => {
            let mut counter = Counter::default();
            counter.set_value(value);
            metric.set_counter(counter);
        }
        MetricType::GAUGE | MetricType::HISTOGRAM | MetricType::SUMMARY | MetricType::UNTYPED => {
            let mut gauge = Gauge::default();
            gauge.set_value(value);
            metric.set_gauge(gauge);
        }
    }
    metric
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_stand_by_name_and_values_of_labels_are_escaped() {
        let mut page = Page::default();
        page.gauges("b", "The second.", ["name"], [(["a \"b\"\n"], 1.5)]);
        page.counter("a_total", "The first.", 3.0);
        page.gauges("never", "Nobody.", ["name"], []);
        let text = String::from_utf8(page.text()).expect("UTF-8");
        let expected = "# HELP pointsman_a_total The first.\n# TYPE pointsman_a_total counter\npointsman_a_total 3\n\
                        # HELP pointsman_b The second.\n# TYPE pointsman_b gauge\n\
                        pointsman_b{name=\"a \\\"b\\\"\\n\"} 1.5\n";
        assert_eq!(text, expected);
    }
}
