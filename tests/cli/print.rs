//! Tables and figures for a paper: names, fractions as they are written, sizes, and LaTeX.

use crate::depth;
use crate::support::{Ran, Space, predictions};

const PIPELINE: &str = r#"pipeline: paper
params: {radii: [2/255, 8/255]}
stages:
  attacked:
    kind: command
    matrix: {model: [standard, pgd], eps: "${radii}"}
    with: {run: "cp $HOME/${model} ${out.predictions} # ${eps}", outputs: {predictions: p}}
  curves:
    kind: figure
    needs: {results: attacked}
    with:
      x: attacked.eps
      x_title: ε
      series: attacked.model
      names: {pgd: "PGD, ℓ∞"}
      published: {file: table4.csv, columns: {2_255: near, 8_255: far}}
      size: {width: 84, height: 60}
      legend: below
  table:
    kind: table
    needs: {results: attacked}
    with:
      title: Robust accuracy
      rows: attacked.model
      columns: attacked.eps
      names: {pgd: "PGD, ℓ∞"}
      tex: {label: "tab:robust", wide: true, intervals: false, notes: false, bold: best}
"#;

fn space() -> Space {
    let space = Space::new();
    space.write("p.yaml", PIPELINE);
    space.write("standard", predictions(100));
    space.write("pgd", predictions(150));
    space.write("table4.csv", "model,near,far\nstandard,50.0,49.2\npgd,71.50,\n");
    space
}

#[test]
fn a_radius_stands_as_it_was_written_and_names_in_place_of_labels() {
    let space = space();
    space.ran(&[]);
    insta::assert_snapshot!(space.read("results/paper/curves.csv"), @r#"
    series,x,x_label,metric,value,low,high,hits,n,published
    standard,0.00784313725490196,2/255,accuracy,0.500000,0.431361,0.568639,100,200,50.0
    standard,0.03137254901960784,8/255,accuracy,0.500000,0.431361,0.568639,100,200,49.2
    "PGD, ℓ∞",0.00784313725490196,2/255,accuracy,0.750000,0.685659,0.804918,150,200,71.50
    "PGD, ℓ∞",0.03137254901960784,8/255,accuracy,0.750000,0.685659,0.804918,150,200,
    "#);
    insta::assert_snapshot!(space.read("results/paper/table.csv"), @r#"
    row,column,metric,value,low,high,hits,n
    standard,2/255,accuracy,0.500000,0.431361,0.568639,100,200
    standard,8/255,accuracy,0.500000,0.431361,0.568639,100,200
    "PGD, ℓ∞",2/255,accuracy,0.750000,0.685659,0.804918,150,200
    "PGD, ℓ∞",8/255,accuracy,0.750000,0.685659,0.804918,150,200
    "#);
    insta::assert_snapshot!(space.read("results/paper/table.tex"), @r#"
    % Needs \usepackage{booktabs}.
    \begin{table*}
      \centering
      \caption{Robust accuracy}
      \label{tab:robust}
      \footnotesize
      \setlength{\tabcolsep}{3pt}
      \begin{tabular}{@{}lrr@{}}
        \toprule
        model & 2/255 & 8/255 \\
        \midrule
        standard & 50.0 & 50.0 \\
        PGD, $\ell$$\infty$ & \textbf{75.0} & \textbf{75.0} \\
        \bottomrule
      \end{tabular}
    \end{table*}
    "#);
    let markdown = space.read("results/paper/table.md");
    assert!(markdown.contains("8/255") && markdown.contains("PGD, ℓ∞"), "{markdown}");
    let svg = space.read("results/paper/curves.svg");
    for text in [">8/255<", ">2/255<", ">ε<", ">PGD, ℓ∞<", ">published (table4)<", "stroke-dasharray", "width=\"317"]
    {
        assert!(svg.contains(text), "{text} is missing in\n{svg}");
    }
    assert!(!svg.contains("8_255"));
    let pdf = std::fs::read(space.path().join("results/paper/curves.pdf")).unwrap();
    assert!(pdf.starts_with(b"%PDF-1.4"));
    // 84 mm are 238 points.
    assert!(String::from_utf8_lossy(&pdf).contains("/MediaBox [0 0 238"), "{}", String::from_utf8_lossy(&pdf));
    // A stored table is rendered the same.
    assert_eq!(space.run(&["table", "table", "--format", "tex"]).stdout, space.read("results/paper/table.tex"));

    let told = space.run(&["run", "p.yaml"]);
    assert!(told.seen().contains("up to date"), "{}", told.seen());
}

#[test]
fn a_check_for_masked_gradients_knows_its_radius_as_it_was_written() {
    let space = depth::space();
    let stage = r#"
  checked:
    kind: masking
    matrix: {eps: {fraction: 8/255, decimal: 0.03}}
    needs: {model: model/a, set: digits.test}
    with: {eps: "${eps}"}
"#;
    space.write("p.yaml", space.read("p.yaml").trim_end().to_owned() + stage);
    let mut command = space.command(&["run", "p.yaml", "checked"]);
    let ran = Ran::of(command.env("ATFLOW_WORKER", space.path().join("worker")).output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.seen());
    let params = |stage: &str| {
        let shown: serde_json::Value = serde_json::from_str(&space.run(&["show", stage, "--json"]).stdout).unwrap();
        shown["record"]["params"].clone()
    };
    let fraction = params("checked/fraction");
    assert_eq!((&fraction["eps"], &fraction["eps_written"]), (&(8.0 / 255.0).into(), &"8/255".into()), "{fraction}");
    // A decimal number is told as ever, and its key is what it was.
    assert!(params("checked/decimal").get("eps_written").is_none());
}
