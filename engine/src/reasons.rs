//! Why rows were rejected, counted: however many rows and however long their lists are, this stays a few lines. What becomes of
//! the rows is `quarantine`'s.

use weir_connectors::Reject;

/// Reasons that are told apart; what is met later is counted together.
const REASONS_MAX: usize = 100;

/// How often each reason was met.
#[derive(Debug, Default)]
pub struct Reasons {
    counts: Vec<(String, Option<String>, u64)>,
    others: u64,
}

impl Reasons {
    /// Counts one rejected row.
    pub fn count(&mut self, reject: &Reject) {
        let column = reject.column.as_deref();
        if let Some((.., count)) = self.counts.iter_mut().find(|(code, known, _)| *code == reject.code && same(known.as_deref(), column)) {
            *count += 1;
        } else if self.counts.len() < REASONS_MAX {
            self.counts.push((reject.code.clone(), column.map(shape), 1));
        } else {
            self.others += 1;
        }
    }

    /// The most frequent ones, in words: `3 × minimum in "amount"`.
    pub fn lines(&self, most: usize) -> Vec<String> {
        let mut counts: Vec<_> = self.counts.iter().collect();
        counts.sort_by(|a, b| b.2.cmp(&a.2).then_with(|| (&a.0, &a.1).cmp(&(&b.0, &b.1))));
        let mut lines: Vec<String> = counts
            .iter()
            .take(most)
            .map(|(code, column, count)| {
                let column = column.as_ref().map(|column| format!(" in \"{column}\"")).unwrap_or_default();
                format!("{count} × {code}{column}")
            })
            .collect();
        let rest = self.others + counts.iter().skip(most).map(|(.., count)| count).sum::<u64>();
        if rest > 0 {
            lines.push(format!("{rest} for other reasons"));
        }
        lines
    }
}

/// A path inside a column without the numbers of its items: `items/17/price` is `items/*/price`.
fn shape(column: &str) -> String {
    let mut parts = column.split('/');
    let mut shape = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        shape.push('/');
        shape.push_str(if is_number(part) { "*" } else { part });
    }
    shape
}

fn is_number(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

/// True where a column has this shape.
fn same(shape: Option<&str>, column: Option<&str>) -> bool {
    let (Some(shape), Some(column)) = (shape, column) else { return shape == column };
    if shape == column {
        return true;
    }
    let (mut shapes, mut parts) = (shape.split('/'), column.split('/'));
    shapes.next() == parts.next() && {
        loop {
            match (shapes.next(), parts.next()) {
                (None, None) => break true,
                (Some(shape), Some(part)) if shape == part || (shape == "*" && is_number(part)) => {}
                _ => break false,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reject(code: &str, column: Option<&str>) -> Reject {
        Reject {
            file: None,
            row: None,
            code: code.into(),
            column: column.map(str::to_owned),
            reason: String::new(),
            raw: String::new(),
            fields: None,
        }
    }

    #[test]
    fn places_in_lists_are_one_reason_and_the_rest_is_counted_together() {
        let mut reasons = Reasons::default();
        for item in 0..10_000 {
            reasons.count(&reject("type", Some(&format!("items/{item}/price"))));
        }
        reasons.count(&reject("type", Some("items")));
        reasons.count(&reject("required", None));
        assert_eq!(reasons.lines(5), ["10000 × type in \"items/*/price\"", "1 × required", "1 × type in \"items\""]);
        for name in 0..10_000 {
            reasons.count(&reject("minimum", Some(&format!("2013/c{name}"))));
        }
        assert_eq!(reasons.counts.len(), REASONS_MAX);
        assert_eq!(reasons.lines(1), ["10000 × type in \"items/*/price\"", "10002 for other reasons"]);
    }
}
