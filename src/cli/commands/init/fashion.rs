//! The starter pipeline without `--images`: Fashion-MNIST, fetched from its publisher.

use super::starter::{Starter, list, of_255};

/// Zalando Research 2017, MIT licence; the MD5 sums are those of its page.
const DATA: &str = r#"  # 70,000 grey images of 28 × 28 pixels in ten classes; the first run fetches 30 MB.
  images:
    kind: dataset
    with:
      format: idx
      train:
        images:
          url: http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-images-idx3-ubyte.gz
          mirrors: [https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/train-images-idx3-ubyte.gz]
          md5: 8d4fb7e6c68d591d4c3dfef9ec88bf0d
        labels:
          url: http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/train-labels-idx1-ubyte.gz
          mirrors: [https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/train-labels-idx1-ubyte.gz]
          md5: 25c81989df183df01b3e8a0aad5dffbe
      test:
        images:
          url: http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-images-idx3-ubyte.gz
          mirrors: [https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/t10k-images-idx3-ubyte.gz]
          md5: bef4ecab320f06d8554ea6380940ec79
        labels:
          url: http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/t10k-labels-idx1-ubyte.gz
          mirrors: [https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/t10k-labels-idx1-ubyte.gz]
          md5: bb300cfdad3c16e7a12a480ee83cd310
      classes: [T-shirt, trouser, pullover, dress, coat, sandal, shirt, sneaker, bag, ankle boot]
"#;

pub(super) fn starter() -> Starter {
    let [eps, train_step, test_step] = of_255(8);
    let lines = |lines: &[&str]| lines.iter().map(|&line| line.to_owned()).collect();
    Starter {
        about: lines(&["What adversarial training does to a small network, on Fashion-MNIST (Xiao et al. 2017)."]),
        name: "fashion".to_owned(),
        eps,
        eps_why: "8/255 is usual for small images.".to_owned(),
        train_step,
        test_step,
        epochs: 5,
        epochs_why: "Passes over the training images: enough for about 85 % on clean images.".to_owned(),
        size: lines(&[
            "# Images of 60,000 and of 10,000: so that two CPU cores need minutes. Raise them for numbers that count.",
            "train_images: 8000",
            "tested_images: 1000",
        ]),
        small_size: lines(&["train_images: 128", "tested_images: 32"]),
        is_limited: true,
        data: DATA.to_owned(),
        net_why: "A residual network of three groups with one block each: 0.2 million weights.".to_owned(),
        mean: list(&[0.286]),
        std: list(&[0.353]),
        mean_why: "Mean and standard deviation of the training images, 0 black to 1 white.".to_owned(),
        batch: 64,
        lr: "0.1".to_owned(),
        batch_why: "Images a step.".to_owned(),
        augmentation: "{flip: false}".to_owned(),
        augmentation_why: "No mirroring: clothes are centred, and most are symmetric.".to_owned(),
        shown: "[0, 1, 2, 4, 6, 8, 11, 12]".to_owned(),
        ..Starter::default()
    }
}
