//! A minimal reader of Rust source that finds the paths in its code, and its text literals.

/// A word or punctuation mark, and its line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    pub text: String,
    pub line: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Comment,
    Literal,
}

/// All of a source file, in parts.
fn parts(source: &str) -> Vec<(Kind, Token)> {
    let chars: Vec<char> = source.chars().collect();
    let (mut parts, mut begin, mut line) = (Vec::new(), 0, 1);
    while begin < chars.len() {
        let rest = &chars[begin..];
        let (length, kind) = next(rest);
        let part = &rest[..length.clamp(1, rest.len())];
        parts.push((kind, Token { text: part.iter().collect(), line }));
        line += part.iter().filter(|c| **c == '\n').count();
        begin += part.len();
    }
    parts
}

/// The tokens of a source file, without comments and literals.
pub fn tokens(source: &str) -> Vec<Token> {
    let is_token = |kind: Kind, token: &Token| kind == Kind::Code && !token.text.trim().is_empty();
    parts(source).into_iter().filter(|(kind, token)| is_token(*kind, token)).map(|(_, token)| token).collect()
}

/// The text literals of a source file, each on its line and followed by `|`. Those of a single word are left out, because
/// they are names.
pub fn literals(source: &str) -> String {
    let mut text = String::new();
    for (kind, Token { text: part, .. }) in parts(source) {
        if kind == Kind::Literal && part.contains('"') && part.contains(char::is_whitespace) {
            let mut chars = part.chars();
            while let Some(c) = chars.next() {
                // The letter of an escape sequence is not part of a word.
                let escaped = if c == '\\' { chars.next() } else { None };
                text.push(escaped.map_or(c, |c| if c == '\n' { c } else { ' ' }));
            }
            text.push('|');
        } else {
            text.extend(part.chars().filter(|c| *c == '\n'));
        }
    }
    text
}

const fn is_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || !c.is_ascii()
}

/// The length of the first token of `rest`, and its kind.
fn next(rest: &[char]) -> (usize, Kind) {
    match rest {
        ['/', '/', ..] => (rest.iter().take_while(|c| **c != '\n').count(), Kind::Comment),
        ['/', '*', ..] => (block_comment(rest), Kind::Comment),
        ['"', ..] => (quoted(rest, '"'), Kind::Literal),
        // A character literal ('a', '\n'), not a lifetime ('a).
        ['\'', '\\', ..] | ['\'', _, '\'', ..] => (quoted(rest, '\''), Kind::Literal),
        [':', ':', ..] => (2, Kind::Code),
        [first, ..] if is_word(*first) => {
            let length = rest.iter().take_while(|c| is_word(**c)).count();
            raw_text(rest, length).map_or((length, Kind::Code), |length| (length, Kind::Literal))
        }
        _ => (1, Kind::Code),
    }
}

fn block_comment(rest: &[char]) -> usize {
    let (mut depth, mut index) = (0_usize, 0);
    loop {
        match &rest[index..] {
            ['/', '*', ..] => (depth, index) = (depth + 1, index + 2),
            ['*', '/', ..] => (depth, index) = (depth - 1, index + 2),
            [] => return index,
            _ => index += 1,
        }
        if depth == 0 {
            return index;
        }
    }
}

fn quoted(rest: &[char], mark: char) -> usize {
    let mut index = 1;
    while let Some(c) = rest.get(index).filter(|c| **c != mark) {
        index += if *c == '\\' { 2 } else { 1 };
    }
    index + 1
}

/// The length of `r"…"` or `r#"…"#`, if `rest` begins with one.
fn raw_text(rest: &[char], word: usize) -> Option<usize> {
    let prefix: String = rest[..word].iter().collect();
    let hashes = rest[word..].iter().take_while(|c| **c == '#').count();
    let opens = matches!(prefix.as_str(), "r" | "br" | "cr") && rest.get(word + hashes) == Some(&'"');
    let body = word + hashes + 1;
    let end: Vec<char> = std::iter::once('"').chain(std::iter::repeat_n('#', hashes)).collect();
    opens.then(|| {
        let inside = rest[body..].windows(end.len()).position(|window| window == end);
        inside.map_or(rest.len(), |inside| body + inside + end.len())
    })
}

/// Every path of this crate in the code, as an absolute path with its line: `crate::…`, `purse::…` and resolved
/// `super::…`. Groups are expanded.
pub fn named_paths(module: &[String], tokens: &[Token]) -> Vec<(String, usize)> {
    let text = |index: usize| tokens.get(index).map_or("", |token| token.text.as_str());
    let (mut paths, mut inline, mut depth, mut index) = (Vec::new(), Vec::new(), 0_usize, 0);
    while index < tokens.len() {
        match text(index) {
            "{" => depth += 1,
            "}" => {
                depth = depth.saturating_sub(1);
                inline.retain(|opened| *opened < depth);
            }
            "mod" if text(index + 2) == "{" => inline.push(depth),
            "crate" | "purse" if text(index + 1) == "::" && (index == 0 || text(index - 1) != "::") => {
                expand(tokens, index + 2, &[], &mut paths);
            }
            "super" if text(index + 1) == "::" && (index == 0 || text(index - 1) != "::") => {
                let mut supers = 1;
                while text(index + 2 * supers) == "super" {
                    supers += 1;
                }
                let outside = supers.saturating_sub(inline.len());
                if outside > 0 {
                    let base = &module[..module.len().saturating_sub(outside)];
                    expand(tokens, index + 2 * supers, base, &mut paths);
                }
                index += 2 * supers - 2;
            }
            _ => {}
        }
        index += 1;
    }
    paths
}

/// The child modules that a file declares with `mod name;`.
fn children(tokens: &[Token]) -> Vec<&str> {
    let declares = |window: &&[Token]| window[0].text == "mod" && window[2].text == ";";
    tokens.windows(3).filter(declares).map(|window| window[1].text.as_str()).collect()
}

/// What a file imports from its child modules under names of its own, as absolute paths.
pub fn reexports(module: &[String], tokens: &[Token]) -> Vec<String> {
    let (text, children) = (|index: usize| tokens[index].text.as_str(), children(tokens));
    let begins = (1..tokens.len()).filter(|i| {
        let first = if text(*i) == "self" { i + 2 } else { *i };
        text(i - 1) == "use" && tokens.get(first).is_some_and(|token| children.contains(&token.text.as_str()))
    });
    let mut paths = Vec::new();
    for index in begins {
        expand(tokens, index, module, &mut paths);
    }
    paths.into_iter().map(|(path, _)| path).collect()
}

/// What a file uses of its child modules, as absolute paths with their lines. A `pub use` only passes items on.
pub fn child_paths(module: &[String], tokens: &[Token]) -> Vec<(String, usize)> {
    let text = |index: Option<usize>| index.and_then(|index| tokens.get(index)).map_or("", |token| token.text.as_str());
    let children = children(tokens);
    let mut paths = Vec::new();
    for index in (0..tokens.len()).filter(|i| children.contains(&text(Some(*i)))) {
        let is_path = text(Some(index + 1)) == "::" && text(Some(index + 2)) != "<";
        let begin =
            if text(index.checked_sub(1)) == "::" && text(index.checked_sub(2)) == "self" { index - 2 } else { index };
        let before = text(begin.checked_sub(1));
        let passes_on = before == "use" && matches!(text(begin.checked_sub(2)), "pub" | ")");
        if is_path && before != "::" && !passes_on {
            expand(tokens, index, module, &mut paths);
        }
    }
    paths
}

/// Adds the path that begins at `index`, relative to `base`; returns the index after it.
fn expand(tokens: &[Token], mut index: usize, base: &[String], paths: &mut Vec<(String, usize)>) -> usize {
    let mut path = base.to_vec();
    while let Some(token) = tokens.get(index) {
        if token.text == "{" {
            index += 1;
            while tokens.get(index).is_some_and(|token| token.text != "}") {
                index = expand(tokens, index, &path, paths);
                while tokens.get(index).is_some_and(|token| !matches!(token.text.as_str(), "," | "}")) {
                    index += 1; // `as name`
                }
                index += usize::from(tokens.get(index).is_some_and(|token| token.text == ","));
            }
            return index + 1;
        }
        if token.text != "self" {
            path.push(token.text.clone());
        }
        let goes_on = tokens.get(index + 1).is_some_and(|next| next.text == "::")
            && tokens.get(index + 2).is_some_and(|next| next.text != "<");
        if !goes_on {
            paths.push((path.join("::"), token.line));
            return index + 1;
        }
        index += 2;
    }
    index
}
