//! Puts what was measured into a document, between marks: the text around stays.

use std::fs;
use std::path::Path;

use crate::shared::programs::Outcome;

/// A place for what was measured: between `<!-- NAME -->` and `<!-- /NAME -->`.
pub struct Place<'a> {
    document: &'a Path,
    before: String,
    after: String,
}

impl Place<'_> {
    /// Looks for it, and fails if it is not there.
    pub fn find<'a>(document: &'a Path, name: &str) -> Outcome<Place<'a>> {
        let text = fs::read_to_string(document)?;
        let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
        let missing = || format!("{} has no place {}", document.display(), begin.trim());
        let (before, rest) = text.split_once(&begin).ok_or_else(missing)?;
        let (_, after) = rest.split_once(&end).ok_or_else(missing)?;
        Ok(Place { document, before: format!("{before}{begin}"), after: format!("{end}{after}") })
    }

    /// Replaces what is there.
    pub fn fill(&self, content: &str) -> Outcome<()> {
        let Place { document, before, after } = self;
        Ok(fs::write(document, format!("{before}\n{}\n\n{after}", content.trim()))?)
    }
}
