//! What is there? The lists of `\l`, `\dn`, `\dt`, `\d`, `\df`, drawn as text.

use std::collections::BTreeMap;

use weir_engine::query::TableName;
use weir_pipelines::Diagnostic;

use crate::render::{Style, Table, number::count, table::Look};

/// A table's whole name.
pub fn qualified(table: &TableName) -> String {
    format!("{}.{}.{}", table.catalog, table.schema, table.table)
}

/// The catalogues: those of the tables, and those that have none.
pub fn catalogues(tables: &[TableName], all: &[String], about: impl Fn(&str) -> String, pattern: Option<&str>, style: Style) -> String {
    let mut found: BTreeMap<&str, (std::collections::BTreeSet<&str>, u64)> =
        all.iter().map(|name| (name.as_str(), Default::default())).collect();
    for table in tables {
        let (schemas, count) = found.entry(&table.catalog).or_default();
        schemas.insert(&table.schema);
        *count += 1;
    }
    let mut drawn = Table::new(Look::Lines, &["catalogue", ">schemas", ">tables", "what"]);
    for (name, (schemas, tables)) in found.into_iter().filter(|(name, _)| pattern.is_none_or(|pattern| is_like(pattern, name))) {
        drawn.row([name.to_owned(), count(schemas.len() as u64), count(tables), about(name)]);
    }
    drawn.render(style)
}

/// The schemas of the tables.
pub fn schemas(tables: &[TableName], pattern: Option<&str>, style: Style) -> String {
    let mut found: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for table in tables {
        *found.entry((&table.catalog, &table.schema)).or_default() += 1;
    }
    let is_meant = |catalog: &str, schema: &str| {
        pattern
            .is_none_or(|pattern| is_like(pattern, schema) || is_like(pattern, catalog) || is_like(pattern, &format!("{catalog}.{schema}")))
    };
    let mut drawn = Table::new(Look::Lines, &["schema", ">tables"]);
    for ((catalog, schema), tables) in found.into_iter().filter(|((catalog, schema), _)| is_meant(catalog, schema)) {
        drawn.row([format!("{catalog}.{schema}"), count(tables)]);
    }
    drawn.render(style)
}

/// The tables of this name: of a table, a schema or a catalogue.
pub fn tables(tables: &[TableName], pattern: Option<&str>, style: Style) -> Option<String> {
    let meant = |table: &&TableName| pattern.is_none_or(|pattern| is_meant(pattern, table) || begins(pattern, table));
    let mut drawn = Table::new(Look::Lines, &["table", ">columns"]);
    for table in tables.iter().filter(meant) {
        let columns = if table.columns.is_empty() { String::new() } else { table.columns.len().to_string() };
        drawn.row([qualified(table), columns]);
    }
    (!drawn.is_empty()).then(|| drawn.render(style))
}

/// The columns of a table.
pub fn columns(table: &TableName, style: Style) -> String {
    let mut drawn = Table::new(Look::Lines, &["column", "type", "nullable"]);
    for column in &table.columns {
        drawn.row([column.name.as_str(), &column.r#type, if column.nullable { "yes" } else { "no" }]);
    }
    format!("{}\n{}", style.bold(&qualified(table)), drawn.render(style))
}

/// The functions of this name.
pub fn functions(functions: &[String], pattern: Option<&str>, style: Style) -> Option<String> {
    let mut drawn = Table::new(Look::Lines, &["function"]);
    functions.iter().filter(|name| pattern.is_none_or(|pattern| is_like(pattern, name))).for_each(|name| drawn.row([name]));
    (!drawn.is_empty()).then(|| drawn.render(style))
}

/// The tables of this name, or why there is none.
pub fn meant<'t>(tables: &'t [TableName], pattern: &str) -> Result<Vec<&'t TableName>, Diagnostic> {
    let found: Vec<&TableName> = tables.iter().filter(|table| is_meant(pattern, table)).collect();
    if found.is_empty() { Err(missing(tables, pattern)) } else { Ok(found) }
}

/// That no table is called so, and which one may be meant: by its whole name, or by the end of it.
pub fn missing(tables: &[TableName], pattern: &str) -> Diagnostic {
    let parts = pattern.matches('.').count() + 1;
    let end = |table: &TableName| {
        [&table.catalog, &table.schema, &table.table][3 - parts.min(3)..].iter().map(|part| part.as_str()).collect::<Vec<_>>().join(".")
    };
    let ends: Vec<String> = tables.iter().map(end).collect();
    let whole: Vec<String> = tables.iter().map(qualified).collect();
    let near = weir_pipelines::diagnostic::nearest(pattern, ends.iter().map(String::as_str));
    let near = near.and_then(|near| ends.iter().position(|end| end == near)).map(|at| &whole[at]);
    let found = Diagnostic::error("unknown-table", format!("there is no table \"{pattern}\""));
    let found = match near {
        Some(near) => found.help(format!("did you mean \"{near}\"?")),
        None => found,
    };
    found.help(if tables.is_empty() { "there are no tables yet; a run makes them" } else { "\\dt lists the tables" })
}

/// `delays`, `flights.delays` and `lake.flights.delays` all mean the last; so do `*delays` and `lake.*.delays`.
fn is_meant(pattern: &str, table: &TableName) -> bool {
    let parts: Vec<&str> = pattern.split('.').collect();
    let name = [table.catalog.as_str(), &table.schema, &table.table];
    parts.len() <= 3 && parts.iter().zip(&name[3 - parts.len()..]).all(|(pattern, part)| is_like(pattern, part))
}

/// `lake` and `lake.flights` mean what is in them.
fn begins(pattern: &str, table: &TableName) -> bool {
    let parts: Vec<&str> = pattern.split('.').collect();
    let name = [table.catalog.as_str(), &table.schema];
    let of_catalog = parts.len() <= 2 && parts.iter().zip(name).all(|(pattern, part)| is_like(pattern, part));
    of_catalog || matches!(parts[..], [schema] if is_like(schema, &table.schema))
}

/// Whether a name is that of a pattern: `*` stands for any characters, `?` for one. Quotes are left out; letters are compared as they are.
fn is_like(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().filter(|c| *c != '"').collect();
    let name: Vec<char> = name.chars().collect();
    // Where the last star stood, and how much of the name it takes so far.
    let (mut at, mut of, mut star) = (0, 0, None);
    while of < name.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, of));
                at += 1;
            }
            Some(c) if *c == '?' || *c == name[of] => (at, of) = (at + 1, of + 1),
            _ => match star {
                Some((place, taken)) => {
                    star = Some((place, taken + 1));
                    (at, of) = (place + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    !pattern.is_empty() && pattern[at..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use weir_engine::check::Column;

    use super::*;

    fn named(name: &str) -> TableName {
        let parts: Vec<&str> = name.split('.').collect();
        let column = Column { name: "carrier".into(), r#type: "text".into(), nullable: true };
        TableName { catalog: parts[0].into(), schema: parts[1].into(), table: parts[2].into(), is_view: false, columns: vec![column] }
    }

    fn all() -> Vec<TableName> {
        ["crm.public.planes", "lake.flights.delays", "lake.flights.late", "lake.sales.delays"].map(named).to_vec()
    }

    #[test]
    fn a_table_is_meant_by_the_end_of_its_name() {
        let all = all();
        let said = |pattern: &str| match meant(&all, pattern) {
            Ok(found) => found.into_iter().map(qualified).collect::<Vec<_>>().join(" "),
            Err(found) => format!("{} | {}", found.message, found.help.join(" | ")),
        };
        assert_eq!(said("late"), "lake.flights.late");
        assert_eq!(said("delays"), "lake.flights.delays lake.sales.delays");
        assert_eq!(said("sales.delays"), "lake.sales.delays");
        assert_eq!(said("\"crm\".public.planes"), "crm.public.planes");
        assert_eq!(said("*.l*e"), "lake.flights.late");
        assert_eq!(said("elays"), "there is no table \"elays\" | did you mean \"lake.flights.delays\"? | \\dt lists the tables");
        assert_eq!(
            said("crm.public.plans"),
            "there is no table \"crm.public.plans\" | did you mean \"crm.public.planes\"? | \\dt lists the tables"
        );
        assert_eq!(said("a.b.c.d"), "there is no table \"a.b.c.d\" | \\dt lists the tables");
        assert_eq!(said(""), "there is no table \"\" | \\dt lists the tables");
    }

    #[test]
    fn lists_are_narrowed_by_a_name() {
        let all = all();
        let lines =
            |text: String| text.lines().skip(2).map(|line| line.split_whitespace().next().unwrap_or("").to_owned()).collect::<Vec<_>>();
        assert_eq!(lines(tables(&all, Some("crm"), Style::PLAIN).expect("some")), ["crm.public.planes"]);
        assert_eq!(lines(tables(&all, Some("flights"), Style::PLAIN).expect("some")), ["lake.flights.delays", "lake.flights.late"]);
        assert_eq!(tables(&all, Some("nothing"), Style::PLAIN), None);
        assert_eq!(lines(schemas(&all, None, Style::PLAIN)), ["crm.public", "lake.flights", "lake.sales"]);
        assert_eq!(lines(schemas(&all, Some("s*"), Style::PLAIN)), ["lake.sales"]);
        let listed = catalogues(&all, &["weir".to_owned()], |name| format!("the {name}"), None, Style::PLAIN);
        assert_eq!(
            listed,
            " catalogue | schemas | tables | what\n-----------+---------+--------+----------\n \
             crm       |       1 |      1 | the crm\n lake      |       2 |      3 | the lake\n weir      |       0 |      0 | the weir\n"
        );
    }

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, name, expected) in [
            ("*", "x", true),
            ("a*c*e", "abcde", true),
            ("a*c", "abcd", false),
            ("?", "ü", true),
            ("?", "", false),
            ("", "", false),
            ("*ab", "aab", true),
        ] {
            assert_eq!(is_like(pattern, name), expected, "{pattern} {name}");
        }
    }
}
