//! Reads small text files, never more of them than there should be.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// The text of a file.
///
/// # Errors
/// Whatever the system says; a file of more than `max` bytes, or one that is not UTF-8.
pub(super) fn read_text(path: &Path, max: usize) -> io::Result<String> {
    let mut text = String::new();
    let limit = u64::try_from(max).unwrap_or(u64::MAX).saturating_add(1);
    File::open(path)?.take(limit).read_to_string(&mut text)?;
    if text.len() > max {
        return Err(io::Error::other(format!("it has more than {max} bytes")));
    }
    Ok(text)
}
