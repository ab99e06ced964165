//! The TCP connection below lapin's.
//!
//! lapin keeps a connection open for as long as a reply to it is pending, whether or not anything still waits for that
//! reply. A reply that arrives late then takes effect: an abandoned subscription starts, and receives messages that
//! nothing acks. Shutting the socket down ends the connection whatever lapin waits for.

use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsFd as _;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_rs::{Tokio, TokioRuntime, traits::Reactor};
use lapin::AsyncTcpStream;
use lapin::tcp::OwnedTLSConfig;
use lapin::uri::{AMQPScheme, AMQPUri};
use tokio::time::timeout;

#[derive(Default)]
pub(super) struct Socket(Mutex<State>);

#[derive(Default)]
enum State {
    #[default]
    Unopened,
    /// A second descriptor of the socket that lapin reads and writes.
    Open(TcpStream),
    ShutDown,
}

type Stream = AsyncTcpStream<<Tokio as Reactor>::TcpStream>;

impl Socket {
    /// Connects to an address of the URL's host, with TLS if the URL requests it, in at most `limit`. Fails if the socket was
    /// shut down meanwhile.
    pub(super) async fn open(
        &self,
        uri: &AMQPUri,
        address: SocketAddr,
        io: &TokioRuntime,
        limit: Duration,
    ) -> io::Result<Stream> {
        let connecting = async {
            let stream = AsyncTcpStream::connect(io, address).await?;
            if let AsyncTcpStream::Plain(plain) = &stream {
                self.opened(TcpStream::from(plain.get_ref().as_fd().try_clone_to_owned()?))?;
            }
            match uri.scheme {
                AMQPScheme::AMQP => Ok(stream),
                AMQPScheme::AMQPS => stream.into_tls(&uri.authority.host, OwnedTLSConfig::default().as_ref()).await,
            }
        };
        timeout(limit, connecting).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Ends the connection at once, or as soon as it is opened.
    pub(super) fn shut_down(&self) {
        if let State::Open(stream) = std::mem::replace(&mut *self.state(), State::ShutDown) {
            // An error means that the peer has ended it before.
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    fn opened(&self, stream: TcpStream) -> io::Result<()> {
        let mut state = self.state();
        if matches!(*state, State::ShutDown) {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        *state = State::Open(stream);
        Ok(())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
