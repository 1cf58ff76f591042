//! Families of metrics whose labels are known: every handle is found by index. Where a label gets further values, all handles
//! are made anew over the same families, in which those that were there are found again with what they have counted.

use std::any::Any;
use std::collections::HashMap;

use parking_lot::Mutex;
use prometheus::core::{MetricVec, MetricVecBuilder};
use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry,
};

/// What all our names begin with.
pub(super) const PREFIX: &str = "pointsman_";

/// Why making a family can't fail.
const CONSTANT: &str = "names and labels are constants, and a test registers them all";

/// The handles of a family, by the indices of their labels' values.
#[derive(Debug)]
pub(super) struct Table<M, const N: usize> {
    handles: Vec<M>,
    sizes: [usize; N],
}

impl<M, const N: usize> Table<M, N> {
    /// The handle of these values; `None` for an index that no value has.
    pub(super) fn at(&self, at: [usize; N]) -> Option<&M> {
        let is_there = at.iter().zip(&self.sizes).all(|(at, size)| at < size);
        let index = at.iter().zip(&self.sizes);
        let index = index.fold(0, |sum, (at, size)| sum * size + at);
        self.handles.get(index).filter(|_| is_there)
    }

    /// All handles.
    pub(super) fn iter(&self) -> impl Iterator<Item = &M> {
        self.handles.iter()
    }
}

/// A label and its values.
pub(super) type Label<'a> = (&'a str, &'a [&'a str]);

/// Makes families, each once, and keeps them where a page is made of them.
#[derive(Debug, Default)]
pub(super) struct Maker {
    registry: Registry,
    /// By name: the collector itself, of which every clone is a handle.
    made: Mutex<HashMap<String, Box<dyn Any + Send + Sync>>>,
}

impl Maker {
    /// Everything that was made.
    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    pub(super) fn counter(&self, name: &str, help: &str) -> IntCounter {
        let counter = IntCounter::with_opts(opts(name, help)).expect(CONSTANT);
        self.keep(name, counter)
    }

    pub(super) fn gauge(&self, name: &str, help: &str) -> IntGauge {
        self.keep(name, IntGauge::with_opts(opts(name, help)).expect(CONSTANT))
    }

    pub(super) fn histogram(&self, name: &str, help: &str, buckets: &[f64]) -> Histogram {
        let histogram = Histogram::with_opts(histogram_opts(name, help, buckets));
        self.keep(name, histogram.expect(CONSTANT))
    }

    /// A family of counters that has members only as they are made.
    pub(super) fn open_counters(&self, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
        self.keep(
            name,
            IntCounterVec::new(opts(name, help), labels).expect(CONSTANT),
        )
    }

    pub(super) fn counters<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [Label<'_>; N],
    ) -> Table<IntCounter, N> {
        let family = IntCounterVec::new(opts(name, help), &labels.map(|label| label.0));
        self.table(name, family.expect(CONSTANT), labels)
    }

    pub(super) fn gauges<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [Label<'_>; N],
    ) -> Table<IntGauge, N> {
        let family = IntGaugeVec::new(opts(name, help), &labels.map(|label| label.0));
        self.table(name, family.expect(CONSTANT), labels)
    }

    pub(super) fn histograms<const N: usize>(
        &self,
        name: &str,
        help: &str,
        buckets: &[f64],
        labels: [Label<'_>; N],
    ) -> Table<Histogram, N> {
        let opts = histogram_opts(name, help, buckets);
        let family = HistogramVec::new(opts, &labels.map(|label| label.0));
        self.table(name, family.expect(CONSTANT), labels)
    }

    /// A family of counters that has these members.
    pub(super) fn counters_of<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
        rows: &[[&str; N]],
    ) -> Vec<IntCounter> {
        let family = IntCounterVec::new(opts(name, help), &labels);
        self.members(name, family.expect(CONSTANT), rows)
    }

    /// A family of gauges that has these members.
    pub(super) fn gauges_of<const N: usize>(
        &self,
        name: &str,
        help: &str,
        labels: [&str; N],
        rows: &[[&str; N]],
    ) -> Vec<IntGauge> {
        let family = IntGaugeVec::new(opts(name, help), &labels);
        self.members(name, family.expect(CONSTANT), rows)
    }

    fn members<T: MetricVecBuilder + 'static, const N: usize>(
        &self,
        name: &str,
        family: MetricVec<T>,
        rows: &[[&str; N]],
    ) -> Vec<T::M> {
        let family = self.keep(name, family);
        let member = |row: &[&str; N]| family.get_metric_with_label_values(row).expect(CONSTANT);
        rows.iter().map(member).collect()
    }

    fn table<T: MetricVecBuilder + 'static, const N: usize>(
        &self,
        name: &str,
        family: MetricVec<T>,
        labels: [Label<'_>; N],
    ) -> Table<T::M, N> {
        let family = self.keep(name, family);
        let sizes = labels.map(|(_, values)| values.len());
        let count = sizes.iter().product();
        let handles = (0..count).map(|index| {
            let values = values_at(index, &labels);
            family
                .get_metric_with_label_values(&values)
                .expect(CONSTANT)
        });
        Table {
            handles: handles.collect(),
            sizes,
        }
    }

    /// The collector of this name: the one that was made before, else this one.
    fn keep<C: prometheus::core::Collector + Clone + 'static>(&self, name: &str, new: C) -> C {
        let mut made = self.made.lock();
        let known = made.get(name).and_then(|known| known.downcast_ref::<C>());
        if let Some(known) = known {
            return known.clone();
        }
        self.registry
            .register(Box::new(new.clone()))
            .expect(CONSTANT);
        made.insert(name.to_owned(), Box::new(new.clone()));
        new
    }
}

/// The values of the labels at a place of a table.
fn values_at<'a, const N: usize>(mut index: usize, labels: &[Label<'a>; N]) -> [&'a str; N] {
    let mut values = [""; N];
    for (value, (_, words)) in values.iter_mut().zip(labels).rev() {
        *value = words[index % words.len()];
        index /= words.len();
    }
    values
}

fn opts(name: &str, help: &str) -> Opts {
    Opts::new(format!("{PREFIX}{name}"), help)
}

fn histogram_opts(name: &str, help: &str, buckets: &[f64]) -> HistogramOpts {
    HistogramOpts::new(format!("{PREFIX}{name}"), help).buckets(buckets.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_is_found_under_the_values_that_it_was_made_for() {
        let maker = Maker::default();
        let labels: [Label<'_>; 2] = [("one", &["a", "b"]), ("two", &["x", "y", "z"])];
        let table = maker.counters("found_total", "Found.", labels);
        table.at([1, 2]).expect("a handle").inc_by(7);
        assert_eq!(table.iter().count(), 6);
        let again = maker.counters(
            "found_total",
            "Found.",
            [labels[0], ("two", &["x", "y", "z", "new"])],
        );
        assert_eq!(again.at([1, 2]).expect("the same handle").get(), 7);
        assert_eq!(again.at([1, 3]).expect("a new one").get(), 0);
        let family = &maker.registry().gather()[0];
        let found = family
            .get_metric()
            .iter()
            .find(|metric| metric.get_counter().get_value() > 0.0);
        let labels = found.expect("one was counted").get_label();
        let values: Vec<&str> = labels.iter().map(|label| label.value()).collect();
        assert_eq!(values, ["b", "z"]);
    }

    #[test]
    fn an_index_that_no_value_has_finds_nothing() {
        let labels: [Label<'_>; 2] = [("one", &["a", "b"]), ("two", &["x", "y"])];
        let table = Maker::default().counters("none_total", "None.", labels);
        assert!(table.at([0, 1]).is_some());
        assert!(table.at([0, 2]).is_none(), "not the first of the next row");
        assert!(table.at([2, 0]).is_none());
    }
}
