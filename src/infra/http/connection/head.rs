//! Where the head of a request ends, and what of it decides about the connection.

use super::framing::Framing;

/// The part of a head that matters before the server parses it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) framing: Framing,
    /// For the CORS headers of a rejection.
    pub(super) origin: Option<String>,
}

/// The length of the head that `bytes` begin with, including its empty line; `None` if it is incomplete. Looks at nothing
/// before `from` again, except for the end of a line.
pub(super) fn end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from.saturating_sub(2);
    loop {
        let rest = bytes.get(at..)?;
        let line_end = at + rest.iter().position(|byte| *byte == b'\n')?;
        match bytes.get(line_end + 1..)? {
            [b'\n', ..] => return Some(line_end + 2),
            [b'\r', b'\n', ..] => return Some(line_end + 3),
            _ => at = line_end + 1,
        }
    }
}

/// Line ends that may come before a request line.
pub(super) fn blank_lines(bytes: &[u8]) -> usize {
    bytes.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count()
}

/// Reads a complete head, and erases the request for another protocol: this server supports none. Without that, `Upgrade:
/// websocket` alone would make the server take everything that follows for the body, whatever `Content-Length` says, and
/// `Connection: upgrade` would end the connection.
///
/// Invalid heads may be misread, because the server rejects them.
pub(super) fn read(head: &mut [u8]) -> Head {
    let (mut length, mut chunked, mut origin) = (0, false, None);
    let is_tunnel = head.starts_with(b"CONNECT ");
    for line in head.split_mut(|byte| *byte == b'\n').skip(1) {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let (name, value) = line.split_at_mut(colon);
        let value = value.get_mut(1..).unwrap_or_default();
        if name.eq_ignore_ascii_case(b"upgrade") {
            erase(value);
        } else if name.eq_ignore_ascii_case(b"connection") {
            for option in value.split_mut(|byte| *byte == b',') {
                if option.trim_ascii().eq_ignore_ascii_case(b"upgrade") {
                    erase(option);
                }
            }
        } else if name.eq_ignore_ascii_case(b"content-length") {
            length = std::str::from_utf8(value).ok().and_then(|value| value.trim().parse().ok()).unwrap_or(0);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            chunked = true;
        } else if name.eq_ignore_ascii_case(b"origin") {
            origin = std::str::from_utf8(value).ok().map(|value| value.trim().to_owned());
        }
    }
    let framing = match length {
        _ if chunked => Framing::chunked(),
        0 if is_tunnel => Framing::Endless,
        0 => Framing::Over,
        bytes => Framing::Length(bytes),
    };
    Head { framing, origin }
}

/// Blanks a value, up to the line end that it may include.
fn erase(value: &mut [u8]) {
    for byte in value.iter_mut().filter(|byte| **byte != b'\r') {
        *byte = b' ';
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_ends_at_its_first_empty_line_wherever_it_was_cut() {
        for (bytes, expected) in [
            ("GET / HTTP/1.1\r\nhost: x\r\n\r\n", Some(27)),
            ("GET / HTTP/1.1\r\nhost: x\r\n\r\nGET / HTTP/1.1\r\n\r\n", Some(27)),
            ("GET / HTTP/1.1\nhost: x\n\nmore", Some(24)),
            ("GET / HTTP/1.1\nhost: x\n\r\nmore", Some(25)),
            ("GET / HTTP/1.1\r\nhost: x\r\n\r", None),
            ("GET / HTTP/1.1\r\nhost: x\r\n", None),
            ("GET / HTTP/1.1", None),
            ("", None),
        ] {
            for from in 0..expected.unwrap_or(bytes.len()) {
                assert_eq!(end(bytes.as_bytes(), from), expected, "{bytes:?} from {from}");
            }
        }
    }

    #[test]
    fn a_request_for_another_protocol_is_erased_and_nothing_else_is() {
        let mut head =
            b"POST / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade ,x\r\nx-upgrade: upgrade\r\n\
            Content-Length: 12\r\nOrigin: https://a.example\r\n\r\n"
                .to_vec();
        let read = read(&mut head);
        assert_eq!(read, Head { framing: Framing::Length(12), origin: Some("https://a.example".to_owned()) });
        assert_eq!(
            String::from_utf8_lossy(&head),
            "POST / HTTP/1.1\r\nUpgrade:          \r\nConnection: keep-alive,         ,x\r\nx-upgrade: upgrade\r\n\
            Content-Length: 12\r\nOrigin: https://a.example\r\n\r\n"
        );
    }

    #[test]
    fn the_framing_of_a_body_is_that_of_its_headers() {
        for (headers, framing) in [
            ("", Framing::Over),
            ("content-length: 0\r\n", Framing::Over),
            ("content-length: 5\r\n", Framing::Length(5)),
            ("upgrade: websocket\r\ncontent-length:5\r\n", Framing::Length(5)),
            ("transfer-encoding: chunked\r\n", Framing::chunked()),
        ] {
            let mut head = format!("POST / HTTP/1.1\r\nhost: x\r\n{headers}\r\n").into_bytes();
            assert_eq!(read(&mut head).framing, framing, "{headers:?}");
        }
        assert_eq!(read(&mut b"CONNECT x:1 HTTP/1.1\r\nhost: x\r\n\r\n".to_vec()).framing, Framing::Endless);
    }
}
