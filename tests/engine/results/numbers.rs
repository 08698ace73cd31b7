//! Tables and figures from predictions.

use atflow::formats::{ImageSet, Predictions};
use atflow::protocol::FailureCode;
use atflow::stage_kinds::StageKind;
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use serde_json::{Value, json};

use crate::support::Bench;

/// Predictions of `n` images of class 0 to 9 in turn, the first `correct` of them right.
fn predictions(n: usize, correct: usize) -> Vec<u8> {
    let labels: Vec<i32> = (0..n).map(|image| (image % 10) as i32).collect();
    let predicted = labels.iter().enumerate().map(|(image, &label)| if image < correct { label } else { 10 }).collect();
    let (probability, loss) = (vec![0.5; n], vec![0.7; n]);
    Predictions { predicted, probability, loss, labels, ..Predictions::default() }.to_bytes().unwrap()
}

fn table() -> Bench {
    let params = json!({
        "title": "Robustness", "corner": "model", "rows": ["a/b", "c"],
        "columns": [{"label": "clean", "metric": "accuracy"}, {"label": "p=64", "metric": "accuracy_on_correct"}],
    });
    let mut bench = Bench::new(StageKind::Table, params, &["json", "markdown", "csv", "tex"]);
    bench.input("value", "c/clean", &predictions(200, 100));
    bench.input("value", "a/b/p=64", &predictions(200, 150));
    bench.input("reference", "a/b/p=64", &predictions(200, 180));
    bench.input("value", "a/b/clean", &predictions(200, 180));
    bench
}

#[test]
fn a_table_has_its_numbers_in_their_places() {
    let bench = table();
    assert_eq!(bench.run().unwrap(), "3 of 4 numbers in 2 rows and 2 columns");
    insta::assert_snapshot!(bench.text("markdown"), @r#"
    # Robustness

    | model |             clean |              p=64 |
    | ----- | ----------------: | ----------------: |
    | a/b   | 90.0 [85.1, 93.4] | 83.3 [77.2, 88.1] |
    | c     | 50.0 [43.1, 56.9] |                 – |

    Accuracy in percent [95 % Wilson interval], n = 200 images.

    Accuracy on correctly classified images in percent [95 % Wilson interval], n = 180 images that the same model classifies correctly untransformed.

    An interval is over images: another seed of a training may change a number by more than that.
    "#);
    insta::assert_snapshot!(bench.text("csv"), @r#"
    row,column,metric,value,low,high,hits,n
    a/b,clean,accuracy,0.900000,0.850594,0.934330,180,200
    a/b,p=64,accuracy_on_correct,0.833333,0.772048,0.880688,150,180
    c,clean,accuracy,0.500000,0.431361,0.568639,100,200
    "#);
    let document: Value = serde_json::from_slice(&bench.output("json")).unwrap();
    assert_eq!(document["cells"][0][1]["hits"], 150);
    assert_eq!(document["cells"][0][1]["n"], 180);
    assert_eq!(document["cells"][1][1], Value::Null);
}

#[test]
fn columns_of_different_images_are_told() {
    let column = |label: &str| json!({"label": label, "metric": "accuracy"});
    let columns = ["clean", "PGD-20", "AutoAttack"].map(column);
    let params = json!({"corner": "model", "rows": ["a"], "columns": columns});
    let mut bench = Bench::new(StageKind::Table, params, OUTPUTS);
    bench.input("value", "a/clean", &predictions(2_000, 1_900));
    bench.input("value", "a/PGD-20", &predictions(2_000, 900));
    bench.input("value", "a/AutoAttack", &predictions(200, 95));
    bench.run().unwrap();
    let told = "Columns of unequal n are not of the same images, and do not compare: \
                n = 2,000 (clean, PGD-20), 200 (AutoAttack).";
    assert!(bench.text("markdown").contains(told), "{}", bench.text("markdown"));
}

#[test]
fn the_order_of_inputs_changes_nothing() {
    let (bench, mut other) = (table(), table());
    other.job.inputs.reverse();
    bench.run().unwrap();
    other.run().unwrap();
    for output in ["json", "markdown", "csv", "tex"] {
        assert_eq!(bench.output(output), other.output(output));
    }
}

#[test]
fn inputs_that_do_not_fit_the_table_are_named() {
    let message = |change: &dyn Fn(&mut Bench)| {
        let mut bench = table();
        change(&mut bench);
        let failure = bench.failure();
        assert_eq!(failure.code, FailureCode::Invalid);
        [vec![failure.message], failure.causes].concat().join(": ")
    };
    let messages = [
        message(&|bench| drop(bench.input("value", "c/other", &predictions(1, 1)))),
        message(&|bench| drop(bench.input("value", "c/clean", &predictions(1, 1)))),
        message(&|bench| drop(bench.input("value", "c/p=64", &predictions(200, 1)))),
        message(&|bench| {
            bench.input("value", "c/p=64", &predictions(200, 1));
            bench.input("reference", "c/p=64", &predictions(100, 1));
        }),
        message(&|bench| bench.job.params["rows"] = json!(["a", "a/b"])),
        message(&|bench| {
            bench.job.params["rows"] = json!(["a", "a/b"]);
            bench.job.params["columns"] =
                json!([{"label": "b/x", "metric": "accuracy"}, {"label": "x", "metric": "accuracy"}]);
        }),
        message(&|bench| {
            bench.job.inputs.retain(|input| input.label != "c/clean");
            bench.input("value", "c/clean", b"not predictions at all");
        }),
        message(&|bench| drop(bench.job.outputs.remove("csv"))),
    ];
    insta::assert_snapshot!(messages.join("\n"), @r#"
    input value c/other belongs to no cell
    more than one input value c/clean was given
    the number of c/p=64 cannot be computed: accuracy on correctly classified images needs the model's predictions on the untransformed set
    the number of c/p=64 cannot be computed: the predictions are of 200 images, those in the untransformed set of 100
    input value c/clean belongs to no cell
    two cells would both be filled by inputs labelled `a/b/x`
    input value c/clean is not what it should be: not a safetensors file: header too large
    the stage was not told where to write its output csv
    "#);
}

#[test]
fn a_corrupt_prediction_is_told_by_its_digest() {
    let bench = table();
    std::fs::write(&bench.job.inputs[1].path, b"other").unwrap();
    assert_eq!(bench.failure().code, FailureCode::CorruptInput { digest: bench.job.inputs[1].digest });
}

#[test]
fn a_cancelled_table_stops() {
    let bench = table();
    bench.recorder.cancel.store(true, std::sync::atomic::Ordering::Relaxed);
    assert_eq!(bench.failure().code, FailureCode::Cancelled);
    assert!(bench.left().is_empty());
}

/// Predictions of 200 images of class 0, right where `is_right` says so.
fn right(is_right: impl Fn(usize) -> bool) -> Vec<u8> {
    let predicted = (0..200).map(|image| i32::from(!is_right(image))).collect();
    let (probability, loss) = (vec![0.5; 200], vec![0.7; 200]);
    Predictions { labels: vec![0; 200], predicted, probability, loss, ..Predictions::default() }.to_bytes().unwrap()
}

/// The outputs of a figure.
const PICTURE: &[&str] = &["svg", "png", "pdf", "csv"];

const OUTPUTS: &[&str] = &["json", "markdown", "csv", "tex"];

#[test]
fn rows_are_compared_with_one_of_them_on_the_same_images() {
    let params = json!({
        "corner": "model", "rows": ["standard", "pgd"], "columns": [{"label": "clean", "metric": "accuracy"}],
        "compare": {"to": "standard", "test": "mcnemar"},
    });
    let mut bench = Bench::new(StageKind::Table, params, OUTPUTS);
    // 40 images only the one gets right, 20 only the other: scipy.stats.binomtest(20, 60, 0.5).pvalue is 0.01349.
    bench.input("value", "standard/clean", &right(|image| image < 140));
    bench.input("value", "pgd/clean", &right(|image| (40..160).contains(&image)));
    bench.run().unwrap();
    insta::assert_snapshot!(bench.text("markdown"));
    insta::assert_snapshot!(bench.text("csv"));
    bench.job.params["compare"]["to"] = json!("underfit");
    let message = bench.failure().message;
    assert_eq!(message, "the table is to be compared with its row `underfit`, which it does not have");
}

/// A table of accuracies on correct, compared with row `a`: the first column is that of the untransformed images.
fn of_originals() -> Bench {
    let column = |label: &str| json!({"label": label, "metric": "accuracy_on_correct"});
    let params = json!({
        "corner": "model", "rows": ["a", "b", "twin"], "columns": [column("clean"), column("64")],
        "compare": {"to": "a"},
    });
    let mut bench = Bench::new(StageKind::Table, params, OUTPUTS);
    for (row, clean, changed) in [("a", 180, 120), ("b", 170, 100), ("twin", 180, 120)] {
        bench.input("value", &format!("{row}/clean"), &right(|image| image < clean));
        bench.input("reference", &format!("{row}/clean"), &right(|image| image < clean));
        bench.input("value", &format!("{row}/64"), &right(|image| image < changed));
        bench.input("reference", &format!("{row}/64"), &right(|image| image < clean));
    }
    bench
}

#[test]
fn what_is_so_by_definition_has_no_interval_and_is_not_tested() {
    let bench = of_originals();
    bench.run().unwrap();
    insta::assert_snapshot!(bench.text("markdown"));
    insta::assert_snapshot!(bench.text("csv"));
    let document: Value = serde_json::from_slice(&bench.output("json")).unwrap();
    let cells = &document["cells"];
    assert_eq!(
        cells[0][0],
        json!({"value": 1.0, "low": null, "high": null, "hits": 180, "n": 180, "fixed": true}),
        "accuracy on correct of the untransformed images themselves"
    );
    assert!(cells[0][1]["fixed"].is_null() && cells[0][1]["low"].is_number());
    // Both are right by definition on the untransformed images; the twin is the same model.
    for equal in [&cells[1][0], &cells[2][0], &cells[2][1]] {
        let compared = &equal["compared"];
        assert_eq!((&compared["fixed"], &compared["difference"]), (&true.into(), &0.0.into()), "{equal}");
        assert!(compared["p"].is_null() && compared["p_holm"].is_null() && compared["low"].is_null(), "{equal}");
    }
    assert_eq!(cells[1][1]["compared"]["family"], 1, "what is not tested is of no family");
}

#[test]
fn p_values_are_corrected_for_their_family() {
    let column = |label: &str| json!({"label": label, "metric": "accuracy"});
    let params = json!({
        "corner": "model", "rows": ["standard", "fgsm", "pgd"], "columns": [column("clean"), column("attacked")],
        "compare": {"to": "standard"},
    });
    let mut bench = Bench::new(StageKind::Table, params, OUTPUTS);
    // Only the one and only the other right on 60 + 40, 25 + 10, 9 + 1, 10 + 10 images.
    let pairs = [("fgsm/clean", 60, 40), ("fgsm/attacked", 25, 10), ("pgd/clean", 9, 1), ("pgd/attacked", 10, 10)];
    for column in ["clean", "attacked"] {
        bench.input("value", &format!("standard/{column}"), &right(|image| image < 100));
    }
    for (label, more, fewer) in pairs {
        bench.input("value", label, &right(|image| (fewer..100 + more).contains(&image)));
    }
    let corrected = |bench: &Bench| {
        bench.run().unwrap();
        let document: Value = serde_json::from_slice(&bench.output("json")).unwrap();
        let of = |row: usize, column: usize| document["cells"][row][column]["compared"].clone();
        let places = [(1, 0), (1, 1), (2, 0), (2, 1)];
        places
            .map(|(row, column)| (of(row, column)["p"].as_f64().unwrap(), of(row, column)["p_holm"].as_f64().unwrap()))
    };
    // scipy 1.17.1: binomtest(min(b, c), b + c, 0.5).pvalue; R: p.adjust(p, method = "holm").
    let expected = [
        (0.05688793364098089, 0.11377586728196178),
        (0.016673847800120715, 0.06669539120048286),
        (0.021484375, 0.06669539120048286),
        (1.0, 1.0),
    ];
    for ((p, holm), (expected, expected_holm)) in corrected(&bench).into_iter().zip(expected) {
        assert!((p - expected).abs() < 1e-9 && (holm - expected_holm).abs() < 1e-9, "{p} {holm}");
    }
    let markdown = bench.text("markdown");
    assert!(markdown.contains("p = 0.017, Holm p = 0.067"), "{markdown}");
    assert!(
        markdown.contains(
            "Holm's correction is for the 4 comparisons of this table. p < 0.05 before it: 2 of 4; after it: 0 of 4."
        ),
        "{markdown}"
    );
    assert!(bench.text("csv").contains("1.667385e-2,6.669539e-2,4,200"), "{}", bench.text("csv"));
    assert!(bench.text("tex").contains("{\\scriptsize Holm p $=$ 0.067}"), "{}", bench.text("tex"));
    bench.job.params["compare"]["family"] = json!("column");
    let holm = corrected(&bench).map(|(_, holm)| holm);
    assert!((holm[1] - 2.0 * 0.016673847800120715).abs() < 1e-9 && holm[0] > 0.05, "{holm:?}");
}

#[test]
fn seeds_that_agree_to_the_byte_are_one_result() {
    let params = json!({
        "corner": "model", "rows": ["pgd", "all"],
        "columns": [{"label": "clean", "metric": "accuracy"}], "over": ["0", "1", "2"],
    });
    let mut bench = Bench::new(StageKind::Table, params, OUTPUTS);
    for (seed, hits) in [("0", 170), ("1", 170), ("2", 173)] {
        bench.input("value", &format!("pgd/clean/{seed}"), &right(|image| image < hits));
        bench.input("value", &format!("all/clean/{seed}"), &right(|image| image < 173));
    }
    bench.run().unwrap();
    insta::assert_snapshot!(bench.text("markdown"));
    let document: Value = serde_json::from_slice(&bench.output("json")).unwrap();
    let (pgd, all) = (&document["cells"][0][0], &document["cells"][1][0]);
    assert_eq!(pgd["spread"]["values"], json!([0.85, 0.865]));
    assert_eq!(all["spread"], json!({"values": [0.865], "deviation": null, "same": [["0", "1", "2"]]}));
    assert!(all["low"].is_null() && !bench.text("markdown").contains("± 0.0"));
}

#[test]
fn seeds_are_averaged_over() {
    let params = json!({
        "corner": "model", "rows": ["pgd", "one"], "columns": [{"label": "clean", "metric": "accuracy"}],
        "over": ["0", "1", "2"],
    });
    let mut bench = Bench::new(StageKind::Table, params, OUTPUTS);
    for (seed, hits) in [("0", 170), ("1", 176), ("2", 173)] {
        bench.input("value", &format!("pgd/clean/{seed}"), &right(|image| image < hits));
    }
    bench.input("value", "one/clean/2", &right(|image| image < 173));
    bench.run().unwrap();
    insta::assert_snapshot!(bench.text("markdown"));
    insta::assert_snapshot!(bench.text("csv"));
}

#[test]
fn published_numbers_stand_beside_ours() {
    let params = json!({
        "corner": "model", "rows": ["standard", "pgd"],
        "columns": [{"label": "clean", "metric": "accuracy"}, {"label": "64", "metric": "accuracy"}],
        "published": {"table": "t", "rows": ["standard", "pgd"], "columns": ["clean", "p=64"], "tolerance": 1.5},
    });
    let mut bench = Bench::new(StageKind::Table, params, OUTPUTS);
    bench.input("published", "", b"model,clean,p=64\nstandard,70.00,60\npgd,61.49,\n");
    bench.input("value", "standard/clean", &right(|image| image < 140));
    bench.input("value", "standard/64", &right(|image| image < 80));
    bench.input("value", "pgd/clean", &right(|image| image < 120));
    assert_eq!(bench.run().unwrap(), "3 of 4 numbers in 2 rows and 2 columns, 1 different from t");
    insta::assert_snapshot!(bench.text("markdown"));
    bench.input("anomalies", "", b"table,row,column,published,reason\nt,standard,p=64,60,a misprint\n");
    bench.run().unwrap();
    assert!(bench.text("markdown").contains("\u{2020} standard, 64: a misprint."), "{}", bench.text("markdown"));
    bench.job.params["published"]["rows"][1] = json!("pgd-8");
    let failure = bench.failure();
    assert_eq!((failure.code, failure.causes), (FailureCode::Invalid, vec!["it has no row `pgd-8`".to_owned()]));
}

fn figure() -> Bench {
    let params = json!({
        "title": "Saturation", "x_name": "level", "x_values": [0.5, 1.0, 1024.0], "x_labels": ["1/2", "1", "1024"],
        "scale": "log2", "series": ["standard", "pgd"], "metric": "accuracy",
    });
    let mut bench = Bench::new(StageKind::Figure, params, PICTURE);
    for (series, label, correct) in
        [("standard", "1/2", 60), ("standard", "1", 90), ("standard", "1024", 10), ("pgd", "1", 70)]
    {
        bench.input("value", &format!("{series}/{label}"), &predictions(100, correct));
    }
    bench
}

#[test]
fn a_figure_is_drawn_with_its_numbers_beside_it() {
    let (bench, again) = (figure(), figure());
    assert_eq!(bench.run().unwrap(), "4 of 6 numbers in 2 curves");
    insta::assert_snapshot!(bench.text("csv"), @r#"
    series,x,x_label,metric,value,low,high,hits,n
    standard,0.5,1/2,accuracy,0.600000,0.502003,0.690599,60,100
    standard,1,1,accuracy,0.900000,0.825634,0.944771,90,100
    standard,1024,1024,accuracy,0.100000,0.055229,0.174366,10,100
    pgd,1,1,accuracy,0.700000,0.604151,0.781051,70,100
    "#);
    assert!(bench.text("svg").contains("Saturation") && bench.text("svg").contains("1024"));
    assert!(bench.output("png").starts_with(b"\x89PNG"));
    assert!(bench.output("pdf").starts_with(b"%PDF-1.4"));
    again.run().unwrap();
    for output in ["svg", "png", "pdf"] {
        assert_eq!(bench.output(output), again.output(output), "{output}");
    }
}

#[test]
fn a_curve_has_no_band_where_it_is_100_percent_by_definition() {
    let params = json!({
        "x_name": "level", "x_values": [2.0, 64.0], "x_labels": ["2", "64"], "scale": "log2", "series": ["pgd"],
        "metric": "accuracy_on_correct",
    });
    let mut bench = Bench::new(StageKind::Figure, params, PICTURE);
    let clean = predictions(1_200, 1_100);
    bench.input("value", "pgd/2", &clean);
    bench.input("value", "pgd/64", &predictions(1_200, 700));
    bench.input("reference", "pgd/2", &clean);
    bench.input("reference", "pgd/64", &clean);
    bench.run().unwrap();
    insta::assert_snapshot!(bench.text("csv"), @r"
    series,x,x_label,metric,value,low,high,hits,n,fixed
    pgd,2,2,accuracy_on_correct,1.000000,,,1100,1100,true
    pgd,64,64,accuracy_on_correct,0.636364,0.607507,0.664271,700,1100,false
    ");
    let svg = bench.text("svg");
    assert!(svg.contains("; n = 1,100") && svg.contains("no band where 100 %"), "{svg}");
}

#[test]
fn an_axis_that_cannot_be_drawn_is_refused() {
    let mut bench = figure();
    bench.job.params["x_values"] = json!([0.0, 1.0, 1024.0]);
    let failure = bench.failure();
    assert_eq!(failure.code, FailureCode::Invalid);
    assert!(failure.causes[0].contains("above 0"), "{failure:?}");
    bench.job.params["x_values"] = json!([1.0, 1024.0]);
    assert_eq!(bench.failure().message, "3 labels were given for the 2 values of the horizontal axis");
}

/// Two images in two sets, and maps of two models.
fn maps() -> Bench {
    let mut bench = Bench::new(StageKind::Figure, json!({"draw": "maps", "names": {"pgd": "PGD"}}), PICTURE);
    let values: Vec<u8> = (0..2 * 2 * 2 * 64).flat_map(|value| ((value % 64) as f32).to_le_bytes()).collect();
    let images: Vec<u8> = [3_i32, 0].iter().flat_map(|index| index.to_le_bytes()).collect();
    let tensors = [
        ("maps", TensorView::new(Dtype::F32, vec![2, 2, 2, 8, 8], &values).unwrap()),
        ("images", TensorView::new(Dtype::I32, vec![2], &images).unwrap()),
    ];
    let metadata = json!({
        "format": "saliency/2", "method": {"name": "grad"}, "models": ["standard", "pgd"], "sets": ["clean", "dark"],
    });
    bench.input("maps", "", &atflow::formats::write(tensors, &metadata).unwrap());
    let classes = vec!["cat".to_owned(), "dog".to_owned()];
    for (label, pixel) in [("clean", 200), ("dark", 20)] {
        let pixels = (0..4 * 3 * 64).map(|at| pixel + (at % 50) as u8).collect();
        let set =
            ImageSet { pixels, shape: [4, 3, 8, 8], labels: vec![0, 1, 0, 1], texture: None, classes: classes.clone() };
        bench.input("set", label, &set.to_bytes().unwrap());
    }
    bench
}

#[test]
fn saliency_maps_are_drawn_for_print() {
    let bench = maps();
    assert_eq!(bench.run().unwrap(), "2 images of 2 models");
    let svg = bench.text("svg");
    assert_eq!(svg.matches("<image ").count(), 2 * 2 * 3);
    for text in [">PGD<", ">standard<", ">dog<", ">image 3<", ">dark<"] {
        assert!(svg.contains(text), "{text} is missing in\n{svg}");
    }
    insta::assert_snapshot!(bench.text("csv"), @r"
    image,class,set
    3,dog,clean
    3,dog,dark
    0,cat,clean
    0,cat,dark
    ");
    let again = maps();
    again.run().unwrap();
    for output in ["svg", "png", "pdf"] {
        assert_eq!(bench.output(output), again.output(output), "{output}");
    }
    let mut other = maps();
    other.job.inputs.retain(|input| input.slot != "maps");
    other.input("maps", "", b"no maps");
    assert_eq!(other.failure().code, FailureCode::Invalid);
}
