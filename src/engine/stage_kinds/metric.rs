//! What a number in a table or a figure is.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A number computed from predictions, or measured on saliency maps.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Share of images whose predicted class is the true one; under an attack this is robustness.
    #[default]
    Accuracy,
    /// The same share among the images that the same model predicts correctly in the set's untransformed source
    /// (paper, section 4.2): the pooled ratio.
    AccuracyOnCorrect,
    /// Mean softmax probability of the true class (paper, figure 6).
    ProbabilityOfTrueClass,
    /// Mean cross-entropy of the true class, in nats.
    Loss,
    /// Of a cue-conflict set: decisions for the shape's class among decisions for the shape's or the texture's (Geirhos
    /// et al. 2019, section 2). Images whose two classes are the same do not count.
    ShapeBias,
    /// Of a cue-conflict set: the share of images that were decided either way, without which a shape bias says little.
    ShapeBiasCoverage,
    /// Of a cue-conflict set: the share of images decided for the shape's class.
    ShapeShare,
    /// Of a cue-conflict set: the share of images decided for the texture's class.
    TextureShare,
    /// Of a cue-conflict set: the mean of 1/r, where r is the rank of the shape's class among all logits, 1 for the
    /// largest (Kim et al. 2026, arXiv 2603.10834, RB_S of REFINED-BIAS). It is 100 % if the shape's class always comes
    /// first, and 50 % if it always comes second. The evaluation needs `ranks: true`. Images whose two classes are the
    /// same do not count.
    ShapeReciprocalRank,
    /// The same of the texture's class (RB_T). Kim et al. have other images for each cue; here both are in one image.
    TextureReciprocalRank,
    /// Of an evaluation with a list `eps`: the median over all images of the smallest of these radii that breaks an
    /// image, in pixel units of [0, 1]. There is no value where more than half of the images withstand all.
    MedianEps,
    /// Of saliency maps: the mean Gini index, 0 for maps that are equal everywhere, near 1 for sparse ones.
    Gini,
    /// Of saliency maps: the mean overlap of their strongest tenth with that of the image's edges, as intersection over
    /// union.
    EdgeIou,
    /// Of saliency maps: Spearman's mean correlation with the image's edges.
    EdgeRankCorrelation,
    /// Of saliency maps: Spearman's mean correlation with the maps of the first model of the same stage. The stage
    /// needs `similarity: true`.
    RankCorrelation,
    /// Of saliency maps: the mean SSIM with the maps of the first model of the same stage. The stage needs `similarity:
    /// true`.
    Ssim,
    /// Of saliency maps: the mean relative input stability; small is stable. The stage needs `stability`.
    RelativeInputStability,
    /// Of saliency maps: the mean relative output stability; small is stable. The stage needs `stability`.
    RelativeOutputStability,
    /// Of saliency maps: the share of draws around an image that keep its predicted class. The stage needs `stability`.
    LabelKept,
}

impl Metric {
    /// Every metric.
    pub const ALL: [Metric; 19] = [
        Metric::Accuracy,
        Metric::AccuracyOnCorrect,
        Metric::ProbabilityOfTrueClass,
        Metric::Loss,
        Metric::ShapeBias,
        Metric::ShapeBiasCoverage,
        Metric::ShapeShare,
        Metric::TextureShare,
        Metric::ShapeReciprocalRank,
        Metric::TextureReciprocalRank,
        Metric::MedianEps,
        Metric::Gini,
        Metric::EdgeIou,
        Metric::EdgeRankCorrelation,
        Metric::RankCorrelation,
        Metric::Ssim,
        Metric::RelativeInputStability,
        Metric::RelativeOutputStability,
        Metric::LabelKept,
    ];

    /// The name, as pipeline files and artifacts spell it.
    pub const fn name(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::AccuracyOnCorrect => "accuracy_on_correct",
            Metric::ProbabilityOfTrueClass => "probability_of_true_class",
            Metric::Loss => "loss",
            Metric::ShapeBias => "shape_bias",
            Metric::ShapeBiasCoverage => "shape_bias_coverage",
            Metric::ShapeShare => "shape_share",
            Metric::TextureShare => "texture_share",
            Metric::ShapeReciprocalRank => "shape_reciprocal_rank",
            Metric::TextureReciprocalRank => "texture_reciprocal_rank",
            Metric::MedianEps => "median_eps",
            Metric::Gini => "gini",
            Metric::EdgeIou => "edge_iou",
            Metric::EdgeRankCorrelation => "edge_rank_correlation",
            Metric::RankCorrelation => "rank_correlation",
            Metric::Ssim => "ssim",
            Metric::RelativeInputStability => "relative_input_stability",
            Metric::RelativeOutputStability => "relative_output_stability",
            Metric::LabelKept => "label_kept",
        }
    }

    /// The name for people.
    pub const fn title(self) -> &'static str {
        match self {
            Metric::Accuracy => "accuracy",
            Metric::AccuracyOnCorrect => "accuracy on correctly classified images",
            Metric::ProbabilityOfTrueClass => "probability of the true class",
            Metric::Loss => "loss",
            Metric::ShapeBias => "shape bias",
            Metric::ShapeBiasCoverage => "coverage of the shape bias",
            Metric::ShapeShare => "share decided for the shape",
            Metric::TextureShare => "share decided for the texture",
            Metric::ShapeReciprocalRank => "mean reciprocal rank of the shape",
            Metric::TextureReciprocalRank => "mean reciprocal rank of the texture",
            Metric::MedianEps => "median of the smallest eps that breaks an image",
            Metric::Gini => "Gini index of saliency maps",
            Metric::EdgeIou => "overlap of saliency maps with edges",
            Metric::EdgeRankCorrelation => "rank correlation of saliency maps with edges",
            Metric::RankCorrelation => "rank correlation with the maps of the first model",
            Metric::Ssim => "SSIM with the maps of the first model",
            Metric::RelativeInputStability => "relative input stability of saliency maps (small is stable)",
            Metric::RelativeOutputStability => "relative output stability of saliency maps (small is stable)",
            Metric::LabelKept => "draws that keep the predicted class",
        }
    }

    /// Whether it compares with the same model's predictions of the untransformed set.
    pub const fn needs_reference(self) -> bool {
        matches!(self, Metric::AccuracyOnCorrect)
    }

    /// Whether it needs to know whose texture each image wears, which only cue-conflict sets tell.
    pub const fn needs_texture(self) -> bool {
        matches!(self, Metric::ShapeBias | Metric::ShapeBiasCoverage | Metric::ShapeShare | Metric::TextureShare)
            || self.needs_ranks()
    }

    /// Whether it needs the ranks of classes among the logits, which an evaluation keeps on request.
    pub const fn needs_ranks(self) -> bool {
        matches!(self, Metric::ShapeReciprocalRank | Metric::TextureReciprocalRank)
    }

    /// Whether it needs to know at which of several radii each image broke.
    pub const fn needs_radii(self) -> bool {
        matches!(self, Metric::MedianEps)
    }

    /// Whether it is of saliency maps, and not of predictions.
    pub const fn is_of_maps(self) -> bool {
        matches!(self, Metric::Gini | Metric::EdgeIou | Metric::EdgeRankCorrelation)
            || self.needs_similarity()
            || self.needs_stability()
    }

    /// Whether it compares the maps of a model with those of the first one, which a saliency stage does on request.
    pub const fn needs_similarity(self) -> bool {
        matches!(self, Metric::RankCorrelation | Metric::Ssim)
    }

    /// Whether it is of draws around each image, which a saliency stage makes on request.
    pub const fn needs_stability(self) -> bool {
        matches!(self, Metric::RelativeInputStability | Metric::RelativeOutputStability | Metric::LabelKept)
    }

    /// The least and the most that it can be.
    pub const fn bounds(self) -> (f64, f64) {
        match self {
            Metric::EdgeRankCorrelation | Metric::RankCorrelation | Metric::Ssim => (-1.0, 1.0),
            Metric::Gini => (0.0, 1.0),
            _ if self.is_share() => (0.0, 1.0),
            _ => (0.0, f64::INFINITY),
        }
    }

    /// The unit of its numbers: a share is a ratio, a cross-entropy is in nats, a radius in pixel values.
    pub const fn unit(self) -> &'static str {
        match self {
            Metric::Loss => "nats",
            Metric::MedianEps => "pixel values from 0 to 1",
            _ if !self.is_share() => "number",
            _ => "share",
        }
    }

    /// Whether it says of each image yes or no, so that two models can be compared image by image.
    pub const fn is_accuracy(self) -> bool {
        matches!(self, Metric::Accuracy | Metric::AccuracyOnCorrect)
    }

    /// Whether it lies between 0 and 1 and is shown in percent.
    pub const fn is_share(self) -> bool {
        !matches!(
            self,
            Metric::Loss
                | Metric::MedianEps
                | Metric::Gini
                | Metric::EdgeRankCorrelation
                | Metric::RankCorrelation
                | Metric::Ssim
                | Metric::RelativeInputStability
                | Metric::RelativeOutputStability
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_are_spelled_as_in_pipeline_files() {
        for metric in Metric::ALL {
            assert_eq!(serde_json::to_value(metric).unwrap(), metric.name());
        }
    }
}
