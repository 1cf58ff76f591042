//! Authorities and the servers that they vouch for, made anew for each test.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;

/// Somebody who vouches for servers.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    /// Its certificate, in PEM.
    pub(crate) pem: String,
}

/// A server that somebody vouches for: its certificate, and the key to it.
#[derive(Debug, Clone)]
pub(crate) struct Identity(pub(super) Arc<ServerConfig>);

impl Authority {
    /// An authority that nobody has heard of.
    pub(crate) fn new(name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let pem = params.self_signed(&key).expect("a certificate").pem();
        let issuer = Issuer::new(params, key);
        Authority { issuer, pem }
    }

    /// Vouches for this machine.
    pub(crate) fn vouch(&self) -> Identity {
        self.vouch_for("127.0.0.1", 2999)
    }

    /// Vouches for `host`, from 2000 until `year` begins.
    pub(crate) fn vouch_for(&self, host: &str, year: i32) -> Identity {
        let mut params = CertificateParams::new([host.to_owned()]).expect("a name");
        params.not_before = date_time_ymd(2000, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let config = ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(
                vec![certificate.der().clone()],
                PrivateKeyDer::try_from(key.serialize_der()).expect("a key"),
            )
            .expect("they belong together");
        Identity(Arc::new(config))
    }
}
