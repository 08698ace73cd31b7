//! Inputs labelled `ROW/COLUMN` as a grid of numbers, for tables and figures; `ROW/COLUMN/SEED` where seeds are
//! averaged over.

use std::collections::BTreeMap;
use std::rc::Rc;

use super::error::StageError;
use super::{Reporter, check_cancelled, name, read};
use crate::digest::Digest;
use crate::formats::{Predictions, SaliencyNumbers};
use crate::protocol::{Input, Job};
use crate::results::{Cell, Comparison, Number, OfSeed, State, compare, correct, measure, of_summary, over_seeds};
use crate::stage_kinds::{Family, Metric, OfMaps};

/// What a column of a grid holds.
pub(super) struct Column {
    /// Its label.
    pub label: String,
    /// The number in its cells.
    pub metric: Metric,
    /// Images in a batch whose ratios are averaged, for the metric that can be.
    pub batch_mean: Option<u32>,
}

/// For each row a cell for each column; `None` where the stage was given no `value`.
type Cells = Vec<Vec<Option<Cell>>>;

/// The places of a grid and their inputs.
pub(super) struct Grid<'a> {
    rows: &'a [String],
    columns: &'a [Column],
    /// Labels of seeds; one empty label where nothing is averaged over.
    seeds: Vec<&'a str>,
    places: BTreeMap<String, Place>,
    values: BTreeMap<Place, &'a Input>,
    references: BTreeMap<Place, &'a Input>,
    maps: &'a BTreeMap<String, OfMaps>,
}

/// Row, column, seed.
type Place = (usize, usize, usize);

/// The row that the others are compared with, and what is corrected together.
#[derive(Clone, Copy)]
pub(super) struct Against {
    pub row: usize,
    pub family: Family,
}

/// The predictions that a number is computed from, by their digests; and whose maps it is of, where it is of maps.
type Evidence<'a> = (Digest, Option<Digest>, Option<&'a OfMaps>);

impl<'a> Grid<'a> {
    /// A label may hold a `/` itself, so labels are built from the grid and compared, never taken apart.
    pub(super) fn new(
        job: &'a Job,
        rows: &'a [String],
        columns: &'a [Column],
        over: &'a [String],
        maps: &'a BTreeMap<String, OfMaps>,
    ) -> Result<Self, StageError> {
        let seeds: Vec<&str> = if over.is_empty() { vec![""] } else { over.iter().map(String::as_str).collect() };
        let mut places = BTreeMap::new();
        for (row, row_label) in rows.iter().enumerate() {
            for (column, Column { label: column_label, .. }) in columns.iter().enumerate() {
                for (seed, seed_label) in seeds.iter().enumerate() {
                    let end = if over.is_empty() { String::new() } else { format!("/{seed_label}") };
                    let label = format!("{row_label}/{column_label}{end}");
                    if places.insert(label.clone(), (row, column, seed)).is_some() {
                        return Err(StageError::AmbiguousLabel { label });
                    }
                }
            }
        }
        let values = by_place(job, "value", &places)?;
        let references = by_place(job, "reference", &places)?;
        Ok(Grid { rows, columns, seeds, places, values, references, maps })
    }

    /// The numbers: for each row one for each column, `None` where the stage was given no `value`. Each is compared
    /// with the one of its column in the row that is named. With `states`, by label, some inputs may be missing or of
    /// another time than others: what does not fit together is then missing, too.
    pub(super) fn cells(
        &self,
        against: Option<Against>,
        states: Option<&BTreeMap<String, State>>,
        reporter: &dyn Reporter,
    ) -> Result<Cells, StageError> {
        let mut reader = Reader { known: BTreeMap::new(), maps: BTreeMap::new(), keep_values: against.is_some() };
        let is_lenient = states.is_some();
        let (mut grid, misfits) = self.measured(&mut reader, is_lenient, reporter)?;
        if let Some(against) = against {
            self.compare(&mut grid, against.row, &mut reader, is_lenient)?;
        }
        if let Some(states) = states {
            self.mark(&mut grid, states, &misfits);
            if let Some(against) = against {
                drop_stale_comparisons(&mut grid, against.row);
            }
        }
        if let Some(against) = against {
            let open = self.open(&grid, against.row, states);
            correct(&mut grid, against.family, &open);
        }
        Ok(grid)
    }

    /// The numbers without comparisons, and the places whose inputs do not fit together; only if lenient there are any.
    fn measured(
        &self,
        reader: &mut Reader,
        is_lenient: bool,
        reporter: &dyn Reporter,
    ) -> Result<(Cells, Vec<Place>), StageError> {
        let mut measured: BTreeMap<(usize, usize), Vec<OfSeed<'_, Evidence<'_>>>> = BTreeMap::new();
        let mut misfits: Vec<Place> = Vec::new();
        for (done, (&place, input)) in self.values.iter().enumerate() {
            check_cancelled(reporter)?;
            reporter.progress(done as u64, self.values.len() as u64, &input.label);
            let (row, column, seed) = place;
            let Column { metric, batch_mean, .. } = self.columns[column];
            if let Some(of) = self.maps.get(&input.label) {
                if let Some(number) = reader.of_maps(input, metric, of)? {
                    let of = OfSeed { seed: self.seeds[seed], number, identity: self.evidence(place, input) };
                    measured.entry((row, column)).or_default().push(of);
                }
                continue;
            }
            let value = reader.value(input)?;
            let reference = reader.reference(self.references.get(&place))?;
            match measure(metric, batch_mean, &value, reference.as_deref()) {
                Ok(number) => {
                    let number = if self.is_reference(place) { number.by_definition() } else { number };
                    let of = OfSeed { seed: self.seeds[seed], number, identity: self.evidence(place, input) };
                    measured.entry((row, column)).or_default().push(of);
                }
                Err(_) if is_lenient => misfits.push(place),
                Err(source) => return Err(StageError::Metric { cell: input.label.clone(), source }),
            }
        }
        let mut grid: Cells = vec![vec![None; self.columns.len()]; self.rows.len()];
        for ((row, column), seeds) in measured {
            let cell = if self.seeds == [""] {
                seeds.first().map(|seed| Cell::from(seed.number))
            } else {
                let (number, spread) = over_seeds(&seeds, self.columns[column].metric.bounds());
                Some(Cell { spread: Some(spread), ..Cell::from(number) })
            };
            grid[row][column] = cell;
        }
        Ok((grid, misfits))
    }

    /// Compares each cell with the one of its column in row `to`.
    fn compare(
        &self,
        grid: &mut [Vec<Option<Cell>>],
        to: usize,
        reader: &mut Reader,
        is_lenient: bool,
    ) -> Result<(), StageError> {
        let mut of_seeds: BTreeMap<(usize, usize), Vec<Comparison>> = BTreeMap::new();
        for (&place, input) in self.values.iter().filter(|(place, _)| place.0 != to) {
            let (row, column, seed) = place;
            let other_place = (to, column, seed);
            let Some(other) = self.values.get(&other_place) else { continue };
            let metric = self.columns[column].metric;
            let (this, that) = (reader.value(input)?, reader.value(other)?);
            let (reference, other_reference) =
                (reader.reference(self.references.get(&place))?, reader.reference(self.references.get(&other_place))?);
            let compared = compare(metric, (&this, reference.as_deref()), (&that, other_reference.as_deref()));
            // One result twice is equal to itself, and so are two models where both are right by definition.
            let are_equal =
                input.digest == other.digest || (self.is_reference(place) && self.is_reference(other_place));
            match compared {
                Ok(compared) => {
                    let compared = if are_equal { compared.by_definition() } else { compared };
                    of_seeds.entry((row, column)).or_default().push(compared);
                }
                Err(source) if !is_lenient => return Err(StageError::Metric { cell: input.label.clone(), source }),
                Err(_) => {}
            }
        }
        for ((row, column), compared) in of_seeds {
            if let Some(cell) = &mut grid[row][column] {
                cell.compared = match compared.as_slice() {
                    [one] if self.seeds == [""] => Some(*one),
                    several => Some(Comparison::over_seeds(several)),
                };
            }
        }
        Ok(())
    }

    /// The comparisons that belong to the table and are not there, because a result is missing or of another time.
    fn open(
        &self,
        grid: &[Vec<Option<Cell>>],
        to: usize,
        states: Option<&BTreeMap<String, State>>,
    ) -> Vec<(usize, usize)> {
        let Some(states) = states else { return Vec::new() };
        let asked: Vec<(usize, usize)> = self
            .places
            .iter()
            .filter(|(label, _)| states.contains_key(*label))
            .map(|(_, &(row, column, _))| (row, column))
            .collect();
        let is_open = |&(row, column): &(usize, usize)| {
            let compared: Option<&Comparison> = grid[row][column].as_ref().and_then(|cell| cell.compared.as_ref());
            row != to && compared.is_none() && asked.contains(&(to, column))
        };
        asked.iter().copied().filter(is_open).collect()
    }

    /// Whether a place's value is its own reference: of those images all are right by definition.
    fn is_reference(&self, place: Place) -> bool {
        let (value, reference) = (self.values.get(&place), self.references.get(&place));
        self.columns[place.1].metric.needs_reference()
            && value.zip(reference).is_some_and(|(value, reference)| value.digest == reference.digest)
    }

    fn evidence(&self, place: Place, value: &Input) -> Evidence<'a> {
        let reference = self.references.get(&place).map(|reference| reference.digest);
        (value.digest, reference, self.maps.get(&value.label))
    }

    /// Marks the cells that are not as they are now.
    fn mark(&self, grid: &mut [Vec<Option<Cell>>], states: &BTreeMap<String, State>, misfits: &[Place]) {
        let mut of_cells: BTreeMap<(usize, usize), Vec<State>> = BTreeMap::new();
        for (label, &place) in &self.places {
            if let Some(&state) = states.get(label) {
                let state = if misfits.contains(&place) { State::Missing } else { state };
                of_cells.entry((place.0, place.1)).or_default().push(state);
            }
        }
        for ((row, column), states) in of_cells {
            let is_missing = |state: &State| *state == State::Missing;
            let state = match states.iter().copied().max().unwrap_or_default() {
                State::Missing if !states.iter().all(is_missing) => State::Incomplete,
                worst => worst,
            };
            if !state.is_made() {
                grid[row][column].get_or_insert_default().state = state;
            }
        }
    }
}

/// Reads predictions, and keeps those that are likely to be asked for again: one reference serves a whole row.
struct Reader {
    known: BTreeMap<Digest, Rc<Predictions>>,
    /// The measures of saliency stages: each file has those of many cells.
    maps: BTreeMap<Digest, Rc<SaliencyNumbers>>,
    /// Values are asked for again where rows are compared.
    keep_values: bool,
}

impl Reader {
    fn value(&mut self, input: &Input) -> Result<Rc<Predictions>, StageError> {
        match self.known.get(&input.digest) {
            Some(known) => Ok(Rc::clone(known)),
            None if self.keep_values => self.keep(input),
            None => Ok(Rc::new(predictions(input)?)),
        }
    }

    /// Returns a measure of maps; nothing where no image has it.
    fn of_maps(&mut self, input: &Input, metric: Metric, of: &OfMaps) -> Result<Option<Number>, StageError> {
        let numbers = match self.maps.get(&input.digest) {
            Some(known) => Rc::clone(known),
            None => {
                let numbers = SaliencyNumbers::from_bytes(&read(input)?);
                let numbers = numbers.map_err(|source| StageError::Format { input: name(input), source })?;
                Rc::clone(self.maps.entry(input.digest).or_insert(Rc::new(numbers)))
            }
        };
        // A similarity stands with the earlier of two models, which the first is.
        let (model, other) = match &of.first {
            Some(first) => (first, Some(&of.model)),
            None => (&of.model, None),
        };
        let found = numbers.numbers.iter().find(|number| {
            number.measure == metric.name()
                && (number.model.as_str(), number.other.as_ref()) == (model, other)
                && number.set == of.set
        });
        Ok(found.map(|number| of_summary(metric, number.mean, number.sd, number.n)))
    }

    fn reference(&mut self, input: Option<&&Input>) -> Result<Option<Rc<Predictions>>, StageError> {
        let Some(input) = input else { return Ok(None) };
        match self.known.get(&input.digest) {
            Some(known) => Ok(Some(Rc::clone(known))),
            None => self.keep(input).map(Some),
        }
    }

    fn keep(&mut self, input: &Input) -> Result<Rc<Predictions>, StageError> {
        let read = Rc::new(predictions(input)?);
        self.known.insert(input.digest, Rc::clone(&read));
        Ok(read)
    }
}

fn by_place<'a>(
    job: &'a Job,
    slot: &'a str,
    places: &BTreeMap<String, Place>,
) -> Result<BTreeMap<Place, &'a Input>, StageError> {
    let mut inputs = BTreeMap::new();
    for input in job.inputs_of(slot) {
        let place = *places.get(&input.label).ok_or_else(|| StageError::NoCell { input: name(input) })?;
        if inputs.insert(place, input).is_some() {
            return Err(StageError::Twice { input: name(input) });
        }
    }
    Ok(inputs)
}

/// The predictions of an input.
pub(super) fn predictions(input: &Input) -> Result<Predictions, StageError> {
    Predictions::from_bytes(&read(input)?).map_err(|source| StageError::Format { input: name(input), source })
}

/// `12 of 15 numbers`, or `15 numbers` where none is missing.
pub(super) fn told(grid: &[Vec<Option<Cell>>]) -> String {
    let (all, there) = (grid.iter().flatten().count(), grid.iter().flatten().flatten().count());
    if all == there { format!("{all} numbers") } else { format!("{there} of {all} numbers") }
}

/// Drops differences to a number of row `to`, or of one, that is not as it is now: they say nothing of the pipeline as
/// it is now.
fn drop_stale_comparisons(grid: &mut [Vec<Option<Cell>>], to: usize) {
    let is_made = |cell: &Option<Cell>| cell.as_ref().is_some_and(|cell| cell.state.is_made());
    let to: Vec<bool> = grid[to].iter().map(is_made).collect();
    for row in grid {
        for (cell, to) in row.iter_mut().zip(&to) {
            if let Some(cell) = cell.as_mut().filter(|cell| !to || !cell.state.is_made()) {
                cell.compared = None;
            }
        }
    }
}
