//! Checks a model for gradient masking: runs attacks whose results agree if gradients are reliable, and compares them.

use std::fmt::Write;

use atflow::formats::{Gradients, Predictions};
use atflow::number::Real;
use atflow::stage_kinds::{Attack, AttackLoss, Direction, Fgsm, Iterate, MaskingParams, Norm, Pgd, Square, Start};
use serde::Serialize;
use serde_json::{Value as Json, json};
use tch::{Kind, TchError, Tensor};

use super::evaluate::{Request, evaluate};
use super::{check_fit, grouped, limited};
use crate::attacks;
use crate::attacks::SubAttack;
use crate::context::{Context, Reporter};
use crate::data::DeviceSet;
use crate::error::StageError;
use crate::networks::Frozen;
use crate::rng::Rng;

/// Radii of the monotonicity check, as multiples of ε.
const LADDER: [f64; 5] = [0.25, 0.5, 1.0, 2.0, 4.0];
/// Step factor of the longer runs.
const LONGER: u32 = 5;
/// Maximum accuracy, in percentage points, at an ε where any image can become any other, or grey.
const LEFT_AT_LARGE_EPS: f64 = 5.0;
/// Drop in percentage points that indicates catastrophic overfitting.
///
/// It counts if a single step leaves at least half of the clean accuracy and PGD takes more than this on top. The
/// authors of fast adversarial training stop at the same drop (Wong et al. 2020).
const OVERFITTED: f64 = 20.0;

/// The output `json`.
#[derive(Debug, Serialize)]
struct Report {
    format: &'static str,
    norm: Norm,
    eps: Real,
    /// ε as its author wrote it, if that is a fraction.
    #[serde(skip_serializing_if = "Option::is_none")]
    eps_written: Option<String>,
    n: usize,
    /// Share of images classified correctly without an attack, 0 to 1.
    clean: f64,
    /// Share classified correctly under PGD, 0 to 1.
    pgd: f64,
    warnings: usize,
    checks: Vec<Check>,
}

/// One comparison.
#[derive(Debug, Serialize)]
struct Check {
    name: &'static str,
    verdict: Verdict,
    /// Human-readable description of the comparison and its result.
    says: String,
    numbers: Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Pass,
    Warn,
}

/// Runs a `masking` stage.
///
/// # Errors
/// Any [`StageError`].
pub fn run(context: &mut Context<'_>) -> Result<String, StageError> {
    let params: MaskingParams = context.params()?;
    check(&params)?;
    let (model, set) = (context.input("model")?, context.input("set")?);
    let (model, set) = (context.checkpoint(model)?, context.set(set)?);
    check_fit(&model, &set)?;
    let count = limited(set.len(), params.limit)?;
    if count == 0 {
        return Err(StageError::Mismatch("the set has no images to attack".to_owned()));
    }
    let network = model.network.freeze()?;
    let rng = context.rng;
    let subject = Subject { params: &params, set: &set, count, network: &*network, rng };
    let report = subject.report(&mut context.reporter)?;
    for check in report.checks.iter().filter(|check| check.verdict == Verdict::Warn) {
        context.reporter.log(format!("{}: {}", check.name, check.says));
    }
    let mut bytes = serde_json::to_vec_pretty(&report)
        .map_err(|error| StageError::Encode { output: "json", source: error.into() })?;
    bytes.push(b'\n');
    context.write("json", &bytes)?;
    context.write("markdown", markdown(params.title.as_deref(), &report).as_bytes())?;
    Ok(summary(&report))
}

fn check(params: &MaskingParams) -> Result<(), StageError> {
    let numbers = [("steps", params.steps), ("restarts", params.restarts), ("queries", params.queries)];
    for (name, value) in numbers.into_iter().chain([("batch_size", params.batch_size)]) {
        if value == 0 {
            return Err(StageError::setting(name, "must be at least 1"));
        }
    }
    let eps = params.eps.get();
    if eps <= 0.0 || (params.norm == Norm::Inf && eps > 1.0) {
        let range = if params.norm == Norm::Inf { "above 0 and at most 1" } else { "above 0" };
        return Err(StageError::setting("eps", format!("must be {range}, not {eps}")));
    }
    match (0.0..=100.0).contains(&params.tolerance.get()) {
        true => Ok(()),
        false => Err(StageError::setting("tolerance", "must be between 0 and 100 percentage points")),
    }
}

fn summary(report: &Report) -> String {
    let of = report.checks.len();
    match report.warnings {
        0 => format!("all {of} checks pass (n = {})", grouped(report.n as u64)),
        warnings => format!("{warnings} of {of} checks warn (n = {})", grouped(report.n as u64)),
    }
}

/// Renders the output `markdown`.
///
/// Without a title and a written ε the bytes equal those from before these existed, so existing reports stay fresh.
fn markdown(title: Option<&str>, report: &Report) -> String {
    let norm = if report.norm == Norm::Inf { "L-infinity" } else { "L2" };
    let eps = match (&report.eps_written, title) {
        (Some(written), _) => format!("{written} ({:.6})", report.eps.get()),
        (None, Some(_)) => radius(report.eps.get()),
        (None, None) => format!("{:.6}", report.eps.get()),
    };
    // A heading is a single line.
    let title = title.unwrap_or("Masked gradients").replace('\n', " ");
    let mut text = format!("# {title}\n\n{}; {norm}, ε = {eps}.\n\n", summary(report));
    text.push_str("| check | verdict | |\n| --- | --- | --- |\n");
    for check in &report.checks {
        let verdict = if check.verdict == Verdict::Pass { "pass" } else { "**warn**" };
        // Writing to a string cannot fail.
        let _ = writeln!(text, "| {} | {verdict} | {} |", check.name, check.says);
    }
    text
}

/// Formats a radius in pixel units of [0, 1] that its author did not write as a fraction.
///
/// Gives `8/255 (0.031373)` if the radius is a whole number of byte steps and less than 1, else the decimal.
fn radius(eps: f64) -> String {
    let steps = (255.0 * eps).round();
    // Fractions are computed once, so only the last bits can differ.
    match (255.0 * eps - steps).abs() < 1e-9 && (1.0..255.0).contains(&steps) {
        true => format!("{steps}/255 ({eps:.6})"),
        false => format!("{eps:.6}"),
    }
}

/// A model, the set it is attacked on, and the parameters.
struct Subject<'a> {
    params: &'a MaskingParams,
    set: &'a DeviceSet,
    count: usize,
    network: &'a dyn Frozen,
    rng: Rng,
}

impl Subject<'_> {
    fn report(&self, reporter: &mut Reporter<'_>) -> Result<Report, StageError> {
        let (params, eps) = (self.params, self.params.eps.get());
        let clean = self.attacked(&Attack::default(), reporter)?;
        let none = self.attacked(&self.pgd(0.0, params.steps, None), reporter)?;
        let mut checks = vec![self.repeats(reporter)?, self.logits()?, unmoved(&clean, &none)];

        let both = self.pgd_then_square(reporter)?;
        let attack = both.attack.as_ref();
        let broken_by = attack.and_then(|attack| attack.ensemble.as_ref()).map_or(&[][..], |e| &e.broken_by);
        let beyond = self.points(broken_by.iter().filter(|&&by| by == 1).count());
        let vanished = (0..clean.len()).filter(|&index| clean.correct(index) && clean.loss[index] == 0.0).count();
        let (clean, black_box) = (self.accuracy(&clean), self.accuracy(&both));
        let base = black_box + beyond;
        checks.push(self.gradients(attack.and_then(|attack| attack.gradients)));

        checks.push(self.monotone(&self.ladder(clean, base, reporter)?));
        checks.push(self.large_radius(reporter)?);
        let longer =
            self.accuracy(&self.attacked(&self.pgd(eps, params.steps.saturating_mul(LONGER), None), reporter)?);
        checks.push(self.no_gain("more steps", base, longer, &format!("{LONGER} times the steps")));
        let restarted = self.accuracy(&self.attacked(&self.pgd(eps, params.steps, Some(params.restarts)), reporter)?);
        let starts = format!("the best of {} random starts", params.restarts);
        checks.push(self.no_gain("restarts", base, restarted, &starts));
        let without = "what PGD leaves, attacked without gradients (Square),";
        checks.push(self.no_gain("black box", base, black_box, without));
        let on_margin = self.accuracy(&self.attacked(&self.pgd_on_margin(), reporter)?);
        checks.push(self.scale(base, on_margin, vanished));
        let single = self.accuracy(&self.attacked(&self.single_step(), reporter)?);
        checks.push(self.no_gain("single step", base, single, "one step (FGSM)"));
        checks.push(Check::new(
            "catastrophic overfitting",
            single < clean / 2.0 || single - base <= OVERFITTED,
            format!("one step leaves {single:.1} %, PGD {base:.1} %, of {clean:.1} % clean"),
            json!({"clean": clean, "single_step": single, "pgd": base}),
        ));
        let warnings = checks.iter().filter(|check| check.verdict == Verdict::Warn).count();
        let (clean, pgd) = (clean / 100.0, base / 100.0);
        let (norm, eps, eps_written, n) = (params.norm, params.eps, params.eps_written.clone(), self.count);
        Ok(Report { format: "masking/1", norm, eps, eps_written, n, clean, pgd, warnings, checks })
    }

    /// Attacks with PGD, then without gradients what PGD leaves.
    fn pgd_then_square(&self, reporter: &mut Reporter<'_>) -> Result<Predictions, StageError> {
        let params = self.params;
        let pgd = self.pgd(params.eps.get(), params.steps, None);
        let square = Attack::Square(Square { queries: params.queries, ..Square::standard(params.norm, params.eps) });
        let sub_attack = |name: &'static str, attack: &Attack| SubAttack { name, attack: attack.clone(), runs: 1 };
        self.attacked_in_turn(&pgd, vec![sub_attack("pgd", &pgd), sub_attack("square", &square)], reporter)
    }

    /// Returns the accuracy in percent that PGD leaves at several radii, in ascending order.
    ///
    /// `clean` is the accuracy without an attack, `base` the one at the radius of the parameters.
    fn ladder(&self, clean: f64, base: f64, reporter: &mut Reporter<'_>) -> Result<Vec<(f64, f64)>, StageError> {
        let mut ladder = vec![(0.0, clean)];
        for factor in LADDER {
            let radius = self.radius(self.params.eps.get() * factor);
            let accuracy = match factor {
                1.0 => base,
                _ => self.accuracy(&self.attacked(&self.pgd(radius, self.params.steps, None), reporter)?),
            };
            ladder.push((radius, accuracy));
        }
        Ok(ladder)
    }

    /// Checks that PGD breaks nearly all images in a ball where any image can become any other, or grey.
    fn large_radius(&self, reporter: &mut Reporter<'_>) -> Result<Check, StageError> {
        let large = match self.params.norm {
            Norm::Inf => 0.5,
            // Half the distance between black and white.
            Norm::L2 => 0.5 * (self.set.shape.iter().product::<i64>() as f64).sqrt(),
        };
        let left = self.accuracy(&self.attacked(&self.pgd(large, self.params.steps, None), reporter)?);
        Ok(Check::new(
            "large radius",
            left <= LEFT_AT_LARGE_EPS,
            format!("at ε = {large:.3}, where nothing can be recognised, PGD leaves {left:.1} %"),
            json!({"eps": large, "accuracy": left}),
        ))
    }

    /// Returns PGD from the images themselves, or with `restarts` random starts; any misclassified point on the way
    /// counts.
    fn pgd(&self, eps: f64, steps: u32, restarts: Option<u32>) -> Attack {
        // The steps always suffice to cross the ball; a step of 0 is invalid.
        let step = if eps > 0.0 { 2.5 * eps / f64::from(steps) } else { 1.0 / 255.0 };
        let (norm, direction) = match self.params.norm {
            Norm::Inf => (Norm::Inf, Direction::Sign),
            Norm::L2 => (Norm::L2, Direction::Gradient),
        };
        let start = if restarts.is_some() { Start::Random } else { Start::Zero };
        let restarts = restarts.unwrap_or(1);
        let (eps, step, iterate) = (Real::new(eps), Real::new(step), Iterate::WorstCase);
        Attack::Pgd(Pgd { start, direction, iterate, restarts, ..Pgd::plain(norm, eps, step, steps) })
    }

    /// Returns PGD on a loss that stays as steep however large the logits are. Large logits make the gradient of
    /// cross-entropy vanish, and hide a network from PGD without hiding it from anybody else.
    fn pgd_on_margin(&self) -> Attack {
        match self.pgd(self.params.eps.get(), self.params.steps, None) {
            Attack::Pgd(pgd) => Attack::Pgd(Pgd { loss: AttackLoss::Margin, ..pgd }),
            other => other,
        }
    }

    fn single_step(&self) -> Attack {
        let eps = self.params.eps;
        match self.params.norm {
            Norm::Inf => Attack::Fgsm(Fgsm { eps, start: Start::Zero, step: None, noise: None }),
            Norm::L2 => Attack::Pgd(Pgd { direction: Direction::Gradient, ..Pgd::plain(Norm::L2, eps, eps, 1) }),
        }
    }

    /// Clips a radius to the norm's range.
    fn radius(&self, eps: f64) -> f64 {
        if self.params.norm == Norm::Inf { eps.min(1.0) } else { eps }
    }

    fn attacked(&self, attack: &Attack, reporter: &mut Reporter<'_>) -> Result<Predictions, StageError> {
        self.predictions(attack, None, reporter)
    }

    fn attacked_in_turn(
        &self,
        attack: &Attack,
        sub_attacks: Vec<SubAttack>,
        reporter: &mut Reporter<'_>,
    ) -> Result<Predictions, StageError> {
        self.predictions(attack, Some(sub_attacks), reporter)
    }

    fn predictions(
        &self,
        attack: &Attack,
        sub_attacks: Option<Vec<SubAttack>>,
        reporter: &mut Reporter<'_>,
    ) -> Result<Predictions, StageError> {
        attacks::check(attack, "attack")?;
        let &Subject { set, count, network, rng, .. } = self;
        let batch_size = self.params.batch_size;
        let request = Request {
            attack,
            sub_attacks,
            set,
            count,
            batch_size,
            ranks: false,
            network,
            attacked: network,
            halved: None,
            rng,
        };
        evaluate(&request, reporter)
    }

    /// Returns the allowed gain of a stronger attack; a single image is within chance.
    fn tolerance(&self) -> f64 {
        self.params.tolerance.get().max(self.points(1))
    }

    /// Converts a number of images to percentage points.
    fn points(&self, images: usize) -> f64 {
        100.0 * images as f64 / self.count as f64
    }

    /// Returns the accuracy in percent.
    fn accuracy(&self, predictions: &Predictions) -> f64 {
        self.points((0..predictions.len()).filter(|&index| predictions.correct(index)).count())
    }

    /// Checks that the same images give bitwise equal logits.
    fn repeats(&self, reporter: &mut Reporter<'_>) -> Result<Check, StageError> {
        let images = self.first_batch()?;
        let first = self.network.forward(&images)?;
        reporter.check_cancelled()?;
        let distance = first.f_sub(&self.network.forward(&images)?)?.f_abs()?.f_max()?.f_double_value(&[])?;
        Ok(Check::new(
            "repeatable",
            distance == 0.0,
            format!("asked twice, logits differ by {distance:.1e} at most"),
            json!({"distance": distance}),
        ))
    }

    /// Checks that the network outputs logits.
    ///
    /// Losses apply softmax to the output; applied to probabilities, its gradient nearly vanishes.
    fn logits(&self) -> Result<Check, StageError> {
        let logits = self.network.forward(&self.first_batch()?)?;
        let sums = logits.f_sum_dim_intlist([1i64].as_slice(), false, Kind::Float)?;
        let far = |tensor: &Tensor| -> Result<f64, TchError> { tensor.f_abs()?.f_max()?.f_double_value(&[]) };
        let is_share = logits.f_min()?.f_double_value(&[])? >= 0.0 && far(&sums.f_sub_scalar(1.0)?)? < 1e-4;
        let says = if is_share { "outputs are probabilities" } else { "outputs are no probabilities" };
        Ok(Check::new("logits", !is_share, says.to_owned(), json!({"largest": far(&logits)?})))
    }

    fn first_batch(&self) -> Result<Tensor, TchError> {
        let count = self.count.min(self.params.batch_size as usize) as u64;
        Ok(self.set.batch(&(0..count).collect::<Vec<_>>())?.0)
    }

    fn gradients(&self, gradients: Option<Gradients>) -> Check {
        let gradients = gradients.unwrap_or_default();
        let Gradients { images, zero, not_finite } = gradients;
        Check::new(
            "gradients",
            100.0 * zero as f64 <= self.params.tolerance.get() * images as f64 && not_finite == 0,
            format!(
                "of {images} images that are right {zero} have a gradient of zero, {not_finite} one that is not finite"
            ),
            json!(gradients),
        )
    }

    /// Checks that a larger ball never increases the accuracy.
    fn monotone(&self, ladder: &[(f64, f64)]) -> Check {
        let rises = ladder.windows(2).map(|pair| pair[1].1 - pair[0].1);
        let rise = rises.fold(0.0, f64::max);
        let steps: Vec<String> = ladder.iter().map(|(_, accuracy)| format!("{accuracy:.1}")).collect();
        let steps = steps.join(", ");
        Check::new(
            "monotone",
            rise <= self.tolerance(),
            format!("with ε times 0, 1/4, 1/2, 1, 2, 4 PGD leaves {steps} %"),
            json!({"eps": ladder.iter().map(|p| p.0).collect::<Vec<_>>(), "accuracy": ladder.iter().map(|p| p.1).collect::<Vec<_>>()}),
        )
    }

    /// Checks that large logits do not hide images from PGD. `vanished` images have a cross-entropy that rounds to 0.
    ///
    /// The margin is a little stronger than cross-entropy on many an honest network. Only where cross-entropy vanishes
    /// is that a sign of masking.
    fn scale(&self, pgd: f64, on_margin: f64, vanished: usize) -> Check {
        Check::new(
            "scale of logits",
            pgd - on_margin <= self.tolerance() || self.points(vanished) <= self.tolerance(),
            format!(
                "PGD leaves {pgd:.1} %, on the margin of the logits {on_margin:.1} %; cross-entropy rounds to 0 for \
                 {vanished} images that are right"
            ),
            json!({"pgd": pgd, "other": on_margin, "loss_of_zero": vanished}),
        )
    }

    /// Checks that another attack gains no more than PGD.
    fn no_gain(&self, name: &'static str, pgd: f64, other: f64, what: &str) -> Check {
        Check::new(
            name,
            pgd - other <= self.tolerance(),
            format!("PGD leaves {pgd:.1} %, {what} {other:.1} %"),
            json!({"pgd": pgd, "other": other}),
        )
    }
}

impl Check {
    fn new(name: &'static str, passes: bool, says: String, numbers: Json) -> Self {
        Check { name, verdict: if passes { Verdict::Pass } else { Verdict::Warn }, says, numbers }
    }
}

/// Checks that an attack with ε = 0 changes nothing.
fn unmoved(clean: &Predictions, none: &Predictions) -> Check {
    let changed = clean.predicted.iter().zip(&none.predicted).filter(|(a, b)| a != b).count();
    Check::new(
        "no radius",
        changed == 0,
        format!("PGD with ε = 0 changes {changed} predictions"),
        json!({"changed": changed}),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(eps: f64) -> Report {
        let checks = vec![Check::new("logits", true, "outputs are no probabilities".to_owned(), json!({}))];
        let (norm, eps) = (Norm::Inf, Real::new(eps));
        let (eps_written, n) = (None, 1000);
        Report { format: "masking/1", norm, eps, eps_written, n, clean: 0.9, pgd: 0.4, warnings: 0, checks }
    }

    #[test]
    fn a_radius_is_told_as_its_author_wrote_it() {
        let written = Report { eps_written: Some("16/510".to_owned()), ..report(8.0 / 255.0) };
        assert!(markdown(None, &written).contains("ε = 16/510 (0.031373)."));
        assert!(markdown(Some("any"), &written).contains("ε = 16/510 (0.031373)."));
        let json = |report: &Report| serde_json::to_value(report).unwrap();
        assert_eq!(json(&written)["eps_written"], "16/510");
        assert_eq!(json(&written)["eps"], 8.0 / 255.0);
        assert!(json(&report(8.0 / 255.0)).get("eps_written").is_none());
    }

    /// A report from before titles existed has the same key as one without a title: these are its bytes.
    #[test]
    fn a_report_without_a_title_is_what_it_always_was() {
        let text = "# Masked gradients\n\nall 1 checks pass (n = 1,000); L-infinity, ε = 0.031373.\n\n\
            | check | verdict | |\n| --- | --- | --- |\n| logits | pass | outputs are no probabilities |\n";
        assert_eq!(markdown(None, &report(8.0 / 255.0)), text);
    }

    #[test]
    fn a_title_says_whose_gradients_and_the_radius_is_that_of_the_author() {
        let text = markdown(Some("fgsm-8 on Tiny ImageNet"), &report(8.0 / 255.0));
        let head = "# fgsm-8 on Tiny ImageNet\n\nall 1 checks pass (n = 1,000); L-infinity, ε = 8/255 (0.031373).\n\n";
        assert!(text.starts_with(head), "{text}");
        for (eps, words) in [
            (1.0 / 255.0, "1/255 (0.003922)"),
            (0.3 / 255.0 * 10.0, "3/255 (0.011765)"),
            (0.03, "0.030000"),
            (0.5, "0.500000"),
            (1.0, "1.000000"),
            (3.0, "3.000000"),
        ] {
            assert_eq!(radius(eps), words);
        }
    }
}
