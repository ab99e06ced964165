//! A test's own virtual host, with direct access to its queues.

use std::collections::BTreeMap;

use lapin::options::{
    BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, ExchangeDeclareOptions, ExchangeDeleteOptions,
    QueueBindOptions, QueueDeclareOptions, QueueDeleteOptions,
};
use lapin::types::{AMQPValue, FieldTable};
use lapin::{BasicProperties, Channel, Confirmation, Connection, ConnectionProperties};
use purse_dev::ServerAddresses;
use serde_json::json;

pub struct Broker {
    addresses: ServerAddresses,
    virtual_host: String,
}

#[derive(Clone, Debug)]
pub struct Message {
    pub body: Vec<u8>,
    pub id: Option<String>,
    pub headers: BTreeMap<String, String>,
}

impl Broker {
    /// A virtual host that exists.
    pub fn existing(addresses: ServerAddresses, name: &str) -> Self {
        Self { addresses, virtual_host: name.to_owned() }
    }

    pub async fn with_virtual_host(addresses: &ServerAddresses, name: &str) -> Self {
        let broker = Self::existing(addresses.clone(), name);
        broker.create_virtual_host().await;
        broker
    }

    pub async fn create_virtual_host(&self) {
        self.put(&format!("vhosts/{}", self.virtual_host), &json!({})).await;
        self.permit(self.addresses.amqp_user, ".*").await;
    }

    /// Deletes it with everything in it, and closes its connections.
    pub async fn delete_virtual_host(&self) {
        self.delete(&format!("vhosts/{}", self.virtual_host)).await;
    }

    /// What an account may declare, write and read in this virtual host from now on.
    pub async fn permit(&self, user: &str, pattern: &str) {
        let all = json!({"configure": pattern, "write": pattern, "read": pattern});
        self.put(&format!("permissions/{}/{user}", self.virtual_host), &all).await;
    }

    /// Closes the connections to this virtual host, as an administrator does.
    pub async fn close_connections(&self) {
        let listed = self.get(&format!("vhosts/{}/connections", self.virtual_host)).await;
        for connection in listed.as_array().expect("a list") {
            let name = connection["name"].as_str().expect("a name").replace(' ', "%20").replace('>', "%3E");
            self.delete(&format!("connections/{name}")).await;
        }
    }

    async fn put(&self, path: &str, body: &serde_json::Value) {
        let url = format!("{}/api/{path}", self.addresses.management_url().trim_end_matches('/'));
        let put = reqwest::Client::new()
            .put(&url)
            .basic_auth(self.addresses.amqp_user, Some(self.addresses.amqp_password))
            .json(body);
        let response = put.send().await.expect("management API");
        assert!(response.status().is_success(), "{url}: {}", response.status());
    }

    async fn delete(&self, path: &str) {
        let url = format!("{}/api/{path}", self.addresses.management_url().trim_end_matches('/'));
        let request = reqwest::Client::new()
            .delete(&url)
            .basic_auth(self.addresses.amqp_user, Some(self.addresses.amqp_password));
        let response = request.send().await.expect("management API");
        assert!(response.status().is_success(), "{url}: {}", response.status());
    }

    /// Further publishes are rejected.
    pub async fn limit_length(&self, queue: &str, messages_max: u32) {
        let definition = json!({"max-length": messages_max, "overflow": "reject-publish"});
        let policy = json!({"pattern": format!("^{queue}$"), "definition": definition, "apply-to": "queues"});
        self.put(&format!("policies/{}/limit", self.virtual_host), &policy).await;
    }

    /// Removes the limit again.
    pub async fn unlimit_length(&self) {
        self.delete(&format!("policies/{}/limit", self.virtual_host)).await;
    }

    pub fn virtual_host(&self) -> &str {
        &self.virtual_host
    }

    /// Imports accounts and permissions, as the server does at start-up.
    pub async fn import_definitions(&self, definitions: &serde_json::Value) {
        self.import("definitions", definitions).await;
    }

    async fn import(&self, path: &str, definitions: &serde_json::Value) {
        let url = format!("{}/api/{path}", self.addresses.management_url().trim_end_matches('/'));
        let post = reqwest::Client::new()
            .post(&url)
            .basic_auth(self.addresses.amqp_user, Some(self.addresses.amqp_password))
            .json(definitions);
        let response = post.send().await.expect("management API");
        assert!(response.status().is_success(), "{url}: {}", response.status());
    }

    /// The exchanges, queues and bindings of this virtual host, in the form that [`Self::import_topology`] reads.
    pub async fn topology(&self) -> serde_json::Value {
        const IDENTITY: [&str; 9] =
            ["name", "type", "durable", "auto_delete", "internal", "arguments", "source", "destination", "routing_key"];
        let definitions = self.get(&format!("definitions/{}", self.virtual_host)).await;
        let sorted = |kind: &str| {
            let mut all: Vec<serde_json::Value> = definitions[kind].as_array().expect("a list").clone();
            for definition in &mut all {
                let fields = definition.as_object_mut().expect("an object");
                fields.retain(|name, _| name == "destination_type" || IDENTITY.contains(&name.as_str()));
            }
            all.sort_by_key(ToString::to_string);
            all
        };
        json!({"exchanges": sorted("exchanges"), "queues": sorted("queues"), "bindings": sorted("bindings")})
    }

    /// Declares what [`Self::topology`] returned.
    pub async fn import_topology(&self, topology: &serde_json::Value) {
        self.import(&format!("definitions/{}", self.virtual_host), topology).await;
    }

    /// The URL of this virtual host for another account.
    pub fn url_for(&self, user: &str, password: &str) -> String {
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

    /// Ready messages, without unacknowledged ones; `None` if the queue does not exist.
    pub async fn depth(&self, queue: &str) -> Option<u32> {
        let (_connection, channel) = self.channel().await;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        let declared = channel.queue_declare(queue.into(), passive, FieldTable::default()).await.ok()?;
        Some(declared.message_count())
    }

    /// Subscriptions to `queue`, as the broker counts them now.
    pub async fn consumers(&self, queue: &str) -> Option<u32> {
        let (_connection, channel) = self.channel().await;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
        let declared = channel.queue_declare(queue.into(), passive, FieldTable::default()).await.ok()?;
        Some(declared.consumer_count())
    }

    pub async fn wait_until_unconsumed(&self, queue: &str) {
        super::eventually(super::PATIENCE, &format!("no consumer on {queue}"), || async {
            let (_connection, channel) = self.channel().await;
            let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::durable() };
            let declared = channel.queue_declare(queue.into(), passive, FieldTable::default()).await.ok()?;
            (declared.consumer_count() == 0).then_some(())
        })
        .await;
    }

    /// Deliveries acked so far. The broker updates this count every few seconds.
    pub async fn acked(&self, queue: &str) -> u64 {
        let stats = self.get(&format!("queues/{}/{queue}", self.virtual_host)).await;
        stats["message_stats"]["ack"].as_u64().unwrap_or_default()
    }

    /// Removes the next message and returns it.
    pub async fn take(&self, queue: &str) -> Option<Message> {
        let (_connection, channel) = self.channel().await;
        let got = channel.basic_get(queue.into(), BasicGetOptions { no_ack: true }).await.expect("fetched")?;
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

    /// Ready messages in each queue, without unacknowledged ones.
    pub async fn queues(&self) -> BTreeMap<String, u64> {
        let mut depths = BTreeMap::new();
        for queue in self.get(&format!("queues/{}?columns=name", self.virtual_host)).await.as_array().expect("a list") {
            let name = queue["name"].as_str().expect("a name");
            depths.insert(name.to_owned(), u64::from(self.depth(name).await.unwrap_or_default()));
        }
        depths
    }

    pub async fn version(&self) -> String {
        self.get("overview").await["rabbitmq_version"].as_str().expect("a version").to_owned()
    }

    /// Connections to this virtual host. The broker updates this count every few seconds.
    pub async fn connections(&self) -> usize {
        self.get(&format!("vhosts/{}/connections", self.virtual_host)).await.as_array().map_or(0, Vec::len)
    }

    /// Unacknowledged messages. The broker updates this count every few seconds.
    pub async fn unacked(&self) -> u64 {
        let queues = self.get(&format!("queues/{}", self.virtual_host)).await;
        queues.as_array().into_iter().flatten().filter_map(|queue| queue["messages_unacknowledged"].as_u64()).sum()
    }

    async fn get(&self, path: &str) -> serde_json::Value {
        let url = format!("{}/api/{path}", self.addresses.management_url().trim_end_matches('/'));
        let request =
            reqwest::Client::new().get(&url).basic_auth(self.addresses.amqp_user, Some(self.addresses.amqp_password));
        request.send().await.expect("management API").json().await.expect("JSON")
    }

    /// The ids of all messages in a queue. The messages stay there.
    pub async fn ids_in(&self, queue: &str) -> std::collections::BTreeSet<String> {
        let (connection, channel) = self.channel().await;
        let mut ids = std::collections::BTreeSet::new();
        while let Ok(Some(got)) = channel.basic_get(queue.into(), BasicGetOptions { no_ack: false }).await {
            ids.insert(got.properties.message_id().as_ref().map(ToString::to_string).unwrap_or_default());
        }
        connection.close(200, "seen".into()).await.expect("closed");
        ids
    }

    /// Publishes, and waits for the confirm. Returns whether the broker accepted the message: it does not while a quorum queue
    /// has no leader.
    pub async fn publish(
        &self,
        exchange: &str,
        routing_key: &str,
        body: &[u8],
        message_id: Option<&str>,
        headers: &[(&str, &str)],
    ) -> bool {
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
        matches!(confirm.await.expect("confirmed"), Confirmation::Ack(_))
    }

    pub async fn delete_queue(&self, queue: &str) {
        let (_connection, channel) = self.channel().await;
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("deleted");
    }

    /// Does nothing if the queue has messages, which would be lost with it.
    pub async fn delete_queue_if_empty(&self, queue: &str) {
        let (_connection, channel) = self.channel().await;
        let options = QueueDeleteOptions { if_empty: true, ..QueueDeleteOptions::default() };
        // An error if it has messages.
        let _ = channel.queue_delete(queue.into(), options).await;
    }

    /// Failed login attempts during `span`.
    pub async fn failed_logins_during(&self, span: std::time::Duration) -> u64 {
        let attempts = async || self.get("auth/attempts/purse@localhost").await;
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

    pub async fn bind(&self, queue: &str, exchange: &str, routing_key: &str) {
        let (_connection, channel) = self.channel().await;
        let (options, nothing) = (QueueBindOptions::default(), FieldTable::default());
        let bound = channel.queue_bind(queue.into(), exchange.into(), routing_key.into(), options, nothing);
        bound.await.expect("bound");
    }

    /// Declares a queue that receives a copy of what `exchange` routes by `routing_key`.
    pub async fn tap(&self, queue: &str, exchange: &str, routing_key: &str) {
        self.declare_plain(queue).await;
        self.bind(queue, exchange, routing_key).await;
    }

    /// Deletes the queue and declares it again as a classic queue with arguments that no role declares.
    pub async fn recreate_with_other_arguments(&self, queue: &str) {
        let (_connection, channel) = self.channel().await;
        channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await.expect("deleted");
        let mut arguments = FieldTable::default();
        arguments.insert("x-max-length".into(), AMQPValue::LongInt(1_000));
        let declared = channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments);
        declared.await.expect("declared");
    }

    /// Declares a durable exchange of a type that no role declares.
    pub async fn declare_fanout(&self, exchange: &str) {
        let (_connection, channel) = self.channel().await;
        let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
        let declared =
            channel.exchange_declare(exchange.into(), lapin::ExchangeKind::Fanout, options, FieldTable::default());
        declared.await.expect("declared");
    }

    /// Creates an account that may read and write everything in this virtual host, and declare what `configure` matches.
    pub async fn account(&self, user: &str, password: &str, configure: &str) {
        let permissions =
            json!({"user": user, "vhost": self.virtual_host, "configure": configure, "write": ".*", "read": ".*"});
        let users = json!([{"name": user, "password": password, "tags": ""}]);
        self.import_definitions(&json!({"users": users, "permissions": [permissions]})).await;
    }

    /// The node of a queue: of a quorum queue, its leader.
    pub async fn node_of(&self, queue: &str) -> Option<String> {
        let found = self.get(&format!("queues/{}/{queue}", self.virtual_host)).await;
        found.get("leader").or_else(|| found.get("node"))?.as_str().map(str::to_owned)
    }

    /// The nodes that a quorum queue has a copy on.
    pub async fn members_of(&self, queue: &str) -> Vec<String> {
        let found = self.get(&format!("queues/{}/{queue}", self.virtual_host)).await;
        let members = found["members"].as_array().into_iter().flatten();
        members.filter_map(|node| node.as_str().map(str::to_owned)).collect()
    }

    /// Of each connection to this virtual host the name that its client chose, and its node. The broker updates the list
    /// every few seconds.
    pub async fn connection_nodes(&self) -> Vec<(String, String)> {
        let listed = self.get(&format!("vhosts/{}/connections", self.virtual_host)).await;
        let text =
            |connection: &serde_json::Value, field: &str| connection[field].as_str().unwrap_or_default().to_owned();
        let listed = listed.as_array().cloned().unwrap_or_default();
        listed.iter().map(|one| (text(one, "user_provided_name"), text(one, "node"))).collect()
    }

    /// Channels in this virtual host. The broker updates this count every few seconds.
    pub async fn channels(&self) -> usize {
        self.get(&format!("vhosts/{}/channels", self.virtual_host)).await.as_array().map_or(0, Vec::len)
    }

    /// Declares a durable quorum queue.
    pub async fn declare_quorum(&self, queue: &str, delivery_limit: Option<i64>) {
        let (_connection, channel) = self.channel().await;
        let mut arguments = FieldTable::default();
        arguments.insert("x-queue-type".into(), AMQPValue::LongString("quorum".into()));
        if let Some(limit) = delivery_limit {
            arguments.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(limit));
        }
        let declared = channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), arguments);
        declared.await.expect("declared");
    }

    /// Declares a durable classic queue, before a role declares it.
    pub async fn declare_plain(&self, queue: &str) {
        let (_connection, channel) = self.channel().await;
        let declared = channel.queue_declare(queue.into(), QueueDeclareOptions::durable(), FieldTable::default());
        declared.await.expect("declared");
    }
}
