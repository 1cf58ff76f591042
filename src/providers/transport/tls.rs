//! TLS: whom we trust, and why a handshake failed.

use std::io;

use rustls::{CertificateError, Error};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use crate::config;

/// The authorities that Mozilla trusts, as compiled in, and those that the configuration adds.
pub(super) fn settings(provider: &config::Provider) -> TlsConfig {
    let Some(file) = &provider.ca_file else {
        return TlsConfig::default();
    };
    let built_in = webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .map(|der| Certificate::from_der(der));
    let added = file
        .certificates
        .iter()
        .map(|der| Certificate::from_der(der).to_owned());
    let roots: Vec<Certificate<'static>> = built_in.chain(added).collect();
    TlsConfig::builder()
        .root_certs(RootCerts::from(roots))
        .build()
}

/// What of a failed handshake is in somebody's power to mend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TlsFault {
    /// Nobody whom we trust vouches for the certificate.
    UnknownIssuer,
    /// The certificate has expired, by the clock of this box.
    Expired,
    /// The certificate counts from a later time on, by the clock of this box.
    NotYetValid,
    /// The certificate is another host's.
    OtherName,
    /// The certificate is not accepted for another reason.
    Certificate,
    /// What listens there speaks no TLS.
    NoTls,
    /// It speaks TLS and did not agree with us.
    Handshake,
}

impl TlsFault {
    /// The fault in `error`, if it is one of TLS.
    pub(super) fn find(error: &ureq::Error) -> Option<TlsFault> {
        match error {
            ureq::Error::Rustls(error) => Some(TlsFault::of(error)),
            ureq::Error::Io(error) => TlsFault::in_io(error),
            _ => None,
        }
    }

    fn in_io(error: &io::Error) -> Option<TlsFault> {
        let inner = error.get_ref()?;
        if let Some(error) = inner.downcast_ref::<Error>() {
            return Some(TlsFault::of(error));
        }
        inner
            .downcast_ref::<ureq::Error>()
            .and_then(TlsFault::find)
            .or_else(|| inner.downcast_ref::<io::Error>().and_then(TlsFault::in_io))
    }

    fn of(error: &Error) -> TlsFault {
        match error {
            Error::InvalidCertificate(why) => match why {
                CertificateError::UnknownIssuer => TlsFault::UnknownIssuer,
                CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                    TlsFault::Expired
                }
                CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                    TlsFault::NotYetValid
                }
                CertificateError::NotValidForName
                | CertificateError::NotValidForNameContext { .. } => TlsFault::OtherName,
                _ => TlsFault::Certificate,
            },
            Error::InvalidMessage(_) => TlsFault::NoTls,
            _ => TlsFault::Handshake,
        }
    }

    /// In words, of the provider called `name`, for whoever may read what its errors say.
    pub(crate) fn words(self, name: &str) -> String {
        match self {
            TlsFault::UnknownIssuer => format!(
                "its certificate is not of an authority that is trusted here; \
                 one of your own belongs into providers.{name}.ca_file"
            ),
            TlsFault::Expired => "its certificate has expired, by the clock of this box".into(),
            TlsFault::NotYetValid => {
                "its certificate is not valid yet, by the clock of this box".into()
            }
            TlsFault::OtherName => format!(
                "its certificate is for another host than that of providers.{name}.base_url"
            ),
            TlsFault::Certificate => "its certificate is not accepted".into(),
            TlsFault::NoTls => format!(
                "what listens there does not speak TLS; \
                 is providers.{name}.base_url to begin with http://?"
            ),
            TlsFault::Handshake => "the TLS handshake failed".into(),
        }
    }
}
