//! The broker as a test sees it: a virtual host of its own, queues looked at and written to by hand.

use std::collections::BTreeMap;

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeleteOptions, QueueBindOptions,
    QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use purse_dev::ServerAddresses;
use serde_json::json;

pub struct Broker {
    addresses: ServerAddresses,
    virtual_host: String,
}

/// A message as it lies in a queue.
#[derive(Clone, Debug)]
pub struct Message {
    pub body: Vec<u8>,
    pub id: Option<String>,
    pub headers: BTreeMap<String, String>,
}

impl Broker {
    pub async fn with_virtual_host(addresses: &ServerAddresses, name: &str) -> Self {
        let broker = Self { addresses: addresses.clone(), virtual_host: name.to_owned() };
        let user = addresses.amqp_user;
        broker.put(&format!("vhosts/{name}"), &json!({})).await;
        broker
            .put(&format!("permissions/{name}/{user}"), &json!({"configure": ".*", "write": ".*", "read": ".*"}))
            .await;
        broker
    }

    async fn put(&self, path: &str, body: &serde_json::Value) {
        let url = format!("{}/api/{path}", self.addresses.management_url().trim_end_matches('/'));
        let put = reqwest::Client::new()
            .put(&url)
            .basic_auth(self.addresses.amqp_user, Some(self.addresses.amqp_password))
            .json(body);
        let answer = put.send().await.expect("management API");
        assert!(answer.status().is_success(), "{url}: {}", answer.status());
    }

    /// Lets a queue hold no more than so many messages.
    pub async fn limit(&self, queue: &str, messages_max: u32) {
        let definition = json!({"max-length": messages_max, "overflow": "reject-publish"});
        let policy = json!({"pattern": format!("^{queue}$"), "definition": definition, "apply-to": "queues"});
        self.put(&format!("policies/{}/limit", self.virtual_host), &policy).await;
    }

    pub fn virtual_host(&self) -> &str {
        &self.virtual_host
    }

    /// Imports accounts and permissions, as the server does at its start.
    pub async fn import(&self, definitions: &serde_json::Value) {
        let url = format!("{}/api/definitions", self.addresses.management_url().trim_end_matches('/'));
        let post = reqwest::Client::new()
            .post(&url)
            .basic_auth(self.addresses.amqp_user, Some(self.addresses.amqp_password))
            .json(definitions);
        let answer = post.send().await.expect("management API");
        assert!(answer.status().is_success(), "{url}: {}", answer.status());
    }

    /// The URL of this virtual host for another account.
    pub fn url_of(&self, user: &str, password: &str) -> String {
        let ServerAddresses { host, amqp_port, .. } = &self.addresses;
        format!("amqp://{user}:{password}@{host}:{amqp_port}/{}", self.virtual_host)
    }

    pub fn url(&self) -> String {
        self.addresses.amqp_url(&self.virtual_host)
    }

    pub async fn channel(&self) -> (Connection, Channel) {
        let connection = Connection::connect(&self.url(), ConnectionProperties::default()).await.expect("connected");
        let channel = connection.create_channel().await.expect("channel");
        (connection, channel)
    }

    /// Messages that lie in a queue, not counting those in somebody's hand; `None` if there is no such queue.
    pub async fn depth(&self, queue: &str) -> Option<u32> {
        let (_connection, channel) = self.channel().await;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        let declared = channel.queue_declare(queue.into(), passive, FieldTable::default()).await.ok()?;
        Some(declared.message_count())
    }

    /// Waits until nobody consumes from a queue.
    pub async fn abandoned(&self, queue: &str) {
        super::eventually(super::PATIENCE, &format!("nobody consumes from {queue}"), || async {
            let (_connection, channel) = self.channel().await;
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
            let declared = channel.queue_declare(queue.into(), passive, FieldTable::default()).await.ok()?;
            (declared.consumer_count() == 0).then_some(())
        })
        .await;
    }

    /// How many deliveries of a queue were acked so far. The broker renews this count every few seconds.
    pub async fn acked(&self, queue: &str) -> u64 {
        let answer = self.ask(&format!("queues/{}/{queue}", self.virtual_host)).await;
        answer["message_stats"]["ack"].as_u64().unwrap_or_default()
    }

    /// Takes the next message out of a queue.
    pub async fn take(&self, queue: &str) -> Option<Message> {
        let (_connection, channel) = self.channel().await;
        let got = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.expect("asked")?;
        let text = |value: &AMQPValue| match value {
            AMQPValue::LongString(s) => String::from_utf8_lossy(s.as_bytes()).into_owned(),
            AMQPValue::LongInt(n) => n.to_string(),
            other => format!("{other:?}"),
        };
        let headers = got.properties.headers().clone().unwrap_or_default();
        Some(Message {
            body: got.data.clone(),
            id: got.properties.message_id().as_ref().map(ToString::to_string),
            headers: headers.inner().iter().map(|(k, v)| (k.to_string(), text(v))).collect(),
        })
    }

    /// How many messages wait in each queue, not counting those in somebody's hand.
    pub async fn queues(&self) -> BTreeMap<String, u64> {
        let mut depths = BTreeMap::new();
        for queue in self.ask(&format!("queues/{}?columns=name", self.virtual_host)).await.as_array().expect("a list") {
            let name = queue["name"].as_str().expect("a name");
            depths.insert(name.to_owned(), u64::from(self.depth(name).await.unwrap_or_default()));
        }
        depths
    }

    /// How many connections there are to this virtual host, as the broker counts them every few seconds.
    pub async fn connections(&self) -> usize {
        self.ask(&format!("vhosts/{}/connections", self.virtual_host)).await.as_array().map_or(0, Vec::len)
    }

    /// Messages in somebody's hand, as the broker counts them every few seconds.
    pub async fn in_hand(&self) -> u64 {
        let queues = self.ask(&format!("queues/{}", self.virtual_host)).await;
        queues.as_array().into_iter().flatten().filter_map(|queue| queue["messages_unacknowledged"].as_u64()).sum()
    }

    async fn ask(&self, path: &str) -> serde_json::Value {
        let url = format!("{}/api/{path}", self.addresses.management_url().trim_end_matches('/'));
        let asked =
            reqwest::Client::new().get(&url).basic_auth(self.addresses.amqp_user, Some(self.addresses.amqp_password));
        asked.send().await.expect("management API").json().await.expect("JSON")
    }

    /// The ids of all messages of a queue, which stay there.
    pub async fn ids_in(&self, queue: &str) -> std::collections::BTreeSet<String> {
        let (connection, channel) = self.channel().await;
        let mut ids = std::collections::BTreeSet::new();
        while let Ok(Some(got)) = channel.basic_get(queue.into(), BasicGetOptions { no_ack: false }).await {
            ids.insert(got.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default());
        }
        connection.close(200, "seen".into()).await.expect("closed");
        ids
    }

    /// Publishes by hand, confirmed.
    pub async fn publish(
        &self,
        exchange: &str,
        routing_key: &str,
        body: &[u8],
        message_id: Option<&str>,
        headers: &[(&str, &str)],
    ) {
        let (_connection, channel) = self.channel().await;
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), AMQPValue::LongString((*value).into()));
        }
        let mut properties = BasicProperties::default().with_delivery_mode(2).with_headers(table);
        if let Some(id) = message_id {
            properties = properties.with_message_id(id.into());
        }
        let confirm = channel
            .basic_publish(exchange.into(), routing_key.into(), BasicPublishOptions::default(), body, properties)
            .await
            .expect("published");
        confirm.await.expect("confirmed");
    }

    pub async fn delete_queue(&self, queue: &str) {
        let (_connection, channel) = self.channel().await;
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("deleted");
    }

    /// Deletes it unless something lies in it, which would be lost with it.
    pub async fn delete_queue_if_empty(&self, queue: &str) {
        let (_connection, channel) = self.channel().await;
        let options = QueueDeleteOptions { if_empty: true, ..QueueDeleteOptions::default() };
        // Refused if something lies in it.
        let _ = channel.queue_delete(queue.into(), options).await;
    }

    /// How often somebody tried to log in and was refused, over this time.
    pub async fn refused_logins_while(&self, span: std::time::Duration) -> u64 {
        let attempts = async || self.ask("auth/attempts/purse@localhost").await;
        let failed = |counts: serde_json::Value| {
            counts
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|count| count["auth_attempts_failed"].as_u64())
                .sum::<u64>()
        };
        let before = failed(attempts().await);
        tokio::time::sleep(span).await;
        failed(attempts().await) - before
    }

    pub async fn delete_exchange(&self, exchange: &str) {
        let (_connection, channel) = self.channel().await;
        channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await.expect("deleted");
    }

    pub async fn unbind(&self, queue: &str, exchange: &str, routing_key: &str) {
        let (_connection, channel) = self.channel().await;
        let unbound = channel.queue_unbind(queue.into(), exchange.into(), routing_key.into(), FieldTable::default());
        unbound.await.expect("unbound");
    }

    /// Makes a queue that gets a copy of what `exchange` routes by `routing_key`.
    pub async fn tap(&self, queue: &str, exchange: &str, routing_key: &str) {
        self.declare_plain(queue).await;
        let (_connection, channel) = self.channel().await;
        let (options, nothing) = (QueueBindOptions::default(), FieldTable::default());
        let bound = channel.queue_bind(queue.into(), exchange.into(), routing_key.into(), options, nothing);
        bound.await.expect("bound");
    }

    /// Declares a plain durable queue of this name, before a role does.
    pub async fn declare_plain(&self, queue: &str) {
        let (_connection, channel) = self.channel().await;
        let declared = channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), FieldTable::default());
        declared.await.expect("declared");
    }
}
