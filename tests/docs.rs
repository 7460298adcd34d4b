//! The pages hold together: a link leads somewhere, a heading that is linked to is there, and a test
//! that a page names exists. Knows only the files.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

type TestResult<T = ()> = Result<T, Box<dyn Error>>;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// README and its like, and all pages of docs/.
fn pages() -> TestResult<Vec<PathBuf>> {
    let named = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "conf/README.md"];
    let mut pages: Vec<_> = named.map(|name| root().join(name)).into();
    for file in fs::read_dir(root().join("docs"))? {
        let path = file?.path();
        if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    Ok(pages)
}

/// The text without its blocks of code.
fn prose(text: &str) -> String {
    text.split("```").step_by(2).collect()
}

/// What is in the round brackets of `[words](target)`.
fn targets(text: &str) -> Vec<&str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|found| found.0).collect()
}

/// The anchors of a page's headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let titles = headings.map(|line| line.trim_start_matches('#').trim().to_lowercase());
    let anchor = |title: String| {
        let kept = title.chars().filter(|&c| c.is_alphanumeric() || "-_ ".contains(c));
        kept.map(|c| if c == ' ' { '-' } else { c }).collect()
    };
    titles.map(anchor).collect()
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() -> TestResult {
    let mut broken = Vec::new();
    for page in pages()? {
        let text = fs::read_to_string(&page)?;
        let prose = prose(&text);
        for target in targets(&prose).into_iter().filter(|target| !target.starts_with("http")) {
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let folder = page.parent().ok_or("a page is in a folder")?;
            let file = if file.is_empty() { page.clone() } else { folder.join(file) };
            let there = match fs::read_to_string(&file) {
                Ok(text) => anchor.is_empty() || anchors(&text).contains(anchor),
                Err(_) => file.is_dir(),
            };
            if !there {
                broken.push(format!("{}: {target}", page.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    Ok(())
}

#[test]
fn every_file_that_a_page_names_is_there() -> TestResult {
    let mut missing = Vec::new();
    for page in pages()? {
        let text = fs::read_to_string(&page)?;
        // Between backquotes: `tests/felix.rs`, `scripts/kernels`, `conf/….conflist`.
        for name in prose(&text).split('`').skip(1).step_by(2) {
            let name = name.split_whitespace().next().unwrap_or_default();
            let ours = ["tests/", "scripts/", "conf/", "src/", "docs/", "fuzz/corpus"];
            let is_path = ours.iter().any(|folder| name.starts_with(folder));
            if is_path && !name.contains('<') && !root().join(name).exists() {
                missing.push(format!("{}: {name}", page.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    Ok(())
}

#[test]
fn every_page_of_docs_is_linked_from_the_readme() -> TestResult {
    let readme = fs::read_to_string(root().join("README.md"))?;
    for page in pages()?.iter().filter(|page| page.parent() == Some(&root().join("docs"))) {
        let name = page.file_name().ok_or("a name")?.to_string_lossy();
        assert!(readme.contains(&format!("(docs/{name}")), "README does not link docs/{name}");
    }
    Ok(())
}
