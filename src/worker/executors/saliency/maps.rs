//! Computes saliency maps. Knows neither sets nor pictures.
//!
//! As in the authors' code, gradients are with respect to the *normalised* image, and noise is added to that image.

use atflow::stage_kinds::Method;
use tch::{TchError, Tensor};

use crate::attacks::input_gradient;
use crate::networks::Frozen;

/// Returns the number of network passes for a map.
pub(super) fn passes(method: &Method) -> usize {
    match method {
        Method::Grad | Method::GradCam => 1,
        Method::Smoothgrad { samples, .. } => *samples as usize,
        Method::IntegratedGradients { steps } => *steps as usize,
    }
}

/// Computes the contribution of some passes to a map; [`from_sum`] turns the sum of all contributions into the map.
///
/// `noise` is standard normal, one sample per pass; only SmoothGrad uses it.
pub(super) fn contribution(
    method: &Method,
    network: &dyn Frozen,
    image: &Tensor,
    label: &Tensor,
    passes: &[u64],
    noise: Option<&Tensor>,
) -> Result<Tensor, TchError> {
    match (method, noise) {
        (Method::GradCam, _) => grad_cam(network, image, label),
        (Method::IntegratedGradients { steps }, _) => {
            let along: Vec<f64> = passes.iter().map(|&pass| (pass as f64 + 0.5) / f64::from(*steps)).collect();
            path_gradient_sum(network, image, label, &along)
        }
        (Method::Smoothgrad { spread, .. }, Some(noise)) => gradient_sum(network, image, label, noise, spread.get()),
        (Method::Grad | Method::Smoothgrad { .. }, _) => {
            let copies = image.f_zeros_like()?.f_repeat([passes.len() as i64, 1, 1, 1])?;
            gradient_sum(network, image, label, &copies, 0.0)
        }
    }
}

/// Computes the map from the sum of all contributions: H × W numbers, row by row, none negative.
pub(super) fn from_sum(
    method: &Method,
    network: &dyn Frozen,
    image: &Tensor,
    sum: &Tensor,
) -> Result<Vec<f32>, TchError> {
    let mean = sum.f_div_scalar(passes(method) as f64)?;
    let map = match method {
        Method::IntegratedGradients { .. } => attributions(network, image, &mean)?,
        _ => mean,
    };
    let map = map.f_abs()?.f_sum_dim_intlist([0i64].as_slice(), false, None)?;
    Vec::try_from(map.f_to_device(tch::Device::Cpu)?.f_contiguous()?.f_view(-1)?)
}

/// Computes the gradient of log p(true class) w.r.t. the normalised image, summed over noisy copies: C × H × W.
///
/// `image` is 1 × C × H × W in [0, 1], `label` its class (I64, shape 1), `noise` standard normal (copies × C × H × W).
/// The noise is scaled by `spread` times the range of the normalised image (Smilkov et al. 2017, section 3).
///
/// # Errors
/// Returns the error from libtorch.
pub fn gradient_sum(
    network: &dyn Frozen,
    image: &Tensor,
    label: &Tensor,
    noise: &Tensor,
    spread: f64,
) -> Result<Tensor, TchError> {
    let image = network.normalise(image)?;
    let deviation = image.f_max()?.f_sub(&image.f_min()?)?.f_mul_scalar(spread)?;
    log_gradient_sum(network, &image.f_add(&noise.f_mul(&deviation)?)?, label)
}

/// Computes the gradient of log p(true class), summed over points on the straight line from black to the image.
///
/// `along` holds the positions, from 0 to 1 (Sundararajan et al. 2017, equation 3).
///
/// # Errors
/// Returns the error from libtorch.
pub fn path_gradient_sum(
    network: &dyn Frozen,
    image: &Tensor,
    label: &Tensor,
    along: &[f64],
) -> Result<Tensor, TchError> {
    let (image, black) = (network.normalise(image)?, network.normalise(&image.f_zeros_like()?)?);
    let along: Vec<f32> = along.iter().map(|&share| share as f32).collect();
    let along = Tensor::f_from_slice(&along)?.f_view([-1, 1, 1, 1])?.f_to_device(image.device())?;
    log_gradient_sum(network, &black.f_add(&image.f_sub(&black)?.f_mul(&along)?)?, label)
}

/// Computes integrated gradients from the mean gradient along the path from black: C × H × W.
///
/// They sum to the difference of log p(true class) between image and black, up to the integration error.
///
/// # Errors
/// Returns the error from libtorch.
pub fn attributions(network: &dyn Frozen, image: &Tensor, mean: &Tensor) -> Result<Tensor, TchError> {
    let way = network.normalise(image)?.f_sub(&network.normalise(&image.f_zeros_like()?)?)?;
    way.f_squeeze_dim(0)?.f_mul(mean)
}

/// Computes Grad-CAM of the true class (Selvaraju et al. 2017, equations 1 and 2), upscaled to the image: 1 × H × W.
///
/// No value is negative.
///
/// # Errors
/// Returns the error from libtorch.
pub fn grad_cam(network: &dyn Frozen, image: &Tensor, label: &Tensor) -> Result<Tensor, TchError> {
    let (_, _, height, width) = image.size4()?;
    let features = tch::no_grad(|| network.features(&network.normalise(image)?))?;
    let gradient = tch::with_grad(|| {
        let features = features.f_detach()?.f_set_requires_grad(true)?;
        let score = network.head(&features)?.f_gather(1, &label.f_view([-1, 1])?, false)?.f_sum(None)?;
        let gradients = Tensor::f_run_backward(&[score], &[features], false, false)?;
        gradients.into_iter().next().ok_or_else(|| TchError::Torch("no gradient came back".to_owned()))
    })?;
    let weights = gradient.f_mean_dim([2i64, 3].as_slice(), true, None)?;
    let map = features.f_mul(&weights)?.f_sum_dim_intlist([1i64].as_slice(), true, tch::Kind::Float)?.f_relu()?;
    map.f_upsample_bilinear2d([height, width], false, None, None)?.f_squeeze_dim(0)
}

/// Computes the gradient of log p of one class at normalised images, summed over them.
fn log_gradient_sum(network: &dyn Frozen, copies: &Tensor, label: &Tensor) -> Result<Tensor, TchError> {
    let labels = label.f_expand([copies.size()[0]], false)?;
    // log p is the negated cross-entropy.
    let gradient = input_gradient(copies, &labels, |copies| network.classify(copies))?.f_neg()?;
    gradient.f_sum_dim_intlist([0i64].as_slice(), false, None)
}
