//! TLS to PostgreSQL with the meanings that libpq gives to `sslmode`.

use std::error::Error;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::infra::postgres::url::{RootCertificates, SslMode, Target};

/// What of a certificate is verified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verify {
    Nothing,
    Issuer,
    IssuerAndName,
}

/// The TLS of a URL.
///
/// # Errors
/// When no CA is trusted although the certificate is to be verified.
pub(super) fn connector(target: &Target) -> Result<MakeRustlsConnect, TlsError> {
    let verify = match target.ssl_mode {
        SslMode::Disable | SslMode::Allow | SslMode::Prefer | SslMode::Require => Verify::Nothing,
        SslMode::VerifyCa => Verify::Issuer,
        SslMode::VerifyFull => Verify::IssuerAndName,
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions();
    let schemes = provider.signature_verification_algorithms.supported_schemes();
    let verifier: Arc<dyn ServerCertVerifier> = if verify == Verify::Nothing {
        Arc::new(AnyCertificate(schemes))
    } else {
        let pinned = match &target.roots {
            RootCertificates::System => rustls_native_certs::load_native_certs().certs,
            RootCertificates::File(certificates) => certificates.clone(),
        };
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(pinned.iter().cloned());
        let issuer = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
        let issuer = issuer.map_err(TlsError::new)?;
        Arc::new(TrustedCertificate { issuer, pinned, verify })
    };
    let config = config.map_err(TlsError::new)?;
    let config = config.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    Ok(MakeRustlsConnect::new(config))
}

/// TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
#[error("no usable CA certificates ({0}); name a file of them with sslrootcert in the URL of the database")]
pub struct TlsError(String);

impl TlsError {
    pub(super) fn new(reason: impl std::fmt::Display) -> Self {
        Self(reason.to_string())
    }
}

/// Accepts every certificate, also an expired one: encryption without knowing the peer.
#[derive(Debug)]
struct AnyCertificate(Vec<SignatureScheme>);

impl ServerCertVerifier for AnyCertificate {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    // A peer that may present any certificate can sign with its key, so a signature proves nothing here; and parsing the
    // certificate would reject forms that libpq accepts.
    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

#[derive(Debug)]
struct TrustedCertificate {
    issuer: Arc<WebPkiServerVerifier>,
    /// The trusted certificates themselves.
    pinned: Vec<CertificateDer<'static>>,
    verify: Verify,
}

impl ServerCertVerifier for TrustedCertificate {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        use rustls::Error::InvalidCertificate;
        let name_counts = self.verify == Verify::IssuerAndName;
        match self.issuer.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The name is compared last, when the issuer is known to be trusted.
            Err(InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) if !name_counts => Ok(ServerCertVerified::assertion()),
            // A self-signed certificate that is its own CA, as `openssl req -x509` creates it: accepted where it is itself
            // the trusted one. Its validity has been checked before this error is found.
            Err(InvalidCertificate(reason)) if is_ca(&reason) && self.pinned.iter().any(|own| own == end_entity) => {
                if name_counts {
                    let parsed = ParsedCertificate::try_from(end_entity)?;
                    rustls::client::verify_server_name(&parsed, server_name)?;
                }
                Ok(ServerCertVerified::assertion())
            }
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.issuer.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.issuer.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.issuer.supported_verify_schemes()
    }
}

/// Whether a certificate was rejected because it is that of a CA.
fn is_ca(reason: &CertificateError) -> bool {
    let CertificateError::Other(other) = reason else { return false };
    other.0.downcast_ref::<webpki::Error>() == Some(&webpki::Error::CaUsedAsEndEntity)
}

/// The error of TLS among the causes of an error.
pub(super) fn tls_error<'e>(error: &'e (dyn Error + 'static)) -> Option<&'e rustls::Error> {
    let mut next = Some(error);
    while let Some(cause) = next {
        if let Some(found) = cause.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        // The source of an I/O error is that of the error inside it, which would be skipped.
        next = match cause.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inside) => Some(inside),
            None => cause.source(),
        };
    }
    None
}

/// What the operator may change after this error.
pub(super) fn advice(error: &rustls::Error) -> Option<&'static str> {
    match error {
        rustls::Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => Some("connect by a name that the certificate has, or set sslmode=verify-ca in the URL"),
        rustls::Error::InvalidCertificate(_) => Some(
            "set sslrootcert in the URL to the file of the CA that issued the certificate, or sslmode=require to connect without verifying it",
        ),
        _ => None,
    }
}
