//! The normalisation of images that a file brings along with its weights, compared with that of a network.
//!
//! Files differ in where they keep it: beside the network's tensors (`mu`, `sigma`), or in a module of its own beside
//! the network (`normalizer.new_mean`, `0.std`). Knows neither file formats nor networks.

use std::collections::BTreeMap;

use super::ListedTensor;

/// The last parts of the names of a mean and of a standard deviation: those of RobustBench, of DeepMind and of
/// MadryLab's `robustness`.
const PAIRS: [[&str; 2]; 3] = [["mu", "sigma"], ["mean", "std"], ["new_mean", "new_std"]];

/// The largest difference of two values that are the same but for rounding.
const ROUNDING: f64 = 1e-6;

/// Returns whether a name, without the prefix of the network's tensors, is one of normalisation.
pub(super) fn is_part(name: &str) -> bool {
    let (module, last) = name.rsplit_once('.').unwrap_or(("", name));
    !module.contains('.') && PAIRS.as_flattened().contains(&last)
}

/// Returns the indices of the mean and the standard deviation that belong to the network under `prefix`.
///
/// They have one number for each of `channels`, and stand in a module that holds the network, or in a module beside it.
/// Of several the one nearest to the network counts.
pub(super) fn find(
    names: &BTreeMap<String, usize>,
    listed: &[ListedTensor],
    prefix: &str,
    channels: usize,
) -> Option<[usize; 2]> {
    let candidates = names.keys().filter_map(|name| {
        let (module, last) = split(name);
        let [_, std] = PAIRS.into_iter().find(|[mean, _]| *mean == last)?;
        let numbers = [*names.get(name)?, *names.get(&format!("{module}{std}"))?];
        let is_near = prefix.starts_with(module) || prefix.starts_with(parent(module));
        let fits = |number: &usize| listed[*number].shape.iter().product::<i64>() == channels as i64;
        (is_near && numbers.iter().all(fits)).then_some((module.len(), numbers))
    });
    candidates.max_by_key(|(length, _)| *length).map(|(_, numbers)| numbers)
}

/// Splits a name after its last dot.
fn split(name: &str) -> (&str, &str) {
    name.split_at(name.rfind('.').map_or(0, |dot| dot + 1))
}

/// Returns the module around a module; both end in a dot, or are empty.
fn parent(module: &str) -> &str {
    split(module.trim_end_matches('.')).0
}

/// Returns the lines for the pipeline if a file normalises in another way than a network.
///
/// Values of images from 0 to 255 are converted to those of images from 0 to 1.
pub(super) fn difference([mean, std]: [&[f64]; 2], own: Option<&[Vec<f64>; 2]>) -> Option<String> {
    let scale = if mean.iter().any(|mean| *mean > 1.0) { 255.0 } else { 1.0 };
    let default = [vec![0.0; mean.len()], vec![1.0; std.len()]];
    let [own_mean, own_std] = own.unwrap_or(&default);
    let is_near = |found: &[f64], own: &[f64]| {
        found.len() == own.len() && found.iter().zip(own).all(|(found, own)| (found / scale - own).abs() < ROUNDING)
    };
    let list = |values: &[f64]| {
        // As few digits as tell the number that the file holds.
        let values: Vec<String> = values.iter().map(|value| ((value / scale) as f32).to_string()).collect();
        values.join(", ")
    };
    let is_same = is_near(mean, own_mean) && is_near(std, own_std);
    (!is_same).then(|| format!("mean: [{}], std: [{}]", list(mean), list(std)))
}

#[cfg(test)]
mod tests {
    use tch::Kind;

    use super::*;

    #[test]
    fn the_normalisation_nearest_to_the_network_counts_and_none_of_another_module() {
        let found = |file: &[(&str, i64)], prefix| {
            let listed = file.iter().map(|&(name, channels)| ListedTensor {
                name: name.to_owned(),
                shape: vec![channels, 1, 1],
                kind: Some(Kind::Float),
                dictionary: 0,
            });
            let names = file.iter().enumerate().map(|(number, (name, _))| ((*name).to_owned(), number)).collect();
            find(&names, &listed.collect::<Vec<_>>(), prefix, 3)
        };
        let file =
            [("0.mean", 3), ("0.std", 3), ("1.mu", 3), ("1.sigma", 3), ("2.decoder.mean", 3), ("2.decoder.std", 3)];
        assert_eq!(found(&file, "1."), Some([2, 3]));
        assert_eq!(found(&file[..2], "1."), Some([0, 1]));
        assert_eq!(found(&file[4..], "1."), None, "of another module");
        assert_eq!(found(&[("mean", 1), ("std", 1)], ""), None, "of other channels");
        assert_eq!(found(&[("mean", 3)], ""), None, "half a normalisation");
    }

    #[test]
    fn values_of_bytes_are_those_of_images_from_0_to_1() {
        let own = [vec![0.5; 3], vec![0.25; 3]];
        assert_eq!(difference([&[127.5; 3], &[63.75; 3]], Some(&own)), None);
        let line = difference([&[127.5; 3], &[63.75; 3]], None);
        assert_eq!(line.as_deref(), Some("mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]"));
        assert_eq!(difference([&[0.0; 3], &[1.0; 3]], None), None, "nothing is done either way");
    }
}
