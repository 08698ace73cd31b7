//! The numbers of Fourier heat maps as JSON, CSV and Markdown. Knows no tensors.

use atflow::number::Real;
use atflow::results::{csv_line, percent};
use atflow::stage_kinds::FourierMapParams;
use serde::Serialize;

use super::waves::mirrored;
use crate::executors::grouped;

/// How many images a model takes for another class.
#[derive(Debug, Clone)]
pub(super) struct Errors {
    /// Without a wave.
    pub(super) clean: u64,
    /// With the wave of each frequency.
    pub(super) by_frequency: Vec<u64>,
}

/// What was measured of several models.
pub(super) struct Report<'a> {
    pub(super) params: &'a FourierMapParams,
    /// Height and width of the images.
    pub(super) size: [usize; 2],
    pub(super) names: &'a [String],
    /// One of each pair of mirror images.
    pub(super) frequencies: &'a [[usize; 2]],
    /// By model.
    pub(super) measured: Vec<Errors>,
    /// Images.
    pub(super) count: usize,
}

/// The output `json`.
#[derive(Serialize)]
struct Document<'a> {
    format: &'static str,
    norm: Real,
    n: usize,
    /// Height and width.
    size: [usize; 2],
    models: Vec<DocumentModel<'a>>,
}

#[derive(Serialize)]
struct DocumentModel<'a> {
    model: &'a String,
    /// Share of errors without a wave, 0 to 1.
    clean: f64,
    /// Share of errors by frequency, rows of the map; frequency 0 stands at (H/2, W/2).
    errors: Vec<Vec<f64>>,
}

/// Bands of frequencies by their length in cycles a pixel: up to where each goes. A wave of one axis has at most 1/2.
const BANDS: [(&str, f64); 3] = [("low", 1.0 / 6.0), ("middle", 1.0 / 3.0), ("high", f64::INFINITY)];

impl<'a> Report<'a> {
    fn share(&self, errors: u64) -> f64 {
        errors as f64 / self.count as f64
    }

    /// The share of errors by frequency, rows of H × W values; frequency 0 stands at (H/2, W/2).
    pub(super) fn map(&self, model: usize) -> Vec<f64> {
        let [height, width] = self.size;
        let mut map = vec![0.0; height * width];
        for (&frequency, &errors) in self.frequencies.iter().zip(&self.measured[model].by_frequency) {
            for [row, column] in [frequency, mirrored(self.size, frequency)] {
                let (y, x) = ((row + height / 2) % height, (column + width / 2) % width);
                map[y * width + x] = self.share(errors);
            }
        }
        map
    }

    /// Where the scale of the maps ends: the largest share of errors, rounded up to tenths.
    pub(super) fn most(&self) -> f64 {
        let most = self.measured.iter().flat_map(|errors| &errors.by_frequency).copied().max().unwrap_or(0);
        // In whole numbers: 7 of 10 is not above 70 %.
        (most * 10).div_ceil(self.count as u64).max(1) as f64 / 10.0
    }

    pub(super) fn json(&self) -> serde_json::Result<Vec<u8>> {
        let model = |(at, name): (usize, &'a String)| DocumentModel {
            model: name,
            clean: self.share(self.measured[at].clean),
            errors: self.map(at).chunks(self.size[1]).map(<[f64]>::to_vec).collect(),
        };
        let document = Document {
            format: "fourier-map/1",
            norm: self.params.norm,
            n: self.count,
            size: self.size,
            models: self.names.iter().enumerate().map(model).collect(),
        };
        let mut bytes = serde_json::to_vec(&document)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// One line for each model and frequency, in cycles over the image's height and width.
    pub(super) fn csv(&self) -> String {
        let mut text = csv_line(["model", "vertical", "horizontal", "errors", "n", "error"]);
        for (name, errors) in self.names.iter().zip(&self.measured) {
            for (&frequency, &errors) in self.frequencies.iter().zip(&errors.by_frequency) {
                let [vertical, horizontal] = self.cycles(frequency).map(|cycles| cycles.to_string());
                let (n, share) = (self.count.to_string(), format!("{:.6}", self.share(errors)));
                text += &csv_line([name.as_str(), &vertical, &horizontal, &errors.to_string(), &n, &share]);
            }
        }
        text
    }

    /// A frequency in cycles over the image's height and width; of a pair, those with the horizontal part at least 0.
    fn cycles(&self, [row, column]: [usize; 2]) -> [isize; 2] {
        let [height, _] = self.size;
        let vertical = if 2 * row > height { row as isize - height as isize } else { row as isize };
        [vertical, column as isize]
    }

    pub(super) fn markdown(&self) -> String {
        let mut text = format!("# {}\n\n", self.params.title.as_deref().unwrap_or("Fourier heat maps"));
        text += &format!(
            "Errors in percent, n = {} images, waves of 2-norm {} on each channel.\n\n",
            grouped(self.count as u64),
            self.params.norm.get()
        );
        text += "| model | clean |";
        for (name, _) in BANDS {
            text += &format!(" {name} |");
        }
        text += " most errors | at |\n| --- | ---: | ---: | ---: | ---: | ---: | --- |\n";
        for (name, errors) in self.names.iter().zip(&self.measured) {
            text += &format!("| {name} | {} |", percent(self.share(errors.clean)));
            for band in 0..BANDS.len() {
                let mean = self.mean(errors, band);
                text += &format!(" {} |", mean.map_or("–".to_owned(), percent));
            }
            let worst = self.frequencies.iter().zip(&errors.by_frequency).rev().max_by_key(|(_, errors)| **errors);
            if let Some((&frequency, &most)) = worst {
                let [vertical, horizontal] = self.cycles(frequency);
                text += &format!(" {} | {vertical}, {horizontal} |\n", percent(self.share(most)));
            }
        }
        text += "\nMeans over the frequencies of a band: low up to 1/6 cycle a pixel, middle up to 1/3, high above. \
                 Place of most errors: cycles over the image's height, width.\n";
        text
    }

    /// The mean share of errors over a band, each frequency and its mirror image; `None` if no frequency is in it.
    fn mean(&self, errors: &Errors, band: usize) -> Option<f64> {
        let [height, width] = self.size;
        let from = if band == 0 { f64::NEG_INFINITY } else { BANDS[band - 1].1 };
        let (mut sum, mut count) = (0, 0);
        for (&frequency, &errors) in self.frequencies.iter().zip(&errors.by_frequency) {
            let [vertical, horizontal] = self.cycles(frequency).map(|cycles| cycles as f64);
            let (down, right) = (vertical / height as f64, horizontal / width as f64);
            let length = (down * down + right * right).sqrt();
            if length > from && length <= BANDS[band].1 {
                let times = if mirrored(self.size, frequency) == frequency { 1 } else { 2 };
                sum += times * errors;
                count += times;
            }
        }
        (count > 0).then(|| self.share(sum) / count as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::executors::fourier_map::waves::frequencies;

    #[test]
    fn maps_are_symmetric_about_frequency_0_and_bands_count_both_halves() {
        let params: FourierMapParams = serde_json::from_value(serde_json::json!({"norm": 2})).unwrap();
        let (size, names) = ([4, 3], ["a".to_owned()]);
        let frequencies = frequencies(size);
        // (0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (3, 1); the mirror image of (1, 1) is (3, 2).
        assert_eq!(frequencies, [[0, 0], [0, 1], [1, 0], [1, 1], [2, 0], [2, 1], [3, 1]]);
        let measured = vec![Errors { clean: 1, by_frequency: vec![1, 2, 3, 4, 5, 6, 7] }];
        let report = Report { params: &params, size, names: &names, frequencies: &frequencies, measured, count: 10 };
        let tenths: Vec<u64> = report.map(0).iter().map(|share| (share * 10.0).round() as u64).collect();
        assert_eq!(tenths, [6, 5, 6, 4, 3, 7, 2, 1, 2, 7, 3, 4]);
        assert_eq!(report.most(), 0.7);
        let csv = report.csv();
        assert!(csv.starts_with("model,vertical,horizontal,errors,n,error\na,0,0,1,10,0.100000\n"), "{csv}");
        assert!(csv.ends_with("a,-1,1,7,10,0.700000\n"), "{csv}");
        // 1/3 and 1/4 cycles a pixel are in the middle, each twice; the others are longer.
        let line = "| a | 10.0 | 10.0 | 25.0 | 55.7 | 70.0 | -1, 1 |";
        assert!(report.markdown().contains(line), "{}", report.markdown());
    }
}
