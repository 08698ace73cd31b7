//! A pipeline file of any text: it gives instances or problems, and each problem stands at a place in the text.

#![no_main]

use atflow::spec::{Overrides, PipelineSpec, Problems, expand};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let overrides = Overrides { profile: Some("smoke".to_owned()), set: vec![("eps".to_owned(), "4/255".to_owned())] };
    for overrides in [Overrides::default(), overrides] {
        let result = PipelineSpec::from_text("p.yaml", text, &overrides).and_then(|spec| expand(&spec));
        let Err(Problems(problems)) = result else { continue };
        assert!(!problems.is_empty());
        for problem in problems {
            assert!(!problem.message.is_empty());
            if let Some(place) = problem.place {
                let span = place.span();
                assert!(span.start <= span.end && span.end <= place.file.text.len());
                assert!(place.file.text.is_char_boundary(span.start) && place.file.text.is_char_boundary(span.end));
                _ = place.to_string();
            }
        }
    }
});
