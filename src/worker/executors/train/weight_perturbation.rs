//! Adversarial weight perturbation (Wu et al. 2020): weights that are moved uphill for the time of one gradient.

use tch::{Kind, TchError, Tensor};

use crate::arithmetic::square_root;

/// Keeps the direction of a layer without gradient finite.
const SMALLEST: f64 = 1e-20;

/// Moves each layer's weights up its gradient by `gamma` times their norm; returns the moves, to take back. Vectors,
/// such as biases and batch norms, stay.
///
/// # Errors
/// Returns the error from libtorch.
pub(super) fn perturb(
    parameters: &[Tensor],
    gradients: &[Tensor],
    gamma: f64,
) -> Result<Vec<Option<Tensor>>, TchError> {
    let _guard = tch::no_grad_guard();
    let norm = |tensor: &Tensor| square_root(&tensor.f_square()?.f_sum(Kind::Float)?);
    let moved = |(parameter, gradient): (&Tensor, &Tensor)| {
        if parameter.dim() < 2 {
            return Ok(None);
        }
        let share = norm(parameter)?.f_div(&norm(gradient)?.f_add_scalar(SMALLEST)?)?.f_mul_scalar(gamma)?;
        let change = gradient.f_mul(&share)?;
        let _ = parameter.shallow_clone().f_add_(&change)?;
        Ok(Some(change))
    };
    parameters.iter().zip(gradients).map(moved).collect()
}

/// Takes the moves back.
///
/// # Errors
/// Returns the error from libtorch.
pub(super) fn restore(parameters: &[Tensor], moves: &[Option<Tensor>]) -> Result<(), TchError> {
    let _guard = tch::no_grad_guard();
    for (parameter, change) in parameters.iter().zip(moves) {
        if let Some(change) = change {
            let _ = parameter.shallow_clone().f_sub_(change)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_moves_by_a_share_of_its_norm_and_comes_back() {
        let weights = Tensor::from_slice2(&[[3.0f32, 0.0], [0.0, 4.0]]);
        let bias = Tensor::from_slice(&[1.0f32, 1.0]);
        let (uphill, slope) = (Tensor::from_slice2(&[[0.0f32, 0.6], [-0.8, 0.0]]), Tensor::from_slice(&[9.0f32, 9.0]));
        let parameters = [weights.shallow_clone(), bias.shallow_clone()];
        let moves = perturb(&parameters, &[uphill, slope], 0.1).unwrap();
        // A norm of 5, a tenth of it along a direction of norm 1.
        let expected = Tensor::from_slice2(&[[3.0f32, 0.3], [-0.4, 4.0]]);
        assert!((&weights - expected).abs().max().double_value(&[]) < 1e-6, "{weights}");
        assert_eq!(bias, Tensor::from_slice(&[1.0f32, 1.0]));
        restore(&parameters, &moves).unwrap();
        let before = Tensor::from_slice2(&[[3.0f32, 0.0], [0.0, 4.0]]);
        assert!((&weights - before).abs().max().double_value(&[]) < 1e-6);
        let flat = perturb(&[weights], &[Tensor::zeros([2, 2], (Kind::Float, tch::Device::Cpu))], 0.1).unwrap();
        assert!(flat[0].as_ref().unwrap().abs().max().double_value(&[]) == 0.0);
    }
}
