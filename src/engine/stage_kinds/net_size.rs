//! Size of a network: the multiply-adds of a pass forward over one image, the values of its feature maps, and its
//! parameters. Counts layer by layer what `src/worker/networks` builds; a test of the worker compares the parameters.
//!
//! As in published counts, normalisation, activations, pooling and sums count nothing.

use super::{Convnext, Net, PreactBuild, StandardResnet, Stem, Vit};

/// Output channels of the first convolution of a wide residual network.
const WIDE_STEM: u32 = 16;
/// Ratio of a bottleneck's output channels to its inner channels.
const EXPANSION: f64 = 4.0;
/// Side of the depthwise kernels of a ConvNeXt.
const DEPTHWISE: f64 = 7.0;

/// Size of a network for images of one shape.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct NetSize {
    /// Multiply-adds of a pass forward over one image. Published "FLOPs" are mostly these.
    pub multiply_adds: f64,
    /// Values that convolutions, linear layers and attention give for one image.
    pub activations: f64,
    /// Trainable numbers.
    pub parameters: f64,
}

impl Net {
    /// Counts the network's size for images of C × H × W pixels and a number of classes, which its own `classes`
    /// overrides. `None` for a network from a file.
    pub fn size(&self, [channels, height, width]: [u32; 3], classes: u32) -> Option<NetSize> {
        let mut walk = Walk::new([channels, height, width].map(f64::from));
        let classes = f64::from(self.classes().unwrap_or(classes));
        match self {
            Net::Resnet { width, blocks, .. } => walk.resnet(*width, blocks, Inside::Basic, Stem::Cifar),
            Net::Resnet18(net) => walk.standard(net, [2, 2, 2, 2], Inside::Basic),
            Net::Resnet34(net) => walk.standard(net, [3, 4, 6, 3], Inside::Basic),
            Net::Resnet50(net) => walk.standard(net, [3, 4, 6, 3], Inside::Bottleneck),
            Net::Wideresnet(net) => walk.wide(net.depth, net.widen),
            Net::DmWideResnet(net) => walk.wide(net.depth, net.widen),
            Net::PreactResnet18(net) => {
                let groups = (0..4).map(|group| (2, f64::from(net.width) * f64::from(1 << group)));
                walk.preactivated(f64::from(net.width), groups, net.build == PreactBuild::Rice);
            }
            Net::Vit(net) => walk.vit(net),
            Net::Convnext(net) => walk.convnext(net),
            Net::Torchscript(_) => return None,
        }
        walk.linear(1.0, classes);
        Some(walk.size)
    }
}

/// The convolutions inside a block of a residual network.
#[derive(Clone, Copy, PartialEq)]
enum Inside {
    Basic,
    Bottleneck,
}

/// Walks through the layers of a network.
struct Walk {
    size: NetSize,
    /// Feature maps that the next layer takes.
    channels: f64,
    height: f64,
    width: f64,
}

impl Walk {
    fn new([channels, height, width]: [f64; 3]) -> Self {
        Walk { size: NetSize::default(), channels, height, width }
    }

    /// A convolution without bias, padded so that stride 1 keeps the size.
    fn conv(&mut self, to: f64, kernel: f64, stride: f64) {
        self.shrink(stride);
        let weights = self.channels * to * kernel * kernel;
        self.layer(to, weights, weights);
    }

    /// A convolution with bias that tiles its input.
    fn tiles(&mut self, to: f64, side: f64) {
        (self.height, self.width) = ((self.height / side).floor(), (self.width / side).floor());
        let weights = self.channels * to * side * side;
        self.layer(to, weights, weights + to);
    }

    fn shrink(&mut self, stride: f64) {
        (self.height, self.width) = ((self.height / stride).ceil(), (self.width / stride).ceil());
    }

    /// A layer of so many weights at each pixel of the maps that it gives.
    fn layer(&mut self, to: f64, weights: f64, parameters: f64) {
        let pixels = self.height * self.width;
        self.size.multiply_adds += weights * pixels;
        self.size.activations += to * pixels;
        self.size.parameters += parameters;
        self.channels = to;
    }

    /// A batch norm, or a layer norm over channels.
    fn norm(&mut self) {
        self.size.parameters += 2.0 * self.channels;
    }

    /// A linear layer with bias, of `channels` numbers of each token.
    fn linear(&mut self, tokens: f64, to: f64) {
        self.size.multiply_adds += tokens * self.channels * to;
        self.size.activations += tokens * to;
        self.size.parameters += self.channels * to + to;
        self.channels = to;
    }

    /// A projection beside a block: 1 × 1, from the maps that the block took.
    fn projection(&mut self, from: f64) {
        let to = self.channels;
        self.layer(to, from * to, from * to);
    }

    fn standard(&mut self, net: &StandardResnet, blocks: [u32; 4], inside: Inside) {
        self.resnet(net.width, &blocks, inside, net.stem);
    }

    fn resnet(&mut self, width: u32, blocks: &[u32], inside: Inside, stem: Stem) {
        let mut inner = f64::from(width);
        match stem {
            Stem::Cifar => self.conv(inner, 3.0, 1.0),
            Stem::Imagenet => self.conv(inner, 7.0, 2.0),
        }
        self.norm();
        if stem == Stem::Imagenet {
            self.shrink(2.0);
        }
        for (group, &count) in blocks.iter().enumerate() {
            for block in 0..count {
                let stride = if group > 0 && block == 0 { 2.0 } else { 1.0 };
                self.block(inner, inside, stride);
            }
            inner *= 2.0;
        }
    }

    fn block(&mut self, inner: f64, inside: Inside, stride: f64) {
        let from = self.channels;
        let layers = match inside {
            Inside::Basic => vec![(inner, 3.0, stride), (inner, 3.0, 1.0)],
            Inside::Bottleneck => vec![(inner, 1.0, 1.0), (inner, 3.0, stride), (EXPANSION * inner, 1.0, 1.0)],
        };
        for (to, kernel, stride) in layers {
            self.conv(to, kernel, stride);
            self.norm();
        }
        if stride > 1.0 || from != self.channels {
            self.projection(from);
            self.norm();
        }
    }

    fn wide(&mut self, depth: u32, widen: u32) {
        let blocks = depth.saturating_sub(4) / 6;
        let groups = (0..3).map(|group| (blocks, f64::from(WIDE_STEM << group) * f64::from(widen)));
        self.preactivated(f64::from(WIDE_STEM), groups, true);
    }

    /// A network of pre-activation blocks: groups of a number of blocks and their channels.
    fn preactivated(&mut self, stem: f64, groups: impl Iterator<Item = (u32, f64)>, has_final_norm: bool) {
        self.conv(stem, 3.0, 1.0);
        for (group, (count, to)) in groups.enumerate() {
            for block in 0..count {
                let stride = if group > 0 && block == 0 { 2.0 } else { 1.0 };
                let from = self.channels;
                self.norm();
                self.conv(to, 3.0, stride);
                self.norm();
                self.conv(to, 3.0, 1.0);
                if stride > 1.0 || from != to {
                    self.projection(from);
                }
            }
        }
        if has_final_norm {
            self.norm();
        }
    }

    fn vit(&mut self, net: &Vit) {
        let [dim, heads, mlp] = [net.dim, net.heads, net.mlp].map(f64::from);
        self.tiles(dim, f64::from(net.patch));
        let tokens = 1.0 + self.height * self.width;
        // The class token and the positions.
        self.size.parameters += dim + tokens * dim;
        for _ in 0..net.depth {
            self.norm();
            self.linear(tokens, 3.0 * dim);
            // Queries by keys, and shares by values.
            self.size.multiply_adds += 2.0 * tokens * tokens * dim;
            self.size.activations += heads * tokens * tokens + tokens * dim;
            self.channels = dim;
            self.linear(tokens, dim);
            self.norm();
            self.perceptron(tokens, mlp);
        }
        self.norm();
    }

    fn convnext(&mut self, net: &Convnext) {
        self.tiles(f64::from(net.width), f64::from(net.patch));
        self.norm();
        for (stage, &count) in net.blocks.iter().enumerate() {
            if stage > 0 || net.patch == 2 {
                self.norm();
                self.tiles(f64::from(net.width) * f64::from(1 << stage), 2.0);
            }
            for _ in 0..count {
                let weights = self.channels * DEPTHWISE * DEPTHWISE;
                self.layer(self.channels, weights, weights + self.channels);
                self.norm();
                self.perceptron(self.height * self.width, EXPANSION);
                // The scale of each channel.
                self.size.parameters += self.channels;
            }
        }
        self.norm();
    }

    /// Two linear layers, with so many times as many numbers between them.
    fn perceptron(&mut self, tokens: f64, times: f64) {
        let size = self.channels;
        self.linear(tokens, times * size);
        self.linear(tokens, size);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value as Json, json};

    use super::*;

    fn size(net: Json, shape: [u32; 3], classes: u32) -> NetSize {
        serde_json::from_value::<Net>(net).unwrap().size(shape, classes).unwrap()
    }

    /// Published numbers of multiply-adds in 10⁹ and of parameters in 10⁶.
    ///
    /// ResNets, ViT-B/16 and ConvNeXt-T: pages of torchvision's models, "GFLOPS" and "num_params". ResNet-18 and
    /// PreActResNet-18 for CIFAR: 0.56 and 11.17 in many papers with kuangliu's code. WRN-28-10: Zagoruyko and
    /// Komodakis 2016, table 4; that of DeepMind has the same layers. WRN-34-10: 46.2 in papers with TRADES' code.
    #[test]
    fn networks_are_as_large_as_published() {
        let imagenet = |arch: &str| size(json!({"arch": arch, "stem": "imagenet"}), [3, 224, 224], 1000);
        let cifar = |net: Json| size(net, [3, 32, 32], 10);
        let vit = |net: Json| size(net, [3, 224, 224], 1000);
        let base = json!({"arch": "vit", "side": 224, "patch": 16, "dim": 768, "depth": 12, "heads": 12});
        for (name, found, multiply_adds, parameters) in [
            ("ResNet-18", imagenet("resnet18"), 1.814, 11.689_512),
            ("ResNet-34", imagenet("resnet34"), 3.664, 21.797_672),
            ("ResNet-50", imagenet("resnet50"), 4.089, 25.557_032),
            ("ResNet-18, CIFAR", cifar(json!({"arch": "resnet18", "stem": "cifar"})), 0.56, 11.173_962),
            ("ViT-B/16", vit(base), 17.564, 86.567_656),
            ("ConvNeXt-T", vit(json!({"arch": "convnext"})), 4.456, 28.589_128),
        ] {
            assert!((found.multiply_adds / 1e9 / multiply_adds - 1.0).abs() < 0.01, "{name}: {found:?}");
            assert_eq!(found.parameters, (parameters * 1e6_f64).round(), "{name}");
        }
        for (name, net, parameters) in [
            ("WRN-28-10", json!({"arch": "wideresnet"}), 36.5),
            ("WRN-34-10", json!({"arch": "wideresnet", "depth": 34}), 46.2),
            ("WRN-28-10 of DeepMind", json!({"arch": "dm_wide_resnet"}), 36.5),
            ("PreActResNet-18", json!({"arch": "preact_resnet18"}), 11.17),
        ] {
            let found = cifar(net).parameters / 1e6;
            assert!((found / parameters - 1.0).abs() < 0.002, "{name}: {found}");
        }
    }

    #[test]
    fn more_pixels_are_more_work_and_no_more_parameters() {
        let net = json!({"arch": "resnet", "width": 16, "blocks": [1, 1, 1]});
        let (small, large) = (size(net.clone(), [1, 28, 28], 10), size(net, [1, 56, 56], 10));
        assert_eq!(small.parameters, large.parameters);
        // The head, which sees no pixels, is 64 numbers by 10 classes.
        assert_eq!(4.0 * (small.multiply_adds - 640.0), large.multiply_adds - 640.0);
        let script: Net = serde_json::from_value(json!({"arch": "torchscript"})).unwrap();
        assert_eq!(script.size([3, 32, 32], 10), None, "the file knows its layers");
    }
}
