//! Where do personal values stand in recorded rows, and how do they go? Values of columns that a contract marks are replaced by made-up ones,
//! equal values by equal ones wherever they stand, so that joins and groups stay what they are. What cannot be replaced is refused.

use std::collections::{BTreeMap, HashMap, HashSet};

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use weir_pipelines::{Given, GivenRows, Literal, Pipeline, Row, Rules};
use weir_schemas::{Contract, personal::Personal};

use super::made_up::candidates;
use crate::{
    contracts::Contracts,
    error::{Failure, Result},
    test::value,
};

/// Values of less say too little to be looked for in other columns, where they would be found by chance.
const CHARACTERS_MIN: usize = 3;
const DIGITS_MIN: usize = 6;
/// So many are made up of a kind until one is free, and so many of these are held against the contract.
const TRIES_MAX: u64 = 10_000;
const UNFIT_MAX: usize = 100;
/// There are no more kinds of made-up values for one value.
const KINDS_MAX: usize = 6;

/// The personal values of recorded rows.
pub(super) struct Personals {
    /// By step, the contract that marks some of its columns.
    contracts: BTreeMap<String, Contract>,
    /// The real values, as TOML, in the order of the rows; each with a step and a column that it stands in.
    values: Vec<(String, Literal, Vec<(String, String)>)>,
}

/// The step, and the transforms before it whose contracts mark columns: their values are personal too.
pub(super) fn marked_steps(pipeline: &Pipeline, step: &str, contracts: &Contracts) -> Vec<String> {
    let (part, _) = crate::trial::part(pipeline, &[step.to_owned()], |_| false);
    let is_marked = |rules: &Rules| contract_of(pipeline, rules, contracts).is_some();
    let marked = part.transforms.iter().filter(|transform| is_marked(&transform.rules)).map(|transform| transform.name.value.clone());
    let mut steps = vec![step.to_owned()];
    steps.extend(marked.filter(|name| name != step));
    steps
}

/// The contract of a step, where it marks a column.
fn contract_of(pipeline: &Pipeline, rules: &Rules, contracts: &Contracts) -> Option<Contract> {
    let path = rules.contract.as_ref()?;
    let text = std::fs::read_to_string(pipeline.folder.join(&path.value)).ok()?;
    contracts.compile(&path.value, &text).ok().filter(|contract| !contract.personal().is_empty())
}

/// The rows that are written down.
pub(super) fn rows_of(given: &GivenRows) -> &[Row] {
    match given {
        GivenRows::Rows(rows) | GivenRows::Typed { rows, .. } => rows,
        GivenRows::File(_) | GivenRows::Sql(_) => &[],
    }
}

impl Personals {
    /// Finds them in the rows of sources, and in what left steps.
    pub(super) fn of(
        pipeline: &Pipeline,
        contracts: &Contracts,
        given: &[Given],
        left: &HashMap<String, (SchemaRef, Vec<RecordBatch>)>,
    ) -> Result<Self> {
        let sources = pipeline.sources.iter().map(|source| (&source.name.value, &source.rules));
        let transforms = pipeline.transforms.iter().map(|transform| (&transform.name.value, &transform.rules));
        let contracts =
            sources.chain(transforms).filter_map(|(name, rules)| Some((name.clone(), contract_of(pipeline, rules, contracts)?)));
        let mut found = Self { contracts: contracts.collect(), values: Vec::new() };
        for Given { step, rows } in given {
            found.note(&step.value, rows_of(rows));
        }
        let mut steps: Vec<_> = left.iter().collect();
        steps.sort_by_key(|(step, _)| step.as_str());
        for (step, (_, batches)) in steps {
            batches.iter().for_each(|batch| found.note(step, &value::rows(batch)));
        }
        Ok(found)
    }

    fn note(&mut self, step: &str, rows: &[Row]) {
        let Some(contract) = self.contracts.get(step).cloned() else { return };
        let personal: HashSet<&str> = contract.personal().iter().map(|one| one.column).collect();
        for (name, value) in rows.iter().flat_map(|row| &row.cells).filter(|(name, _)| personal.contains(name.value.as_str())) {
            let (key, place) = (value.value.to_toml(), (step.to_owned(), name.value.clone()));
            match self.values.iter_mut().find(|(known, _, _)| *known == key) {
                Some((_, _, places)) if places.contains(&place) => {}
                Some((_, _, places)) => places.push(place),
                None => self.values.push((key, value.value.clone(), vec![place])),
            }
        }
    }

    /// Puts made-up values in the place of personal ones. Returns the columns whose values are made up now.
    pub(super) fn replace(&self, given: &mut [Given]) -> Result<Vec<(String, String)>> {
        let made = self.made_up()?;
        let mut columns = Vec::new();
        for Given { step, rows } in given {
            let contract = self.contracts.get(&step.value);
            let marked: HashSet<&str> = contract.iter().flat_map(|contract| contract.personal()).map(|one| one.column).collect();
            let GivenRows::Typed { rows, .. } = rows else { continue };
            for (name, value) in rows.iter_mut().flat_map(|row| &mut row.cells) {
                let is_marked = marked.contains(name.value.as_str());
                let other = match made.get(&value.value.to_toml()) {
                    Some(other) if is_marked || is_telling(&value.value) => Some(other.clone()),
                    _ if is_marked => None,
                    _ => self.scrubbed(&value.value, &made),
                };
                let Some(other) = other else { continue };
                value.value = other;
                let column = (step.value.clone(), name.value.clone());
                if !columns.contains(&column) {
                    columns.push(column);
                }
            }
        }
        Ok(columns)
    }

    /// A text with personal values inside of it replaced; none where there are none.
    fn scrubbed(&self, value: &Literal, made: &HashMap<String, Literal>) -> Option<Literal> {
        let Literal::Text(text) = value else { return None };
        let mut out = text.clone();
        for (key, value, _) in self.values.iter().filter(|(_, value, _)| is_telling(value)) {
            if let (Literal::Text(real), Some(Literal::Text(other))) = (value, made.get(key)) {
                out = out.replace(real.as_str(), other);
            }
        }
        (out != *text).then_some(Literal::Text(out))
    }

    /// A made-up value for each real one, by the real one as TOML.
    fn made_up(&self) -> Result<HashMap<String, Literal>> {
        let real: HashSet<&str> = self.values.iter().map(|(key, _, _)| key.as_str()).collect();
        let (mut made, mut taken) = (HashMap::new(), HashSet::new());
        for (key, value, places) in &self.values {
            let marks: Vec<Personal<'_>> = places.iter().filter_map(|(step, column)| self.mark(step, column)).collect();
            let Some(first) = marks.first() else { continue };
            // Where all values that there may be are listed, they say nothing that the contract does not say.
            let is_listed = is_listed(first, value);
            let is_free = |candidate: &Literal| {
                let other = candidate.to_toml();
                !taken.contains(&other) && other != *key && (is_listed || !real.contains(other.as_str()))
            };
            let fits = |candidate: &Literal| {
                let json = value::to_json(candidate);
                // A decimal is written as a text, and is a number for its contract.
                let text = if let Literal::Text(text) = candidate { text.as_str() } else { "" };
                let number = serde_json::from_str(text).ok().filter(serde_json::Value::is_number);
                marks.iter().all(|mark| mark.accepts(&json) || number.as_ref().is_some_and(|number| mark.accepts(number)))
            };
            // One kind of made-up value is tried for as long as some of it fit, and another one only then.
            let found = (0..KINDS_MAX).find_map(|kind| {
                let all = (1..=TRIES_MAX).map_while(|number| candidates(value, first, number).into_iter().nth(kind));
                let mut free = all.filter(|candidate| is_free(candidate)).take(UNFIT_MAX);
                free.find(|candidate| fits(candidate))
            });
            // Of a list of values that are all taken, the value may stay: the contract says as much.
            let found = found.or_else(|| is_listed.then(|| value.clone()));
            let Some(found) = found else {
                let (step, column) = &places[0];
                return Err(Failure::error(
                    "personal-unfit",
                    format!("no made-up values were found for the personal column \"{column}\" of \"{step}\""),
                )
                .detail("what its contract asks of a value is met by none that was tried")
                .help("the file is as it was; write the test by hand, or let the contract ask for less"));
            };
            taken.insert(found.to_toml());
            made.insert(key.clone(), found);
        }
        Ok(made)
    }

    fn mark(&self, step: &str, column: &str) -> Option<Personal<'_>> {
        self.contracts.get(step)?.personal().into_iter().find(|one| one.column == column)
    }

    /// Fails where a real value is still there: a copy in other letters, or a value that is made from columns without a mark.
    pub(super) fn none_left(&self, given: &[Given], step: &str, expected: &[Row]) -> Result<()> {
        let of_given = given.iter().flat_map(|given| rows_of(&given.rows).iter().map(|row| (given.step.value.as_str(), row)));
        let rows = of_given.chain(expected.iter().map(|row| (step, row)));
        let cells: Vec<(&str, &str, String)> = rows
            .flat_map(|(step, row)| {
                row.cells.iter().map(move |(name, value)| (step, name.value.as_str(), value.value.to_toml().to_lowercase()))
            })
            .collect();
        for (_, value, places) in &self.values {
            let (of, marked) = &places[0];
            let is_listed = self.mark(of, marked).is_some_and(|mark| is_listed(&mark, value));
            for needle in leaves(value).into_iter().filter(|_| !is_listed) {
                let needle = needle.to_lowercase();
                if let Some((step, column, _)) = cells.iter().find(|(_, _, text)| holds(text, &needle)) {
                    let message =
                        format!("\"{column}\" of \"{step}\" would still hold a value of the personal column \"{marked}\" of \"{of}\"");
                    return Err(Failure::error("personal-left", message).help(
                        "mark the columns that it comes from too: \"x-weir-personal\": true in the contract of their source; the file is as it was",
                    ));
                }
            }
        }
        Ok(())
    }
}

/// True where the contract, or the type, says all the values that there may be.
fn is_listed(mark: &Personal<'_>, value: &Literal) -> bool {
    matches!(value, Literal::Boolean(_)) || mark.says("enum").is_some() || mark.says("const").is_some()
}

/// True of a value that is known again in another column.
fn is_telling(value: &Literal) -> bool {
    match value {
        Literal::Text(text) => text.chars().count() >= CHARACTERS_MIN,
        Literal::Integer(number) => number.unsigned_abs().to_string().len() >= DIGITS_MIN,
        _ => false,
    }
}

/// The texts and numbers in a value that are known again wherever they stand.
fn leaves(value: &Literal) -> Vec<String> {
    match value {
        Literal::Text(text) if is_telling(value) => {
            let quoted = Literal::Text(text.clone()).to_toml();
            vec![quoted[1..quoted.len() - 1].to_owned()]
        }
        Literal::Integer(number) if is_telling(value) => vec![number.to_string()],
        Literal::List(items) => items.iter().flat_map(|item| leaves(&item.value)).collect(),
        Literal::Record(cells) => cells.iter().flat_map(|(_, value)| leaves(&value.value)).collect(),
        _ => Vec::new(),
    }
}

/// True where a text holds another as a word: what is part of a longer word is there by chance.
fn holds(text: &str, needle: &str) -> bool {
    let is_inside =
        |letter: Option<char>, edge: Option<char>| letter.is_some_and(char::is_alphanumeric) && edge.is_some_and(char::is_alphanumeric);
    text.match_indices(needle).any(|(at, found)| {
        let (before, after) = (text[..at].chars().next_back(), text[at + found.len()..].chars().next());
        !is_inside(before, needle.chars().next()) && !is_inside(after, needle.chars().next_back())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_found_as_a_word_and_not_by_chance() {
        assert!(holds("\"mail of ann.\"", "ann") && holds("ann", "ann") && holds("x+ann@b.org", "ann@b.org"));
        assert!(!holds("annual", "ann") && !holds("1234567", "123456"));
    }
}
