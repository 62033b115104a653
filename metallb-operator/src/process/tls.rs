//! HTTPS for the administrative server: certificates, and a listener that finishes handshakes beside each other.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use rustls::crypto::ring;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use thiserror::Error;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

/// Why a listener has no certificate.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum TlsError {
    /// No certificate can be made.
    #[error("cannot make a self-signed certificate")]
    SelfSigned(#[from] rcgen::Error),
    /// The certificate and its key cannot be used.
    #[error("cannot use the certificate")]
    Unusable(#[from] rustls::Error),
}

/// A TLS configuration with a certificate that nobody signed, valid for `names`: clients that check no certificate,
/// such as the kubelet, can use it.
///
/// # Errors
/// [`TlsError`]
pub(crate) fn self_signed(names: &[&str]) -> Result<ServerConfig, TlsError> {
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let rcgen::CertifiedKey { cert, signing_key } = rcgen::generate_simple_self_signed(names)?;
    let key = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(signing_key.serialize_der()));
    with_certificate(vec![cert.der().clone()], key)
}

fn with_certificate(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<ServerConfig, TlsError> {
    let versions = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()?;
    let mut config = versions.with_no_client_auth().with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

/// Connections whose handshake has succeeded. Handshakes run beside each other, at most [`HANDSHAKES`] of them, and
/// end after [`HANDSHAKE_LIMIT`]: a slow client delays nobody.
pub(crate) struct TlsListener {
    address: SocketAddr,
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl TlsListener {
    /// Accepts connections of `listener` until the result is dropped.
    ///
    /// # Errors
    /// The socket has no address.
    pub(crate) fn new(listener: TcpListener, config: ServerConfig) -> io::Result<Self> {
        let address = listener.local_addr()?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        // When the queue is full, finished handshakes wait in their tasks, whose number is limited.
        let (finished, ready) = mpsc::channel(16);
        tokio::spawn(accept(listener, acceptor, finished));
        Ok(Self { address, ready })
    }
}

impl axum::serve::Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

async fn accept(
    listener: TcpListener,
    acceptor: TlsAcceptor,
    finished: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>,
) {
    let permits = Arc::new(Semaphore::new(HANDSHAKES));
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        let accepted = tokio::select! {
            () = finished.closed() => return,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, peer)) = accepted else {
            // No file descriptor is free, for example.
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let (acceptor, finished) = (acceptor.clone(), finished.clone());
        tokio::spawn(async move {
            let handshake = tokio::time::timeout(HANDSHAKE_LIMIT, acceptor.accept(stream)).await;
            if let Ok(Ok(stream)) = handshake {
                // The receiver is dropped when the server ends.
                let _ = finished.send((stream, peer)).await;
            }
            drop(permit);
        });
    }
}

/// Maximum number of handshakes in progress.
const HANDSHAKES: usize = 64;

/// Time limit of a handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);

/// Pause after a connection that could not be accepted.
const PAUSE: Duration = Duration::from_millis(100);
