//! Opens and closes connections.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_rs::TokioRuntime;
use futures_util::future::join_all;
use lapin::uri::AMQPUri;
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::net::lookup_host;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::infra::amqp::error::{AmqpError, Attempt};
use crate::infra::amqp::socket::Socket;
use crate::infra::amqp::url::{bracketed, parse};
use crate::infra::config::AmqpConfig;
use crate::infra::system::random_index;
use crate::kernel::Secret;

/// Longest wait for the reply to a request, and for a connection to one address until it is usable.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the reply to a close; on a blocked connection it never comes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Heartbeat interval. A peer that is silent for twice as long counts as gone.
const HEARTBEAT_S: u16 = 10;

/// Most addresses of one host name that are tried for a connection.
const ADDRESSES_MAX: usize = 8;

/// Frame size of connections that publish only purse's own small messages; RabbitMQ 4.1 refuses less than 8 KiB.
const SMALL_FRAME_BYTES: u32 = 16 * 1024;

/// Largest frame of a connection. lapin keeps buffers of 64 frames per connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FrameSize {
    /// What the server proposes (128 KiB). For consuming: the headers of a message must fit into one frame, and their
    /// publisher chose them.
    ServerDefault,
    /// 16 KiB, for publishing.
    Small,
}

/// The broker's addresses, and the runtime that drives its connections.
#[derive(Clone)]
pub(crate) struct Broker {
    /// Valid URLs of the nodes, which contain passwords.
    urls: Arc<[Secret]>,
    io: Handle,
}

/// One address of one node.
#[derive(Clone)]
pub(super) struct Node {
    pub(super) uri: AMQPUri,
    pub(super) address: SocketAddr,
}

impl Node {
    /// Host and port, for logs. Of a host name the address too.
    fn name(&self) -> String {
        let Self { uri, address } = self;
        if uri.authority.host.parse::<IpAddr>().is_ok() {
            address.to_string()
        } else {
            format!("{} ({address})", host_and_port(uri))
        }
    }
}

fn host_and_port(uri: &AMQPUri) -> String {
    format!("{}:{}", bracketed(&uri.authority.host), uri.authority.port)
}

/// An open connection with one channel. It is closed in the background when the last clone is dropped, so a step that
/// fails or times out leaves no connection.
#[derive(Clone)]
pub(crate) struct BrokerConnection {
    open: Arc<OpenConnection>,
    channel: Channel,
}

struct OpenConnection {
    connection: Arc<Connection>,
    socket: Arc<Socket>,
    io: Handle,
}

impl OpenConnection {
    /// Closes the connection, and does not depend on the broker's reply: after [`CLOSE_TIMEOUT`] the socket is shut down.
    fn close(&self) -> impl Future<Output = ()> + Send + use<> {
        let (connection, socket) = (Arc::clone(&self.connection), Arc::clone(&self.socket));
        async move {
            // An error means that it is closed already.
            let _ = timeout(CLOSE_TIMEOUT, connection.close(200, "closed by purse".into())).await;
            socket.shut_down();
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        // Not through lapin's own drop, which waits until no reply is pending.
        drop(self.io.spawn(self.close()));
    }
}

/// Shuts the socket down unless the connection on it is handed over.
struct Opening(Option<Arc<Socket>>);

impl Drop for Opening {
    fn drop(&mut self) {
        if let Some(socket) = &self.0 {
            socket.shut_down();
        }
    }
}

impl Broker {
    pub(crate) fn new(config: &AmqpConfig, io: Handle) -> Self {
        Self { urls: config.urls.clone().into(), io }
    }

    /// The runtime for work on its connections.
    pub(crate) const fn io(&self) -> &Handle {
        &self.io
    }

    /// Opens a connection, listed by the broker as `name`, and a channel on it. Wrong credentials look like a broker
    /// that is unavailable.
    pub(crate) async fn connect(&self, name: &str, frames: FrameSize) -> Result<BrokerConnection, AmqpError> {
        self.first(|node| self.connect_to(node, name, frames)).await
    }

    /// The addresses that cannot be connected to, with the reason of each. It tries them all, at once.
    pub(crate) async fn unreachable(&self, name: &str) -> Vec<Attempt> {
        let (nodes, mut failed) = self.nodes().await;
        let attempts = nodes.into_iter().map(|node| async {
            let at = node.name();
            match self.connect_to(node, name, FrameSize::Small).await {
                Ok(connection) => {
                    connection.close().await;
                    None
                }
                Err(e) => Some(Attempt { at, error: e }),
            }
        });
        failed.extend(join_all(attempts).await.into_iter().flatten());
        failed
    }

    /// Whether there is more than one URL.
    pub(crate) fn has_several_nodes(&self) -> bool {
        self.urls.len() > 1
    }

    /// The first success of `attempt`, which is made at one address after the other, in random order: a node that is down
    /// or does not respond costs one attempt, and connections spread over the others.
    pub(super) async fn first<T, F: Future<Output = Result<T, AmqpError>>>(
        &self,
        attempt: impl Fn(Node) -> F,
    ) -> Result<T, AmqpError> {
        let (mut nodes, mut failed) = self.nodes().await;
        while !nodes.is_empty() {
            let node = nodes.swap_remove(random_index(nodes.len()));
            let at = node.name();
            match attempt(node).await {
                Ok(done) => return Ok(done),
                Err(error) => failed.push(Attempt { at, error }),
            }
        }
        // The URLs have one virtual host.
        let virtual_host =
            self.urls.iter().find_map(|url| parse(url.expose())).map(|uri| uri.vhost).unwrap_or_default();
        Err(AmqpError::NotConnected { virtual_host, attempts: failed })
    }

    /// The addresses of all nodes, and the failures to look them up.
    async fn nodes(&self) -> (Vec<Node>, Vec<Attempt>) {
        let (mut nodes, mut failed) = (Vec::new(), Vec::new());
        for looked_up in join_all(self.urls.iter().filter_map(|url| parse(url.expose())).map(look_up)).await {
            match looked_up {
                Ok(found) => nodes.extend(found),
                Err(attempt) => failed.push(attempt),
            }
        }
        (nodes, failed)
    }

    async fn connect_to(&self, node: Node, name: &str, frames: FrameSize) -> Result<BrokerConnection, AmqpError> {
        let Node { mut uri, address } = node;
        uri.query.heartbeat = Some(HEARTBEAT_S); // default: the server's 60 s
        uri.query.frame_max = match frames {
            FrameSize::ServerDefault => None,
            FrameSize::Small => Some(SMALL_FRAME_BYTES),
        };
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let socket = Arc::new(Socket::default());
        let mut opening = Opening(Some(Arc::clone(&socket)));
        let opened = Arc::clone(&socket);
        let open =
            async move |uri: AMQPUri, io: TokioRuntime| Ok(opened.open(&uri, address, &io, REPLY_TIMEOUT).await?);
        // The shared IO runtime, not the caller's thread: other work there must not delay heartbeats.
        let runtime = TokioRuntime::tokio_with_handle(self.io.clone());
        let connection = reply("opening the connection", Connection::connector(uri, runtime, open, properties)).await?;
        opening.0 = None;
        let open = Arc::new(OpenConnection { connection: Arc::new(connection), socket, io: self.io.clone() });
        let channel = reply("opening a channel", open.connection.create_channel()).await?;
        Ok(BrokerConnection { open, channel })
    }
}

/// At most [`ADDRESSES_MAX`] addresses of the host, at random.
async fn look_up(uri: AMQPUri) -> Result<Vec<Node>, Attempt> {
    let (host, port) = (uri.authority.host.clone(), uri.authority.port);
    let failed = |reason: String| Attempt { at: host_and_port(&uri), error: AmqpError::NoAddress { reason } };
    let mut addresses: Vec<SocketAddr> = match timeout(REPLY_TIMEOUT, lookup_host((host, port))).await {
        Ok(Ok(addresses)) => addresses.collect(),
        Ok(Err(e)) => return Err(failed(e.to_string())),
        Err(_) => return Err(failed(format!("no reply within {REPLY_TIMEOUT:?}"))),
    };
    while addresses.len() > ADDRESSES_MAX {
        addresses.swap_remove(random_index(addresses.len()));
    }
    if addresses.is_empty() {
        return Err(failed("the name has no address".to_owned()));
    }
    Ok(addresses.into_iter().map(|address| Node { uri: uri.clone(), address }).collect())
}

impl BrokerConnection {
    pub(super) const fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Whether the connection and its channel are open, as far as this side knows.
    pub(crate) fn is_open(&self) -> bool {
        self.open.connection.status().connected() && self.channel.status().connected()
    }

    /// Whether the broker blocks publishing because of a memory or disk alarm. Keep such a connection: a new one would
    /// be blocked too, and a blocked broker does not notice that the old one is closed.
    pub(crate) fn is_blocked(&self) -> bool {
        self.open.connection.status().blocked()
    }

    /// Closes the connection, waiting at most a second for the broker.
    pub(crate) async fn close(&self) {
        self.open.close().await;
    }
}

/// Waits for the broker's reply, up to [`REPLY_TIMEOUT`].
pub(super) async fn reply<T>(
    step: &'static str,
    request: impl Future<Output = lapin::Result<T>>,
) -> Result<T, AmqpError> {
    match timeout(REPLY_TIMEOUT, request).await {
        Ok(Ok(reply)) => Ok(reply),
        Ok(Err(e)) => Err(AmqpError::failed(step, e)),
        Err(_) => Err(AmqpError::TimedOut { step, limit: REPLY_TIMEOUT }),
    }
}
