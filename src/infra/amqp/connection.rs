//! Opens and closes connections.

use std::future::Future;
use std::net::Ipv6Addr;
use std::sync::Arc;
use std::time::Duration;

use async_rs::TokioRuntime;
use lapin::uri::{AMQPScheme, AMQPUri};
use lapin::{Channel, Connection, ConnectionProperties};
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::infra::amqp::error::AmqpError;
use crate::infra::amqp::socket::Socket;
use crate::infra::config::AmqpConfig;
use crate::kernel::Secret;

/// Where the management plugin listens by default.
const MANAGEMENT_PORTS: [u16; 2] = [15_671, 15_672];
/// Longest wait for the reply to a request.
pub(super) const REPLY_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the reply to a close; on a blocked connection it never comes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);
/// Heartbeat interval. A peer that is silent for twice as long counts as gone.
const HEARTBEAT_S: u16 = 10;

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

/// Whether `url` is a valid broker URL. The reason is withheld on purpose: the parser's message may quote the password.
pub(crate) fn is_broker_url(url: &str) -> bool {
    parse(url).is_some()
}

/// lapin's parser, which however takes an IPv6 address for `localhost`.
pub(super) fn parse(url: &str) -> Option<AMQPUri> {
    let mut uri: AMQPUri = url.parse().ok()?;
    let (_, after_scheme) = url.split_once("://")?;
    let authority = after_scheme.split(['/', '?', '#']).next()?;
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some((address, _)) = host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        uri.authority.host = address.parse::<Ipv6Addr>().ok()?.to_string();
    }
    Some(uri)
}

/// A valid URL with `mask` in the place of its password, and without parameters.
pub(crate) fn url_without_password(url: &str, mask: &str) -> Option<String> {
    let AMQPUri { scheme, authority, vhost, .. } = parse(url)?;
    let scheme = match scheme {
        AMQPScheme::AMQP => "amqp",
        AMQPScheme::AMQPS => "amqps",
    };
    let host = if authority.host.contains(':') { format!("[{}]", authority.host) } else { authority.host };
    let (user, vhost) = (authority.userinfo.username, vhost.replace('/', "%2f"));
    Some(format!("{scheme}://{user}:{mask}@{host}:{}/{vhost}", authority.port))
}

/// The end of a sentence that begins with a valid broker URL: what it probably does not mean. Only the broker knows
/// whether it does. It does not quote the login.
pub(crate) fn doubt(url: &str) -> Option<String> {
    let uri = parse(url)?;
    let (host, port, virtual_host) = (&uri.authority.host, uri.authority.port, &uri.vhost);
    if virtual_host.is_empty() {
        Some(r#"names the virtual host "". End it with /%2f for the default one, which is called /"#.to_owned())
    } else if virtual_host.contains('/') && virtual_host != "/" && !url.to_ascii_lowercase().contains("%2f") {
        let encoded = virtual_host.replace('/', "%2f");
        Some(format!(
            "names the virtual host {virtual_host:?}. If that is intended, write it as /{encoded}; the default one is /%2f"
        ))
    } else if host.contains(',') {
        Some(format!("names one host, {host:?}, which contains a comma. Several hosts are not supported"))
    } else if MANAGEMENT_PORTS.contains(&port) {
        Some(format!(
            "names port {port}, where RabbitMQ serves its management pages. AMQP is on 5672, with TLS on 5671"
        ))
    } else {
        None
    }
}

/// The broker's address, and the runtime that drives its connections.
#[derive(Clone)]
pub(crate) struct Broker {
    url: Secret,
    io: Handle,
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
        Self { url: config.url.clone(), io }
    }

    /// It contains a password.
    pub(super) fn url(&self) -> &str {
        self.url.expose()
    }

    /// The runtime for work on its connections.
    pub(crate) const fn io(&self) -> &Handle {
        &self.io
    }

    /// Opens a connection, listed by the broker as `name`, and a channel on it. Wrong credentials look like a broker
    /// that is unavailable.
    pub(crate) async fn connect(&self, name: &str, frames: FrameSize) -> Result<BrokerConnection, AmqpError> {
        const STEP: &str = "opening the connection";
        let mut uri = parse(self.url.expose()).ok_or(AmqpError::Closed { step: STEP })?;
        let virtual_host = uri.vhost.clone();
        uri.query.heartbeat = Some(HEARTBEAT_S); // default: the server's 60 s
        uri.query.frame_max = match frames {
            FrameSize::ServerDefault => None,
            FrameSize::Small => Some(SMALL_FRAME_BYTES),
        };
        let properties = ConnectionProperties::default().with_connection_name(name.into());
        let socket = Arc::new(Socket::default());
        let mut opening = Opening(Some(Arc::clone(&socket)));
        let opened = Arc::clone(&socket);
        let open = async move |uri: AMQPUri, io: TokioRuntime| Ok(opened.open(&uri, &io, REPLY_TIMEOUT).await?);
        // The shared IO runtime, not the caller's thread: other work there must not delay heartbeats.
        let runtime = TokioRuntime::tokio_with_handle(self.io.clone());
        let connection = reply(STEP, Connection::connector(uri, runtime, open, properties))
            .await
            .map_err(|e| AmqpError::NotConnected { virtual_host, source: Box::new(e) })?;
        opening.0 = None;
        let open = Arc::new(OpenConnection { connection: Arc::new(connection), socket, io: self.io.clone() });
        let channel = reply("opening a channel", open.connection.create_channel()).await?;
        Ok(BrokerConnection { open, channel })
    }
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

#[cfg(test)]
mod tests {
    use super::{doubt, is_broker_url, parse, url_without_password};

    #[test]
    fn a_url_is_shown_without_its_password_and_its_parameters() {
        for (url, shown) in [
            ("amqp://u:hunter22@h", "amqp://u:*@h:5672/%2f"),
            ("amqps://u:hunter22@[::1]:1/team%2fa?heartbeat=5&password=hunter22", "amqps://u:*@[::1]:1/team%2fa"),
        ] {
            assert_eq!(url_without_password(url, "*").as_deref(), Some(shown), "{url}");
        }
        assert_eq!(url_without_password("http://u:hunter22@h", "*"), None);
    }

    #[test]
    fn only_amqp_urls_are_valid() {
        assert!(is_broker_url("amqp://guest:guest@localhost:5672/%2f"));
        assert!(is_broker_url("amqps://u:p@broker/vhost"));
        for refused in ["", "http://localhost", "localhost:5672", "amqp://u:p@host:port"] {
            assert!(!is_broker_url(refused), "{refused}");
        }
    }

    #[test]
    fn an_ipv6_host_is_the_one_in_brackets() {
        let host = |url: &str| parse(url).map(|uri| (uri.authority.host, uri.authority.port));
        assert_eq!(host("amqp://u:p@[2001:db8::1]/%2f"), Some(("2001:db8::1".to_owned(), 5672)));
        assert_eq!(host("amqp://[::1]:1234"), Some(("::1".to_owned(), 1234)));
        assert_eq!(host("amqp://u:p@[::1/%2f"), None);
        assert_eq!(host("amqp://u:p@192.0.2.1/a[b]"), Some(("192.0.2.1".to_owned(), 5672)));
    }

    #[test]
    fn a_url_that_probably_means_another_virtual_host_or_port_is_in_doubt() {
        for (url, word) in [
            ("amqp://u:p@host/", r#""""#),
            ("amqp://u:p@host/?heartbeat=5", r#""""#),
            ("amqps://u:p@host/team/a", r#""team/a". If that is intended, write it as /team%2fa;"#),
            ("amqp://u:p@one,two:5672/%2f", "comma"),
            ("amqp://u:p@host:15672/%2f", "15672"),
        ] {
            let text = doubt(url).unwrap_or_else(|| panic!("{url}"));
            assert!(text.contains(word) && !text.contains("u:p"), "{url}: {text}");
        }
        for url in
            ["amqp://host", "amqp://u:p@host/%2f", "amqp://u:p@host/%2F", "amqp://u:p@host/team%2fa", "amqp://host/a"]
        {
            assert_eq!(doubt(url), None, "{url}");
        }
    }
}
