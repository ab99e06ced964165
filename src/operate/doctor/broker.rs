//! The broker: login, version, topology, consumers and dead letters.

use tokio::runtime::Handle;

use crate::contracts::{DEAD_LETTER_QUEUE, EVENTS_EXCHANGE, PROVISION_QUEUE, RetryTier};
use crate::infra::amqp::{AmqpError, Broker, BrokerConnection, Declaration, FrameSize, QueueState};
use crate::kernel::Role;
use crate::operate::doctor::database::supported;
use crate::operate::doctor::finding::{Check, Finding};
use crate::operate::doctor::target::{NAME, Target};
use crate::operate::failure::causes;
use crate::operate::humanize::{cell, count};
use crate::wallet::amqp::{accepted_instead, provision_queue, topology};
use crate::wallet::application::retry_ladder::RetryLadder;

/// The oldest version that is supported, and the newest major version.
const RABBITMQ: ((u32, u32), u32) = ((3, 10), 4);

pub(super) async fn check(target: &Target, io: Handle) -> Vec<Finding> {
    let process = target.process();
    let broker = Broker::new(&process.amqp, io);
    let connection = match broker.connect(NAME, FrameSize::Small).await {
        Ok(connection) => connection,
        Err(e) => {
            let advice = "Check that it is running and reachable from here, and that RABBITMQ_URL has the right account and virtual host.";
            return vec![Finding::unreachable(Check::Broker, causes(&e), advice)];
        }
    };
    let mut findings = vec![nodes(&broker).await, version(&broker).await];
    // Only the wallet role may declare the queues, and so find out their arguments.
    let (declared, looked_up) = match target {
        Target::Users(_) => (vec![Declaration::TopicExchange(EVENTS_EXCHANGE)], vec![provision_queue()]),
        Target::Wallet(config) => (topology(&RetryLadder::new(config.retry_ttls.map(RetryTier::new))), Vec::new()),
    };
    let mut inspection = Inspection { broker: &broker, connection: Some(connection), queues: Vec::new() };
    match inspection.topology(&declared, &looked_up).await {
        Ok(found) => findings.extend(found),
        Err(e) => {
            let advice = "The connection was lost: check the broker's log, then try again.";
            findings.push(Finding::unreachable(Check::Topology, causes(&e), advice));
        }
    }
    findings.extend(inspection.queue(PROVISION_QUEUE).map(consumers));
    if process.role == Role::Wallet {
        findings.extend(inspection.queue(DEAD_LETTER_QUEUE).map(dead_letters));
    }
    if let Some(connection) = inspection.connection {
        connection.close().await;
    }
    findings
}

/// A role needs one node; an operator wants to know about each.
async fn nodes(broker: &Broker) -> Finding {
    if !broker.has_several_nodes() {
        return Finding::ok(Check::Broker, "connected");
    }
    let unreachable: Vec<String> = broker.unreachable(NAME).await.iter().map(ToString::to_string).collect();
    if unreachable.is_empty() {
        return Finding::ok(Check::Broker, "connected to every node");
    }
    let message = format!("connected, but not to every node: {}", unreachable.join("; "));
    let advice = "Start the nodes, or remove their URLs from RABBITMQ_URL. The role uses the others meanwhile.";
    Finding::warning(Check::Broker, message, advice)
}

async fn version(broker: &Broker) -> Finding {
    let check = Check::RabbitmqVersion;
    match broker.version().await {
        Ok((product, version)) => judged(&cell(&product), &cell(&version)),
        Err(e) => Finding::unreachable(check, causes(&e), "Try again."),
    }
}

fn judged(product: &str, version: &str) -> Finding {
    let mut numbers = version.split('.').map(|number| number.parse::<u32>().ok());
    let (check, range) = (Check::RabbitmqVersion, "RabbitMQ 3.10 to 4");
    let ("RabbitMQ", Some(major), Some(minor)) = (product, numbers.next().flatten(), numbers.next().flatten()) else {
        let message = format!("{product} {version} is not a known broker");
        return Finding::warning(check, message, format!("Use {range}: purse needs its quorum queues."));
    };
    let (too_old, too_new) = ((major, minor) < RABBITMQ.0, major > RABBITMQ.1);
    supported(check, format!("RabbitMQ {version}"), too_old, too_new, range)
}

/// A connection, which ends with each error, and the queues that were found.
struct Inspection<'b> {
    broker: &'b Broker,
    connection: Option<BrokerConnection>,
    queues: Vec<(String, QueueState)>,
}

impl Inspection<'_> {
    async fn connected(&mut self) -> Result<BrokerConnection, AmqpError> {
        let open = match self.connection.take().filter(BrokerConnection::is_open) {
            Some(open) => open,
            None => self.broker.connect(NAME, FrameSize::Small).await?,
        };
        Ok(self.connection.insert(open).clone())
    }

    fn queue(&self, name: &str) -> Option<QueueState> {
        self.queues.iter().find(|(queue, _)| queue == name).map(|(_, state)| *state)
    }

    /// `declared` must exist as declared, `looked_up` must exist.
    async fn topology(
        &mut self,
        declared: &[Declaration],
        looked_up: &[Declaration],
    ) -> Result<Vec<Finding>, AmqpError> {
        let (mut findings, mut intact) = (Vec::new(), 0_u64);
        for (declaration, has_arguments) in
            declared.iter().map(|one| (one, true)).chain(looked_up.iter().map(|one| (one, false)))
        {
            if matches!(declaration, Declaration::Binding { .. }) {
                continue;
            }
            match self.examine(declaration, has_arguments).await {
                Ok(()) => intact = intact.saturating_add(1),
                Err(e) => {
                    // It does not survive an error.
                    self.connection = None;
                    findings.push(judge(declaration, e)?);
                }
            }
        }
        if findings.is_empty() {
            findings.push(Finding::ok(Check::Topology, format!("{intact} exchanges and queues as declared")));
        }
        Ok(findings)
    }

    async fn examine(&mut self, declaration: &Declaration, has_arguments: bool) -> Result<(), AmqpError> {
        let connection = self.connected().await?;
        let state = connection.look_up(declaration).await?;
        if let (Declaration::Queue(name, _), Some(state)) = (declaration, state) {
            self.queues.push((name.clone(), state));
        }
        if !has_arguments {
            return Ok(());
        }
        // It exists, so that declaring it changes nothing and compares its arguments.
        let declared = connection.declare_one(declaration).await;
        let (Err(AmqpError::Differs { .. }), Some(other)) = (&declared, accepted_instead(declaration)) else {
            return declared;
        };
        self.connection = None;
        self.connected().await?.declare_one(&other).await.or(declared)
    }
}

/// An error that is about the declaration as a finding; another one is returned.
fn judge(declaration: &Declaration, e: AmqpError) -> Result<Finding, AmqpError> {
    let check = Check::Topology;
    match e {
        AmqpError::Missing { name } => {
            let message = format!("{name} does not exist");
            let advice = match declaration {
                Declaration::TopicExchange(EVENTS_EXCHANGE) => "Start a role: both declare it.",
                _ => "Start the wallet role, which declares it within five seconds.",
            };
            Ok(Finding::error(check, message, advice))
        }
        AmqpError::Differs { name, reply } => {
            let message = format!("{name} exists with different arguments: {}", cell(&reply));
            let advice = format!(
                "Delete {name} once it is empty, or give purse its own virtual host; the wallet role declares it again."
            );
            Ok(Finding::error(check, message, advice))
        }
        AmqpError::NotDeclared { name, reason } => {
            let message = format!("{name} cannot be declared: {}", cell(&reason));
            let advice = "Give the account the permission to configure it, or restart the node that has the queue.";
            Ok(Finding::error(check, message, advice))
        }
        e => Err(e),
    }
}

fn consumers(queue: QueueState) -> Finding {
    let waiting = count(queue.messages.into(), "message");
    if queue.consumers == 0 {
        let message = format!("no process consumes {PROVISION_QUEUE}, where {waiting} wait");
        let advice = "Start the wallet role. If it is running, see `provisioning` in its log and its /health/ready.";
        return Finding::warning(Check::Consumers, message, advice);
    }
    Finding::ok(
        Check::Consumers,
        format!("{} of {PROVISION_QUEUE}, {waiting} ready", count(queue.consumers.into(), "consumer")),
    )
}

fn dead_letters(queue: QueueState) -> Finding {
    if queue.messages == 0 {
        return Finding::ok(Check::DeadLetters, "no dead letters");
    }
    let message =
        format!("{} in {DEAD_LETTER_QUEUE}; their users have no wallet", count(queue.messages.into(), "message"));
    let advice = "List them with `purse dlq list`, fix the reason, and requeue them with `purse dlq redrive`.";
    Finding::warning(Check::DeadLetters, message, advice)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operate::doctor::finding::Level;

    #[test]
    fn versions_from_3_10_to_4_are_supported() {
        for (version, level) in [
            ("3.8.35", Level::Error),
            ("3.9.0", Level::Error),
            ("3.10.8", Level::Ok),
            ("3.13.7", Level::Ok),
            ("4.0.1", Level::Ok),
            ("4.3.0-rc.1", Level::Ok),
            ("5.0.0", Level::Warning),
            ("four", Level::Warning),
        ] {
            assert_eq!(judged("RabbitMQ", version).level, level, "{version}");
        }
        assert_eq!(judged("LavinMQ", "2.0.0").level, Level::Warning);
    }
}
