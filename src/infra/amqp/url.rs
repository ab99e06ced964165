//! The URLs of the broker: one, or one for each node of a cluster, separated by commas.

use std::net::Ipv6Addr;

use lapin::uri::{AMQPScheme, AMQPUri};

use crate::kernel::Secret;

/// Most URLs. A cluster has three or five nodes.
const URLS_MAX: usize = 16;
/// Where the management plugin listens by default.
const MANAGEMENT_PORTS: [u16; 2] = [15_671, 15_672];

/// The URLs in `text`. A comma separates two of them only where another one begins: a password may contain commas.
fn split(text: &str) -> Vec<&str> {
    let begins_a_url = |text: &str| {
        let scheme = text.trim_start().split_once("://").map(|(scheme, _)| scheme.to_ascii_lowercase());
        matches!(scheme.as_deref(), Some("amqp" | "amqps"))
    };
    let (mut urls, mut rest) = (Vec::new(), text);
    while let Some((url, next)) = rest
        .match_indices(',')
        .map(|(at, _)| rest.split_at(at))
        .find(|(_, next)| begins_a_url(next.trim_start_matches(',')))
    {
        urls.push(url.trim());
        rest = next.trim_start_matches(',');
    }
    urls.push(rest.trim());
    urls
}

/// The URLs, if all of them are valid and name one virtual host.
pub(crate) fn broker_urls(text: &str) -> Option<Vec<Secret>> {
    let urls = split(text);
    let parsed = urls.iter().map(|url| parse(url)).collect::<Option<Vec<_>>>()?;
    let (first, others) = parsed.split_first()?;
    let is_valid = urls.len() <= URLS_MAX
        && others.iter().all(|url| url.vhost == first.vhost)
        && parsed.iter().all(|url| !url.authority.host.contains(','))
        && !urls.iter().any(|url| continues(url));
    is_valid.then(|| urls.into_iter().map(Secret::new).collect())
}

/// What is wrong with text that [`broker_urls`] rejects, as the end of a sentence, where that can be said. The parser's own
/// message is withheld on purpose: it may quote the password.
pub(crate) fn broker_urls_problem(text: &str) -> Option<String> {
    let urls = split(text);
    let in_several = |n: usize| if urls.len() == 1 { String::new() } else { format!(" in URL {n}") };
    if urls.len() > URLS_MAX {
        return Some(format!("must be at most {URLS_MAX} URLs"));
    }
    for (n, url) in (1..).zip(&urls) {
        if authority(url).is_some_and(|authority| authority.contains(',')) {
            return Some(format!(
                "names several hosts{}. Write a URL for each of them, separated by commas: \
                 amqp://user:password@host1:5672/%2f,amqp://user:password@host2:5672/%2f",
                in_several(n)
            ));
        }
        if parse(url).is_some() && continues(url) {
            let several = in_several(n);
            return Some(if path(url).contains(',') {
                format!("has a comma{several} after which no amqp:// or amqps:// URL begins")
            } else {
                format!("seems to have another URL in its virtual host{several}. Separate several URLs by commas")
            });
        }
        if parse(url).is_none() && urls.len() > 1 {
            return Some(format!("must be RabbitMQ URLs like amqp://user:password@host:5672/%2f; number {n} is not"));
        }
    }
    let hosts = urls.iter().filter_map(|url| parse(url)).map(|url| url.vhost).collect::<Vec<_>>();
    let differ = hosts.windows(2).any(|pair| pair.first() != pair.last());
    differ.then(|| "must name the same virtual host in every URL".to_owned())
}

/// Whether what will be read as its virtual host is another URL, whose login must not be shown. A virtual host that is meant has
/// neither, unless percent-encoded.
fn continues(url: &str) -> bool {
    path(url).contains("://") || path(url).contains('@')
}

fn path(url: &str) -> &str {
    let path = url.split_once("://").and_then(|(_, rest)| rest.split_once('/')).map_or("", |(_, path)| path);
    path.split_once('?').map_or(path, |(path, _)| path)
}

/// Host and port, without the login.
fn authority(url: &str) -> Option<&str> {
    let (_, after_scheme) = url.split_once("://")?;
    let authority = after_scheme.split(['/', '?', '#']).next()?;
    Some(authority.rsplit_once('@').map_or(authority, |(_, host)| host))
}

/// lapin's parser, which however takes an IPv6 address for `localhost`.
pub(super) fn parse(url: &str) -> Option<AMQPUri> {
    let mut uri: AMQPUri = url.parse().ok()?;
    if let Some((address, _)) = authority(url)?.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        uri.authority.host = address.parse::<Ipv6Addr>().ok()?.to_string();
    }
    Some(uri)
}

/// Valid URLs with `mask` in the place of each password, and without parameters.
pub(crate) fn urls_without_passwords(text: &str, mask: &str) -> Option<String> {
    let urls = split(text).into_iter().map(|url| {
        let AMQPUri { scheme, authority, vhost, .. } = parse(url).filter(|_| !continues(url))?;
        let scheme = match scheme {
            AMQPScheme::AMQP => "amqp",
            AMQPScheme::AMQPS => "amqps",
        };
        let host = bracketed(&authority.host);
        let (user, vhost) = (authority.userinfo.username, vhost.replace('/', "%2f"));
        Some(format!("{scheme}://{user}:{mask}@{host}:{}/{vhost}", authority.port))
    });
    Some(urls.collect::<Option<Vec<_>>>()?.join(","))
}

/// A host as it is written before a port.
pub(super) fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

/// The end of a sentence that begins with valid broker URLs: what one of them probably does not mean. Only the broker knows
/// whether it does. It does not quote the login.
pub(crate) fn doubt(text: &str) -> Option<String> {
    split(text).into_iter().find_map(|url| doubt_of(url, &parse(url)?))
}

fn doubt_of(url: &str, uri: &AMQPUri) -> Option<String> {
    let (port, virtual_host) = (uri.authority.port, &uri.vhost);
    if virtual_host.is_empty() {
        Some(r#"names the virtual host "". End it with /%2f for the default one, which is called /"#.to_owned())
    } else if virtual_host.contains(',') {
        Some(format!(
            "names the virtual host {virtual_host:?}, which contains a comma. Several URLs are written in full"
        ))
    } else if virtual_host.contains('/') && virtual_host != "/" && !url.to_ascii_lowercase().contains("%2f") {
        let encoded = virtual_host.replace('/', "%2f");
        Some(format!(
            "names the virtual host {virtual_host:?}. If that is intended, write it as /{encoded}; the default one is /%2f"
        ))
    } else if MANAGEMENT_PORTS.contains(&port) {
        Some(format!(
            "names port {port}, where RabbitMQ serves its management pages. AMQP is on 5672, with TLS on 5671"
        ))
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_shown_without_their_passwords_and_parameters() {
        for (url, shown) in [
            ("amqp://u:hunter22@h", "amqp://u:*@h:5672/%2f"),
            ("amqps://u:hunter22@[::1]:1/team%2fa?heartbeat=5&password=hunter22", "amqps://u:*@[::1]:1/team%2fa"),
            ("amqp://u:hunter22@a , amqps://v:hunter22@b:2", "amqp://u:*@a:5672/%2f,amqps://v:*@b:2/%2f"),
            ("amqp://u:hunter22,x@a,amqp://u:hunter22,@b", "amqp://u:*@a:5672/%2f,amqp://u:*@b:5672/%2f"),
        ] {
            assert_eq!(urls_without_passwords(url, "*").as_deref(), Some(shown), "{url}");
        }
        assert_eq!(urls_without_passwords("http://u:hunter22@h", "*"), None);
        for hidden in ["amqp://u:hunter22@h,amqp://u:hunter23@h:x", "amqp://u:hunter22@h/v,http://u:hunter22@h"] {
            assert_eq!(urls_without_passwords(hidden, "*"), None, "{hidden}");
        }
    }

    #[test]
    fn only_amqp_urls_are_valid() {
        for (valid, count) in [
            ("amqp://guest:guest@localhost:5672/%2f", 1),
            ("amqps://u:p@broker/vhost", 1),
            ("amqp://u:p,q@h/v", 1),
            ("amqp://u:p@a/v,AMQPS://u:p@b/v", 2),
            ("amqp://u:p@a/v, amqp://u:p@b/v,\tamqp://u:p@c/v", 3),
        ] {
            assert_eq!(broker_urls(valid).map(|urls| urls.len()), Some(count), "{valid}");
            assert_eq!(broker_urls_problem(valid), None, "{valid}");
        }
        let many = vec!["amqp://h"; URLS_MAX + 1].join(",");
        for (refused, why) in [
            ("", None),
            ("http://localhost", None),
            ("localhost:5672", None),
            ("amqp://u:hunter22@host:port", None),
            ("amqp://u:hunter22@h1,h2", Some("names several hosts. Write a URL for each")),
            ("amqp://u:hunter22@h1:1,h2:2/%2f", Some("names several hosts. Write a URL for each")),
            ("amqp://u:hunter22@a,amqp://u:hunter22@b,c", Some("names several hosts in URL 2")),
            ("amqp://u:hunter22@a,amqp://u:hunter22@b:x", Some("number 2 is not")),
            ("amqp://u:hunter22@a/one,amqp://u:hunter22@b/two", Some("the same virtual host")),
            ("amqp://u:hunter22@a/%2f,v:hunter22@b/%2f", Some("has a comma after which no")),
            ("amqp://u:hunter22@a/%2f,http://b", Some("has a comma after which no")),
            ("amqp://u:hunter22@a/%2f;amqp://u:hunter22@b/%2f", Some("Separate several URLs by commas")),
            ("amqp://u:hunter22@a/%2f amqp://u:hunter22@b/%2f", Some("Separate several URLs by commas")),
            ("amqp://u:hunter22@a;amqp://u:hunter22@b", Some("Separate several URLs by commas")),
            ("amqp://u:hunter22@a/%2f,amqp://b/%2f;amqp://b/%2f", Some("in URL 2. Separate several")),
            (&many, Some("at most 16")),
        ] {
            assert!(broker_urls(refused).is_none(), "{refused}");
            let problem = broker_urls_problem(refused);
            assert_eq!(problem.is_some(), why.is_some(), "{refused}: {problem:?}");
            let problem = problem.unwrap_or_default();
            assert!(problem.contains(why.unwrap_or_default()) && !problem.contains("hunter22"), "{refused}: {problem}");
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
            ("amqp://u:p@one/%2f,two", "comma"),
            ("amqp://u:p@host:15672/%2f", "15672"),
            ("amqp://u:p@host/%2f,amqp://u:p@host:15672/%2f", "15672"),
        ] {
            let text = doubt(url).unwrap_or_else(|| panic!("{url}"));
            assert!(text.contains(word) && !text.contains("u:p"), "{url}: {text}");
        }
        for url in [
            "amqp://host",
            "amqp://u:p@host/%2f",
            "amqp://u:p@host/%2F",
            "amqp://u:p@host/team%2fa",
            "amqp://host/a",
            "amqp://u:p@one/a,amqp://u:p@two/a",
        ] {
            assert_eq!(doubt(url), None, "{url}");
        }
    }
}
