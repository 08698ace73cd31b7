//! Many comparisons at once: among 44 tests without any difference two have p < 0.05 by chance. Each p is corrected for
//! the family that its comparison belongs to.

use super::{Cell, Comparison};
use crate::stage_kinds::Family;

/// The p-values after Holm's correction for a family of so many comparisons, in the order given: the k-th smallest,
/// from 0, times `family` − k, never below the one before it and at most 1 (Holm, A Simple Sequentially Rejective
/// Multiple Test Procedure, Scandinavian Journal of Statistics 6 (1979)). The chance of a single wrong `p < 0.05` in
/// the family is then at most 5 %, however the comparisons depend on one another.
///
/// A family may have more comparisons than p-values are known. The others count as the largest, so that no p here is
/// smaller than it will be once they are all known.
fn holm(p: &[f64], family: usize) -> Vec<f64> {
    let family = family.max(p.len());
    let mut order: Vec<usize> = (0..p.len()).collect();
    order.sort_by(|a, b| p[*a].total_cmp(&p[*b]));
    let mut corrected = vec![1.0; p.len()];
    let mut least: f64 = 0.0;
    for (rank, index) in order.into_iter().enumerate() {
        least = least.max((family - rank) as f64 * p[index]).min(1.0);
        corrected[index] = least;
    }
    corrected
}

/// Corrects the comparisons of a table's cells, by row and column. `open` are the places of comparisons that belong to
/// the table and are not there yet. What was not tested belongs to no family.
pub fn correct(cells: &mut [Vec<Option<Cell>>], family: Family, open: &[(usize, usize)]) {
    let of = |(row, column): (usize, usize)| match family {
        Family::Table => 0,
        Family::Column => column,
        Family::Row => row,
    };
    let columns = cells.iter().map(Vec::len).max().unwrap_or(0);
    for group in 0..cells.len().max(columns) {
        let mut tested: Vec<&mut Comparison> = Vec::new();
        for (row, cells) in cells.iter_mut().enumerate() {
            let of_group = cells.iter_mut().enumerate().filter(|(column, _)| of((row, *column)) == group);
            let compared = of_group.filter_map(|(_, cell)| cell.as_mut()?.compared.as_mut());
            tested.extend(compared.filter(|found| found.p.is_some()));
        }
        let size = tested.len() + open.iter().filter(|place| of(**place) == group).count();
        let p: Vec<f64> = tested.iter().filter_map(|found| found.p).collect();
        for (found, corrected) in tested.into_iter().zip(holm(&p, size)) {
            (found.p_holm, found.family) = (Some(corrected), size);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // R 4: p.adjust(c(0.04, 0.001, 0.9, 0.013, 0.013, 0.2), method = "holm"), and so on; statsmodels 0.15.0,
    // multipletests(p, method="holm")[1], gives the same.
    const HOLM: &[(&[f64], &[f64])] = &[
        (&[0.01, 0.02, 0.03, 0.04, 0.05], &[0.05, 0.08, 0.09, 0.09, 0.09]),
        (&[0.04, 0.001, 0.9, 0.013, 0.013, 0.2], &[0.12, 0.006, 0.9, 0.065, 0.065, 0.4]),
        (&[0.5, 0.6], &[1.0, 1.0]),
        (&[1e-9, 0.2, 0.0499, 0.03, 1.0, 0.011, 0.0001], &[7e-9, 0.4, 0.1497, 0.12, 1.0, 0.055, 0.0006]),
        (&[0.03], &[0.03]),
        (&[], &[]),
    ];

    #[test]
    fn the_correction_is_that_of_r() {
        for (p, expected) in HOLM {
            let found = holm(p, p.len());
            let is_near = |(found, expected): (&f64, &f64)| (found - expected).abs() <= 1e-12;
            assert!(found.iter().zip(*expected).all(is_near) && found.len() == expected.len(), "{p:?}: {found:?}");
        }
    }

    #[test]
    fn comparisons_to_come_make_no_p_smaller() {
        let (two, whole) = (holm(&[0.01, 0.02], 4), holm(&[0.01, 0.02, 0.001, 0.005], 4));
        assert_eq!(two, [0.04, 0.06]);
        assert!(whole[0] <= two[0] && whole[1] <= two[1], "{whole:?}");
    }

    fn cells() -> Vec<Vec<Option<Cell>>> {
        let cell = |p: Option<f64>| {
            let compared = Comparison { p, ..Comparison::default() };
            Some(Cell { compared: Some(compared), ..Cell::default() })
        };
        let row = |p: [Option<f64>; 2]| p.map(cell).to_vec();
        vec![vec![None, None], row([Some(0.01), Some(0.02)]), row([Some(0.03), None])]
    }

    fn corrected(family: Family, open: &[(usize, usize)]) -> Vec<(Option<f64>, usize)> {
        let mut cells = cells();
        correct(&mut cells, family, open);
        let compared = cells.iter().flatten().flatten().filter_map(|cell| cell.compared);
        compared.map(|found| (found.p_holm, found.family)).collect()
    }

    #[test]
    fn a_family_is_the_table_a_column_or_a_row() {
        let untested = (None, 0);
        assert_eq!(corrected(Family::Table, &[]), [(Some(0.03), 3), (Some(0.04), 3), (Some(0.04), 3), untested]);
        assert_eq!(corrected(Family::Column, &[]), [(Some(0.02), 2), (Some(0.02), 1), (Some(0.03), 2), untested]);
        assert_eq!(corrected(Family::Row, &[]), [(Some(0.02), 2), (Some(0.02), 2), (Some(0.03), 1), untested]);
        assert_eq!(corrected(Family::Row, &[(2, 1)])[2], (Some(0.06), 2), "one of its row is not there yet");
    }
}
