//! Attacks against public ones, on a small network. `fixtures/make_attacks.py` made the numbers, and is the
//! specification; and what must hold of every attack.

use atflow::formats;
use atflow::number::Real;
use atflow::stage_kinds::{Apgd, ApgdLoss, Attack, Fab, Net, Norm};
use atflow_worker::attacks::lbfgs::Lbfgs;
use atflow_worker::attacks::{self, AttackedModel, Batch, apgd, fab, square};
use atflow_worker::checkpoint::Checkpoint;
use atflow_worker::networks::Frozen;
use atflow_worker::rng::Rng;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};
use tch::{Device, Kind, Tensor};

static FIXTURES: &[u8] = include_bytes!("fixtures/attacks.safetensors");

/// Radii of the fixtures that break about half of the images.
const WIDE: &str = "12/255";
const WIDE_L2: f64 = 0.38;

fn fixtures() -> SafeTensors<'static> {
    SafeTensors::deserialize(FIXTURES).unwrap()
}

fn fixture(name: &str) -> Tensor {
    tensor_of(&fixtures(), name)
}

pub(crate) fn tensor_of(file: &SafeTensors<'_>, name: &str) -> Tensor {
    let view = file.tensor(name).unwrap();
    let kind = match view.dtype() {
        Dtype::F32 => Kind::Float,
        Dtype::F64 => Kind::Double,
        Dtype::I64 => Kind::Int64,
        other => panic!("{other:?}"),
    };
    let shape: Vec<i64> = view.shape().iter().map(|&side| side as i64).collect();
    Tensor::from_data_size(view.data(), &shape, kind)
}

fn network() -> Box<dyn Frozen> {
    let reals = |values: [f64; 2]| values.map(Real::new).to_vec();
    let net = Net::Resnet {
        width: 6,
        blocks: vec![1, 1],
        mean: reals([0.4, 0.6]),
        std: reals([0.25, 0.5]),
        standardise: false,
        smooth: None,
    };
    let fixtures = fixtures();
    let weights = fixtures.iter().filter_map(|(name, view)| Some((name.strip_prefix("weights/")?.to_owned(), view)));
    let metadata = json!({"format": "checkpoint/1", "net": net, "channels": 2, "classes": ["a", "b", "c", "d", "e"]});
    let bytes = formats::write(weights, &metadata).unwrap();
    Checkpoint::from_bytes(&bytes, Device::Cpu).unwrap().network.freeze().unwrap()
}

/// The images of the fixtures, and their labels.
pub(crate) struct Subjects {
    network: Box<dyn Frozen>,
    pub(crate) images: Tensor,
    labels: Tensor,
    indices: Vec<u64>,
}

impl Subjects {
    pub(crate) fn new() -> Self {
        Subjects {
            network: network(),
            images: fixture("images"),
            labels: fixture("labels"),
            indices: (0..12).collect(),
        }
    }

    pub(crate) fn network(&self) -> &dyn Frozen {
        &*self.network
    }

    pub(crate) fn batch(&self) -> Batch<'_> {
        Batch { images: &self.images, labels: &self.labels, indices: &self.indices, epoch: 0 }
    }

    pub(crate) fn attack(&self, attack: Value) -> Tensor {
        self.attack_batch(attack, &self.batch())
    }

    fn attack_batch(&self, attack: Value, batch: &Batch<'_>) -> Tensor {
        let attack: Attack = serde_json::from_value(attack).unwrap();
        attacks::check(&attack, "attack").unwrap();
        attacks::perturb(&attack, &*self.network, batch, Rng::new(5), &mut || Ok(())).unwrap()
    }

    /// The attack on some of the images, by their positions.
    pub(crate) fn attack_some(&self, attack: Value, positions: &[i64]) -> Tensor {
        let index = Tensor::from_slice(positions);
        let (images, labels) = (self.images.index_select(0, &index), self.labels.index_select(0, &index));
        let indices: Vec<u64> = positions.iter().map(|&position| position as u64).collect();
        self.attack_batch(attack, &Batch { images: &images, labels: &labels, indices: &indices, epoch: 0 })
    }

    fn losses(&self, points: &Tensor) -> Tensor {
        let logits = self.network.forward(points).unwrap();
        logits.cross_entropy_loss::<Tensor>(&self.labels, None, tch::Reduction::None, -100, 0.0)
    }

    pub(crate) fn right(&self, points: &Tensor) -> Vec<bool> {
        let logits = self.network.forward(points).unwrap();
        Vec::try_from(logits.argmax(1, false).eq_tensor(&self.labels)).unwrap()
    }

    /// The largest L-infinity and L2 norm of a perturbation of any image.
    fn reach(&self, points: &Tensor) -> [f64; 2] {
        let change = points - &self.images;
        let l2 = change.norm_scalaropt_dim(2.0, [1i64, 2, 3].as_slice(), false).max();
        [change.abs().max().double_value(&[]), l2.double_value(&[])]
    }

    /// That points are those of a fixture: all but a share of the coordinates within a distance (a gradient that is
    /// zero up to rounding may have either sign), the same images misclassified, and the same mean loss within a share.
    fn assert_same(&self, found: &Tensor, name: &str, [distance, share, loss]: [f64; 3]) {
        let expected = fixture(name);
        let off = (found - &expected).abs().gt(distance).to_kind(Kind::Float).mean(Kind::Float).double_value(&[]);
        assert!(off <= share, "{name}: {off} of the coordinates are off by more than {distance}");
        assert_eq!(self.right(found), self.right(&expected), "{name}");
        let mean = |points: &Tensor| self.losses(points).mean(Kind::Float).double_value(&[]);
        let (found, expected) = (mean(found), mean(&expected));
        assert!((found - expected).abs() <= loss * expected, "{name}: loss {found}, expected {expected}");
    }
}

fn pgd(more: Value) -> Value {
    let mut attack = json!({"attack": "pgd", "eps": "8/255", "step": "2/255", "steps": 40});
    attack.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    attack
}

/// Tolerances: one step 1e-6, forty steps 1e-5 at all but 2 in 1000 coordinates, the loss to 1e-4. The order of clamp
/// and projection makes no difference in the L-infinity ball; in the L2 ball it moves points by up to some thousandths
/// where [0, 1] cuts the ball, and there captum and torchattacks are of the other order.
#[test]
fn fgsm_and_pgd_are_those_of_the_authors_and_of_libraries() {
    let subjects = Subjects::new();
    let (one, forty) = ([1e-6, 0.002, 1e-4], [1e-5, 0.002, 1e-4]);
    subjects.assert_same(&subjects.attack(json!({"attack": "fgsm", "eps": "8/255"})), "fgsm", one);
    let inf = |steps: u32| subjects.attack(pgd(json!({"steps": steps})));
    subjects.assert_same(&inf(1), "pgd_inf_1", one);
    subjects.assert_same(&inf(40), "pgd_inf_40", forty);
    subjects.assert_same(&inf(40), "torchattacks_inf_40", forty);
    let l2 = |steps: u32| subjects.attack(pgd(json!({"norm": "l2", "eps": 0.4, "steps": steps})));
    subjects.assert_same(&l2(1), "pgd_l2_1", one);
    subjects.assert_same(&l2(40), "pgd_l2_40", forty);
    subjects.assert_same(&l2(1), "captum_l2_1", one);
    subjects.assert_same(&l2(40), "captum_l2_40", [5e-3, 0.01, 1e-2]);
    let gradient = pgd(json!({"norm": "l2", "eps": 0.4, "step": 0.1, "steps": 20, "direction": "gradient"}));
    subjects.assert_same(&subjects.attack(gradient), "torchattacks_l2_20", [5e-3, 0.01, 1e-2]);
    // Signed steps of 2/255 in 128 dimensions: the first has a length of 2/255 · √128, inside the ball.
    let [_, length] = subjects.reach(&l2(1));
    assert!((length - 2.0 / 255.0 * 128f64.sqrt()).abs() < 1e-5, "{length}");
}

#[test]
fn the_iterate_rules_choose_among_the_same_points() {
    let subjects = Subjects::new();
    let attack =
        |iterate: &str| subjects.attack(pgd(json!({"eps": WIDE, "step": "3/255", "steps": 10, "iterate": iterate})));
    let [last, best, worst] = ["last", "best_loss", "worst_case"].map(attack);
    subjects.assert_same(&best, "best_loss", [1e-5, 0.002, 1e-4]);
    subjects.assert_same(&worst, "worst_case", [1e-5, 0.002, 1e-4]);
    assert!((subjects.losses(&best) - subjects.losses(&last)).min().double_value(&[]) >= -1e-5);
    for ((worst, best), last) in
        subjects.right(&worst).into_iter().zip(subjects.right(&best)).zip(subjects.right(&last))
    {
        assert!(!worst || (best && last), "what any point breaks the worst case breaks");
    }
}

/// Thirty signed steps may amplify a gradient that is zero up to rounding: one image of twelve may go a way of its own
/// in a third of its pixels.
#[test]
fn apgd_is_that_of_autoattack_from_the_same_start() {
    let subjects = Subjects::new();
    let (mut check_cancelled, target) = (|| Ok(()), fixture("apgd/target"));
    for (norm, name, eps) in [(Norm::Inf, "inf", Real::parse(WIDE).unwrap()), (Norm::L2, "l2", Real::new(WIDE_L2))] {
        for (loss, of) in [(ApgdLoss::Ce, "ce"), (ApgdLoss::Dlr, "dlr"), (ApgdLoss::DlrTargeted, "dlr_targeted")] {
            let mut victim = AttackedModel::new(&*subjects.network, Rng::new(0), &mut check_cancelled);
            assert_eq!(apgd::target(&mut victim, &subjects.batch(), 0).unwrap(), target);
            let params = Apgd { steps: 30, ..Apgd::standard(norm, eps, loss) };
            let start = fixture(&format!("apgd/{name}/start"));
            let found = apgd::climb(&mut victim, &subjects.batch(), &params, start, Some(&target)).unwrap();
            subjects.assert_same(&found, &format!("apgd/{name}/{of}"), [1e-5, 0.03, 1e-3]);
        }
    }
}

/// The fixture finds the nearest point of a plane by bisection in 64 bits.
#[test]
fn fab_is_that_of_autoattack() {
    let subjects = Subjects::new();
    let (mut check_cancelled, target) = (|| Ok(()), fixture("apgd/target"));
    for (norm, name, eps) in [(Norm::Inf, "inf", Real::parse(WIDE).unwrap()), (Norm::L2, "l2", Real::new(WIDE_L2))] {
        let mut victim = AttackedModel::new(&*subjects.network, Rng::new(0), &mut check_cancelled);
        let params = Fab { norm, eps, steps: 15, targets: 1 };
        let found = fab::approach(&mut victim, &subjects.batch(), &params, &target).unwrap();
        subjects.assert_same(&found, &format!("fab/{name}"), [1e-4, 0.01, 1e-3]);
    }
}

/// 22 %, then 3 % less each time, down to 6 % (Croce and Hein 2020, section 3): with 100 steps after 22, 41, 57, 70,
/// 80, 87, 93 and 99.
#[test]
fn apgd_checks_its_step_length_when_the_paper_says() {
    let mut checkpoints = apgd::Checkpoints::new(100);
    let checks: Vec<u32> = (1..=100).filter(|_| checkpoints.next_step().is_some()).collect();
    assert_eq!(checks, [22, 41, 57, 70, 80, 87, 93, 99]);
}

#[test]
fn square_has_the_bumps_and_the_schedule_of_autoattack() {
    for side in [1, 2, 3, 5, 8] {
        let found = Tensor::from_slice(&square::bump(side)).view([side, side]);
        let worst = (found - fixture(&format!("square/bump/{side}"))).abs().max().double_value(&[]);
        assert!(worst < 1e-6, "{side}: {worst}");
    }
    let queries = Vec::<i64>::try_from(fixture("square/queries")).unwrap();
    for (rescale, name) in [(false, "square/share"), (true, "square/share_rescaled")] {
        let attack: Attack =
            serde_json::from_value(json!({"attack": "square", "eps": 0.1, "rescale_schedule": rescale})).unwrap();
        let Attack::Square(params) = attack else { panic!() };
        let found: Vec<f64> = queries.iter().map(|&query| square::share(&params, query as u32)).collect();
        assert_eq!(found, Vec::<f64>::try_from(fixture(name)).unwrap(), "{name}");
    }
}

/// `fixtures/make_square.py` writes AutoAttack's step out for each image by itself; the random numbers are given.
#[test]
fn squares_step_is_that_of_autoattack() {
    let file = SafeTensors::deserialize(include_bytes!("fixtures/square.safetensors")).unwrap();
    let tensor = |name: &str| tensor_of(&file, name);
    let worst = |found: &Tensor, name: &str| (found - tensor(name)).abs().max().double_value(&[]);
    let images = tensor("images");
    let found = square::next_inf(&images, &tensor("inf/best"), &tensor("inf/squares"), 0.1).unwrap();
    assert!(worst(&found, "inf/next") < 1e-6, "{}", worst(&found, "inf/next"));
    for side in [3, 5] {
        let of = |name: &str| tensor(&format!("l2/{side}/{name}"));
        let bumps = of("signs") * Tensor::from_slice(&square::bump(side)).view([1, 1, -1]);
        let (into, out_of) = (of("into"), of("out_of"));
        let found = square::next_l2(&images, &tensor("l2/best"), [&into, &out_of], &bumps, 0.5).unwrap();
        let off = worst(&found, &format!("l2/{side}/next"));
        assert!(off < 2e-6, "{side}: {off}");
        let moved = (&found - tensor("l2/best")).flatten(1, -1).abs().amax([1i64].as_slice(), false);
        assert!(moved.min().double_value(&[]) > 0.01, "every image is moved");
    }
}

#[test]
fn lbfgs_is_that_of_pytorch() {
    let mut valley = |point: &Tensor| {
        tch::with_grad(|| {
            let point = point.detach().set_requires_grad(true);
            let (head, tail) = (point.narrow(0, 0, 7), point.narrow(0, 1, 7));
            let steps: Tensor = (tail - head.square()).square() * 10.0;
            let value = (steps + (head - 1.0).square()).sum(Kind::Double);
            let gradient = Tensor::run_backward(&[&value], &[&point], false, false).remove(0);
            Ok((value.double_value(&[]), gradient))
        })
    };
    let mut optimizer = Lbfgs::new(0.5, 10, 1e-7, 1e-9);
    let mut point = fixture("lbfgs/0");
    for call in 1..=3 {
        point = optimizer.step(point, &mut valley).unwrap();
        let worst = (&point - fixture(&format!("lbfgs/{call}"))).abs().max().double_value(&[]);
        assert!(worst < 1e-9, "call {call}: {worst}");
    }
}

/// Eight iterations: fifty of them amplify rounding beyond comparison, because there is no line search.
#[test]
fn spatial_is_the_attack_of_the_authors() {
    let subjects = Subjects::new();
    for (grid, align_corners) in [("correct", true), ("authors", true), ("correct", false)] {
        let few = json!({
            "attack": "spatial", "grid": grid, "align_corners": align_corners, "steps": 2, "max_iter": 4,
        });
        let name = format!("spatial/{grid}/{align_corners}");
        subjects.assert_same(&subjects.attack(few), &name, [1e-4, 0.005, 1e-3]);
    }
    let mean_loss = |points: &Tensor| subjects.losses(points).mean(Kind::Float).double_value(&[]);
    let (plain, found) = (mean_loss(&subjects.images), mean_loss(&subjects.attack(json!({"attack": "spatial"}))));
    assert!(found > 5.0 * plain, "{found} {plain}");
    // A flow of zero: no step is taken where no gradient is large enough.
    let still = |grid: &str| subjects.attack(json!({"attack": "spatial", "tolerance_grad": 1e9, "grid": grid}));
    let near = |a: &Tensor, b: &Tensor| (a - b).abs().max().double_value(&[]) < 1e-5;
    assert!(near(&still("correct"), &subjects.images));
    assert!(near(&still("authors"), &subjects.images.transpose(2, 3)));
}

/// Every attack with a ball, in either norm.
fn attacks_within(norm: &str, eps: f64) -> Vec<Value> {
    let step = eps / 4.0;
    let with = |more: Value| {
        let mut attack = json!({"norm": norm, "eps": eps});
        attack.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        attack
    };
    let mut attacks = vec![
        with(json!({"attack": "pgd", "step": 0.01, "steps": 5, "start": "random"})),
        with(json!({"attack": "pgd", "step": 0.01, "steps": 5, "start": "random", "restarts": 3})),
        with(
            json!({"attack": "pgd", "step": 0.01, "steps": 5, "start": "random", "iterate": "worst_case", "restarts": 2}),
        ),
        with(json!({"attack": "apgd", "steps": 8})),
        with(json!({"attack": "apgd", "steps": 8, "loss": "dlr", "restarts": 2})),
        with(json!({"attack": "apgd", "steps": 8, "loss": "dlr_targeted", "targets": 3})),
        with(json!({"attack": "square", "queries": 30})),
        with(json!({"attack": "fab", "steps": 6, "targets": 2})),
        with(json!({"attack": "malt", "steps": 8, "targets": 2, "candidates": 3})),
        with(json!({"attack": "autoattack", "steps": 6, "queries": 20, "targets": 2})),
    ];
    if norm == "l2" && step > 0.0 {
        attacks.push(with(json!({"attack": "pgd", "step": step, "steps": 5, "direction": "gradient"})));
    } else if step > 0.0 {
        attacks.push(json!({"attack": "fgsm", "eps": eps, "start": "random", "step": 5.0 * step}));
    }
    attacks
}

#[test]
fn attacks_stay_in_their_ball_and_do_not_depend_on_the_batch() {
    let subjects = Subjects::new();
    for (norm, at, epses) in [("inf", 0, [0.0, 0.03, 0.4]), ("l2", 1, [0.0, 0.3, 4.0])] {
        for (eps, attack) in
            epses.into_iter().flat_map(|eps| attacks_within(norm, eps).into_iter().map(move |a| (eps, a)))
        {
            let found = subjects.attack(attack.clone());
            let reach = subjects.reach(&found)[at];
            assert!(reach <= eps * (1.0 + 1e-5) + 1e-7, "{attack}: {reach}");
            assert!(found.min().double_value(&[]) >= 0.0 && found.max().double_value(&[]) <= 1.0, "{attack}");
            if eps == 0.0 {
                assert!(subjects.reach(&found)[0] < 1e-6, "{attack} of nothing does nothing");
                continue;
            }
            // FAB gives the image where it finds nothing in the ball.
            assert!(attack["attack"] == "fab" || reach > 0.3 * eps.min(0.15), "{attack} uses its ball: {reach}");
            // The last five images, by themselves.
            let (images, labels) = (subjects.images.narrow(0, 7, 5), subjects.labels.narrow(0, 7, 5));
            let part = Batch { images: &images, labels: &labels, indices: &subjects.indices[7..], epoch: 0 };
            let part = subjects.attack_batch(attack.clone(), &part);
            let off = (&part - found.narrow(0, 7, 5)).abs().gt(1e-4).to_kind(Kind::Float).mean(Kind::Float);
            assert!(off.double_value(&[]) <= 0.01, "{attack}: {off:?} of the coordinates depend on the batch");
        }
    }
}

#[test]
fn stronger_attacks_break_what_weaker_ones_break() {
    let subjects = Subjects::new();
    let robust = |attack: Value| subjects.right(&subjects.attack(attack)).into_iter().filter(|right| *right).count();
    let one = robust(pgd(json!({"eps": 0.047, "step": 0.02, "steps": 1, "start": "random"})));
    let restarts = robust(pgd(json!({"eps": 0.047, "step": 0.02, "steps": 1, "start": "random", "restarts": 8})));
    assert!(restarts <= one, "{restarts} {one}");
    let square = |queries: u32| robust(json!({"attack": "square", "eps": 0.2, "queries": queries}));
    assert!(square(150) < square(1), "random search gets somewhere");
    let strong = json!({"attack": "autoattack", "eps": 0.047, "steps": 20, "queries": 50});
    assert!(robust(strong) <= robust(pgd(json!({"eps": 0.047}))));
}
