//! Whom a provider's certificate may come from, besides those whom everybody trusts.
//!
//! The file is read with the configuration, so that what is wrong with it stops the start, and not the first call.

use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::config::MIB;
use crate::config::file::read_text;
use crate::config::section::Section;

/// The built-in authorities of a whole system are a fifth of it.
const MAX_FILE_BYTES: usize = MIB;
/// The only kind of block that belongs into such a file.
const CERTIFICATE: &str = "CERTIFICATE";

/// Certificates of authorities of one's own, or of the very servers that are trusted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaFile {
    /// Where they were read from.
    pub path: PathBuf,
    /// In DER, in the order of the file; never empty, and each of them can be used.
    pub certificates: Vec<Vec<u8>>,
}

impl CaFile {
    /// `base_url` is that of the same provider.
    pub(super) fn read(section: &mut Section<'_>, base_url: &str) -> Option<Self> {
        let path = section.knob("ca_file", "the path of a file", |value| {
            let path = value.as_text()?;
            (!path.is_empty() && !path.contains('\0')).then(|| PathBuf::from(path))
        })?;
        if base_url.starts_with("http://") {
            let message = "there is no certificate to look at where base_url begins with http://";
            section.refuse("ca_file", message);
            return None;
        }
        match load(&path) {
            Ok(certificates) => Some(CaFile { path, certificates }),
            Err(problem) => {
                section.refuse("ca_file", problem);
                None
            }
        }
    }
}

fn load(path: &Path) -> Result<Vec<Vec<u8>>, String> {
    let shown = path.display();
    let text =
        read_text(path, MAX_FILE_BYTES).map_err(|error| format!("cannot read {shown}: {error}"))?;
    let certificates = parse(&text).map_err(|(line, what)| format!("{shown}:{line}: {what}"))?;
    if certificates.is_empty() {
        return Err(format!(
            "{shown} holds no certificate, accepted are certificates in PEM"
        ));
    }
    Ok(certificates)
}

/// The blocks of a PEM file; what stands between them is comment.
///
/// # Errors
/// The line in which the block begins, from 1, and what is wrong with it.
fn parse(text: &str) -> Result<Vec<Vec<u8>>, (usize, String)> {
    let mut certificates = Vec::new();
    let mut block: Option<(usize, String)> = None;
    for (line, number) in text.lines().map(str::trim).zip(1..) {
        if let Some(kind) = label(line, "-----BEGIN ") {
            if kind != CERTIFICATE {
                let what = format!("found {kind}, accepted is {CERTIFICATE}");
                return Err((number, what));
            }
            if let Some((start, _)) = block.replace((number, String::new())) {
                return Err((start, endless()));
            }
        }
        if let Some((_, body)) = &mut block {
            body.push_str(line);
            body.push('\n');
        }
        if label(line, "-----END ").is_some()
            && let Some((start, body)) = block.take()
        {
            certificates.push(decode(&body).map_err(|what| (start, what))?);
        }
    }
    match block {
        Some((start, _)) => Err((start, endless())),
        None => Ok(certificates),
    }
}

fn endless() -> String {
    "the certificate that begins here has no END line".to_owned()
}

/// What a line begins or ends, as `start` says.
fn label<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.strip_prefix(start)?.strip_suffix("-----")
}

fn decode(block: &str) -> Result<Vec<u8>, String> {
    let unusable = |why: String| format!("the certificate that begins here is none: {why}");
    let certificate = CertificateDer::from_pem_slice(block.as_bytes())
        .map_err(|error| unusable(error.to_string()))?;
    // What is taken here is taken later on too.
    RootCertStore::empty()
        .add(certificate.clone())
        .map_err(|error| unusable(error.to_string()))?;
    Ok(certificate.to_vec())
}
