//! Which keywords have kernels, and what a cell is as JSON: `docs/reference/contracts.md`, as the code answers when it is asked.

use std::sync::Arc;

use ::arrow::{
    array::*,
    buffer::OffsetBuffer,
    datatypes::{DataType, Field, Int8Type, Int32Type, IntervalMonthDayNano, IntervalMonthDayNanoType, Schema, UnionFields, i256},
};
use serde_json::{Value, json};

use crate::{
    arrow::JSON_TEXT,
    check::{Column, Rows},
    contract::Contract,
    json,
    kernel::Node,
    serving::{Class, Values, asks},
};

const DRAFT_2019: &str = "https://json-schema.org/draft/2019-09/schema";

/// An example of every keyword, and the draft it is of where that is not the newest.
fn keywords() -> Vec<(&'static str, Vec<Value>, Option<&'static str>)> {
    let plain = [
        ("type", vec![json!("integer"), json!(["number", "string"])]),
        ("enum", vec![json!([1, "a", null])]),
        ("const", vec![json!(1)]),
        ("minimum", vec![json!(1.5)]),
        ("maximum", vec![json!(1.5)]),
        ("exclusiveMinimum", vec![json!(1.5)]),
        ("exclusiveMaximum", vec![json!(1.5)]),
        ("multipleOf", vec![json!(2), json!(0.01)]),
        ("minLength", vec![json!(2)]),
        ("maxLength", vec![json!(2)]),
        ("pattern", vec![json!("^a")]),
        ("format", vec![json!("date"), json!("time"), json!("date-time"), json!("uuid")]),
        ("contentEncoding", vec![json!("base64")]),
        ("contentMediaType", vec![json!("application/json")]),
        ("contentSchema", vec![json!({"type": "object"})]),
        ("properties", vec![json!({"a": {"type": "integer"}})]),
        ("required", vec![json!(["a"])]),
        ("additionalProperties", vec![json!(false), json!({"type": "integer"})]),
        ("patternProperties", vec![json!({"^a": {"type": "integer"}})]),
        ("propertyNames", vec![json!({"maxLength": 3})]),
        ("minProperties", vec![json!(1)]),
        ("maxProperties", vec![json!(1)]),
        ("dependentRequired", vec![json!({"a": ["b"]})]),
        ("dependentSchemas", vec![json!({"a": {"required": ["b"]}})]),
        ("dependencies", vec![json!({"a": ["b"]})]),
        ("unevaluatedProperties", vec![json!(false)]),
        ("items", vec![json!({"type": "integer"})]),
        ("prefixItems", vec![json!([{"type": "integer"}])]),
        ("contains", vec![json!({"const": 1})]),
        ("minItems", vec![json!(1)]),
        ("maxItems", vec![json!(1)]),
        ("uniqueItems", vec![json!(true)]),
        ("unevaluatedItems", vec![json!(false)]),
        ("allOf", vec![json!([{"type": "integer"}])]),
        ("anyOf", vec![json!([{"type": "integer"}, {"minLength": 1}])]),
        ("oneOf", vec![json!([{"type": "integer"}, {"minLength": 1}])]),
        ("not", vec![json!({"type": "integer"})]),
        ("if", vec![json!({"type": "integer"})]),
        ("$ref", vec![json!("#/$defs/some")]),
        ("$dynamicRef", vec![json!("#here")]),
    ];
    let mut all: Vec<_> = plain.into_iter().map(|(word, examples)| (word, examples, None)).collect();
    all.push(("additionalItems", vec![json!(false)], Some(DRAFT_2019)));
    all.push(("$recursiveRef", vec![json!("#")], Some(DRAFT_2019)));
    all
}

/// A cell of every kind: what the kind is called, its field, its array.
fn cells() -> Vec<(&'static str, Field, ArrayRef)> {
    let item = |array: &dyn Array| Arc::new(Field::new_list_field(array.data_type().clone(), true));
    let ints: ArrayRef = Arc::new(Int64Array::from(vec![1, 2]));
    let text: ArrayRef = Arc::new(StringArray::from(vec!["a"]));
    let mut map = MapBuilder::new(None, StringBuilder::new(), Int64Builder::new());
    map.keys().append_value("a");
    map.values().append_value(1);
    map.append(true).expect("a key and a value");
    let union: UnionFields = [(0, Arc::new(Field::new("0", DataType::Utf8, true)))].into_iter().collect();
    let decimal = |digits: i128| Decimal128Array::from(vec![digits]).with_precision_and_scale(38, 2).expect("a decimal");
    let plain: Vec<(&'static str, ArrayRef)> = vec![
        ("null", Arc::new(NullArray::new(1))),
        ("boolean", Arc::new(BooleanArray::from(vec![true]))),
        ("integer", Arc::new(UInt64Array::from(vec![u64::MAX]))),
        ("64-bit float", Arc::new(Float64Array::from(vec![0.1]))),
        ("64-bit float that is no number", Arc::new(Float64Array::from(vec![f64::NEG_INFINITY]))),
        ("shorter float", Arc::new(Float32Array::from(vec![0.1]))),
        ("decimal", Arc::new(decimal(1250))),
        ("decimal of more than 15 digits", Arc::new(decimal(123_456_789_012_345_678_901))),
        (
            "256-bit decimal",
            Arc::new(Decimal256Array::from(vec![i256::from_i128(1250)]).with_precision_and_scale(76, 2).expect("a decimal")),
        ),
        ("text", text.clone()),
        ("text that is JSON", Arc::new(StringArray::from(vec!["{\"a\":[1,null]}"]))),
        ("binary", Arc::new(BinaryArray::from_vec(vec![b"Weir".as_slice()]))),
        ("date", Arc::new(Date32Array::from(vec![15_736]))),
        ("time", Arc::new(Time64MicrosecondArray::from(vec![36_900_000_000]))),
        ("timestamp with a zone", Arc::new(TimestampMillisecondArray::from(vec![1_359_627_300_500]).with_timezone("+02:00"))),
        ("timestamp without a zone", Arc::new(TimestampMillisecondArray::from(vec![1_359_627_300_500]))),
        ("duration", Arc::new(DurationSecondArray::from(vec![5_400]))),
        ("interval", Arc::new(PrimitiveArray::<IntervalMonthDayNanoType>::from(vec![IntervalMonthDayNano::new(14, 3, 4_000_000_000)]))),
        ("list", Arc::new(ListArray::new(item(&ints), OffsetBuffer::from_lengths([2]), ints.clone(), None))),
        ("list view", Arc::new(ListViewArray::new(item(&ints), vec![0].into(), vec![2].into(), ints.clone(), None))),
        ("struct", Arc::new(StructArray::new(vec![Field::new("a", DataType::Int64, true)].into(), vec![ints.slice(0, 1)], None))),
        ("map", Arc::new(map.finish())),
        ("dictionary", Arc::new(["a"].into_iter().collect::<DictionaryArray<Int8Type>>())),
        ("run-end encoded", Arc::new(["a"].into_iter().collect::<RunArray<Int32Type>>())),
        ("union", Arc::new(UnionArray::try_new(union, vec![0].into(), None, vec![text]).expect("a union"))),
    ];
    let field = |name: &str, array: &ArrayRef| {
        let field = Field::new("c", array.data_type().clone(), true);
        let marked = name == "text that is JSON";
        if marked { field.with_metadata([(JSON_TEXT.0.to_owned(), JSON_TEXT.1.to_owned())].into()) } else { field }
    };
    plain.into_iter().map(|(name, array)| (name, field(name, &array), array)).collect()
}

/// Who decides what a keyword asks of some values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Who {
    Kernel,
    /// The crate, once for each text.
    Texts,
    Crate,
}

fn who(node: &Node, values: &Values<'_>) -> Who {
    fn is_text(part: &Node) -> bool {
        match part {
            Node::Rule(_, part) => is_text(part),
            part => matches!(part, Node::Pattern(_) | Node::Format(..)),
        }
    }
    let texts = |part: &Node| is_text(part) && values.class == Class::Text;
    match node {
        node if asks(node, values) > 0 => Who::Crate,
        Node::Schema(_, parts) if parts.iter().any(texts) => Who::Texts,
        _ => Who::Kernel,
    }
}

fn contract(word: &str, example: &Value, draft: Option<&str>, of_row: bool) -> Contract {
    let mut inner = json!({});
    inner[word] = example.clone();
    match word {
        "if" => inner["then"] = json!(false),
        "additionalItems" => inner["items"] = json!([true]),
        _ => {}
    }
    let mut schema = if of_row { inner } else { json!({"properties": {"c": inner}}) };
    schema["$defs"] = json!({"some": {"$anchor": "here", "type": "integer"}});
    if of_row {
        schema["$defs"]["some"] = json!({"$anchor": "here", "required": ["a"]});
    }
    if word != "type" || !of_row {
        schema["type"] = json!("object");
    }
    if let Some(draft) = draft {
        schema["$schema"] = draft.into();
    }
    Contract::compile("coverage", &schema.to_string()).unwrap_or_else(|error| panic!("{schema}: {error}"))
}

/// The node of the column "c".
fn of_column(node: &Node) -> Option<&Node> {
    match node {
        Node::Schema(_, parts) | Node::All(parts) => parts.iter().find_map(of_column),
        Node::Rule(_, part) => of_column(part),
        Node::Property(name, node) if name == "c" => Some(node),
        _ => None,
    }
}

/// Who decides a keyword over a kind of column: the worst of the examples.
fn over_columns(word: &str, example: &Value, draft: Option<&str>, field: &Field, array: &ArrayRef) -> Who {
    let contract = contract(word, example, draft, false);
    let Some(node) = of_column(&contract.plan) else { return Who::Crate };
    let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field.clone()])), vec![array.clone()]).expect("a batch");
    let rows = Rows::new(&batch, &contract.rules);
    let Some(column) = rows.columns().first() else { return Who::Kernel };
    // A dictionary is judged by its values.
    let array = column.array.as_any_dictionary_opt().map_or(column.array, |dictionary| &**dictionary.values());
    who(node, &Values::of_column(&Column { array, ..column.clone() }))
}

fn over_rows(word: &str, example: &Value, draft: Option<&str>) -> Who {
    if word == "type" {
        return Who::Kernel;
    }
    let contract = contract(word, example, draft, true);
    who(&contract.plan, &Values { count: 1, class: Class::Object, column: None, members: Some(vec![]) })
}

/// The page of keywords and of what cells are as JSON, in Markdown.
pub fn page() -> String {
    let cells = cells();
    let mut out = "# Contracts\n\n<!-- Made by `weir dev generate` from the plans that contracts are compiled to. -->\n\n\
        The verdict on a row is that of the `jsonschema` crate on the row as JSON. What follows is how it is reached, and what a row is as JSON.\n\n\
        ## Keywords\n\n\
        A *kernel* judges a whole column at once. Where a keyword has none for the type of a column, the crate is asked about the schema that says it: \
        by cell, or once for each text of a batch.\nA row is an object whose members are the columns; the fields of a struct and the items of a list are judged as columns too. \
        A keyword that says nothing about values of a type costs nothing.\n\n"
        .to_owned();
    let mut lines = Vec::new();
    for (word, examples, draft) in keywords() {
        for example in &examples {
            let kinds = |is: Who| -> Vec<&str> {
                cells
                    .iter()
                    .filter(|(_, field, array)| over_columns(word, example, draft, field, array) == is)
                    .map(|(name, ..)| *name)
                    .collect()
            };
            let shown = if examples.len() > 1 { format!("`{word}`: `{example}`") } else { format!("`{word}`") };
            lines.push((shown, over_rows(word, example, draft), kinds(Who::Texts), kinds(Who::Crate)));
        }
    }
    let always: Vec<&str> =
        cells.iter().map(|(name, ..)| *name).filter(|name| lines.iter().all(|(.., by_crate)| by_crate.contains(name))).collect();
    out.push_str(&format!(
        "Columns of these types go to the crate whatever the keyword: {}. In the table they are left out.\n\n",
        always.join(", ")
    ));
    out.push_str(
        "| keyword | over a row | by the crate, each text once | by the crate, each cell | by a kernel |\n|---|---|---|---|---|\n",
    );
    for (shown, row, texts, by_crate) in lines {
        let by_crate: Vec<&str> = by_crate.into_iter().filter(|name| !always.contains(name)).collect();
        let left = cells.len() - always.len() - texts.len() - by_crate.len();
        let (all, kernel) = match (by_crate.len() + texts.len(), left) {
            (_, 0) => ("all".to_owned(), "-"),
            (0, _) => ("-".to_owned(), "all"),
            _ => (if by_crate.is_empty() { "-".to_owned() } else { by_crate.join(", ") }, "all others"),
        };
        let texts = if texts.is_empty() { "-".to_owned() } else { texts.join(", ") };
        let row = if row == Who::Kernel { "kernel" } else { "crate" };
        out.push_str(&format!("| {shown} | {row} | {texts} | {all} | {kernel} |\n"));
    }
    out.push_str(
        "\nWhole contracts go to the crate, row by row, where a subschema has an `$id` or a `$schema` of its own, where a schema refers to itself about the same value, and \
        where a dynamic reference\nmeets one that leads out of the file (only the drafts' own schemas can be reached there). A pattern that needs backtracking (look-around, \
        back references) is asked of the crate like any other; where its\nengine gives up on a text, the crate judges the batch.\n",
    );
    out.push_str(
        "\n## What a row is as JSON\n\n\
        - A column is a property of its name, whether the contract names it or not.\n\
        - A column that a batch lacks is absent from every row: `required` fails, nothing else looks at it.\n\
        - A null is `null` where the property's own subschema accepts null, else it is absent. So an empty cell of a CSV is a missing value for `\"type\": \"integer\"` and a null one for\n  \
        `\"type\": [\"integer\", \"null\"]`. A null of a column that the contract does not name is absent. The same holds for the fields of structs; a null item of a list is `null`.\n\n\
        | cell | for instance | as JSON |\n|---|---|---|\n",
    );
    for (name, field, array) in &cells {
        let batch = RecordBatch::try_new(Arc::new(Schema::new(vec![field.clone()])), vec![array.clone()]).expect("a batch");
        let value = json::row(&batch, 0)["c"].to_string();
        let data_type = array.data_type().to_string();
        out.push_str(&format!("| {name} | `{data_type}` | `{value}` |\n"));
    }
    out.push_str(
        "\nIntegers are exact over all 64 bits. Floats are the shortest number that reads back as the same float. A decimal is judged exactly up to 15 digits, or as a whole number of 64 bits; one of\n\
        more digits is judged as its nearest 64-bit float, by the crate. The quarantine keeps every digit. A time is written with `Z`, since `format` `time` asks for a zone; a timestamp without a zone is no\n\
        `date-time`. Binary is base64 with padding.\n",
    );
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_keyword_that_judges_is_in_the_table() {
        let mut shown: Vec<&str> = keywords().into_iter().map(|(word, ..)| word).collect();
        shown.sort_unstable();
        assert_eq!(shown, crate::kernel::JUDGED);
    }

    #[test]
    fn the_table_says_what_the_plans_say() {
        let page = page();
        let line = |word: &str| {
            page.lines().find(|line| line.starts_with(&format!("| `{word}`"))).unwrap_or_else(|| panic!("{word} is missing:\n{page}"))
        };
        assert!(page.contains("whatever the keyword: text that is JSON, run-end encoded, union."), "{page}");
        assert_eq!(line("minimum"), "| `minimum` | kernel | - | shorter float, 256-bit decimal | all others |");
        assert_eq!(
            line("pattern"),
            "| `pattern` | kernel | text, dictionary | 64-bit float, 64-bit float that is no number, shorter float, binary, date, time, timestamp with a zone, timestamp without a zone, duration, interval | all others |"
        );
        assert_eq!(line("unevaluatedItems"), "| `unevaluatedItems` | crate | - | all | - |");
        assert_eq!(line("required"), "| `required` | kernel | - | map | all others |");
        assert_eq!(line("items"), "| `items` | kernel | - | list view | all others |");
        assert!(page.contains("| timestamp with a zone | `Timestamp(ms, \"+02:00\")` | `\"2013-01-31T10:15:00.500Z\"` |"), "{page}");
        assert!(page.contains("| integer | `UInt64` | `18446744073709551615` |"), "{page}");
    }
}
