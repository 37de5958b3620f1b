//! Puts what was measured into a document, between marks: the text around stays.

use std::fs;
use std::path::Path;

use crate::shared::programs::Outcome;

/// Replaces what is between `<!-- NAME -->` and `<!-- /NAME -->`.
pub fn write(document: &Path, name: &str, content: &str) -> Outcome<()> {
    let text = fs::read_to_string(document)?;
    let (begin, end) = (format!("<!-- {name} -->\n"), format!("<!-- /{name} -->"));
    let (before, rest) = text.split_once(&begin).ok_or("a mark is missing in the document")?;
    let (_, after) = rest.split_once(&end).ok_or("a mark is missing in the document")?;
    Ok(fs::write(document, format!("{before}{begin}\n{}\n\n{end}{after}", content.trim()))?)
}
