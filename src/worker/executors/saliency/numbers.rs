//! Measures saliency maps: sparsity, agreement with edges, and how two models' maps differ.
//!
//! Knows neither networks nor file locations.

use atflow::picture::rendered;
use atflow::results::csv_line;
use atflow::stage_kinds::Method;
use serde::Serialize;

use super::similarity::ssim;

/// The share of pixels that count as the strongest of a map or an image.
const STRONGEST: f64 = 0.1;

/// Names of the similarities of two models' maps, in the order of their values.
pub(super) const SIMILARITIES: [&str; 2] = ["rank_correlation", "ssim"];

/// All measurements, image by image.
pub(super) struct Measurements<'a> {
    models: &'a [String],
    sets: &'a [String],
    /// Height and width of the maps, if their similarity is measured.
    similarity: Option<[usize; 2]>,
    measures: Vec<ImageValues<'a>>,
}

/// One measure with its value for each image.
struct ImageValues<'a> {
    measure: &'static str,
    set: &'a str,
    model: &'a str,
    other: Option<&'a str>,
    values: Vec<f64>,
}

/// A measure summarised over all images.
#[derive(Debug, Serialize)]
pub struct MeasureSummary<'a> {
    pub(super) measure: &'static str,
    pub(super) set: &'a str,
    pub(super) model: &'a str,
    /// The model that the maps are compared with.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) other: Option<&'a str>,
    pub(super) mean: f64,
    /// Sample standard deviation over the images; `None` for a single image.
    pub(super) sd: Option<f64>,
    pub(super) n: usize,
}

#[derive(Debug, Serialize)]
struct Document<'a> {
    format: &'static str,
    method: &'a Method,
    models: &'a [String],
    sets: &'a [String],
    images: &'a [u64],
    numbers: Vec<MeasureSummary<'a>>,
}

impl<'a> Measurements<'a> {
    /// Creates an empty collection. `similarity` is the height and width of the maps, if their similarity is asked for.
    /// `further` names measures of each model whose values come with each image.
    pub(super) fn new(
        models: &'a [String],
        sets: &'a [String],
        similarity: Option<[usize; 2]>,
        further: &[&'static str],
    ) -> Self {
        let measure_of = |measure, set: &'a String, model: &'a String, other: Option<&'a String>| ImageValues {
            measure,
            set,
            model,
            other: other.map(String::as_str),
            values: Vec::new(),
        };
        let mut measures = Vec::new();
        for set in sets {
            for model in models {
                for measure in ["gini", "edge_iou", "edge_rank_correlation"] {
                    measures.push(measure_of(measure, set, model, None));
                }
            }
            for measure in ["l1", "l2"] {
                for model in models.iter().filter(|_| models.len() > 1) {
                    measures.push(measure_of(measure, set, model, None));
                }
                measures.extend(pairs(models).map(|(model, other)| measure_of(measure, set, model, Some(other))));
            }
            for measure in SIMILARITIES.into_iter().filter(|_| similarity.is_some()) {
                measures.extend(pairs(models).map(|(model, other)| measure_of(measure, set, model, Some(other))));
            }
            for model in models {
                measures.extend(further.iter().map(|measure| measure_of(measure, set, model, None)));
            }
        }
        Measurements { models, sets, similarity, measures }
    }

    /// Measures the maps of all models on one image of set number `set`; `edges` are that image's edges, `further` the
    /// values of the further measures, model by model.
    pub(super) fn add_image(&mut self, set: usize, maps: &[Vec<f32>], edges: &[f32], further: &[Option<f64>]) {
        let drawn: Vec<Vec<f32>> = maps.iter().map(|map| rendered(map)).collect();
        let models = maps.len();
        let mut values = Vec::new();
        for map in maps {
            values.extend([gini(map), Some(overlap(map, edges)), rank_correlation(map, edges)]);
        }
        for distance in [l1, l2] {
            let between = |a: usize, b: usize| distance(&drawn[a], &drawn[b]);
            if models > 1 {
                let others = |a: usize| (0..models).filter(move |&b| b != a);
                let mean = |a| others(a).map(|b| between(a, b)).sum::<f64>() / (models - 1) as f64;
                values.extend((0..models).map(|a| Some(mean(a))));
            }
            let indices: Vec<usize> = (0..models).collect();
            values.extend(pairs(&indices).map(|(&a, &b)| Some(between(a, b))));
        }
        if let Some(size) = self.similarity {
            values.extend(pairs(maps).map(|(a, b)| rank_correlation(a, b)));
            values.extend(pairs(&drawn).map(|(a, b)| ssim(a, b, size)));
        }
        values.extend(further);
        // In the same order as in `new`.
        let of_set = self.measures.len() / self.sets.len().max(1);
        for (measure, value) in self.measures[set * of_set..].iter_mut().zip(values) {
            measure.values.extend(value);
        }
    }

    /// Returns the measures over all images.
    pub(super) fn summary(&self) -> Vec<MeasureSummary<'a>> {
        let summarised = |measure: &ImageValues<'a>| {
            let n = measure.values.len();
            let mean = measure.values.iter().sum::<f64>() / n as f64;
            let squares = measure.values.iter().map(|value| (value - mean).powi(2)).sum::<f64>();
            let sd = (n > 1).then(|| (squares / (n - 1) as f64).sqrt());
            let &ImageValues { measure, set, model, other, .. } = measure;
            (n > 0).then_some(MeasureSummary { measure, set, model, other, mean, sd, n })
        };
        self.measures.iter().filter_map(summarised).collect()
    }

    /// Returns the measures as JSON.
    pub(super) fn json(&self, method: &Method, images: &[u64]) -> serde_json::Result<Vec<u8>> {
        let document = Document {
            format: "saliency-numbers/1",
            method,
            models: self.models,
            sets: self.sets,
            images,
            numbers: self.summary(),
        };
        let mut bytes = serde_json::to_vec_pretty(&document)?;
        bytes.push(b'\n');
        Ok(bytes)
    }

    /// Returns the measures as CSV, one per line.
    pub(super) fn csv(&self) -> String {
        let mut text = csv_line(["measure", "set", "model", "other", "mean", "sd", "n"]);
        for MeasureSummary { measure, set, model, other, mean, sd, n } in self.summary() {
            let (mean, sd) = (format!("{mean:.6}"), sd.map(|sd| format!("{sd:.6}")).unwrap_or_default());
            text += &csv_line([measure, set, model, other.unwrap_or_default(), &mean, &sd, &n.to_string()]);
        }
        text
    }
}

/// Returns each two items, the earlier first.
fn pairs<T>(items: &[T]) -> impl Iterator<Item = (&T, &T)> {
    items.iter().enumerate().flat_map(|(at, item)| items[at + 1..].iter().map(move |other| (item, other)))
}

/// Returns the Gini index of non-negative values (Hurley & Rickard 2009).
///
/// It is 0 if all are equal, and approaches 1 the fewer values hold the sum. It is `None` if all values are 0.
fn gini(values: &[f32]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f32::total_cmp);
    let count = sorted.len() as f64;
    let sum: f64 = sorted.iter().map(|&value| f64::from(value)).sum();
    let weighted: f64 = sorted.iter().zip(1_u32..).map(|(&value, rank)| f64::from(rank) * f64::from(value)).sum();
    (sum > 0.0).then(|| 2.0 * weighted / (count * sum) - (count + 1.0) / count)
}

/// Returns the mean absolute difference of two drawn maps: 0 to 1.
fn l1(a: &[f32], b: &[f32]) -> f64 {
    a.iter().zip(b).map(|(a, b)| f64::from((a - b).abs())).sum::<f64>() / a.len() as f64
}

/// Returns the root mean squared difference of two drawn maps: 0 to 1.
fn l2(a: &[f32], b: &[f32]) -> f64 {
    (a.iter().zip(b).map(|(a, b)| f64::from(a - b).powi(2)).sum::<f64>() / a.len() as f64).sqrt()
}

/// Returns the intersection over union of the strongest tenth of each input's pixels; ties go to the first in row
/// order.
fn overlap(a: &[f32], b: &[f32]) -> f64 {
    let strongest = |values: &[f32]| {
        let mut order: Vec<usize> = (0..values.len()).collect();
        order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        let mut chosen = vec![false; values.len()];
        let count = (STRONGEST * values.len() as f64).ceil() as usize;
        order.into_iter().take(count).for_each(|at| chosen[at] = true);
        chosen
    };
    let (a, b) = (strongest(a), strongest(b));
    let count = |both: fn(bool, bool) -> bool| a.iter().zip(&b).filter(|&(&a, &b)| both(a, b)).count() as f64;
    count(|a, b| a && b) / count(|a, b| a || b)
}

/// Returns Spearman's rank correlation; ties share their mean rank. `None` if all values of one input are equal.
pub fn rank_correlation(a: &[f32], b: &[f32]) -> Option<f64> {
    let (a, b) = (ranks(a), ranks(b));
    let mean = (a.len() as f64 + 1.0) / 2.0;
    let product = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a - mean) * (b - mean)).sum::<f64>();
    let spread = (product(&a, &a) * product(&b, &b)).sqrt();
    (spread > 0.0).then(|| product(&a, &b) / spread)
}

fn ranks(values: &[f32]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for equals in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let shared = start as f64 + (equals.len() as f64 + 1.0) / 2.0;
        equals.iter().for_each(|&at| ranks[at] = shared);
        start += equals.len();
    }
    ranks
}

/// Returns the edge strength of an image (C × H × W bytes) at each pixel.
///
/// It is the gradient magnitude from Sobel's two 3 × 3 kernels, applied to the channel mean. The last row or column
/// repeats beyond the border.
pub fn sobel(planes: &[u8], [height, width]: [usize; 2]) -> Vec<f32> {
    let size = height * width;
    let channels = planes.len() / size.max(1);
    let sums: Vec<f64> =
        (0..size).map(|at| (0..channels).map(|channel| f64::from(planes[channel * size + at])).sum()).collect();
    // `down` and `right` are 0, 1 or 2: one pixel before, the pixel itself, one after.
    let at = |y: usize, x: usize, down: usize, right: usize| {
        let near = |place: usize, offset: usize, count: usize| (place + offset).saturating_sub(1).min(count - 1);
        sums[near(y, down, height) * width + near(x, right, width)] / channels as f64
    };
    let edge = |y: usize, x: usize| {
        let smoothed = |line: &dyn Fn(usize) -> f64| line(0) + 2.0 * line(1) + line(2);
        let across = smoothed(&|down| at(y, x, down, 2)) - smoothed(&|down| at(y, x, down, 0));
        let along = smoothed(&|right| at(y, x, 2, right)) - smoothed(&|right| at(y, x, 0, right));
        across.hypot(along) as f32
    };
    (0..height).flat_map(|y| (0..width).map(move |x| (y, x))).map(|(y, x)| edge(y, x)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gini_index_is_0_of_equals_and_near_1_of_a_single_spark() {
        assert_eq!(gini(&[3.0; 8]), Some(0.0));
        assert_eq!(gini(&[0.0, 0.0, 0.0, 5.0]), Some(0.75));
        // By hand: 2·(1·1 + 2·2 + 3·3)/(3·6) − 4/3.
        assert!((gini(&[3.0, 1.0, 2.0]).unwrap() - 2.0 / 9.0).abs() < 1e-12);
        assert_eq!(gini(&[0.0; 4]), None);
    }

    #[test]
    fn overlaps_and_ranks_see_order_only() {
        let edges: Vec<f32> = (0..40).map(|value| value as f32).collect();
        let squared: Vec<f32> = edges.iter().map(|value| value * value).collect();
        let against: Vec<f32> = edges.iter().map(|value| -value).collect();
        assert_eq!((overlap(&squared, &edges), rank_correlation(&squared, &edges)), (1.0, Some(1.0)));
        assert_eq!((overlap(&against, &edges), rank_correlation(&against, &edges)), (0.0, Some(-1.0)));
        // Four of forty are strongest; the sets share two of them.
        let shifted: Vec<f32> = (0..40).map(|at| ((at + 2) % 40) as f32).collect();
        assert_eq!(overlap(&shifted, &edges), 2.0 / 6.0);
        assert_eq!(rank_correlation(&[1.0; 40], &edges), None);
        assert_eq!(ranks(&[5.0, 1.0, 5.0, 0.0]), [3.5, 2.0, 3.5, 1.0]);
    }

    #[test]
    fn edges_are_where_the_image_changes() {
        // A bright right half: scipy.ndimage.sobel gives 4 × 255 on both sides of the border, 0 elsewhere.
        let image: Vec<u8> = (0..30).map(|at| if at % 6 >= 3 { 255 } else { 0 }).collect();
        let edges = sobel(&image, [5, 6]);
        for (at, edge) in edges.iter().enumerate() {
            assert_eq!(*edge, if [2, 3].contains(&(at % 6)) { 1020.0 } else { 0.0 }, "{at}");
        }
    }

    #[test]
    fn every_number_has_its_place_and_its_count() {
        let (models, sets) = (["a", "b", "c, d"].map(str::to_owned), ["plain", "dark"].map(str::to_owned));
        let mut measurements = Measurements::new(&models, &sets, None, &["label_kept"]);
        let map = |peak: usize| (0..16).map(|at| f32::from(u8::from(at == peak))).collect::<Vec<f32>>();
        let edges: Vec<f32> = (0..16).map(|at| at as f32).collect();
        for _ in 0..2 {
            measurements.add_image(0, &[map(1), map(1), map(2)], &edges, &[Some(1.0), None, Some(0.5)]);
        }
        measurements.add_image(1, &[vec![0.0; 16], map(3), map(15)], &edges, &[None; 3]);
        let csv = measurements.csv();
        let has = |line: &str| assert!(csv.lines().any(|found| found == line), "{line} in\n{csv}");
        has("measure,set,model,other,mean,sd,n");
        has("gini,plain,a,,0.937500,0.000000,2");
        has("l1,plain,a,b,0.000000,0.000000,2");
        has("l1,plain,a,\"c, d\",0.125000,0.000000,2");
        has("l1,plain,a,,0.062500,0.000000,2");
        has("l2,plain,\"c, d\",,0.353553,0.000000,2");
        has("label_kept,plain,\"c, d\",,0.500000,0.000000,2");
        has("edge_iou,dark,\"c, d\",,0.333333,,1");
        assert!(!csv.contains("gini,dark,a"), "a map of zeros has no Gini index");
        let json: serde_json::Value =
            serde_json::from_slice(&measurements.json(&Method::Grad, &[4, 9]).unwrap()).unwrap();
        assert_eq!((&json["format"], &json["images"]), (&"saliency-numbers/1".into(), &serde_json::json!([4, 9])));
        assert_eq!(json["numbers"].as_array().unwrap().len(), csv.lines().count() - 1);
    }
}
