//! Whether a regular expression compiles in RE2, the engine of Envoy and of Istio's webhook.
//!
//! Rust's `regex` accepts and refuses other things, so this reads RE2's grammar itself. It
//! judges syntax and repetition counts, not the size of the compiled program.

/// What RE2 refuses, with the byte offset in the pattern; `None` if it compiles.
pub(crate) fn refuse(pattern: &str) -> Option<(usize, String)> {
    let mut p = Parser { text: pattern, chars: pattern.char_indices().collect(), at: 0 };
    p.alternatives(0).err().or_else(|| (p.at < p.chars.len()).then(|| (p.offset(), "a `)` without `(`".to_owned())))
}

struct Parser<'t> {
    text: &'t str,
    chars: Vec<(usize, char)>,
    at: usize,
}

type Outcome<T = ()> = Result<T, (usize, String)>;

/// RE2's limit on `{n,m}`.
const MAX_REPEAT: u32 = 1000;
/// RE2 allows 1000 nested groups; Go's parser too.
const MAX_DEPTH: usize = 1000;

impl<'t> Parser<'t> {
    fn offset(&self) -> usize {
        self.chars.get(self.at).map_or(self.text.len(), |(offset, _)| *offset)
    }

    fn peek(&self) -> Option<char> {
        self.chars.get(self.at).map(|(_, c)| *c)
    }

    fn rest(&self) -> &'t str {
        &self.text[self.offset()..]
    }

    fn eat(&mut self, c: char) -> bool {
        let hit = self.peek() == Some(c);
        self.at += usize::from(hit);
        hit
    }

    fn fail<T>(&self, what: &str) -> Outcome<T> {
        Err((self.offset(), what.to_owned()))
    }

    fn alternatives(&mut self, depth: usize) -> Outcome {
        if depth > MAX_DEPTH {
            return self.fail("groups nested too deep");
        }
        loop {
            self.sequence(depth)?;
            if !self.eat('|') {
                return Ok(());
            }
        }
    }

    fn sequence(&mut self, depth: usize) -> Outcome {
        // Whether there is something that an operator could repeat.
        let mut operand = false;
        while let Some(c) = self.peek() {
            match c {
                '|' | ')' => return Ok(()),
                '*' | '+' | '?' => {
                    if !operand {
                        return self.fail("nothing to repeat");
                    }
                    self.at += 1;
                    self.eat('?');
                    if matches!(self.peek(), Some('*' | '+' | '?')) {
                        return self.fail("a repetition of a repetition");
                    }
                }
                '{' => match self.counts()? {
                    true if !operand => return self.fail("nothing to repeat"),
                    true => {
                        self.eat('?');
                        if matches!(self.peek(), Some('*' | '+' | '?')) {
                            return self.fail("a repetition of a repetition");
                        }
                    }
                    false => {
                        // A brace that opens no count is a brace.
                        self.at += 1;
                        operand = true;
                    }
                },
                '(' => {
                    self.at += 1;
                    let flags_only = self.group_start()?;
                    if flags_only {
                        continue;
                    }
                    self.alternatives(depth + 1)?;
                    if !self.eat(')') {
                        return self.fail("a `(` is not closed");
                    }
                    operand = true;
                }
                '[' => {
                    self.class()?;
                    operand = true;
                }
                '\\' => {
                    self.escape(false)?;
                    operand = true;
                }
                _ => {
                    self.at += 1;
                    operand = true;
                }
            }
        }
        Ok(())
    }

    /// `{2}`, `{2,}`, `{2,5}` at the position: true and consumed, or false.
    fn counts(&mut self) -> Outcome<bool> {
        let rest = self.rest();
        let Some(end) = rest.find('}') else {
            return Ok(false);
        };
        let body = &rest[1..end];
        let (low, high) = match body.split_once(',') {
            None => (body, Some(body)),
            Some((low, "")) => (low, None),
            Some((low, high)) => (low, Some(high)),
        };
        let digits = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_digit());
        if !digits(low) || !high.is_none_or(digits) {
            return Ok(false);
        }
        let number = |s: &str| s.parse::<u32>().unwrap_or(u32::MAX);
        let (low, high) = (number(low), high.map(number));
        if low > MAX_REPEAT || high.is_some_and(|h| h > MAX_REPEAT) {
            return self.fail("more than 1000 repetitions");
        }
        if high.is_some_and(|h| h < low) {
            return self.fail("a repetition that ends before it begins");
        }
        self.at += body.chars().count() + 2;
        Ok(true)
    }

    /// After `(`; true for `(?i)`, which opens nothing.
    fn group_start(&mut self) -> Outcome<bool> {
        if !self.eat('?') {
            return Ok(false);
        }
        let rest = self.rest();
        for look in ["=", "!", "<=", "<!"] {
            if rest.starts_with(look) {
                return self.fail("looking ahead or behind");
            }
        }
        if rest.starts_with('>') {
            return self.fail("an atomic group");
        }
        if rest.starts_with("P=") {
            return self.fail("a back reference");
        }
        let name = rest.strip_prefix("P<").or_else(|| rest.strip_prefix('<'));
        if let Some(name) = name {
            let skip = rest.chars().count() - name.chars().count();
            let Some((name, _)) = name.split_once('>') else {
                return self.fail("a group name that is not closed");
            };
            let good = |c: char| c == '_' || c.is_alphanumeric();
            if name.is_empty() || !name.chars().all(good) {
                return self.fail("a group name of other signs than letters, digits and _");
            }
            self.at += skip + name.chars().count() + 1;
            return Ok(false);
        }
        let mut any = false;
        let mut negated = false;
        loop {
            match self.peek() {
                Some('i' | 'm' | 's' | 'U') => any = true,
                Some('-') if !negated => {
                    negated = true;
                    any = false;
                }
                Some(':') if any || !negated => {
                    self.at += 1;
                    return Ok(false);
                }
                Some(')') if any => {
                    self.at += 1;
                    return Ok(true);
                }
                _ => return self.fail("a group of unknown kind after `(?`"),
            }
            self.at += 1;
        }
    }

    fn class(&mut self) -> Outcome {
        let open = self.offset();
        self.at += 1;
        self.eat('^');
        let mut first = true;
        loop {
            let Some(c) = self.peek() else {
                return Err((open, "a `[` is not closed".to_owned()));
            };
            if c == ']' && !first {
                self.at += 1;
                return Ok(());
            }
            first = false;
            if self.rest().starts_with("[:") && self.rest()[2..].contains(":]") {
                self.posix()?;
                continue;
            }
            let low = self.class_char()?;
            let is_range = self.peek() == Some('-') && self.chars.get(self.at + 1).is_some_and(|(_, c)| *c != ']');
            if is_range {
                self.at += 1;
                let high = self.class_char()?;
                match (low, high) {
                    (Some(l), Some(h)) if l <= h => {}
                    _ => return self.fail("a range that ends before it begins"),
                }
            }
        }
    }

    fn posix(&mut self) -> Outcome {
        let rest = self.rest();
        let end = rest.find(":]").unwrap_or(0);
        let name = rest[2..end].trim_start_matches('^');
        let known =
            ["alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word", "xdigit"];
        if !known.contains(&name) {
            return self.fail("a character class of unknown name");
        }
        self.at += rest[..end].chars().count() + 2;
        Ok(())
    }

    /// One member of a class; `None` for a class in it, such as `\d`.
    fn class_char(&mut self) -> Outcome<Option<char>> {
        match self.peek() {
            Some('\\') => self.escape(true),
            Some(c) => {
                self.at += 1;
                Ok(Some(c))
            }
            None => self.fail("a `[` is not closed"),
        }
    }

    fn escape(&mut self, in_class: bool) -> Outcome<Option<char>> {
        let start = self.at;
        self.at += 1;
        let Some(c) = self.peek() else {
            return self.fail("a `\\` at the end");
        };
        self.at += 1;
        let fail = |p: &Self, what: &str| {
            let offset = p.chars.get(start).map_or(0, |(o, _)| *o);
            Err((offset, what.to_owned()))
        };
        match c {
            'd' | 'D' | 's' | 'S' | 'w' | 'W' => Ok(None),
            'a' | 'f' | 't' | 'n' | 'r' | 'v' => Ok(Some(c)),
            'A' | 'z' | 'b' | 'B' | 'C' if !in_class => Ok(None),
            'Q' if !in_class => {
                let rest = self.rest();
                let body = rest.find("\\E").map_or(rest, |n| &rest[..n + 2]);
                self.at += body.chars().count();
                Ok(None)
            }
            'E' if !in_class => Ok(None),
            'p' | 'P' => {
                let ok = if self.eat('{') {
                    let rest = self.rest();
                    match rest.find('}') {
                        Some(end) if end > 0 => {
                            self.at += rest[..end].chars().count() + 1;
                            true
                        }
                        _ => false,
                    }
                } else {
                    let hit = self.peek().is_some_and(|c| c.is_ascii_alphabetic());
                    self.at += usize::from(hit);
                    hit
                };
                if ok { Ok(None) } else { fail(self, "a `\\p` without a class") }
            }
            'x' => {
                let rest = self.rest();
                let hex = |s: &str| !s.is_empty() && s.bytes().all(|b| b.is_ascii_hexdigit());
                if let Some(body) = rest.strip_prefix('{') {
                    let code = body.find('}').map(|n| &body[..n]).filter(|b| hex(b));
                    match code {
                        Some(code) => {
                            self.at += code.len() + 2;
                            let value = u32::from_str_radix(code, 16).ok();
                            match value.and_then(char::from_u32) {
                                Some(c) => Ok(Some(c)),
                                None => fail(self, "a code beyond Unicode"),
                            }
                        }
                        None => fail(self, "a `\\x` without a code"),
                    }
                } else {
                    match rest.get(..2).filter(|b| hex(b)) {
                        Some(code) => {
                            self.at += 2;
                            let value = u32::from_str_radix(code, 16).unwrap_or(0);
                            Ok(char::from_u32(value))
                        }
                        None => fail(self, "a `\\x` without two hex digits"),
                    }
                }
            }
            '0' => {
                for _ in 0..2 {
                    if matches!(self.peek(), Some('0'..='7')) {
                        self.at += 1;
                    }
                }
                Ok(Some('\0'))
            }
            '1'..='7' if matches!(self.peek(), Some('0'..='7')) => {
                for _ in 0..2 {
                    if matches!(self.peek(), Some('0'..='7')) {
                        self.at += 1;
                    }
                }
                Ok(Some('\u{1}'))
            }
            '1'..='9' => fail(self, "a back reference"),
            'Z' | 'G' | 'K' | 'X' | 'R' | 'h' | 'H' | 'u' | 'U' | 'c' | 'e' | 'k' | 'g' | 'l' | 'L' | 'N' | 'o' => {
                fail(self, &format!("`\\{c}`"))
            }
            c if c.is_ascii_alphanumeric() => fail(self, &format!("`\\{c}`")),
            c if c.is_ascii() => Ok(Some(c)),
            _ => fail(self, &format!("`\\{c}`")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_re2_takes_is_taken() {
        for ok in [
            "",
            "/api/v[12]/.*",
            "^(.*?;)?(user=jason)(;.*)?$",
            "(?i)chrome",
            "(?P<id>[0-9]+)",
            "(?<id>x)",
            "(?:a|b){2,5}?",
            "a{,3}",
            "x{",
            "[]a-z]",
            "[^]]",
            "[[:alpha:]_-]",
            r"\d+\.\d+\z",
            r"\p{Greek}\pL",
            r"\Qa.b\E+",
            r"[\w.-]+@x",
            r"\x{1F600}",
            "(?i-s:x)",
            "a||b",
            "()",
            "ü*",
        ] {
            assert_eq!(refuse(ok), None, "{ok}");
        }
    }

    #[test]
    fn what_re2_refuses_is_refused() {
        for bad in [
            "(?=x)",
            "(?!x)",
            "(?<=x)",
            "(?<!x)",
            "(?>x)",
            r"(a)\1",
            "(?P=x)",
            "*a",
            "a**",
            "a{2000}",
            "a{3,2}",
            "(",
            ")",
            "[a",
            "[z-a]",
            r"\Z",
            r"\",
            "(?x)a",
            "[[:foo:]]",
            r"\u0041",
            "+",
            "(|*)",
        ] {
            assert!(refuse(bad).is_some(), "{bad}");
        }
    }
}
