//! Random numbers by counter: every draw is named by (seed, purpose, key), and is the same whatever was drawn before
//! it, in whatever batch, order, worker or device. libtorch's own generators are never used. Knows nothing of what the
//! numbers are for.
//!
//! The bits are BLAKE3 in its extendable-output mode over the name, a generator of cryptographic quality that can be
//! read at any point.

use std::f64::consts::TAU;

/// The source of all random numbers of one job.
#[derive(Debug, Clone, Copy)]
pub struct Rng {
    seed: u64,
}

impl Rng {
    /// The generator of a seed.
    pub const fn new(seed: u64) -> Self {
        Rng { seed }
    }

    /// The numbers for one purpose, a fixed text, and one key: epoch, image, sample, as the purpose has it.
    pub fn stream(&self, purpose: &str, key: &[u64]) -> Stream {
        // Changing anything here changes every result: raise the versions of the kinds that draw.
        let mut hasher = blake3::Hasher::new_derive_key("atflow random numbers 1");
        hasher.update(&self.seed.to_le_bytes());
        hasher.update(&(purpose.len() as u64).to_le_bytes());
        hasher.update(purpose.as_bytes());
        for word in key {
            hasher.update(&word.to_le_bytes());
        }
        Stream { bits: hasher.finalize_xof(), buffer: [0; BUFFER], used: BUFFER }
    }
}

/// A permutation of 0, …, `len` − 1, each equally likely.
pub fn permutation(seed: u64, purpose: &str, key: &[u64], len: usize) -> Vec<usize> {
    Rng::new(seed).stream(purpose, key).permutation(len)
}

/// Bytes taken from the hash at a time: a multiple of its 64-byte blocks, which it makes several at once.
const BUFFER: usize = 1024;

/// The endless numbers of one name.
pub struct Stream {
    bits: blake3::OutputReader,
    buffer: [u8; BUFFER],
    used: usize,
}

impl Stream {
    #[inline]
    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        if self.used + N > BUFFER {
            self.bits.fill(&mut self.buffer);
            self.used = 0;
        }
        let mut bytes = [0; N];
        bytes.copy_from_slice(&self.buffer[self.used..self.used + N]);
        self.used += N;
        bytes
    }

    /// 64 random bits.
    #[inline]
    pub fn bits(&mut self) -> u64 {
        u64::from_le_bytes(self.bytes())
    }

    /// Uniform in [0, 1), a multiple of 2⁻²⁴.
    #[inline]
    pub fn unit(&mut self) -> f32 {
        (u32::from_le_bytes(self.bytes()) >> 8) as f32 / (1_u32 << 24) as f32
    }

    /// Uniform in [`low`, `high`).
    #[inline]
    pub fn uniform(&mut self, low: f32, high: f32) -> f32 {
        low + (high - low) * self.unit()
    }

    /// Standard normal, by the transform of Box and Muller (1958).
    #[inline]
    pub fn normal(&mut self) -> f32 {
        let unit = |bits: u64| (bits >> 11) as f64 / (1_u64 << 53) as f64;
        // 1 − u is never 0, whose logarithm is infinite.
        let (radius, angle) = (1.0 - unit(self.bits()), unit(self.bits()));
        // C libraries differ in the last digit, by processor and by release.
        ((-2.0 * libm::log(radius)).sqrt() * libm::cos(TAU * angle)) as f32
    }

    /// Uniform among 0, …, `bound` − 1, without bias.
    ///
    /// # Panics
    /// If `bound` is 0.
    #[inline]
    pub fn below(&mut self, bound: u64) -> u64 {
        // Draws from the incomplete last run of `bound` values are thrown away.
        let limit = u64::MAX - u64::MAX % bound;
        loop {
            let bits = self.bits();
            if bits < limit {
                return bits % bound;
            }
        }
    }

    /// A permutation of 0, …, `len` − 1, each equally likely (Fisher and Yates).
    pub fn permutation(&mut self, len: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..len).collect();
        for last in (1..len).rev() {
            order.swap(last, self.below(last as u64 + 1) as usize);
        }
        order
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draw_depends_on_its_name_only() {
        let rng = Rng::new(7);
        let first: Vec<u64> = (0..300).map(|_| rng.stream("a", &[1, 2]).bits()).collect();
        assert!(first.iter().all(|bits| *bits == first[0]), "other streams in between change nothing");
        let others = [
            rng.stream("b", &[1, 2]),
            rng.stream("a", &[2, 1]),
            rng.stream("a", &[1]),
            rng.stream("a", &[1, 2, 0]),
            Rng::new(8).stream("a", &[1, 2]),
        ];
        for mut other in others {
            assert_ne!(other.bits(), first[0]);
        }
    }

    #[test]
    fn moments_are_those_of_the_distributions() {
        let mut stream = Rng::new(1).stream("test", &[]);
        let n = 100_000;
        let moments = |draws: Vec<f32>| {
            let mean = draws.iter().map(|&x| f64::from(x)).sum::<f64>() / f64::from(n);
            (mean, draws.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / f64::from(n))
        };
        let (mean, variance) = moments((0..n).map(|_| stream.normal()).collect());
        assert!(mean.abs() < 0.015 && (variance - 1.0).abs() < 0.02, "{mean} {variance}");
        let uniform: Vec<f32> = (0..n).map(|_| stream.uniform(-1.0, 3.0)).collect();
        assert!(uniform.iter().all(|x| (-1.0..3.0).contains(x)));
        let (mean, variance) = moments(uniform);
        assert!((mean - 1.0).abs() < 0.02 && (variance - 16.0 / 12.0).abs() < 0.02, "{mean} {variance}");
    }

    #[test]
    fn every_permutation_of_three_is_about_equally_frequent() {
        let mut counts = std::collections::BTreeMap::new();
        for key in 0..6000 {
            *counts.entry(Rng::new(0).stream("order", &[key]).permutation(3)).or_insert(0) += 1;
        }
        assert_eq!(counts.len(), 6);
        assert!(counts.values().all(|count| (850..1150).contains(count)), "{counts:?}");
    }

    /// Pinned: changing the generator changes results, and must raise the versions of the kinds that draw.
    #[test]
    fn the_generator_is_the_one_that_results_were_made_with() {
        assert_eq!(format!("{:016x}", Rng::new(42).stream("weights", &[1]).bits()), "629a030525aa8cec");
    }

    #[test]
    fn a_permutation_has_every_number_once() {
        let mut order = permutation(7, "split", &[3], 50);
        assert_ne!(order, permutation(7, "pick", &[3], 50));
        order.sort_unstable();
        assert_eq!(order, (0..50).collect::<Vec<_>>());
        assert_eq!((permutation(0, "", &[], 0), permutation(0, "", &[], 1)), (vec![], vec![0]));
    }
}
