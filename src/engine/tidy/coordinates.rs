//! Coordinates of the matrix as columns: `STAGE.AXIS`, as pipelines name them.
//!
//! A swept parameter is the column `params.NAME`. The columns depend on the pipeline alone, and not on what the cache
//! holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use super::cell::{Cell, Column, ColumnType};
use crate::graph::Graph;
use crate::number::Real;
use crate::spec::{Instance, InstanceId};

/// The coordinate that says what the column `stage` says.
const STAGE: &str = "stage";

/// Values of axes as their author wrote them, by coordinate and label: `8/255` of `8_255`.
pub(super) struct Written(HashMap<(String, String), String>);

impl Written {
    pub(super) fn of(graph: &Graph) -> Self {
        let mut written = HashMap::new();
        for id in graph.ids() {
            let instance = graph.instance(id);
            for (coordinate, value) in instance.written_axes() {
                if let Some(label) = instance.coordinates.get(&coordinate) {
                    written.entry((coordinate, label.to_owned())).or_insert(value);
                }
            }
        }
        Written(written)
    }

    /// Returns a label as its author wrote it. A name that stands for a value stays a name.
    fn label<'w>(&'w self, coordinate: &str, label: &'w str) -> &'w str {
        let value = self.0.get(&(coordinate.to_owned(), label.to_owned()));
        value.filter(|value| value.replace('/', "_") == label).map_or(label, String::as_str)
    }
}

/// The coordinates of some instances.
pub(super) struct Axes {
    axes: Vec<Axis>,
}

struct Axis {
    name: String,
    holds: ColumnType,
    /// Whether some of its numbers are fractions, which a column of their own has as they are written.
    has_fractions: bool,
    /// The labels as they are written, by label.
    written: BTreeMap<String, String>,
}

impl Axes {
    /// Finds the coordinates of some instances, and their types.
    pub(super) fn of(graph: &Graph, written: &Written, ids: impl Iterator<Item = InstanceId>) -> Self {
        let mut labels: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        for (name, label) in ids.flat_map(|id| graph.instance(id).coordinates.iter()) {
            if name != STAGE {
                labels.entry(name).or_default().insert(label);
            }
        }
        let axis = |(name, labels): (&&str, &BTreeSet<&str>)| Axis::of(name, labels, written);
        let mut axes: Vec<Axis> = labels.iter().map(axis).collect();
        // An axis may have the very name that the second column of another would have.
        for axis in &mut axes {
            axis.has_fractions &= !labels.contains_key(axis.name_written().as_str());
        }
        Axes { axes }
    }

    /// Returns their columns.
    pub(super) fn columns(&self) -> impl Iterator<Item = Column> {
        self.axes.iter().flat_map(|axis| {
            let written = axis.has_fractions.then(|| Column::new(axis.name_written(), ColumnType::Text));
            [Column::new(axis.column(), axis.holds)].into_iter().chain(written)
        })
    }

    /// Returns the cells of an instance, one for each column.
    pub(super) fn cells(&self, instance: &Instance) -> Vec<Cell> {
        let mut cells = Vec::new();
        for axis in &self.axes {
            let label = instance.coordinates.get(&axis.name).and_then(|label| axis.written.get(label));
            cells.push(label.map(|label| axis.cell(label)).unwrap_or_default());
            if axis.has_fractions {
                cells.push(label.map(String::as_str).into());
            }
        }
        cells
    }
}

impl Axis {
    fn of(name: &str, labels: &BTreeSet<&str>, written: &Written) -> Self {
        let written: BTreeMap<String, String> =
            labels.iter().map(|label| ((*label).to_owned(), written.label(name, label).to_owned())).collect();
        let all = |is: fn(&str) -> bool| written.values().all(|label| is(label));
        let holds = if all(is_integer) {
            ColumnType::Integer
        } else if all(|label| Real::parse(label).is_some()) {
            ColumnType::Real
        } else {
            ColumnType::Text
        };
        let has_fractions = holds == ColumnType::Real && written.values().any(|label| label.contains('/'));
        Axis { name: name.to_owned(), holds, has_fractions, written }
    }

    /// The name of the column. Other columns have names without a dot, such as `eps`; a parameter may have one of them.
    fn column(&self) -> String {
        if self.name.contains('.') { self.name.clone() } else { format!("params.{}", self.name) }
    }

    /// The name of the column with its fractions as they are written.
    fn name_written(&self) -> String {
        format!("{}_written", self.column())
    }

    fn cell(&self, label: &str) -> Cell {
        match self.holds {
            ColumnType::Integer => label.parse().map_or(Cell::Missing, Cell::Integer),
            ColumnType::Real => Real::parse(label).map(Real::get).into(),
            _ => label.into(),
        }
    }
}

/// Whether a label is a whole number in its only spelling: `007` is a name.
fn is_integer(label: &str) -> bool {
    label.parse::<i64>().is_ok_and(|number| number.to_string() == label)
}
