//! The broker as a test sees it: a virtual host of its own, queues looked at and written to by hand.

use std::collections::BTreeMap;

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueBindOptions, QueueDeclareOptions,
    QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Connection, ConnectionProperties};
use purse::dev_stack::ServerAddresses;
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
        let user = &addresses.amqp_user;
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
            .basic_auth(&self.addresses.amqp_user, Some(&self.addresses.amqp_password))
            .json(body);
        let answer = put.send().await.expect("management API");
        assert!(answer.status().is_success(), "{url}: {}", answer.status());
    }

    pub fn virtual_host(&self) -> &str {
        &self.virtual_host
    }

    /// Imports accounts and permissions, as the server does at its start.
    pub async fn import(&self, definitions: &serde_json::Value) {
        let url = format!("{}/api/definitions", self.addresses.management_url().trim_end_matches('/'));
        let post = reqwest::Client::new()
            .post(&url)
            .basic_auth(&self.addresses.amqp_user, Some(&self.addresses.amqp_password))
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

    /// How many deliveries of a queue were acked so far. The broker renews this count every few seconds.
    pub async fn acked(&self, queue: &str) -> u64 {
        let base = self.addresses.management_url();
        let url = format!("{}/api/queues/{}/{queue}", base.trim_end_matches('/'), self.virtual_host);
        let asked =
            reqwest::Client::new().get(&url).basic_auth(&self.addresses.amqp_user, Some(&self.addresses.amqp_password));
        let answer: serde_json::Value = asked.send().await.expect("management API").json().await.expect("JSON");
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
