//! Random choices of the engine: splits and picks of data sets. The generator is the worker's, by counter and keyed by name: a choice depends on seed,
//! purpose and key only. Knows nothing of what is chosen.

use blake3::OutputReader;

/// A permutation of 0, …, `len` − 1, each equally likely (Fisher and Yates); the same as the worker's of the same name.
pub fn permutation(seed: u64, purpose: &str, key: &[u64], len: usize) -> Vec<usize> {
    let mut bits = stream(seed, purpose, key);
    let mut order: Vec<usize> = (0..len).collect();
    for last in (1..len).rev() {
        order.swap(last, below(&mut bits, last as u64 + 1) as usize);
    }
    order
}

fn stream(seed: u64, purpose: &str, key: &[u64]) -> OutputReader {
    // Changing anything here changes every split: raise the versions of the kinds that draw.
    let mut hasher = blake3::Hasher::new_derive_key("atflow random numbers 1");
    hasher.update(&seed.to_le_bytes());
    hasher.update(&(purpose.len() as u64).to_le_bytes());
    hasher.update(purpose.as_bytes());
    for word in key {
        hasher.update(&word.to_le_bytes());
    }
    hasher.finalize_xof()
}

/// Uniform among 0, …, `bound` − 1, without bias: draws from the incomplete last run of `bound` values are thrown away.
fn below(bits: &mut OutputReader, bound: u64) -> u64 {
    let limit = u64::MAX - u64::MAX % bound;
    loop {
        let mut word = [0; 8];
        bits.fill(&mut word);
        let word = u64::from_le_bytes(word);
        if word < limit {
            return word % bound;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permutation_depends_on_its_name_only() {
        let first = permutation(7, "split", &[3], 50);
        assert_eq!(permutation(7, "split", &[3], 50), first);
        for other in
            [permutation(8, "split", &[3], 50), permutation(7, "pick", &[3], 50), permutation(7, "split", &[4], 50)]
        {
            assert_ne!(other, first);
        }
        let mut sorted = first;
        sorted.sort_unstable();
        assert_eq!(sorted, (0..50).collect::<Vec<_>>());
        assert_eq!((permutation(0, "", &[], 0), permutation(0, "", &[], 1)), (vec![], vec![0]));
    }

    /// Pinned: splits of data sets that results were made with.
    #[test]
    fn the_generator_is_the_one_that_splits_were_made_with() {
        let mut word = [0; 8];
        stream(42, "weights", &[1]).fill(&mut word);
        assert_eq!(format!("{:016x}", u64::from_le_bytes(word)), "629a030525aa8cec");
    }
}
