//! How much of what arrives belongs to the body of the current request.
//!
//! This only decides when bytes are handed to the server, which does its own, strict parsing. A body that is misread here
//! is therefore never misread there: it is invalid, or it is waited for until the time limit.

/// What is still to come of a body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    Over,
    /// Bytes left.
    Length(u64),
    Chunked(Chunk),
    /// All that follows.
    Endless,
}

/// The position in a chunked body.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Chunk {
    /// In the line that begins a chunk; the size so far, and whether its digits are over.
    Size(u64, bool),
    /// Bytes left, including the line end after the data.
    Data(u64),
    /// In the lines after the last chunk; whether the current one is empty so far.
    Trailer(bool),
}

impl Framing {
    pub(super) const fn chunked() -> Self {
        Self::Chunked(Chunk::Size(0, false))
    }

    pub(super) fn is_over(&self) -> bool {
        *self == Self::Over
    }

    /// The number of the next `bytes` that belong to the body. They count as received.
    pub(super) fn take(&mut self, bytes: &[u8]) -> usize {
        match self {
            Self::Over => 0,
            Self::Endless => bytes.len(),
            Self::Length(left) => {
                let taken = bytes.len().min(usize::try_from(*left).unwrap_or(usize::MAX));
                *left = left.saturating_sub(u64::try_from(taken).unwrap_or(u64::MAX));
                if *left == 0 {
                    *self = Self::Over;
                }
                taken
            }
            Self::Chunked(_) => self.take_chunks(bytes),
        }
    }

    fn take_chunks(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while let (Self::Chunked(chunk), Some(byte)) = (&mut *self, bytes.get(at)) {
            match chunk {
                Chunk::Data(left) => {
                    let available = u64::try_from(bytes.len() - at).unwrap_or(u64::MAX).min(*left);
                    *left -= available;
                    if *left == 0 {
                        *chunk = Chunk::Size(0, false);
                    }
                    at = at.saturating_add(usize::try_from(available).unwrap_or(usize::MAX));
                    continue;
                }
                Chunk::Size(size, _) if *byte == b'\n' => {
                    // The data is followed by CRLF.
                    *chunk = if *size == 0 { Chunk::Trailer(true) } else { Chunk::Data(size.saturating_add(2)) };
                }
                Chunk::Size(size, ended) => match char::from(*byte).to_digit(16) {
                    Some(digit) if !*ended => *size = size.saturating_mul(16).saturating_add(digit.into()),
                    _ => *ended = true,
                },
                Chunk::Trailer(true) if *byte == b'\n' => *self = Self::Over,
                Chunk::Trailer(empty) => *empty = matches!(byte, b'\n' | b'\r') && (*empty || *byte == b'\n'),
            }
            at += 1;
        }
        at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEXT: &str = "GET / HTTP/1.1\r\n\r\n";

    /// The bytes of `body` and of what follows it that are taken, in parts of this size.
    fn taken(framing: &Framing, body: &str, part: usize) -> (usize, bool) {
        let (mut framing, mut taken) = (framing.clone(), 0);
        for part in format!("{body}{NEXT}").as_bytes().chunks(part) {
            let count = framing.take(part);
            taken += count;
            if count < part.len() {
                break;
            }
        }
        (taken, framing.is_over())
    }

    #[test]
    fn exactly_the_body_is_taken_in_parts_of_any_size() {
        for (framing, body) in [
            (Framing::Over, ""),
            (Framing::Length(5), "hello"),
            (Framing::chunked(), "0\r\n\r\n"),
            (Framing::chunked(), "5\r\nhello\r\n0\r\n\r\n"),
            (Framing::chunked(), "1\r\n\n\r\n2\r\n\r\n\r\n0\r\n\r\n"),
            (Framing::chunked(), "a;x=1f\r\n0123456789\r\n5 ;y\r\nhello\r\n000\r\n\r\n"),
            (Framing::chunked(), "5\r\nhello\r\n0\r\ntrailer: 1\r\nother: 2\r\n\r\n"),
        ] {
            for part in 1..=body.len() + NEXT.len() {
                assert_eq!(taken(&framing, body, part), (body.len(), true), "{body:?} in parts of {part}");
            }
        }
    }

    #[test]
    fn a_body_that_is_not_complete_is_not_over() {
        for (framing, body) in [
            (Framing::Length(6), "hello"),
            (Framing::chunked(), "5\r\nhello\r\n0\r\n"),
            (Framing::chunked(), "ffffffffffffffffffff\r\nhello\r\n0\r\n\r\n"),
            (Framing::Endless, "hello"),
        ] {
            let mut framing = framing;
            assert_eq!(framing.take(body.as_bytes()), body.len());
            assert!(!framing.is_over(), "{body:?}");
        }
    }
}
