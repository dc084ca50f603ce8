//! [`Tls`]: by whose word the server is who it is, and who we are. Certificates are always checked.

use std::fmt;
use std::io::{Error, ErrorKind};
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// What TLS is done with.
#[derive(Clone, Default)]
pub(super) struct Tls {
    /// Instead of those that the system trusts.
    authorities: Option<Arc<RootCertStore>>,
    identity: Option<Arc<Identity>>,
}

struct Identity {
    certificates: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Tls {
    /// Authorities in PEM. An error says what is wrong with them.
    pub(super) fn set_authorities(&mut self, pem: &[u8]) -> Result<(), String> {
        let mut authorities = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            authorities.add(certificate.map_err(|error| error.to_string())?).map_err(|error| error.to_string())?;
        }
        if authorities.is_empty() {
            return Err("there is none".into());
        }
        self.authorities = Some(Arc::new(authorities));
        Ok(())
    }

    /// A chain of certificates and the key of its first, in PEM. An error says what is wrong with them.
    pub(super) fn set_identity(&mut self, certificates: &[u8], key: &[u8]) -> Result<(), String> {
        let certificates = CertificateDer::pem_slice_iter(certificates).collect::<Result<Vec<_>, _>>();
        let certificates = certificates.map_err(|error| error.to_string())?;
        if certificates.is_empty() {
            return Err("there is none".into());
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| error.to_string())?;
        self.identity = Some(Arc::new(Identity { certificates, key }));
        self.config(Arc::new(RootCertStore::empty())).map(drop).map_err(|error| error.to_string())
    }

    /// Begins TLS on a connection.
    pub(super) async fn begin(&self, host: &str, stream: TcpStream) -> Result<TlsStream<TcpStream>, Error> {
        let authorities = match &self.authorities {
            Some(authorities) => authorities.clone(),
            // Many files, which nobody else should wait for.
            None => tokio::task::spawn_blocking(of_the_system).await.map_err(Error::other)??,
        };
        let config = self.config(authorities).map_err(Error::other)?;
        let name = ServerName::try_from(host.to_owned()).map_err(|error| Error::new(ErrorKind::InvalidInput, error))?;
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    fn config(&self, authorities: Arc<RootCertStore>) -> Result<ClientConfig, rustls::Error> {
        // Said here, since a process may have several that are built in, and none that was chosen.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let config = config.with_root_certificates(authorities);
        match self.identity.as_deref() {
            Some(Identity { certificates, key }) => config.with_client_auth_cert(certificates.clone(), key.clone_key()),
            None => Ok(config.with_no_client_auth()),
        }
    }
}

/// Read anew for each connection: they may be changed while the process runs.
fn of_the_system() -> Result<Arc<RootCertStore>, Error> {
    let found = rustls_native_certs::load_native_certs();
    let mut authorities = RootCertStore::empty();
    authorities.add_parsable_certificates(found.certs);
    match (authorities.is_empty(), found.errors.into_iter().next()) {
        (true, Some(error)) => Err(Error::other(error)),
        (true, None) => Err(Error::new(ErrorKind::NotFound, "the system trusts no authority")),
        (false, _) => Ok(Arc::new(authorities)),
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}
